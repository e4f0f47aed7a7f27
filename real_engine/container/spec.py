"""What to run: a container as its owner asks for it, before anything exists."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.linux import capabilities

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

_LEAST_MEMORY_BYTES = 6 * 1024 * 1024  # as Docker's: less doesn't hold a process and its page tables for long
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use at most; None is without limit. `memory_bytes` counts page cache, and no swap is given.

    Raises:
        EngineError: less memory than 6 MiB, no CPU, no process.
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < _LEAST_MEMORY_BYTES:
            raise EngineError(f"a memory limit of {self.memory_bytes} bytes is too low: give 6m or more")
        if self.cpus is not None and not (math.isfinite(self.cpus) and self.cpus >= 0.01):
            raise EngineError(f"a limit of {self.cpus} CPUs is too low or no number: give 0.01 or more")
        if self.pids is not None and self.pids < 1:
            raise EngineError(f"a limit of {self.pids} processes leaves none for the program: give 1 or more")


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to run.

    `layers` are directories, the lowest first, on which the container writes in a layer of its own. `argv[0]` is
    looked up in the container's PATH. `user` is `name|uid[:group|gid]`, looked up in the container's /etc/passwd and
    /etc/group. `network` is `none` (loopback only) or `host`. `seccomp` is `default`, `unconfined` or the path of a
    profile. `tmpfs` are absolute paths at which an empty memory file system is mounted. `add_capabilities` and
    `drop_capabilities` know `ALL`; what is added wins over what is dropped.

    Raises:
        EngineError: anything that can be told to be wrong before a container exists.
    """

    layers: tuple[Path, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    workdir: str = "/"
    user: str = "0"
    limits: Limits = Limits()
    network: str = "none"
    read_only: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str | Path = "default"
    tmpfs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            raise EngineError("a container needs at least one layer for its root file system")
        if not self.argv or not self.argv[0]:
            raise EngineError("a container needs a command to run")
        if self.network not in ("none", "host"):
            raise EngineError(f"unknown network `{self.network}`: use `none` or `host`")
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise EngineError(f"`{self.hostname}` is no host name: use letters, digits, `-` and `.`, at most 64")
        for path in (self.workdir, *self.tmpfs):
            if not path.startswith("/") or ".." in path.split("/"):
                raise EngineError(f"`{path}` must be an absolute path without `..`")
        texts = (*self.argv, self.user, self.workdir, *self.tmpfs, *self.environment, *self.environment.values())
        if any("\0" in text for text in texts):
            raise EngineError("a command, path or environment can't contain a NUL character")
        for name in self.environment:
            if not name or "=" in name:
                raise EngineError(f"`{name}` is no name of an environment variable")
        _ = self.capability_mask

    @property
    def capability_mask(self) -> int:
        """The capabilities that the container may have, as a bit mask.

        Raises:
            EngineError: a name that Linux doesn't have.
        """
        return _capability_mask(self.add_capabilities, self.drop_capabilities)


@cache
def _capability_mask(added: tuple[str, ...], dropped: tuple[str, ...]) -> int:
    everything = (1 << len(capabilities.NAMES)) - 1
    bits = capabilities.mask(DEFAULT_CAPABILITIES)
    for wanted, names in ((False, dropped), (True, added)):
        for name in names:
            try:
                change = everything if name.upper() == "ALL" else capabilities.mask([name])
            except ValueError as error:
                raise EngineError(f"unknown capability `{name}`: see capabilities(7), or use ALL") from error
            bits = bits | change if wanted else bits & ~change
    return bits
