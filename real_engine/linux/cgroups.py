"""Control groups: which hierarchies this machine has (v1, v2, or both: hybrid), and what a group in them may use.

Everything takes the root of a file system, so that a v2 machine can be looked at, and tested, from anywhere.

On v1 each controller (or pair of controllers) has a hierarchy of its own; on v2 all share one, where a controller must
be enabled in the parent's `cgroup.subtree_control` before a child has its files. Source:
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from real_engine.errors import NotImplementedHere
from real_engine.linux.devices import DeviceRule

PARENT = "onggi"  # the group that holds all of ours, one for each container
# What a container is put into. `blkio` is the name on v1 of what is `io` on v2.
CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "devices", "blkio", "io", "cpuset", "freezer")
# On v1 each hierarchy that a container is in makes its start slower. These are joined when they are asked for.
_ON_DEMAND = frozenset(("cpuset", "freezer"))

_REMOVAL_SECONDS = 2.0  # a group stays busy until the kernel has put its last process away
_FREEZING_SECONDS = 2.0
_MOST_ROUNDS = 200
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One tree of cgroups: its version, its controllers, and the directory under which we may make groups.

    `unavailable` says why, when we may not, or why controllers are missing. `beside` tells of one that has no
    controller that we use: such as systemd's own, or that of v2 where v1 has them all.
    """

    version: int
    controllers: frozenset[str]
    mount_point: Path
    parent: Path
    unavailable: str = ""
    beside: bool = False

    @property
    def name(self) -> str:
        """The name of its directory in /sys/fs/cgroup, empty for the one of v2."""
        return self.mount_point.name if self.version == 1 else ""

    @property
    def on_demand(self) -> bool:
        """Whether a container is put into it only when something is asked for that it controls.

        In those that it isn't in, its cgroup namespace begins at the top. That is nothing to somebody who can't mount
        them; who can (CAP_SYS_ADMIN) has to be put into all.
        """
        return self.beside or (self.version == 1 and self.controllers <= _ON_DEMAND)


@dataclass(frozen=True, slots=True)
class Setting:
    """A value to write to a file of a cgroup."""

    file: str
    value: str


def hierarchies(root: Path = Path("/"), parent: str = PARENT) -> tuple[Hierarchy, ...]:
    """The mounted hierarchies, those with controllers that a container needs first.

    `parent` is the name of the group that is to hold ours. A second mount of a hierarchy, in a container say, counts
    once.
    """
    found: dict[frozenset[str], Hierarchy] = {}
    unified: Hierarchy | None = None
    own = _own_cgroups(root)
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount_point = root / _unescape(before.split()[4]).lstrip("/")
        fstype, _, options = after.split(" ", 2)
        if fstype == "cgroup2":
            if unified is None:
                with contextlib.suppress(PermissionError):  # mounted once more, where an ordinary user may not look
                    unified = _unified(mount_point, own.get("", "/"), parent)
        elif fstype == "cgroup":
            mounted = frozenset(options.split(" ")[-1].split(",")) - {"rw", "ro", "xattr"}
            controllers = mounted.intersection(CONTROLLERS)
            if mounted not in found:
                writable = os.access(mount_point, os.W_OK)
                reason = "" if writable else f"no right to write to {mount_point}"
                place = mount_point / parent
                found[mounted] = Hierarchy(1, controllers, mount_point, place, reason, beside=not controllers)
    if unified:
        found[frozenset()] = replace(unified, beside=not unified.controllers and bool(found))
    return tuple(sorted(found.values(), key=lambda hierarchy: hierarchy.beside))


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
        if "cpuset" in hierarchy.controllers:
            _hand_down_cpuset(hierarchy.parent)
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


def device_settings(rules: Iterable[DeviceRule]) -> list[Setting]:
    """What to write to a v1 group so that these devices, and no others, may be used and made there."""
    return [Setting("devices.deny", "a"), *(Setting("devices.allow", str(rule)) for rule in rules)]


def write_setting(group: Path | str, setting: Setting) -> None:
    """Write a value to a file of `group`.

    Raises:
        OSError: the kernel doesn't take it, or has no such file.
    """
    path = f"{group}/{setting.file}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, setting.value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def processes(group: Path) -> list[int]:
    """PIDs of the processes in `group` itself."""
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def groups_beneath(group: Path) -> Iterator[Path]:
    """`group` and every group in it, the innermost first. What is removed meanwhile is passed over."""
    for directory, _, _ in os.walk(group, topdown=False):
        yield Path(directory)


def kill(group: Path) -> None:
    """Kill all in `group` and beneath: by `cgroup.kill` where there is one (v2, Linux 5.14), else one by one.

    One by one, a process that forks at the wrong moment gets away: see `destroy`.
    """
    everyone = group / "cgroup.kill"
    if everyone.exists():
        everyone.write_text("1")
        return
    for each in groups_beneath(group):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # removed, or ended by itself
            for pid in processes(each):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def destroy(groups: Iterable[Path]) -> None:
    """Kill what runs in the groups of a container, frozen or not, and remove them. Those that don't exist are none.

    Raises:
        OSError: EBUSY when processes in one go on living.
    """
    existing = [group for group in groups if group.exists()]
    for group in existing:
        kill(group)
    for group in existing:
        if is_frozen(group):  # on v1 the frozen meet their end only when they go on
            set_frozen(group, False)
    for group in existing:
        remove(group, insist=True)


def remove(group: Path, insist: bool = False) -> None:
    """Remove `group` and those in it, whose processes have ended or are ending. It is no error if it doesn't exist.

    With `insist`, what has been started in it meanwhile is killed too.

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
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
            _remove_those_in(group)
            if insist:
                kill(group)
            time.sleep(0.001)
        else:
            return


def join(group: Path, members: Path) -> None:
    """Make `group` in a v1 hierarchy, and put all that are in `members` (of another hierarchy) and beneath into it.

    A process may fork while we move its parent, so this goes on until no new one is found.

    Raises:
        OSError: there is no right to, or new ones come faster than they can be moved.
    """
    group.mkdir(exist_ok=True)
    procs = group / "cgroup.procs"
    for _ in range(_MOST_ROUNDS):
        inside = {pid for each in groups_beneath(group) for pid in processes(each)}
        wanted = {pid for each in groups_beneath(members) for pid in processes(each)} - inside
        if not wanted:
            return
        for pid in wanted:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                procs.write_text(str(pid))
    raise OSError(errno.EAGAIN, "processes are started faster than they can be moved", str(group))


def set_frozen(group: Path, frozen: bool) -> None:
    """Stop all in `group` and beneath from running, or let them go on; returns once that is so.

    Raises:
        NotImplementedHere: the group is of a v1 hierarchy without a freezer.
        OSError: they could not be frozen (EBUSY: one is stuck in the kernel). They are let go on then.
    """
    v2 = group / "cgroup.freeze"
    state = v2 if v2.exists() else group / "freezer.state"
    if not state.exists():
        raise NotImplementedHere("this machine can't pause a container: it mounts no freezer cgroup")
    state.write_text(("1" if frozen else "0") if state is v2 else ("FROZEN" if frozen else "THAWED"))
    deadline = time.monotonic() + _FREEZING_SECONDS
    while is_frozen(group) != frozen:
        if time.monotonic() > deadline:
            state.write_text("0" if state is v2 else "THAWED")
            raise OSError(errno.EBUSY, "its processes could not be frozen", str(group))
        time.sleep(0.001)
        if frozen and state is not v2:
            state.write_text("FROZEN")  # what forked meanwhile is frozen with a second word only


def is_frozen(group: Path) -> bool:
    """Whether all in `group` are frozen; False where it can't be."""
    try:
        if (group / "cgroup.events").exists():
            return "frozen 1" in (group / "cgroup.events").read_text().splitlines()
        return (group / "freezer.state").read_text().strip() == "FROZEN"
    except FileNotFoundError:
        return False


def _remove_those_in(group: Path) -> None:
    """Remove the groups in `group` that can be."""
    for each in groups_beneath(group):
        if each != group:
            with contextlib.suppress(OSError):  # still busy: the caller comes again, and then tells
                each.rmdir()


def _hand_down_cpuset(parent: Path) -> None:
    """Give `parent` the CPUs and memory nodes of the group above it, and have it give them to those made in it.

    A v1 cpuset begins with none, and takes no process until it has some.
    """
    for name in _CPUSET_FILES:
        if not (parent / name).read_text().strip():
            (parent / name).write_text((parent.parent / name).read_text())
    (parent / "cgroup.clone_children").write_text("1")


def _unified(mount_point: Path, own: str, parent: str) -> Hierarchy:
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
    return Hierarchy(2, available.intersection(CONTROLLERS), mount_point, top / parent, reason)


def _own_cgroups(root: Path) -> dict[str, str]:
    """The cgroup of this process in each hierarchy, by the list of its controllers (empty for v2)."""
    lines = (root / "proc/self/cgroup").read_text().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


def _unescape(path: str) -> str:
    r"""A path of mountinfo, in which the kernel writes blanks and backslashes as \040 and so on."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(octal, character)
    return path
