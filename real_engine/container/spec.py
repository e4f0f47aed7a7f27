"""What to run: a container, or one more program in it, as its owner asks for it, before anything exists."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from real_engine.container.plain import from_plain, to_plain
from real_engine.container.resources import UNLIMITED, Device, DeviceRate, Limits, Mount, Ulimit, check_path
from real_engine.errors import EngineError, InvalidParameter
from real_engine.linux import capabilities

__all__ = [
    "DEFAULT_CAPABILITIES",
    "DEFAULT_PATH",
    "UNLIMITED",
    "ContainerSpec",
    "Device",
    "DeviceRate",
    "ExecSpec",
    "Limits",
    "Mount",
    "Ulimit",
]

# Docker's default set (moby, oci/caps/defaults.go). As a mask: 0xa80425fb.
DEFAULT_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PRIVATE, HOST = "private", "host"

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
# The settings that an IPC namespace has for itself (runc, libcontainer/configs/validate).
_IPC_SYSCTLS = frozenset(
    (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to run.

    `layers` are directories, the lowest first, on which the container writes in a layer of its own: in `upper` (with
    `work`, which overlayfs needs beside it), that are the caller's and stay, or else in one that is gone with it. With
    `volatile` nothing in `upper` is forced to the disk, even if the container asks for it: that makes a start faster,
    and what it wrote may be lost if the machine loses power.

    `argv[0]` is looked up in the container's PATH. `user` is `name|uid[:group|gid]`, looked up in the container's
    /etc/passwd and /etc/group, as are `group_add`. `seccomp` is `default`, `unconfined`, the path of a profile, or a
    profile itself as JSON. `tmpfs` are absolute paths at which an empty memory file system is mounted.
    `add_capabilities` and `drop_capabilities` know `ALL`; what is added wins over what is dropped. `privileged` gives
    all capabilities and devices, and hides and protects nothing.

    Namespaces (`network`, `pid`, `ipc`, `uts`, `cgroup`): `private`, `host`, or the path of one such as /proc/N/ns/pid.
    A private network (also called `none`) has loopback only, unless the caller hands a prepared one to `begin`.

    `masked_paths` and `readonly_paths` take the place of Docker's lists. `init` runs a small init as process 1, which
    starts the program. With `tty` the standard streams are a terminal of the container's own.

    Raises:
        EngineError: anything that can be told to be wrong before a container exists.
    """

    layers: tuple[Path, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    domainname: str = ""
    workdir: str = "/"
    user: str = "0"
    group_add: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    network: str = "none"
    pid: str = PRIVATE
    ipc: str = PRIVATE
    uts: str = PRIVATE
    cgroup: str = PRIVATE
    read_only: bool = False
    upper: Path | None = None
    work: Path | None = None
    volatile: bool = False
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()
    shm_bytes: int = 64 * 1024 * 1024  # of /dev/shm, which there is none of if 0
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    privileged: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str = "default"
    no_new_privileges: bool = True
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    oom_score_adj: int = 0
    tty: bool = False
    init: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seccomp", str(self.seccomp))  # a Path is welcome
        if not self.layers:
            raise EngineError("a container needs at least one layer for its root file system")
        if (self.upper is None) != (self.work is None):
            raise EngineError("an upper directory needs a work directory beside it, and the reverse")
        if self.network not in ("none", PRIVATE, HOST) and not self.network.startswith("/"):
            raise EngineError(f"unknown network `{self.network}`: use `none` or `host`")
        for kind in ("pid", "ipc", "uts", "cgroup"):
            value = getattr(self, kind)
            if value not in (PRIVATE, HOST) and not value.startswith("/"):
                raise EngineError(f"unknown {kind} namespace `{value}`: use `private`, `host` or a path")
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise EngineError(f"`{self.hostname}` is no host name: use letters, digits, `-` and `.`, at most 64")
        for path in (*self.tmpfs, *(self.masked_paths or ()), *(self.readonly_paths or ())):
            check_path(path)
        for rule in self.device_cgroup_rules:
            if not _DEVICE_RULE.fullmatch(rule):
                raise InvalidParameter(f"invalid device cgroup rule format: '{rule}'")
        if not -1000 <= self.oom_score_adj <= 1000:
            raise InvalidParameter(f"Invalid value {self.oom_score_adj}, range for oom score adj is [-1000, 1000]")
        _check_program(self.argv, self.environment, self.workdir, self.user)
        self._check_sysctls()
        _ = self.capability_mask

    def _check_sysctls(self) -> None:
        """Only what the container has for itself may be set. The words are runc's, which Docker passes on."""
        for name in self.sysctls:
            if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
                if self.ipc == HOST:
                    raise InvalidParameter(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
            elif name.startswith("net."):
                if self.network == HOST:
                    raise InvalidParameter(f'sysctl "{name}" not allowed in host network namespace')
            elif name != "kernel.domainname" or self.uts == HOST:
                raise InvalidParameter(f'sysctl "{name}" is not in a separate kernel namespace')
            if ".." in name or "/" in name or "\0" in name + self.sysctls[name]:
                raise InvalidParameter(f'sysctl "{name}" is not in a separate kernel namespace')

    @property
    def private_network(self) -> bool:
        """Whether its network namespace is its own."""
        return self.network in ("none", PRIVATE)

    @property
    def capability_mask(self) -> int:
        """The capabilities that the container may have, as a bit mask.

        Raises:
            EngineError: a name that Linux doesn't have.
        """
        if self.privileged:
            return (1 << len(capabilities.NAMES)) - 1
        return _capability_mask(self.add_capabilities, self.drop_capabilities)

    def to_json(self) -> dict[str, Any]:
        """This as JSON values; what has its default is left out."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, plain: Any) -> "ContainerSpec":
        """The exact reverse of `to_json`.

        Raises:
            InvalidParameter: it isn't one.
        """
        return from_plain(cls, plain)


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One more program to run in a container that runs; the fields are as those of `ContainerSpec`.

    Without a `user` it is the container's. `privileged` gives the program all capabilities; the container's devices,
    filter and limits stay.

    Raises:
        EngineError: anything that can be told to be wrong before it exists.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    group_add: tuple[str, ...] = ()
    workdir: str = "/"
    privileged: bool = False
    tty: bool = False

    def __post_init__(self) -> None:
        _check_program(self.argv, self.environment, self.workdir, self.user)

    def to_json(self) -> dict[str, Any]:
        """This as JSON values; what has its default is left out."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, plain: Any) -> "ExecSpec":
        """The exact reverse of `to_json`.

        Raises:
            InvalidParameter: it isn't one.
        """
        return from_plain(cls, plain)


def _check_program(argv: tuple[str, ...], environment: Mapping[str, str], workdir: str, user: str) -> None:
    """Raise EngineError about a command that can't be meant."""
    if not argv or not argv[0]:
        raise EngineError("a container needs a command to run")
    check_path(workdir)
    if any("\0" in text for text in (*argv, user, *environment, *environment.values())):
        raise EngineError("a command, path or environment can't contain a NUL character")
    for name in environment:
        if not name or "=" in name:
            raise EngineError(f"`{name}` is no name of an environment variable")


@cache
def _capability_mask(added: tuple[str, ...], dropped: tuple[str, ...]) -> int:
    """All that is added is held, whatever is dropped; but of ALL added, each that is dropped by its name is not."""
    wanted, unwanted = _named_mask(added), _named_mask(dropped)
    if _everything(added):
        return ((1 << len(capabilities.NAMES)) - 1) & ~unwanted
    kept = 0 if _everything(dropped) else capabilities.mask(DEFAULT_CAPABILITIES) & ~unwanted
    return kept | wanted


def _everything(names: tuple[str, ...]) -> bool:
    return any(name.upper() == "ALL" for name in names)


def _named_mask(names: tuple[str, ...]) -> int:
    """The bits of those that are named one by one."""
    bits = 0
    for name in names:
        try:
            bits |= 0 if name.upper() == "ALL" else capabilities.mask([name])
        except ValueError as error:
            raise EngineError(f"unknown capability `{name}`: see capabilities(7), or use ALL") from error
    return bits
