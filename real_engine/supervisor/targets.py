"""What clients attach to: a container's program, or one that is executed in it, with its streams and its end.

The order at an end is the point. All that the program wrote is read and logged first; then the end is told; and the
clients' connections are closed only when the daemon has acknowledged it, so that a client which asks the daemon how it
went as soon as its connection ends gets the answer.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from real_engine.errors import Conflict, InvalidParameter, NotFound
from real_engine.linux import processes, terminals
from real_engine.supervisor.attachments import Attachment
from real_engine.supervisor.escape import DEFAULT_DETACH_KEYS
from real_engine.supervisor.events import Detached, Event, Exited, LogFailed, LogRecovered
from real_engine.supervisor.log_options import LogOptions
from real_engine.supervisor.log_writer import LogWriter
from real_engine.supervisor.loop import READABLE, Loop, Timer
from real_engine.supervisor.runtime import Process, Stdio
from real_engine.supervisor.streams import Input, Output

# How long the streams are read after the program's end while somebody else keeps them open, a background process of an
# exec for example. Docker's time (moby, daemon/monitor.go).
STREAMS_SECONDS = 2.0
# How long a connected daemon has to acknowledge an end before the clients' connections are closed all the same.
ACKNOWLEDGE_SECONDS = 3.0

CREATED, STARTING, RUNNING, EXITED = "created", "starting", "running", "exited"


class Host(Protocol):
    """What a target needs of the supervisor."""

    loop: Loop

    @property
    def daemon_listens(self) -> bool:
        """Whether a daemon is connected."""

    def tell(self, event: Event) -> None:
        """Tell the daemon, if there is one."""

    def ended(self, target: "Target", end: Exited) -> None:
        """The target has ended: keep that, and tell it."""

    def attachments_changed(self, by: int) -> None:
        """So many more clients are attached."""

    def abandoned(self, target: "Target") -> None:
        """The last client of a target that was never started has gone: nobody needs it any more."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Which streams a program gets, and if the steps of its start are to be told. `terminal_size` is rows, columns."""

    stdin: bool
    stdin_once: bool
    tty: bool
    terminal_size: tuple[int, int] | None = None
    log: LogOptions | None = None
    observe: bool = False


class Target:
    """One program. It can be attached to before it starts, so that nothing of its output is missed."""

    def __init__(self, host: Host, target_id: str, container_id: str) -> None:
        self.id, self.container_id = target_id, container_id
        self.state = CREATED
        self.process: Process | None = None
        self.started_at = 0
        self.end: Exited | None = None
        self.paused = False
        self.memory_exceeded = False
        self._host = host
        self._options = StartOptions(False, False, False)
        self._attachments: list[tuple[Attachment, bytes]] = []
        self._outputs: list[Output] = []
        self._input: Input | None = None
        self._terminal = -1
        self._log: LogWriter | None = None
        self._streams_timer: Timer | None = None
        self._acknowledge_timer: Timer | None = None
        self._streams_closed = False
        self._streams_over = False
        self._acknowledged = False

    @property
    def is_exec(self) -> bool:
        """Whether it is executed in a container, and isn't the container's own program."""
        return self.id != self.container_id

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self.state == RUNNING

    @property
    def lives(self) -> bool:
        """Whether its process is there, so that the number of that is nobody else's."""
        try:
            processes.pidfd_send_signal(self._running_process().pidfd, 0)
        except (NotFound, ProcessLookupError):
            return False
        return True

    def attach(
        self,
        connection: int,
        *,
        streams: frozenset[str],
        stdin: bool,
        framed: bool,
        detach_keys: bytes,
        pending_input: bytes,
    ) -> None:
        """Attach a client by its connection, which is ours from now on.

        Raises:
            Conflict: the program has ended.
            InvalidParameter: it is no connection.
        """
        if self.state == EXITED:
            os.close(connection)
            raise Conflict(f"{self._name} has ended")
        try:
            attachment = Attachment(
                self._host.loop,
                connection,
                self,
                streams=streams,
                stdin=stdin,
                framed=framed,
                pending_input=pending_input,
            )
        except OSError as error:
            os.close(connection)
            if self.state == CREATED and not self._attachments:
                self._host.abandoned(self)
            raise InvalidParameter(f"a client is attached by its connection: {error.strerror}") from error
        self._host.attachments_changed(1)
        self._attachments.append((attachment, detach_keys))
        if self.state == RUNNING:
            self._begin(attachment, detach_keys)

    def start(
        self,
        options: StartOptions,
        begin: Callable[[Stdio | None], Process],
        done: Callable[[list[dict[str, Any]], BaseException | None], None],
        work: Callable[[Iterator[None]], None],
    ) -> None:
        """Start the program: `begin` is called with its standard streams (None: it gets a terminal).

        `done` is called when it runs, with the steps of the start, or with the reason why it doesn't.

        Raises:
            EngineError: it cannot even be begun; nothing is left of it, and clients are let go.
        """
        theirs: list[int] = []
        ours: list[tuple[str, int]] = []
        try:
            self._options = options
            if options.log is not None and options.log.driver != "none":
                self._log = self._open_log(options.log, work)
            stdio = None
            if not options.tty:
                stdio = self._make_pipes(options.stdin, theirs, ours)
            self.state = STARTING
            self.process = begin(stdio)
        except BaseException:
            _close_all(ours)
            self._fail()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        process = self.process

        def complete(_: int) -> None:
            self._host.loop.forget(process.report_descriptor)
            try:
                steps = process.complete(observe=options.observe)
                self.started_at = time.time_ns()
                self._take_streams(ours)
            except Exception as error:
                _close_all(ours)
                process.remove()
                self._fail()
                done([], error)
                return
            self.state = RUNNING
            self._host.loop.watch(process.pidfd, READABLE, self._program_ended)
            done(steps, None)
            for attachment, keys in list(self._attachments):
                self._begin(attachment, keys)

        self._host.loop.watch(process.report_descriptor, READABLE, complete)

    def signal(self, number: int) -> None:
        """Send a signal to the program.

        Raises:
            NotFound: it doesn't run.
        """
        try:
            processes.pidfd_send_signal(self._running_process().pidfd, number)
        except ProcessLookupError as error:
            raise NotFound(f"{self._name} is not running") from error

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal; the program gets SIGWINCH.

        Raises:
            NotFound: it doesn't run.
        """
        self._running_process()
        if self._terminal >= 0:  # without one it is no error, as with Docker
            terminals.set_size(self._terminal, rows, columns)

    def close_stdin(self) -> None:
        """Let the program read the end of its input."""
        if self._input is not None and not self._options.tty:
            self._input.end()

    def acknowledge(self) -> None:
        """The daemon knows of the end; or it wants no more of a program that never started."""
        self._acknowledged = True
        if self.state == CREATED:
            self._give_up()
        else:
            self._let_go()

    def kill(self) -> None:
        """Kill the program, if it runs or is about to."""
        if self.process is not None and self.state in (STARTING, RUNNING):
            try:
                processes.pidfd_send_signal(self.process.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return  # that is what was wanted

    # --- what attachments tell (attachments.Program) -----------------------------------------------------------------

    def typed(self, data: bytes) -> bool:
        """A client has sent input."""
        if self._input is None:
            return True
        self._input.write(data)
        return not self._input.full

    def input_ended(self, attachment: Attachment) -> None:
        """A client sends no more. With StdinOnce that is the end of the program's input.

        Without, or with a terminal, its session ends, and the next client's input goes on (moby, stream/attach.go).
        """
        if self._options.stdin_once and not self._options.tty:
            if self._input is not None:
                self._input.end()
        elif self.state != CREATED:
            attachment.end()

    def detach(self, attachment: Attachment) -> None:
        """A client has typed the detach keys."""
        self._host.tell(Detached(self.id, self.container_id))

    def relieved(self) -> None:
        """A client has taken what was kept for it."""
        for output in self._outputs:
            if not any(attachment.full and attachment.wants(output.name) for attachment, _ in self._attachments):
                output.resume()

    def left(self, attachment: Attachment) -> None:
        """A client has gone."""
        self._attachments = [each for each in self._attachments if each[0] is not attachment]
        self._host.attachments_changed(-1)
        if self.state == CREATED and not self._attachments:
            self._host.abandoned(self)
        self.relieved()

    # --- streams -----------------------------------------------------------------------------------------------------

    def _make_pipes(self, stdin: bool, theirs: list[int], ours: list[tuple[str, int]]) -> Stdio:
        """The program's standard streams; our ends come to `ours`."""
        if stdin:
            receive, send = os.pipe2(os.O_CLOEXEC)
            ours.append(("stdin", send))
        else:
            receive = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        theirs.append(receive)
        for name in ("stdout", "stderr"):
            receive, send = os.pipe2(os.O_CLOEXEC)
            theirs.append(send)
            ours.append((name, receive))
        return theirs[0], theirs[1], theirs[2]

    def _take_streams(self, ours: list[tuple[str, int]]) -> None:
        """The program runs: read what it writes."""
        loop = self._host.loop
        if self._options.tty:
            if self.process is None or self.process.terminal < 0:
                raise RuntimeError(f"{self._name} runs without the terminal that it was to have")
            self._terminal = self.process.terminal
            # A second descriptor, since one can be watched only once, and writing waits apart from reading.
            self._input = Input(loop, os.dup(self._terminal), self._input_drained)
            output = os.dup(self._terminal)
            self._outputs.append(Output(loop, output, "stdout", self._written, self._output_ended, terminal=True))
            return
        while ours:
            name, descriptor = ours.pop(0)
            if name == "stdin":
                self._input = Input(loop, descriptor, self._input_drained)
            else:
                self._outputs.append(Output(loop, descriptor, name, self._written, self._output_ended, terminal=False))

    def _begin(self, attachment: Attachment, detach_keys: bytes) -> None:
        keys = (detach_keys or DEFAULT_DETACH_KEYS) if self._options.tty else None
        attachment.begin(keys)

    def _written(self, stream: str, data: memoryview) -> None:
        """The program has written: to the log, and to all who are attached."""
        if self._log is not None:
            self._log.write(stream, data)
        full = False
        for attachment, _ in tuple(self._attachments):
            if attachment.wants(stream):
                attachment.send(stream, data)
                full = full or attachment.full
        if full and self.state == RUNNING:
            for output in self._outputs:
                if output.name == stream:
                    output.pause()

    def _input_drained(self) -> None:
        for attachment, _ in self._attachments:
            attachment.take_input(True)

    def _output_ended(self) -> None:
        if self.state == EXITED and not any(output.open for output in self._outputs):
            self._finish_streams()

    def _log_failed(self, message: str) -> None:
        self._host.tell(LogFailed(self.container_id, message))

    def _log_recovered(self, dropped: int) -> None:
        self._host.tell(LogRecovered(self.container_id, dropped))

    # --- the end -----------------------------------------------------------------------------------------------------

    def _program_ended(self, _: int) -> None:
        process = self._running_process()
        self._host.loop.forget(process.pidfd)
        status, number = process.reap()
        oom_killed = process.oom_killed() or self.memory_exceeded if not self.is_exec else False
        self.end = Exited(self.id, self.container_id, status, number, oom_killed, self.started_at, time.time_ns())
        self.state = EXITED
        process.kill_rest()
        for output in tuple(self._outputs):
            output.drain()
        if self.is_exec:
            self._report()
        if not any(output.open for output in self._outputs):
            self._finish_streams()
        elif not self._streams_closed:
            self._streams_timer = self._host.loop.call_later(STREAMS_SECONDS, self._finish_streams)

    def _finish_streams(self) -> None:
        """No more is read of what the program, or who has its streams, wrote."""
        if self._streams_closed:
            return
        self._streams_closed = True
        if self._streams_timer is not None:
            self._streams_timer.cancel()
        self._close_streams(self._output_kept)

    def _output_kept(self) -> None:
        """All that was read is in the log, or dropped."""
        self._streams_over = True
        if not self.is_exec:
            self._report()
        self._let_go()

    def _report(self) -> None:
        if self.end is None or self.process is None:
            return
        self._host.ended(self, self.end)
        # After it was told, for it takes longer; before the next request, which may be to start it again.
        self.process.remove()
        if self._host.daemon_listens:
            self._acknowledge_timer = self._host.loop.call_later(ACKNOWLEDGE_SECONDS, self.daemon_silent)
        else:
            self._acknowledged = True

    def daemon_silent(self) -> None:
        """The daemon has gone, or takes too long: let the clients go."""
        self._acknowledged = True
        self._let_go()

    def _let_go(self) -> None:
        if not (self._acknowledged and self._streams_over):
            return
        if self._acknowledge_timer is not None:
            self._acknowledge_timer.cancel()
        for attachment, _ in tuple(self._attachments):
            attachment.end()

    def _fail(self) -> None:
        """Its start has failed. The daemon may write why to the clients of an exec, so they are kept until it has."""
        self.state = EXITED
        self._streams_closed = self._streams_over = True
        self._close_streams()
        if self.is_exec and self._host.daemon_listens:
            self._acknowledge_timer = self._host.loop.call_later(ACKNOWLEDGE_SECONDS, self.daemon_silent)
        else:
            self._acknowledged = True
        self._let_go()

    def _give_up(self) -> None:
        """It won't be started: nothing of it is left."""
        self.state = EXITED
        self._streams_closed = self._streams_over = self._acknowledged = True
        self._close_streams()
        self._let_go()

    def _open_log(self, options: LogOptions, work: Callable[[Iterator[None]], None]) -> LogWriter:
        if options.buffer_bytes is None:
            return LogWriter(options, failed=self._log_failed, recovered=self._log_recovered, work=work)
        from real_engine.supervisor.log_buffer import BufferedLogWriter  # with threads, which nothing else here needs

        return BufferedLogWriter(options, failed=self._log_failed, recovered=self._log_recovered, loop=self._host.loop)

    def _close_streams(self, done: Callable[[], None] | None = None) -> None:
        """Read and write no more; `done` is called when the log is whole."""
        for output in self._outputs:
            output.close()
        if self._input is not None:
            self._input.close()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        log, self._log = self._log, None
        if log is not None:
            log.close(done)
        elif done is not None:
            done()

    def _running_process(self) -> Process:
        if self.process is None or self.state != RUNNING:
            raise NotFound(f"{self._name} is not running")
        return self.process

    @property
    def _name(self) -> str:
        return f"exec {self.id}" if self.is_exec else f"container {self.id}"


def _close_all(streams: list[tuple[str, int]]) -> None:
    while streams:
        os.close(streams.pop()[1])
