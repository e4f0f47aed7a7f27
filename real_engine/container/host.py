"""What a plan has to know about the machine, and about the engine's rights on it."""

import contextlib
import glob
import os
from dataclasses import dataclass
from pathlib import Path

from real_engine.linux import capabilities
from real_engine.linux.cgroups import Hierarchy

_TTY_GROUP = 5  # a convention of all distributions, and Docker's
_ALL_IDS = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Host:
    """The machine. `uid` and `gid` are the engine's own; `held_capabilities` is what a new process of ours can have.

    `in_user_namespace` says that the engine is root of a user namespace only (a rootless daemon): it can make no device
    there. `tty_group` is the group that terminals belong to, if there is one. `masked_paths` are those of this machine
    beside the ones that all machines have.
    """

    uid: int
    gid: int
    held_capabilities: int
    hierarchies: tuple[Hierarchy, ...]
    masked_paths: tuple[str, ...] = ()
    in_user_namespace: bool = False
    tty_group: int | None = _TTY_GROUP
    may_set_groups: bool = True
    oom_score_adj: int = 0

    @property
    def rootless(self) -> bool:
        """Whether the engine runs as an ordinary user, so that the container needs a user namespace of its own."""
        return self.uid != 0

    @property
    def lends_devices(self) -> bool:
        """Whether devices can't be made, so that the host's have to be shown."""
        return self.rootless or self.in_user_namespace


def this_host(hierarchies: tuple[Hierarchy, ...]) -> Host:
    """The machine that we are on, with the cgroup hierarchies that we use of it."""
    uid = os.geteuid()
    in_user_namespace = not _maps_everything("/proc/self/uid_map")
    groups = _mapped("/proc/self/gid_map")
    # A container of an ordinary user has a user namespace, which begins with all capabilities in itself.
    held = capabilities.status_mask("CapBnd") if uid == 0 else capabilities.all_known()
    return Host(
        uid=uid,
        gid=os.getegid(),
        held_capabilities=held,
        hierarchies=hierarchies,
        masked_paths=tuple(sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"))),
        in_user_namespace=in_user_namespace,
        tty_group=_TTY_GROUP if uid == 0 and any(_TTY_GROUP in ids for ids in groups) else None,
        may_set_groups=uid == 0 and _setgroups_allowed(),
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
    )


def _mapped(path: str) -> list[range]:
    """The ids that exist in our user namespace."""
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    return [range(int(first), int(first) + int(count)) for first, _, count in lines]


def _maps_everything(path: str) -> bool:
    """Whether this is the first user namespace, or one that is like it."""
    return ["0", "0", str(_ALL_IDS)] == Path(path).read_text().split()


def _setgroups_allowed() -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path("/proc/self/setgroups").read_text().strip() == "allow"
    return True
