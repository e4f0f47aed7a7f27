"""The steps that make the process a container's: its cgroup and identity first, then every right that it loses.

Their order is the point. Rights are given up last, since each step needs some: a user can't be changed without
CAP_SETUID, nor the bounding set without CAP_SETPCAP; seccomp comes after all, for it would forbid the others.
"""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from real_engine.container.spec import DEFAULT_PATH
from real_engine.container.steps import Operation, Site
from real_engine.container.users import look_up
from real_engine.linux import capabilities, device_filter, interfaces, processes, seccomp
from real_engine.linux.cgroups import Hierarchy, Setting
from real_engine.linux.libc import AT_FDCWD
from real_engine.linux.processes import (
    CLONE_NEWCGROUP,
    NAMESPACE_NAMES,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    openat2,
)

REPORT = 3  # the one descriptor beside the standard three that lives until execve
_LARGEST_ACCOUNT_FILE = 1 << 20
_DEEPEST_SCRIPT = 5  # interpreters of interpreters; the kernel's own limit (fs/exec.c)
_LONGEST_FIRST_LINE = 256  # BINPRM_BUF_SIZE


@dataclass(slots=True)
class MakeCgroup(Operation):
    """Make the container's cgroup in one hierarchy and open what is needed to enter it."""

    why: ClassVar[str] = "what the container uses is counted, and can be limited, in a group of its own"
    hierarchy: Hierarchy
    group: Path

    def execute(self, site: Site) -> None:
        self.group.mkdir()
        if self.hierarchy.version == 2:
            site.cgroup_directory = os.open(self.group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            site.cgroup_tasks[self.hierarchy.name] = os.open(self.group / "tasks", os.O_WRONLY | os.O_CLOEXEC)

    def describe(self) -> str:
        return f'mkdir("{self.group}")'


@dataclass(slots=True)
class WriteSettings(Operation):
    """Write values to files of the container's cgroup."""

    why: str  # type: ignore[misc]  # not of the class: each of these has its own reason
    group: Path
    settings: tuple[Setting, ...]

    def execute(self, site: Site) -> None:
        for setting in self.settings:
            path = os.path.join(self.group, setting.file)
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, setting.value.encode())
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
            finally:
                os.close(descriptor)

    def describe(self) -> str:
        return "write(" + ", ".join(f"{setting.file} = {setting.value}" for setting in self.settings) + ")"


@dataclass(slots=True)
class FilterDevices(Operation):
    """Attach a program to the v2 cgroup that decides which devices may be used."""

    why: ClassVar[str] = "a device made with mknod, such as the host's disk, must stay useless"
    program: bytes

    def execute(self, site: Site) -> None:
        if site.cgroup_directory is None:
            raise OSError(errno.ENOENT, "the container's cgroup isn't open")
        device_filter.attach_device_program(site.cgroup_directory, self.program)

    def describe(self) -> str:
        return "bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE), bpf(BPF_PROG_ATTACH)"


@dataclass(slots=True)
class Clone(Operation):
    """Make the container's process, in new namespaces. Both it and the engine return from here."""

    why: ClassVar[str] = "a process that sees its own mounts, processes, network, IPC and host name"
    namespaces: int

    def execute(self, site: Site) -> None:
        pid, site.pidfd = processes.clone3(self.namespaces, site.cgroup_directory)
        if pid:
            site.pid = pid
        else:
            site.in_container = True

    def describe(self) -> str:
        return f"clone3({' | '.join(name for bit, name in NAMESPACE_NAMES.items() if self.namespaces & bit)})"


@dataclass(slots=True)
class JoinCgroups(Operation):
    """Move this process into its v1 cgroups."""

    # A process that moves *itself* by way of `tasks` doesn't take the lock under which others wait for all CPUs.
    why: ClassVar[str] = "from here on what it uses counts as the container's; v1 has no way to be born in a cgroup"

    def execute(self, site: Site) -> None:
        for descriptor in site.cgroup_tasks.values():
            os.write(descriptor, b"0")

    def describe(self) -> str:
        return "write(tasks = 0) in each hierarchy"


@dataclass(slots=True)
class NewCgroupNamespace(Operation):
    """Make a cgroup namespace with the container's own cgroup as its root."""

    why: ClassVar[str] = "apart from clone3, since the namespace's root is the cgroup in which it is made"

    def execute(self, site: Site) -> None:
        processes.unshare(CLONE_NEWCGROUP)

    def describe(self) -> str:
        return "unshare(CLONE_NEWCGROUP)"


@dataclass(slots=True)
class MapUser(Operation):
    """Make root in the container's user namespace stand for the user that runs the engine."""

    why: ClassVar[str] = "root inside, an ordinary user outside; groups can't be dropped, lest a refusal be evaded"
    uid: int
    gid: int

    def execute(self, site: Site) -> None:
        for path, value in (("setgroups", "deny"), ("uid_map", f"0 {self.uid} 1"), ("gid_map", f"0 {self.gid} 1")):
            descriptor = os.open(f"/proc/self/{path}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(descriptor, value.encode())
            os.close(descriptor)

    def describe(self) -> str:
        return f"write(/proc/self: setgroups = deny, uid_map = 0 {self.uid} 1, gid_map = 0 {self.gid} 1)"


@dataclass(slots=True)
class DieWithEngine(Operation):
    """Have the kernel kill this process when the engine ends."""

    why: ClassVar[str] = "no container is left behind when the engine is killed"

    def execute(self, site: Site) -> None:
        processes.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def describe(self) -> str:
        return "prctl(PR_SET_PDEATHSIG, SIGKILL)"


@dataclass(slots=True)
class DieWithEngineStill(Operation):
    """Have it so again, and look whether the engine is there."""

    why: ClassVar[str] = "a change of user cleared it; an engine that ended before reads our report no more"

    def execute(self, site: Site) -> None:
        processes.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        poll = select.poll()
        poll.register(site.report, select.POLLERR)
        if poll.poll(0):
            os._exit(128 + signal.SIGKILL)

    def describe(self) -> str:
        return "prctl(PR_SET_PDEATHSIG, SIGKILL), poll(report)"


@dataclass(slots=True)
class LoopbackUp(Operation):
    """Bring the network namespace's own loopback interface up."""

    why: ClassVar[str] = "a new network namespace has nothing else, and even that is down"

    def execute(self, site: Site) -> None:
        interfaces.set_up("lo")

    def describe(self) -> str:
        return "ioctl(SIOCSIFFLAGS, lo, IFF_UP)"


@dataclass(slots=True)
class SetHostname(Operation):
    """Set the container's host name."""

    why: ClassVar[str] = "its own, in its own UTS namespace"
    hostname: str

    def execute(self, site: Site) -> None:
        processes.sethostname(self.hostname)

    def describe(self) -> str:
        return f'sethostname("{self.hostname}")'


@dataclass(slots=True)
class LookUpUser(Operation):
    """Find the user's numbers in the container's own files."""

    why: ClassVar[str] = "names mean what the image says, read by our own parser beneath its root"
    user: str

    def execute(self, site: Site) -> None:
        passwd, group = (_read_in_root(site.trees["/"], path) for path in ("etc/passwd", "etc/group"))
        try:
            site.credentials = look_up(self.user, passwd, group)
        except LookupError as error:
            raise OSError(errno.EINVAL, str(error.args[0])) from error

    def describe(self) -> str:
        return f'openat2("etc/passwd", "etc/group", RESOLVE_IN_ROOT): {self.user}'


@dataclass(slots=True)
class NewSession(Operation):
    """Leave the engine's session, connect standard input and outputs, and close every other descriptor."""

    why: ClassVar[str] = (
        "no controlling terminal to push keystrokes into, and no open directory of the host to step out by"
    )

    def execute(self, site: Site) -> None:
        os.setsid()
        # Moved out of the way of 0, 1, 2 first, for any of these may be one of those.
        sources = [os.dup(descriptor) for descriptor in site.stdio]
        report = os.dup(site.report)
        for number, descriptor in enumerate(sources):
            os.dup2(descriptor, number, inheritable=True)
        site.report = os.dup2(report, REPORT, inheritable=False)
        processes.close_from(REPORT + 1)

    def describe(self) -> str:
        return f"setsid(), dup3(0, 1, 2, {REPORT}), close_range({REPORT + 1}, ~0)"


@dataclass(slots=True)
class EnterDirectory(Operation):
    """Change to the working directory."""

    why: ClassVar[str] = "checked to lie beneath the root: a leaked descriptor could lead out of it (CVE-2024-21626)"
    path: str

    def execute(self, site: Site) -> None:
        try:
            os.chdir(self.path)
        except FileNotFoundError:
            os.makedirs(self.path, 0o755)  # as Docker does
            os.chdir(self.path)
        if not os.getcwd().startswith("/"):  # the kernel says "(unreachable)/..." then
            raise OSError(errno.EXDEV, "the working directory is outside of the container's root", self.path)

    def describe(self) -> str:
        return f'chdir("{self.path}"), getcwd()'


@dataclass(slots=True)
class LimitResources(Operation):
    """Take over limits that a program expects, and lower none below what it had."""

    why: ClassVar[str] = "no core files, and a number of descriptors that select(2) can take"

    def execute(self, site: Site) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024) if soft >= 0 else 1024, hard))

    def describe(self) -> str:
        return "prlimit64(RLIMIT_CORE, RLIMIT_NOFILE)"


@dataclass(slots=True)
class CheckInterpreter(Operation):
    """Refuse a script whose interpreter is reached through a magic link of /proc, such as `#!/proc/self/exe`."""

    # Done while we may still read every file, and nothing else runs in the container that could change one afterwards.
    why: ClassVar[str] = "that link leads to the host's Python, which a script could later overwrite (CVE-2019-5736)"
    program: str
    environment: Mapping[str, str]

    def execute(self, site: Site) -> None:
        for path in program_candidates(self.program, self.environment):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # execve will tell, if it is found nowhere
                _check_interpreter(path)

    def describe(self) -> str:
        return f"openat2({self.program} and its interpreter, RESOLVE_NO_MAGICLINKS)"


@dataclass(slots=True)
class DropBoundingSet(Operation):
    """Remove every capability that the container doesn't get from the bounding set."""

    why: ClassVar[str] = "no program in the container can ever have them, not even by a set-user-ID file"
    dropped: int

    def execute(self, site: Site) -> None:
        capabilities.drop_bounding(self.dropped)

    def describe(self) -> str:
        return f"prctl(PR_CAPBSET_DROP) for {self.dropped.bit_count()} capabilities"


@dataclass(slots=True)
class ChangeUser(Operation):
    """Become the user that the program is to run as."""

    why: ClassVar[str] = "groups before user: after it they can't be changed any more"
    rootless: bool

    def execute(self, site: Site) -> None:
        uid, gid, groups, _ = site.credentials
        if self.rootless:
            # A namespace that has one user: we are it.
            if (uid, gid) != (0, 0):
                raise OSError(errno.EINVAL, f"without root the container has only user 0, and no {uid}:{gid}")
            return
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def describe(self) -> str:
        return "setgroups(), setresgid(), setresuid()"


@dataclass(slots=True)
class SetCapabilities(Operation):
    """Keep the container's capabilities, and no others; an ordinary user keeps none."""

    why: ClassVar[str] = "root in the container is root without most of root's power"
    kept: int

    def execute(self, site: Site) -> None:
        capabilities.set_capabilities(self.kept if site.credentials.uid == 0 else 0)

    def describe(self) -> str:
        return f"prctl(PR_CAP_AMBIENT_CLEAR_ALL), capset(permitted = effective = {self.kept:#x}, inheritable = 0)"


@dataclass(slots=True)
class NoNewPrivileges(Operation):
    """Give up gaining rights by executing a program."""

    why: ClassVar[str] = "set-user-ID files give nothing, and a system call filter may be installed without a right"

    def execute(self, site: Site) -> None:
        processes.prctl(PR_SET_NO_NEW_PRIVS, 1)

    def describe(self) -> str:
        return "prctl(PR_SET_NO_NEW_PRIVS)"


@dataclass(slots=True)
class HideMemory(Operation):
    """Make this process, which still is the engine's interpreter, closed to others."""

    why: ClassVar[str] = "until execve its memory and its executable are the host's (CVE-2016-9962, CVE-2019-5736)"

    def execute(self, site: Site) -> None:
        processes.prctl(PR_SET_DUMPABLE, 0)

    def describe(self) -> str:
        return "prctl(PR_SET_DUMPABLE, 0)"


@dataclass(slots=True)
class InstallFilter(Operation):
    """Filter the system calls of this process and of all that it starts."""

    why: ClassVar[str] = "last: calls that the container has no use for don't reach the kernel's code"
    filter_bytes: bytes

    def execute(self, site: Site) -> None:
        seccomp.install(self.filter_bytes)

    def describe(self) -> str:
        return f"seccomp(SECCOMP_SET_MODE_FILTER, {len(self.filter_bytes) // 8} instructions)"


@dataclass(slots=True)
class Execute(Operation):
    """Become the container's program."""

    why: ClassVar[str] = "the program takes the place of the engine's copy; signals act as they do by default"
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    # Made ready in the engine: in the child each page of memory that is written to has to be copied first.
    _argv: "ctypes.Array[ctypes.c_char_p]" = field(init=False)
    _pairs: list[bytes] = field(init=False)
    _ignored: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._argv = processes.strings([os.fsencode(argument) for argument in self.argv])
        self._pairs = [os.fsencode(f"{name}={value}") for name, value in self.environment.items()]
        ignored = capabilities.status_mask("SigIgn")
        self._ignored = [number + 1 for number in range(ignored.bit_length()) if ignored >> number & 1]

    def execute(self, site: Site) -> None:
        os.umask(0o022)
        home = [] if "HOME" in self.environment else [os.fsencode(f"HOME={site.credentials.home}")]
        argv, pairs = self._argv, processes.strings([*home, *self._pairs])
        processes.set_default_actions(self._ignored)
        processes.unblock_signals()
        refused: OSError = FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", self.argv[0])
        for path in program_candidates(self.argv[0], self.environment):
            try:
                raise processes.execve(os.fsencode(path), argv, pairs)
            except (FileNotFoundError, NotADirectoryError) as error:
                if "/" in self.argv[0]:
                    refused = error
            except PermissionError as error:
                refused = error  # as the shells do: go on looking, and tell of this if nothing else is found
        raise refused

    def describe(self) -> str:
        return f"execve({' '.join(self.argv)})"


def _read_in_root(root: int, path: str) -> bytes:
    """A file of the container, resolved as the container itself would; empty if it doesn't exist or is no file."""
    try:
        descriptor = openat2(root, path, os.O_RDONLY | os.O_NONBLOCK, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except FileNotFoundError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.read(descriptor, _LARGEST_ACCOUNT_FILE)
    finally:
        os.close(descriptor)


def program_candidates(name: str, environment: Mapping[str, str]) -> list[str]:
    """The paths at which execvp(3) would look for the program `name`, in order."""
    if "/" in name:
        return [name]
    directories = environment.get("PATH", DEFAULT_PATH).split(":")
    return [os.path.join(directory or ".", name) for directory in directories]


def _check_interpreter(path: str) -> None:
    """Follow `path` through the interpreters that its first line, and theirs, name.

    Raises:
        OSError: EACCES when a magic link is on the way, ENOENT or ENOTDIR when something is missing.
    """
    for _ in range(_DEEPEST_SCRIPT):
        try:
            descriptor = openat2(AT_FDCWD, path, os.O_RDONLY | os.O_NONBLOCK, RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno == errno.ELOOP:
                message = "leads through a magic link of /proc, to the engine's own executable"
                raise PermissionError(errno.EACCES, message, path) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return
            line = os.read(descriptor, _LONGEST_FIRST_LINE).split(b"\n", 1)[0]
        finally:
            os.close(descriptor)
        words = line[2:].split(maxsplit=1) if line.startswith(b"#!") else []
        if not words:
            return
        path = os.fsdecode(words[0])
