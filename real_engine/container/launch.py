"""A program on its way into a container, and then in it: the two halves of its start, its end, and what both took.

`begin` does the engine's part of the plan and makes the process, which goes on by itself; `complete` learns how that
went. Between the two the engine may do other things: `report_fd` becomes readable when there is something to learn.
"""

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from types import TracebackType
from typing import NoReturn, Self

from real_engine.container.attachments import AttachMount
from real_engine.container.confinement import ChangeUser, CheckInterpreter, EnterDirectory, LimitResources, LookUpUser
from real_engine.container.grouping import WriteSettings
from real_engine.container.namespaces import Clone, WriteSysctls
from real_engine.container.program import Execute
from real_engine.container.steps import Instant, Operation, Phase, PhaseTime, Site, Step, StepClock
from real_engine.errors import EngineError
from real_engine.linux import processes
from real_engine.linux.processes import BlockedSignals

CANNOT_START = 125  # the engine's own failure, as docker run reports it
CANNOT_EXECUTE = 126
NOT_FOUND = 127
SIGNALLED = 128  # plus the number of the signal

_CPUCLOCK_PROCESS = 2  # the kind of clock in the low bits of a process's CPU clock id (include/linux/posix-timers.h)
_LONGEST_REPORT = 65536  # bytes

_NO_STEPS, _NEVER = StepClock(0), Instant(0.0, 0.0)

Observer = Callable[[Operation], None]


class StartError(EngineError):
    """A program that could not be started. `status` is the exit status that docker run would give.

    `reason` is the part of Docker's message that says why, which it puts after `unable to start container process: `,
    unless `from_runtime` is False: then it is all of the message.
    """

    def __init__(
        self, message: str, status: int = CANNOT_START, reason: str | None = None, from_runtime: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = message if reason is None else reason
        self.from_runtime = from_runtime


class Launch:
    """A program that is started by a plan. As a context manager it is killed, if need be, and removed at the end.

    Attributes:
        pid: of its process, and `pidfd` a descriptor of that; 0 and -1 before there is one.
        report_fd: readable when `complete` won't have to wait; -1 when there is nothing to wait for.
        terminal: the master of its terminal, once it has started with one; whoever takes it closes it.
        status: its exit status, once it is known.
    """

    def __init__(self, name: str) -> None:
        self.id = name
        self.pid = 0
        self.pidfd = -1
        self.report_fd = -1
        self.terminal = -1
        self.requested_seconds = 0.0  # on the clock of time.perf_counter, as all times here
        self.started_seconds = 0.0
        self.status: int | None = None
        self._phases: tuple[Phase, ...] = ()
        self._operations: list[tuple[str, Operation]] = []
        self._clock = _NO_STEPS
        self._requested = _NEVER
        self._planning_cpu_seconds = 0.0
        self._channel: socket.socket | None = None

    def __enter__(self) -> Self:
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
            Step(phase, operation.describe(), operation.why, begin, end, cpu, type(operation).__name__)
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

    def complete(self) -> None:
        """Wait until the program runs.

        Raises:
            StartError: a step failed. Nothing is left then.
        """
        if self.report_fd < 0:
            return
        failure = _read_to_end(self.report_fd)
        self._close_report()
        try:
            if self._clock.sibling.value:
                self._take_sibling()
            if failure:
                index, number, message = failure.decode("utf-8", "replace").split("\n", 2)
                self._fail(int(index), int(number), message)
            last = len(self._operations) - 1
            if self._clock.read(last)[0] == 0:  # it never came to its last step, nor to a word about it
                message = "its process was killed before it could run the program (too little memory for it?)"
                raise StartError(f"cannot start the container: {message}", reason=message)
            self._take_terminal()
            self._clock.end_exec(last, _cpu_seconds(self.pid))
            self.started_seconds = self._clock.read(last)[1]
        except BaseException:
            self.remove()
            raise

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
        """Send a signal to the program; nothing if it has ended. SIGKILL ends all that runs in a container.

        As process 1 of its namespace it gets only signals that it handles, beside SIGKILL and SIGSTOP.
        """
        if self.status is None and self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):  # ended, and not yet waited for
                processes.pidfd_send_signal(self.pidfd, number)

    def remove(self) -> None:
        """Kill the program if it runs, and remove what was made for it. Doing it twice does no harm."""
        with BlockedSignals():  # a second Ctrl-C must not leave half of it behind
            if self.report_fd >= 0:
                self._close_report()  # whoever is still on the way sees that nobody waits for it
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            if self.pid:
                self._end()
                if self._clock.sibling.value:
                    self._take_sibling()  # it was being born meanwhile
                    self._end()
                self.pid = 0
            self._clean()

    def _let_go(self) -> None:
        """Let the program run, so that it can meet its end, should something keep it from running."""

    def _was_done(self, index: int) -> bool:
        return self._clock.read(index)[1] > 0

    def _clean(self) -> None:
        """Remove what was made for the program beside its process."""

    def _end(self) -> None:
        if self.status is None:
            self.kill()
            self._let_go()
            self.wait()
        os.close(self.pidfd)
        self.pidfd = -1

    def _begin(
        self,
        phases: tuple[Phase, ...],
        stdio: tuple[int, int, int] | None,
        *,
        terminal: bool,
        terminal_size: tuple[int, int] | None,
        observer: Observer | None,
        network: int | None = None,
        container: int = -1,
    ) -> None:
        """Execute the engine's part of the plan.

        Raises:
            StartError: a step failed; what the steps before it made is there until `remove`.
        """
        self._phases = phases
        self._operations = [(phase.name, operation) for phase in phases for operation in phase.operations]
        self._clock = StepClock(len(self._operations))
        self.report_fd, report = os.pipe2(os.O_CLOEXEC)
        site = Site(stdio or (-1, -1, -1), report, network, container, sibling=self._clock.sibling)
        theirs: socket.socket | None = None
        try:
            if terminal:
                self._channel, theirs = socket.socketpair()
                site.terminal_channel, site.terminal_size = theirs.fileno(), terminal_size
            with BlockedSignals(), _garbage_uncollected():
                self._execute(site, observer)
        finally:
            os.close(report)
            if theirs is not None:
                theirs.close()
            for descriptor in (site.cgroup_directory, *site.cgroup_tasks.values()):
                if descriptor is not None:
                    os.close(descriptor)

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
                births = site.births
                operation.execute(site)
                if site.pid or site.births != births:
                    self._clock.end_clone(index, site.births != births)
                    if site.pid:  # we are the engine; the container goes on without us
                        self.pid, self.pidfd = site.pid, site.pidfd
                        return
                else:
                    self._clock.end(index)
        except BaseException as error:
            if site.births:
                _report_and_exit(site.report, index, error)
            if isinstance(error, OSError):
                self._fail(index, error.errno or 0, _text(error))
            raise

    def _take_sibling(self) -> None:
        """The process that we cloned has ended, and another child of ours is in its place.

        Raises:
            StartError: the number is that of a process which isn't the program's.
        """
        if self.pidfd >= 0:
            self._end()
        # The number stands in memory that the new process shares, and who traces that could have written another.
        pid, self._clock.sibling.value = self._clock.sibling.value, 0
        self.pid, self.status = 0, None
        if not self._may_be_ours(pid):
            raise StartError(f"cannot start the program: process {pid} was given out as its own, and is not")
        self.pidfd = processes.open_child(pid)
        self.pid = pid

    def _may_be_ours(self, pid: int) -> bool:
        """Whether a process can be the one that was cloned."""
        return True

    def _take_terminal(self) -> None:
        if self._channel is not None:
            _, descriptors, _, _ = socket.recv_fds(self._channel, 64, 1, socket.MSG_DONTWAIT)
            self._channel.close()
            self._channel = None
            (self.terminal,) = descriptors
            os.set_inheritable(self.terminal, False)

    def _close_report(self) -> None:
        os.close(self.report_fd)
        self.report_fd = -1

    def _fail(self, index: int, number: int, message: str) -> NoReturn:
        operation = self._operations[index][1]
        if isinstance(operation, (Execute, CheckInterpreter)):
            status = NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else CANNOT_EXECUTE
            program = operation.argv[0] if isinstance(operation, Execute) else operation.program
            raise StartError(f"cannot run the program: {message}", status, _as_docker_says(program, number, message))
        text = f"cannot start the container: {operation.describe()}: {message}{_hint(operation, number)}"
        status, reason, from_runtime = CANNOT_START, message, True
        if isinstance(operation, LookUpUser):
            from_runtime = False
        elif isinstance(operation, EnterDirectory):
            status = CANNOT_EXECUTE
            reason = f'chdir to cwd ("{operation.path}") set in config.json failed: {os.strerror(number).lower()}'
        elif isinstance(operation, AttachMount) and number == errno.ENOTDIR:
            reason = (
                f'error mounting "{operation.mount.source}" to rootfs at "{operation.mount.target}": not a directory: '
                "Are you trying to mount a directory onto a file (or vice-versa)? "
                "Check if the specified host path exists and is the expected type"
            )
        elif isinstance(operation, ChangeUser) and number == errno.EINVAL:
            reason = f"{message.lower()}: that user or group does not exist in this user namespace (see /etc/subuid)"
        elif isinstance(operation, WriteSysctls) and number:
            status = NOT_FOUND if number == errno.ENOENT else CANNOT_START  # as Docker's command line has it
            reason = f"error during container init: {message.rpartition(': ')[0]}: {os.strerror(number).lower()}"
        elif isinstance(operation, WriteSettings) and number:
            path = message.rpartition(": ")[0]
            values = [setting.value for setting in operation.settings if setting.file == os.path.basename(path)]
            wrote = f'failed to write "{values[0] if values else ""}": write {path}: {os.strerror(number).lower()}'
            reason = f"unable to apply cgroup configuration: {wrote}"
        elif isinstance(operation, LimitResources):
            reason = f"error setting rlimits for ready process: {message}"
        raise StartError(text, status, reason, from_runtime)


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


def _cpu_seconds(pid: int) -> float:
    """What process `pid` has used; 0 if it has ended and been reaped already."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_PROCESS)
    except OSError:
        return 0.0


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
    place = ""
    step = error.__traceback__
    while step is not None:  # by hand: the traceback module reads source files, which may be the container's by now
        place = f" ({os.path.basename(step.tb_frame.f_code.co_filename)}:{step.tb_lineno})"
        step = step.tb_next
    return f"{type(error).__name__}: {error}{place}"


def _as_docker_says(program: str, number: int, message: str) -> str:
    """Why a program can't be executed, in the words of runc and Go, in which system errors begin in lower case."""
    what = os.strerror(number).lower() if number else message
    if number == errno.ENOENT and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f'exec: "{program}": stat {program}: {what}'
    if number == errno.ENOEXEC:
        return f"exec {program}: {what}"
    return f'exec: "{program}": {what}'


def _hint(operation: Operation, number: int) -> str:
    """What to do about a failure of `operation` that a machine's set-up explains."""
    if isinstance(operation, Clone) and number in (errno.EPERM, errno.ENOSPC, errno.EUSERS):
        return (
            "; the engine needs root (CAP_SYS_ADMIN), or user namespaces that ordinary users may make, outside a chroot"
        )
    return ""
