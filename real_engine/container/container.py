"""A container that runs: its start, its end, and what is known about both."""

import contextlib
import errno
import gc
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property
from types import TracebackType
from typing import NoReturn

from real_engine.container.confinement import CheckInterpreter, Clone, Execute
from real_engine.container.state import StateDirectory
from real_engine.container.steps import Instant, Operation, Phase, PhaseTime, Site, Step, StepClock
from real_engine.errors import EngineError
from real_engine.linux import cgroups, processes
from real_engine.linux.cgroups import Hierarchy
from real_engine.linux.processes import BlockedSignals

CANNOT_START = 125  # the engine's own failure, as docker run reports it
CANNOT_EXECUTE = 126
NOT_FOUND = 127
SIGNALLED = 128  # plus the number of the signal

_CPUCLOCK_PROCESS = 2  # the kind of clock in the low bits of a process's CPU clock id (include/linux/posix-timers.h)
_LONGEST_REPORT = 65536  # bytes

Observer = Callable[[Operation], None]


class StartError(EngineError):
    """A container that could not be started. `status` is the exit status that docker run would give."""

    def __init__(self, message: str, status: int = CANNOT_START) -> None:
        super().__init__(message)
        self.status = status


class Container:
    """A container that has been started. As a context manager it is killed, if need be, and removed at the end."""

    def __init__(
        self,
        state: StateDirectory,
        phases: tuple[Phase, ...],
        hierarchies: tuple[Hierarchy, ...],
        requested: Instant,
    ) -> None:
        self.id = state.id
        self.pid = 0
        self.pidfd = -1
        self.requested_seconds = requested.seconds  # on the clock of time.perf_counter, as all times here
        self.started_seconds = 0.0
        self.status: int | None = None
        self._state = state
        self._hierarchies = hierarchies
        self._phases = phases
        self._operations = [(phase.name, operation) for phase in phases for operation in phase.operations]
        self._clock = StepClock(len(self._operations))
        self._requested = requested
        self._planning_cpu_seconds = 0.0

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every step of the start, in order, with its times."""
        times = [self._clock.read(index) for index in range(len(self._operations))]
        return tuple(
            Step(phase, operation.describe(), operation.why, begin, end, cpu)
            for (phase, operation), (begin, end, cpu) in zip(self._operations, times, strict=True)
        )

    @cached_property
    def phases(self) -> tuple[PhaseTime, ...]:
        """The phases of the start. The first begins with the request, and the last ends when the program runs.

        So the first holds what the engine does before its first step: it makes the plan.
        """
        found: list[PhaseTime] = []
        begin, earlier_cpu = self.requested_seconds, self._planning_cpu_seconds
        named = [(phase, [step for step in self.steps if step.phase == phase.name]) for phase in self._phases]
        for phase, steps in [(phase, steps) for phase, steps in named if steps]:
            end = max(begin, steps[-1].end_seconds)
            found.append(PhaseTime(phase.name, begin, end, earlier_cpu + sum(step.cpu_seconds for step in steps)))
            begin, earlier_cpu = end, 0.0
        return tuple(found)

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait until the program has ended; returns its exit status, or 128 + the signal that ended it.

        Raises:
            TimeoutError: it still runs after `timeout_seconds`.
        """
        if self.status is None:
            if timeout_seconds is not None:
                poll = select.poll()
                poll.register(self.pidfd, select.POLLIN)
                if not poll.poll(timeout_seconds * 1000):
                    raise TimeoutError(f"container {self.id} still runs after {timeout_seconds} s")
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            if result is None:
                raise EngineError(f"container {self.id}: the kernel reports no end of process {self.pid}")
            ended_by_itself = result.si_code == os.CLD_EXITED
            self.status = result.si_status if ended_by_itself else SIGNALLED + result.si_status
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the program; nothing if it has ended. SIGKILL ends all that runs in the container.

        As process 1 of its namespace it gets only signals that it handles, beside SIGKILL and SIGSTOP.
        """
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):  # ended, and not yet waited for
                processes.pidfd_send_signal(self.pidfd, number)

    def remove(self) -> None:
        """Kill the container if it runs, and remove its cgroups and directories. Doing it twice does no harm."""
        with BlockedSignals():  # a second Ctrl-C must not leave half of it behind
            if self.pid:
                if self.status is None:
                    self.kill()
                    self.wait()
                os.close(self.pidfd)
                self.pid = 0
            if self._state.lock >= 0:
                remove_cgroups(self._hierarchies, self.id)
                self._state.remove()

    def start(self, stdio: tuple[int, int, int], observer: Observer | None) -> None:
        """Execute the plan: our part of it here, and from the clone on in the container's process.

        Raises:
            StartError: a step failed; what the steps before it made is there until `remove`.
        """
        receive, report = os.pipe2(os.O_CLOEXEC)
        site = Site(stdio, report)
        try:
            with BlockedSignals(), _garbage_uncollected():
                self._execute(site, observer)
            os.close(report)
            report = -1
            failure = _read_to_end(receive)
        finally:
            os.close(receive)
            if report >= 0:
                os.close(report)
            for descriptor in (site.cgroup_directory, *site.cgroup_tasks.values()):
                if descriptor is not None:
                    os.close(descriptor)
        if failure:
            index, number, message = failure.decode("utf-8", "replace").split("\n", 2)
            self._fail(int(index), int(number), message)
        last = len(self._operations) - 1
        self._clock.end_exec(last, time.clock_gettime(~self.pid << 3 | _CPUCLOCK_PROCESS))
        self.started_seconds = self._clock.read(last)[1]

    def _execute(self, site: Site, observer: Observer | None) -> None:
        index = 0
        self._planning_cpu_seconds = Instant.now().cpu_seconds - self._requested.cpu_seconds
        try:
            last = len(self._operations) - 1
            for index, (_, operation) in enumerate(self._operations):
                if observer is not None:
                    observer(operation)
                if index == last:
                    self._clock.begin_exec(index)
                else:
                    self._clock.begin()
                was_inside = site.in_container
                operation.execute(site)
                if site.pid or site.in_container != was_inside:
                    self._clock.end_clone(index, site.in_container)
                    if site.pid:  # we are the engine; the container goes on without us
                        self.pid, self.pidfd = site.pid, site.pidfd
                        return
                else:
                    self._clock.end(index)
        except BaseException as error:
            if site.in_container:
                _report_and_exit(site.report, index, error)
            if isinstance(error, OSError):
                self._fail(index, error.errno or 0, _text(error))
            raise

    def _fail(self, index: int, number: int, message: str) -> NoReturn:
        operation = self._operations[index][1]
        if isinstance(operation, (Execute, CheckInterpreter)):
            status = NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else CANNOT_EXECUTE
            raise StartError(f"cannot run the program: {message}", status)
        raise StartError(f"cannot start the container: {operation.describe()}: {message}{_hint(operation, number)}")


def remove_cgroups(hierarchies: tuple[Hierarchy, ...], container_id: str) -> None:
    """Kill what runs in the cgroups of a container, and remove them."""
    for hierarchy in hierarchies:
        group = hierarchy.parent / container_id
        if group.exists():
            cgroups.kill(group)
            cgroups.remove(group)


@contextlib.contextmanager
def _garbage_uncollected() -> Iterator[None]:
    """Keep Python's garbage collector from running: in the child it would copy every page that it looks at."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_to_end(descriptor: int) -> bytes:
    """What the container's process writes until its end is closed: by execve, after nothing, or why it failed."""
    parts = []
    while part := os.read(descriptor, _LONGEST_REPORT):
        parts.append(part)
    return b"".join(parts)


def _report_and_exit(report: int, index: int, error: BaseException) -> NoReturn:
    """In the container's process: tell the engine which step failed and why, and end without any more of its code."""
    try:
        number = error.errno or 0 if isinstance(error, OSError) else 0
        os.write(report, f"{index}\n{number}\n{_text(error)}".encode("utf-8", "replace"))
    finally:
        os._exit(CANNOT_START)


def _text(error: BaseException) -> str:
    """What happened, in a line; for what only a bug can raise, where it happened too."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(frame.filename)}:{frame.lineno})"


def _hint(operation: Operation, number: int) -> str:
    """What to do about a failure of `operation` that a machine's set-up explains."""
    if isinstance(operation, Clone) and number in (errno.EPERM, errno.ENOSPC, errno.EUSERS):
        return (
            "; the engine needs root (CAP_SYS_ADMIN), or user namespaces that ordinary users may make, outside a chroot"
        )
    return ""
