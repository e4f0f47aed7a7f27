"""What the supervisor needs of `real_engine.container`: programs begun, completed, reaped and removed."""

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from real_engine.container.container import SIGNALLED, Container
from real_engine.container.engine import Engine
from real_engine.container.entry import Entry
from real_engine.container.plain import from_plain
from real_engine.container.resources import Limits
from real_engine.container.spec import PRIVATE, ContainerSpec, ExecSpec
from real_engine.supervisor.memory_events import processes_killed

Stdio = tuple[int, int, int]


class Process:
    """A program from its clone to its removal.

    Once it runs, the plan of its start, which is large, is forgotten: what it takes to end it is little.
    """

    __slots__ = (
        "_remove_groups",
        "_runtime",
        "_shares_processes",
        "_start",
        "container_id",
        "group_paths",
        "pid",
        "pidfd",
        "report_descriptor",
        "specification",
        "terminal",
    )

    def __init__(
        self, runtime: "Runtime", start: Container | Entry, container_id: str, specification: ContainerSpec
    ) -> None:
        self.container_id = container_id
        self.specification = specification
        self.pid, self.pidfd, self.terminal = start.pid, start.pidfd, -1
        self.report_descriptor = start.report_fd
        self.group_paths: dict[str, str] = {}
        self._runtime = runtime
        self._start: Container | Entry | None = start
        self._remove_groups = isinstance(start, Container)
        # Where its processes are in a namespace of others, the end of the first doesn't end the rest.
        self._shares_processes = self._remove_groups and specification.pid != PRIVATE

    def complete(self, *, observe: bool) -> list[dict[str, Any]]:
        """Learn how the start went; returns its steps if they are to be observed.

        Raises:
            StartError: a step failed, and nothing is left.
        """
        start = self._start
        if start is None:
            return []
        start.complete()
        # Not the first one, where a program has been born again in the container.
        self.pid, self.pidfd, self.terminal = start.pid, start.pidfd, start.terminal
        if self._remove_groups:
            self.group_paths = self._runtime.engine.group_paths(self.container_id)
        steps = [asdict(step) for step in start.steps] if observe else []
        self._start = None
        return steps

    def reap(self) -> tuple[int, int]:
        """The exit status of the program, which has ended, and the signal that ended it, or 0."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        if result is None or result.si_code == os.CLD_EXITED:
            return (0 if result is None else result.si_status), 0
        return SIGNALLED + result.si_status, result.si_status

    def oom_killed(self) -> bool:
        """Whether the kernel has killed a process of the container for want of memory."""
        group = self.group_paths.get("memory")
        return group is not None and processes_killed(Path(group)) > 0

    def kill_rest(self) -> None:
        """The first program has ended: end the others of the container, where the kernel hasn't."""
        if self._shares_processes:
            self._runtime.engine.remove_cgroups(self.container_id)

    def remove(self) -> None:
        """Remove what was made for it, once it has ended or failed to start. Doing it twice does no harm."""
        if self._start is not None:
            self._start.remove()
            self._start = None
        elif self.pidfd >= 0:
            os.close(self.pidfd)
            if self._remove_groups:
                self._runtime.engine.remove_cgroups(self.container_id)
        self.pidfd = -1


class Runtime:
    """Starts containers, and programs in them, for one data root, whose cgroups have a parent of their own.

    Raises:
        EngineError: no right to use `root`, or no Linux.
    """

    def __init__(self, root: Path) -> None:
        self.engine = Engine(root, group=group_name(root))

    def sweep(self) -> None:
        """Kill and remove what a supervisor that was killed has left. (We hold the lock: all there is is left over.)"""
        self.engine.sweep_groups()

    def close(self) -> None:
        """Remove the parent of our cgroups, if nothing is left in it."""
        for hierarchy in self.engine.host.hierarchies:
            with contextlib.suppress(OSError):  # a container that could not be removed: the next sweep tries again
                hierarchy.parent.rmdir()

    def start(
        self,
        container_id: str,
        specification: ContainerSpec,
        stdio: Stdio | None,
        terminal_size: tuple[int, int] | None,
        network: int | None,
    ) -> Process:
        """Begin to start a container.

        Raises:
            EngineError: it can't be; nothing is left of it.
        """
        container = self.engine.create(specification, container_id)
        container.begin(stdio, terminal_size=terminal_size, network_namespace_fd=network)
        return Process(self, container, container_id, specification)

    def enter(
        self, inside: Process, program: ExecSpec, stdio: Stdio | None, terminal_size: tuple[int, int] | None
    ) -> Process:
        """Begin to start one more program in a container.

        Raises:
            EngineError: it can't be; nothing is left of it.
        """
        entry = self.engine.enter(inside.pidfd, inside.container_id, inside.specification, program)
        entry.begin(stdio, terminal_size=terminal_size)
        return Process(self, entry, inside.container_id, inside.specification)

    def freeze(self, container_id: str) -> None:
        """Stop all that runs in a container; see `Engine.freeze`."""
        self.engine.freeze(container_id)

    def thaw(self, container_id: str) -> None:
        """Let it go on; see `Engine.thaw`."""
        self.engine.thaw(container_id)

    def update(self, container_id: str, limits: Any) -> None:
        """Set other limits, which are given as JSON values; see `Engine.update_limits`."""
        self.engine.update_limits(container_id, from_plain(Limits, limits))


def group_name(root: Path) -> str:
    """The name of the cgroup that holds those of the containers of this data root, so that no two roots share one."""
    status = root.stat()
    return f"onggi-{status.st_dev:x}-{status.st_ino:x}"
