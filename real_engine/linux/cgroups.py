"""Control groups: which hierarchies this machine has (v1, v2, or both: hybrid), and what a group in them may use.

Everything takes the root of a file system, so that a v2 machine can be looked at, and tested, from anywhere.

On v1 each controller (or pair of controllers) has a hierarchy of its own; on v2 all share one, where a controller must
be enabled in the parent's `cgroup.subtree_control` before a child has its files. Source:
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

import contextlib
import errno
import math
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

PARENT = "onggi"  # the group that holds all of ours, one for each container
CPU_PERIOD_MICROSECONDS = 100_000  # the kernel's default and Docker's
# What a container is put into: three to limit, one to count CPU time, one to keep devices away.
CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "devices")

_REMOVAL_SECONDS = 2.0  # a group stays busy until the kernel has put its last process away


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One tree of cgroups: its version, its controllers, and the directory under which we may make groups.

    `unavailable` says why, when we may not, or why controllers are missing.
    """

    version: int
    controllers: frozenset[str]
    mount_point: Path
    parent: Path
    unavailable: str = ""

    @property
    def name(self) -> str:
        """The name of its directory in /sys/fs/cgroup, empty for the one of v2."""
        return self.mount_point.name if self.version == 1 else ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value to write to a file of a cgroup."""

    file: str
    value: str


def hierarchies(root: Path = Path("/")) -> tuple[Hierarchy, ...]:
    """The mounted hierarchies with a controller that a container needs; on a pure v2 machine always the one there is.

    A second mount of a hierarchy (in a container, say) counts once.
    """
    found: dict[frozenset[str], Hierarchy] = {}
    unified: Hierarchy | None = None
    own = _own_cgroups(root)
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount_point = root / _unescape(before.split()[4]).lstrip("/")
        fstype, _, options = after.split(" ", 2)
        if fstype == "cgroup2":
            unified = _unified(mount_point, own.get("", "/"))
        elif fstype == "cgroup":
            controllers = frozenset(CONTROLLERS).intersection(options.split(" ")[-1].split(","))
            if controllers and controllers not in found:
                writable = os.access(mount_point, os.W_OK)
                reason = "" if writable else f"no right to write to {mount_point}"
                found[controllers] = Hierarchy(1, controllers, mount_point, mount_point / PARENT, reason)
    if unified and (unified.controllers or not found):
        return (*found.values(), unified)
    return tuple(found.values())


def mode(root: Path = Path("/")) -> str:
    """`v1`, `v2` or `hybrid` (v1 for the controllers, beside a v2 hierarchy); `none` where no cgroup is mounted."""
    kinds = set()
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        kinds.add(line.partition(" - ")[2].split(" ")[0])
    if "cgroup" in kinds:
        return "hybrid" if "cgroup2" in kinds else "v1"
    return "v2" if "cgroup2" in kinds else "none"


def prepare_parent(hierarchy: Hierarchy) -> Hierarchy:
    """Make the group that holds ours, and say what groups in it can have. Doing it again does no harm.

    On v2 our controllers are enabled for its children. That fails with EBUSY where the group above holds processes
    itself (in a container that holds an engine, say): the hierarchy returned then has fewer controllers, and says why.

    Raises:
        OSError: no right to make the group.
    """
    hierarchy.parent.mkdir(exist_ok=True)
    if hierarchy.version == 1:
        return hierarchy
    enabled = hierarchy.controllers
    for group in (hierarchy.parent.parent, hierarchy.parent):
        control = group / "cgroup.subtree_control"
        missing = enabled - set(control.read_text().split())
        if missing:
            try:
                control.write_text(" ".join(f"+{name}" for name in sorted(missing)))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                enabled -= missing
    if enabled == hierarchy.controllers:
        return hierarchy
    reason = f"{hierarchy.parent.parent} has processes of its own, and so can't share out its resources"
    return replace(hierarchy, controllers=enabled, unavailable=reason)


def limit_settings(
    hierarchy: Hierarchy, memory_bytes: int | None, cpus: float | None, pids: int | None
) -> list[Setting]:
    """What to write to the files of a group in `hierarchy`, in order, to limit memory, CPU and processes.

    Memory is limited without swap: memory that a container may push out to disk isn't limited. `cpus` becomes a quota
    in each period of 100 ms. What the hierarchy doesn't control is left out.
    """
    settings = []
    if memory_bytes is not None and "memory" in hierarchy.controllers:
        if hierarchy.version == 2:
            settings += [Setting("memory.max", str(memory_bytes))]
            swap = Setting("memory.swap.max", "0")
        else:
            settings += [Setting("memory.limit_in_bytes", str(memory_bytes))]
            swap = Setting("memory.memsw.limit_in_bytes", str(memory_bytes))
        # Both files are missing where the kernel doesn't count swap; there the first limit has to do.
        settings += [swap] if _has_file(hierarchy, swap.file) else []
    if cpus is not None and "cpu" in hierarchy.controllers:
        quota = math.ceil(cpus * CPU_PERIOD_MICROSECONDS)
        if hierarchy.version == 2:
            settings += [Setting("cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}")]
        else:
            settings += [
                Setting("cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS)),
                Setting("cpu.cfs_quota_us", str(quota)),
            ]
    if pids is not None and "pids" in hierarchy.controllers:
        settings += [Setting("pids.max", str(pids))]
    return settings


def device_settings(devices: Iterable[tuple[int, int | None]]) -> list[Setting]:
    """What to write to a v1 group so that it may use and make these character devices only (minor None: any)."""
    allowed = [f"c {major}:{'*' if minor is None else minor} rwm" for major, minor in devices]
    return [Setting("devices.deny", "a"), *(Setting("devices.allow", rule) for rule in allowed)]


def processes(group: Path) -> list[int]:
    """PIDs of the processes in `group` itself."""
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def kill(group: Path) -> None:
    """Kill all that runs in `group`: by `cgroup.kill` where there is one (v2, Linux 5.14), else process by process."""
    everyone = group / "cgroup.kill"
    if everyone.exists():
        everyone.write_text("1")
        return
    for pid in processes(group):
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(pid, signal.SIGKILL)


def remove(group: Path) -> None:
    """Remove `group`, whose processes have ended or are ending. It is no error if it doesn't exist.

    Raises:
        OSError: EBUSY when processes in it go on living.
    """
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return


def _unified(mount_point: Path, own: str) -> Hierarchy:
    """The v2 hierarchy. Root makes groups at its top; others in the highest group above their own that is theirs."""
    highest: Path | None = None
    group = mount_point / own.strip("/")
    while group.is_relative_to(mount_point):
        control = group / "cgroup.subtree_control"
        delegated = [group, group / "cgroup.procs", control]
        if all(os.access(path, os.W_OK) for path in delegated) and control.exists():
            highest = group
        elif highest is not None:
            break
        group = group.parent
    top = mount_point if highest is None else highest
    listed = top / "cgroup.controllers"
    available = frozenset(listed.read_text().split()) if listed.exists() else frozenset[str]()
    reason = "" if highest is not None else "no cgroup was delegated to this user (systemd: Delegate=yes)"
    return Hierarchy(2, available.intersection(CONTROLLERS), mount_point, top / PARENT, reason)


def _own_cgroups(root: Path) -> dict[str, str]:
    """The cgroup of this process in each hierarchy, by the list of its controllers (empty for v2)."""
    lines = (root / "proc/self/cgroup").read_text().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


def _has_file(hierarchy: Hierarchy, name: str) -> bool:
    """Whether groups of `hierarchy` have the file `name`, asked of our parent group (the top one lacks some)."""
    return (hierarchy.parent / name).exists()


def _unescape(path: str) -> str:
    r"""A path of mountinfo, in which the kernel writes blanks and backslashes as \040 and so on."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(octal, character)
    return path
