"""The steps that take from the container's process every right that it isn't to have, once it is in its place.

Their order is the point. Rights are given up last, since each step needs some: a user can't be changed without
CAP_SETUID, nor the bounding set without CAP_SETPCAP; seccomp comes after all, for it would forbid the others.
"""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import errno
import os
import resource
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from real_engine.container.program import program_candidates
from real_engine.container.resources import Ulimit
from real_engine.container.steps import Operation, Site
from real_engine.container.users import look_up
from real_engine.linux import capabilities, processes, seccomp
from real_engine.linux.libc import AT_FDCWD
from real_engine.linux.processes import (
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    openat2,
)

_LARGEST_ACCOUNT_FILE = 1 << 20
_DEEPEST_SCRIPT = 5  # interpreters of interpreters; the kernel's own limit (fs/exec.c)
_LONGEST_FIRST_LINE = 256  # BINPRM_BUF_SIZE


@dataclass(slots=True)
class LookUpUser(Operation):
    """Find the user's numbers in the container's own files."""

    why: ClassVar[str] = "names mean what the image says, read by our own parser beneath its root"
    user: str
    more_groups: tuple[str, ...] = ()

    def execute(self, site: Site) -> None:
        passwd, group = (_read_in_root(site.trees["/"], path) for path in ("etc/passwd", "etc/group"))
        try:
            site.credentials = look_up(self.user, passwd, group, self.more_groups)
        except LookupError as error:
            raise OSError(errno.EINVAL, str(error.args[0])) from error

    def describe(self) -> str:
        return f'openat2("etc/passwd", "etc/group", RESOLVE_IN_ROOT): {self.user}'


@dataclass(slots=True)
class LimitResources(Operation):
    """Set the resource limits that were asked for; of the others, take over those that a program expects."""

    why: ClassVar[str] = "no core files, and a number of descriptors that select(2) can take, unless asked for"
    ulimits: tuple[Ulimit, ...] = ()

    def execute(self, site: Site) -> None:
        given = {ulimit.number for ulimit in self.ulimits}
        if resource.RLIMIT_CORE not in given:
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        if resource.RLIMIT_NOFILE not in given:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024) if soft >= 0 else 1024, hard))
        for ulimit in self.ulimits:
            try:
                resource.setrlimit(ulimit.number, (ulimit.soft, ulimit.hard))
            except (OSError, ValueError) as error:  # ValueError is Python's word for EPERM here
                what = f"error setting rlimit type {ulimit.number} ({ulimit.name})"
                message = f"{what}: raising it above {resource.getrlimit(ulimit.number)[1]} needs CAP_SYS_RESOURCE"
                raise PermissionError(errno.EPERM, message) from error

    def describe(self) -> str:
        asked = "".join(f", RLIMIT_{one.name.upper()} = {one.soft}:{one.hard}" for one in self.ulimits)
        return f"prlimit64(RLIMIT_CORE, RLIMIT_NOFILE{asked})"


@dataclass(slots=True)
class EnterDirectory(Operation):
    """Change to the working directory, which is made where it is missing if that is wanted."""

    why: ClassVar[str] = "checked to lie beneath the root: a leaked descriptor could lead out of it (CVE-2024-21626)"
    path: str
    make: bool = True

    def execute(self, site: Site) -> None:
        try:
            os.chdir(self.path)
        except FileNotFoundError:
            if not self.make:
                raise
            place = "/"
            for name in self.path.split("/"):  # as Docker does
                place = os.path.join(place, name)
                if not os.path.exists(place):
                    os.mkdir(place, 0o755)  # not makedirs(), which would give all but the last the mode 0777 here
            os.chdir(self.path)
        if not os.getcwd().startswith("/"):  # the kernel says "(unreachable)/..." then
            raise OSError(errno.EXDEV, "the working directory is outside of the container's root", self.path)

    def describe(self) -> str:
        return f'chdir("{self.path}"), getcwd()'


@dataclass(slots=True)
class CheckInterpreter(Operation):
    """Find the program, and refuse a script whose interpreter is reached through a magic link: `#!/proc/self/exe`."""

    # Done while we may still read every file. In a new container nothing else runs that could change one afterwards; in
    # one that runs it can be raced, and `entry` tells what holds there. What isn't found here isn't tried afterwards:
    # a process of another PID namespace doesn't find /proc/self, which it would once it is born inside.
    why: ClassVar[str] = "that link leads to the host's Python, which a script could later overwrite (CVE-2019-5736)"
    program: str
    environment: Mapping[str, str]

    def execute(self, site: Site) -> None:
        missing: OSError | None = None
        for path in program_candidates(self.program, self.environment):
            try:
                _check_interpreter(path)
            except (FileNotFoundError, NotADirectoryError) as error:
                missing = error
            else:
                site.programs.append(path)
        if not site.programs:
            if missing is not None and "/" in self.program:
                raise missing
            raise FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", self.program)

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
    only_root: bool
    may_set_groups: bool = True
    keep_capabilities: bool = False

    def execute(self, site: Site) -> None:
        uid, gid, groups, _ = site.credentials
        if self.only_root:
            # A namespace that has one user: we are it.
            if (uid, gid) != (0, 0):
                raise OSError(errno.EINVAL, f"without root the container has only user 0, and no {uid}:{gid}")
            return
        if self.keep_capabilities:
            processes.prctl(PR_SET_KEEPCAPS, 1)  # until execve
        if self.may_set_groups:
            os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def describe(self) -> str:
        return f"{'prctl(PR_SET_KEEPCAPS), ' if self.keep_capabilities else ''}setgroups(), setresgid(), setresuid()"


@dataclass(slots=True)
class SetCapabilities(Operation):
    """Keep the container's capabilities, and no others; an ordinary user keeps none.

    `still_needed` are kept besides, by any user, for a later step.
    """

    why: ClassVar[str] = "root in the container is root without most of root's power"
    kept: int
    still_needed: int = 0

    def execute(self, site: Site) -> None:
        capabilities.set_capabilities((self.kept if site.credentials.uid == 0 else 0) | self.still_needed)

    def describe(self) -> str:
        kept = self.kept | self.still_needed
        return f"prctl(PR_CAP_AMBIENT_CLEAR_ALL), capset(permitted = effective = {kept:#x}, inheritable = 0)"


@dataclass(slots=True)
class NoNewPrivileges(Operation):
    """Give up gaining rights by executing a program."""

    why: ClassVar[str] = "set-user-ID files give nothing, and a system call filter may be installed without a right"

    def execute(self, site: Site) -> None:
        processes.prctl(PR_SET_NO_NEW_PRIVS, 1)

    def describe(self) -> str:
        return "prctl(PR_SET_NO_NEW_PRIVS)"


@dataclass(slots=True)
class InstallFilter(Operation):
    """Filter the system calls of this process and of all that it starts."""

    why: ClassVar[str] = "last: calls that the container has no use for don't reach the kernel's code"
    filter_bytes: bytes

    def execute(self, site: Site) -> None:
        seccomp.install(self.filter_bytes)

    def describe(self) -> str:
        return f"seccomp(SECCOMP_SET_MODE_FILTER, {len(self.filter_bytes) // 8} instructions)"


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
