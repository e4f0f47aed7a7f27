"""One more program in a container that runs (`docker exec`): every step, in order, as `sandbox` has them for the first.

This is the more dangerous of the two, for here somebody is at home. Whoever runs in the container can see each process
of its PID namespace, ours too until it executes its program: its memory, its descriptors, and by /proc/PID/exe the
program that it is, which is the host's Python. So

- the process that comes over from the host stays outside of the PID namespace, where those inside can't see it, while
  it enters all the other namespaces, closes what is the host's, and gives up its rights. Only then it is born again,
  inside, with no right that the container doesn't have but the one to install its filter; and where somebody inside
  may trace processes, without that one, and under the filter;
- it is closed to others (not dumpable) from the start, as is what is born of it (CVE-2016-9962);
- the program of a long-lived engine is on a read-only mount (`real_engine.linux.interpreter`): a script with the first
  line `#!/proc/self/exe` can be put in a program's place after it has been looked at, and by it the container gets at
  that file, but can't write to it (CVE-2019-5736).
"""

import os

from real_engine.container.confinement import (
    ChangeUser,
    CheckInterpreter,
    DropBoundingSet,
    EnterDirectory,
    InstallFilter,
    LimitResources,
    LookUpUser,
    NoNewPrivileges,
    SetCapabilities,
)
from real_engine.container.grouping import JoinCgroups, OpenCgroup
from real_engine.container.host import Host
from real_engine.container.launch import Launch, Observer
from real_engine.container.namespaces import (
    BeBornInside,
    CloneOutside,
    DieWithEngine,
    DieWithEngineStill,
    EnterContainer,
    HideMemory,
    SetOomScore,
)
from real_engine.container.program import ConnectStreams, Execute, NewSession, OpenTerminal
from real_engine.container.sandbox import Found, kept_capabilities
from real_engine.container.spec import ContainerSpec, ExecSpec
from real_engine.container.steps import Instant, Operation, Phase
from real_engine.linux import capabilities


def plan_entry(
    spec: ContainerSpec, program: ExecSpec, host: Host, container_id: str, pid: int, found: Found
) -> tuple[Phase, ...]:
    """The phases from nothing to `program` running in the container, whose first process is `pid`."""
    groups = [(hierarchy, f"{hierarchy.parent}/{container_id}") for hierarchy in host.hierarchies]
    groups = [(hierarchy, group) for hierarchy, group in groups if not hierarchy.on_demand or os.path.exists(group)]
    kept = host.held_capabilities if program.privileged else kept_capabilities(spec, host)
    until_filter = 0 if spec.no_new_privileges or found.filter_bytes is None else capabilities.mask(["SYS_ADMIN"])

    filtering: list[Operation] = [
        *([NoNewPrivileges()] if spec.no_new_privileges else []),
        *([InstallFilter(found.filter_bytes)] if found.filter_bytes is not None else []),
        *([SetCapabilities(kept)] if until_filter else []),
    ]
    # The filter comes last, since it may forbid what we have to do. But whoever may trace processes could stop ours as
    # soon as it is born among them, and use its right before it is given up.
    may_trace = bool(kept_capabilities(spec, host) & capabilities.mask(["SYS_PTRACE"]))

    cgroup: list[Operation] = [OpenCgroup(hierarchy, group, pid) for hierarchy, group in groups]

    clone: list[Operation] = [
        CloneOutside(),
        HideMemory(),
        *([DieWithEngine()] if found.die_with_engine else []),
        *([SetOomScore(spec.oom_score_adj)] if spec.oom_score_adj != host.oom_score_adj else []),
        *([JoinCgroups()] if any(hierarchy.version == 1 for hierarchy, _ in groups) else []),
    ]

    enter: list[Operation] = [
        EnterContainer(host.rootless),
        LookUpUser(program.user or spec.user, program.group_add or spec.group_add),
        *([OpenTerminal(console=False)] if program.tty else []),
        ConnectStreams(),
    ]

    confine: list[Operation] = [
        LimitResources(spec.ulimits),
        EnterDirectory(program.workdir, make=False),
        CheckInterpreter(program.argv[0], found.environment),
        DropBoundingSet(host.held_capabilities & ~kept),
        ChangeUser(host.rootless, host.may_set_groups, keep_capabilities=until_filter != 0),
        SetCapabilities(kept, until_filter),
        HideMemory(),  # once more: a change of user makes a process open to its new user
        *(filtering if may_trace else []),
        BeBornInside(),
        *([DieWithEngineStill()] if found.die_with_engine else []),
        NewSession(terminal=program.tty),
        *([] if may_trace else filtering),
    ]

    return (
        Phase("cgroup", tuple(cgroup)),
        Phase("clone", tuple(clone)),
        Phase("enter", tuple(enter)),
        Phase("confine", tuple(confine)),
        Phase("exec", (Execute(program.argv, found.environment),)),
    )


class Entry(Launch):
    """One more program in a container. As a context manager it is killed, if need be, at the end."""

    def __init__(
        self,
        container_id: str,
        container_pidfd: int,
        pid_namespace: os.stat_result,
        phases: tuple[Phase, ...],
        terminal: bool,
    ) -> None:
        super().__init__(container_id)
        self._container = container_pidfd
        self._pid_namespace = pid_namespace
        self._plan = phases
        self._has_terminal = terminal

    def begin(
        self,
        stdio: tuple[int, int, int] | None = None,
        *,
        terminal_size: tuple[int, int] | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Make its process; see `Container.begin`.

        Raises:
            StartError: a step of the engine's failed. Nothing of the program is left then.
        """
        if stdio is None and not self._has_terminal:
            raise ValueError("a program without a terminal needs descriptors for its standard streams")
        self._requested = Instant.now()
        self.requested_seconds = self._requested.seconds
        try:
            self._begin(
                self._plan,
                stdio,
                terminal=self._has_terminal,
                terminal_size=terminal_size,
                observer=observer,
                container=self._container,
            )
        except BaseException:
            self.remove()
            raise

    def _may_be_ours(self, pid: int) -> bool:
        """Whether it is one of the container's processes, and be it a dead one."""
        try:
            return os.path.samestat(self._pid_namespace, os.stat(f"/proc/{pid}/ns/pid"))
        except FileNotFoundError:
            return False
