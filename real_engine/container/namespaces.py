"""The steps that make the container's process, and put it into namespaces: new ones, or those of others."""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import errno
import os
import select
import signal
from dataclasses import dataclass
from typing import ClassVar

from real_engine.container.steps import Operation, Site
from real_engine.linux import interfaces, processes
from real_engine.linux.interpreter import refuse_imports
from real_engine.linux.libc import AT_FDCWD
from real_engine.linux.processes import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    NAMESPACE_NAMES,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
)

_FILES = {
    "mnt": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
}
_ALL_BUT_USER = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP


@dataclass(slots=True)
class Clone(Operation):
    """Make the container's process, in new namespaces. Both it and the engine return from here."""

    why: ClassVar[str] = "a process that sees its own mounts, processes, network, IPC and host name"
    namespaces: int
    pid_namespace: str = ""

    def execute(self, site: Site) -> None:
        join = []
        if self.pid_namespace:
            join = [(os.open(self.pid_namespace, os.O_RDONLY | os.O_CLOEXEC), CLONE_NEWPID)]
        try:
            pid, site.pidfd = processes.clone3(self.namespaces, site.cgroup_directory, join)
        finally:
            for descriptor, _ in join:
                os.close(descriptor)
        if pid:
            site.pid = pid
        else:
            site.births += 1

    def describe(self) -> str:
        joined = f'setns("{self.pid_namespace}", CLONE_NEWPID), ' if self.pid_namespace else ""
        names = " | ".join(name for bit, name in NAMESPACE_NAMES.items() if self.namespaces & bit)
        return f"{joined}clone3({names or '0'})"


@dataclass(slots=True)
class CloneOutside(Operation):
    """Make the process that is to enter a container that runs. Both it and the engine return from here."""

    why: ClassVar[str] = "a process to enter with: no namespace is new, and those inside can't see it yet"

    def execute(self, site: Site) -> None:
        pid, site.pidfd = processes.clone3(0, site.cgroup_directory)
        if pid:
            site.pid = pid
        else:
            site.births += 1

    def describe(self) -> str:
        return "clone3(0)"


@dataclass(slots=True)
class JoinNamespaces(Operation):
    """Move into namespaces that exist, each by its path."""

    why: ClassVar[str] = "asked for: to share these with another container"
    paths: dict[str, int]

    def execute(self, site: Site) -> None:
        opened = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind) for path, kind in self.paths.items()]
        for descriptor, kind in opened:
            processes.setns(descriptor, kind)
            os.close(descriptor)

    def describe(self) -> str:
        return ", ".join(f'setns("{path}", {NAMESPACE_NAMES[kind]})' for path, kind in self.paths.items())


@dataclass(slots=True)
class JoinNetwork(Operation):
    """Move into the network namespace that was prepared for this container."""

    why: ClassVar[str] = "its interfaces, addresses and routes are there already"

    def execute(self, site: Site) -> None:
        if site.network is None:
            raise OSError(errno.EBADF, "no network namespace was handed over")
        processes.setns(site.network, CLONE_NEWNET)

    def describe(self) -> str:
        return "setns(prepared network namespace, CLONE_NEWNET)"


@dataclass(slots=True)
class EnterContainer(Operation):
    """Move into all namespaces of the container but that of its processes, which the next clone will be born in."""

    why: ClassVar[str] = "by a descriptor of its first process, which can't have been replaced by another's number"
    user_namespace: bool

    def execute(self, site: Site) -> None:
        wanted = _ALL_BUT_USER | (CLONE_NEWUSER if self.user_namespace else 0)
        refuse_imports()
        try:
            processes.setns(site.container, wanted)
        except PermissionError:
            # Nobody but the machine's root may "enter" the machine's own, though it is in them: leave those out.
            processes.setns(site.container, wanted & ~_shared_with(site.container))
        site.trees["/"] = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def describe(self) -> str:
        user = "CLONE_NEWUSER | " if self.user_namespace else ""
        return f"setns(pidfd, {user}{' | '.join(name for bit, name in NAMESPACE_NAMES.items() if _ALL_BUT_USER & bit)})"


def _shared_with(pidfd: int) -> int:
    """The kinds of namespaces that the process of `pidfd` and this one are both in."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        pid = next(int(line[4:]) for line in file if line.startswith("Pid:"))
    shared = 0
    for name, kind in _FILES.items():
        if os.path.samestat(os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")):
            shared |= kind
    return shared


@dataclass(slots=True)
class BeBornInside(Operation):
    """Clone once more, as a child of the engine's, into the container's processes; the one before ends here."""

    # Until it executes its program this process has the engine's memory, and runs where others can see it. A container
    # with CAP_SYS_PTRACE could take it over: it must find no right and no descriptor that it doesn't have itself.
    why: ClassVar[str] = (
        "only now that it has no more rights than the container can those inside see it (CVE-2016-9962)"
    )

    def execute(self, site: Site) -> None:
        if site.sibling is None:
            raise OSError(errno.EFAULT, "no memory is shared with the engine")
        if processes.clone_sibling(site.sibling):
            os._exit(0)
        site.births += 1

    def describe(self) -> str:
        return "clone(CLONE_PARENT), exit_group(0)"


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
class HideMemory(Operation):
    """Make this process, which still is the engine's interpreter, closed to others."""

    why: ClassVar[str] = "until execve its memory and its executable are the host's (CVE-2016-9962, CVE-2019-5736)"

    def execute(self, site: Site) -> None:
        processes.prctl(PR_SET_DUMPABLE, 0)

    def describe(self) -> str:
        return "prctl(PR_SET_DUMPABLE, 0)"


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
    """Set the container's host name, and its NIS domain name if it has one."""

    why: ClassVar[str] = "its own, in its own UTS namespace"
    hostname: str
    domainname: str = ""

    def execute(self, site: Site) -> None:
        processes.sethostname(self.hostname)
        if self.domainname:
            processes.setdomainname(self.domainname)

    def describe(self) -> str:
        domain = f', setdomainname("{self.domainname}")' if self.domainname else ""
        return f'sethostname("{self.hostname}"){domain}'


@dataclass(slots=True)
class WriteSysctls(Operation):
    """Set parameters of the kernel that the container has for itself."""

    why: ClassVar[str] = "asked for: settings of its own network or IPC namespace, and no others"
    settings: dict[str, str]

    def execute(self, site: Site) -> None:
        resolve = processes.RESOLVE_BENEATH | processes.RESOLVE_NO_SYMLINKS
        for name, value in self.settings.items():
            path = "sys/" + name.replace(".", "/")
            # The call before the path, as those who read runc's messages know them.
            try:
                descriptor = processes.openat2(site.trees.get("/proc", AT_FDCWD), path, os.O_WRONLY, resolve)
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"open /proc/{path}") from error
            try:
                os.write(descriptor, value.encode())
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"write /proc/{path}") from error
            finally:
                os.close(descriptor)

    def describe(self) -> str:
        return "write(" + ", ".join(f"/proc/sys: {name} = {value}" for name, value in self.settings.items()) + ")"


@dataclass(slots=True)
class SetOomScore(Operation):
    """Say how soon this process is to be killed when the machine has no memory left."""

    why: ClassVar[str] = "asked for; what it starts inherits this"
    score: int

    def execute(self, site: Site) -> None:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(self.score).encode())
        finally:
            os.close(descriptor)

    def describe(self) -> str:
        return f"write(/proc/self/oom_score_adj = {self.score})"
