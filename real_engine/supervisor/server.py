"""The supervisor itself: does what the daemon asks for, and tells it what happens."""

import contextlib
import fcntl
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from real_engine.container.container import StartError
from real_engine.container.spec import ContainerSpec, ExecSpec
from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.supervisor.connection import Connection
from real_engine.supervisor.events import Event, Exited, OutOfMemory, Replaced
from real_engine.supervisor.exit_record import remove_exit, write_exit
from real_engine.supervisor.log_options import LogOptions
from real_engine.supervisor.loop import READABLE, Loop
from real_engine.supervisor.memory_events import MemoryEvents
from real_engine.supervisor.protocol import LOCK, SOCKET, VERSION, Message, listen
from real_engine.supervisor.runtime import Process, Runtime, Stdio
from real_engine.supervisor.targets import CREATED, StartOptions, Target

IDLE_SECONDS = 10.0  # without a container and after a daemon that was killed, until the supervisor ends
_GREETING_SECONDS = 5.0
_NAMESPACE_OF = re.compile(r"/proc/(\d{1,10})/ns/(\w+)")

Reply = Callable[[Any], None]
Fail = Callable[[BaseException], None]


class AlreadyRunning(EngineError):
    """Another supervisor holds this data root."""


class Supervisor:
    """Holds the containers of the data root `root`, and listens on `root/run/supervisor.sock` (mode 0600).

    Raises:
        AlreadyRunning: another does so.
        EngineError: containers can't be run here.
        OSError: the data root can't be used.
    """

    def __init__(self, root: Path, idle_seconds: float = IDLE_SECONDS) -> None:
        self.root = root
        self.loop = Loop()
        run = root / "run"
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = _lock(run / LOCK)
        self._runtime = Runtime(root)
        self._runtime.sweep()
        # Those that are to start or run, and those whose end hasn't been acknowledged. An id can be in both: clients
        # may attach for the next run before the daemon has taken note of the end of the last.
        self._targets: dict[str, Target] = {}
        self._ended: dict[str, Target] = {}
        self._daemon: Connection | None = None
        self._attached = 0
        self._idle_seconds = idle_seconds
        self._idle_since = time.monotonic()
        self._left = False  # by a daemon that has ended in order, and did not just vanish
        self._ending: list[Reply] = []
        self._asked_to_end = False
        self._memory = MemoryEvents(self.loop, self._out_of_memory)
        self._requests: dict[str, Callable[[Message, list[int], Reply, Fail], None]] = {
            "start": self._start,
            "exec": self._exec,
            "attach": self._attach,
            "signal": self._signal,
            "resize": self._resize,
            "close-stdin": self._close_stdin,
            "pause": self._pause,
            "unpause": self._unpause,
            "update": self._update,
            "acknowledge": self._acknowledge,
            "list": self._list,
            "leave": self._leave,
            "shutdown": self._shutdown,
        }
        self._listener = listen(self._directory, SOCKET)

    def run(self) -> None:
        """Go on until asked to end, or until there is nothing to do for a while."""
        self.loop.watch(self._listener.fileno(), READABLE, self._accept)
        self._watch_signals()
        self.loop.call_later(self._idle_seconds, self._end_when_idle)
        self.loop.run()
        self._runtime.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=self._directory)

    # --- what targets need (targets.Host) ----------------------------------------------------------------------------

    @property
    def daemon_listens(self) -> bool:
        """Whether a daemon is connected."""
        return self._daemon is not None

    def tell(self, event: Event) -> None:
        """Tell the daemon, if there is one."""
        if self._daemon is not None:
            self._daemon.send(event.to_json())

    def ended(self, target: Target, end: Exited) -> None:
        """A program has ended: keep that, and tell it."""
        if not target.is_exec:
            self._memory.forget(target.id)
            try:
                write_exit(self.root / "containers" / target.id, end, to_disk=not self.daemon_listens)
            except OSError as error:
                _log(f"cannot write how container {target.id} ended: {error}")
        if self._targets.get(target.id) is target:
            del self._targets[target.id]
        self._acknowledged(target.id)
        self._ended[target.id] = target
        self.tell(end)
        self._notice_idleness()
        if self._asked_to_end:
            self.loop.call_later(0, self._end_when_all_have)

    def attachments_changed(self, by: int) -> None:
        """So many more clients are attached."""
        self._attached += by

    def abandoned(self, target: Target) -> None:
        """Nobody needs a target that was never started any more."""
        self._remove(target)

    # --- connections -------------------------------------------------------------------------------------------------

    def _accept(self, _: int) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        connection = Connection(self.loop, accepted, self._took, self._disconnected)

        def too_late() -> None:
            if not connection.greeted:
                connection.close()

        self.loop.call_later(_GREETING_SECONDS, too_late)

    def _disconnected(self, connection: Connection) -> None:
        if connection is not self._daemon:
            return
        self._daemon = None
        for target in list(self._ended.values()):
            target.daemon_silent()
        self._notice_idleness()

    def _greet(self, connection: Connection, message: Message) -> None:
        if message.get("hello") != VERSION:
            text = f"the supervisor of {self.root} speaks version {VERSION} of the protocol; stop its containers first"
            connection.send({"hello": VERSION, "error": text})
            connection.close()
            return
        connection.greeted = True
        before, self._daemon, self._left = self._daemon, connection, False
        connection.send({"hello": VERSION, "pid": os.getpid()})
        if before is not None:
            before.send(Replaced().to_json())
            before.close()

    def _took(self, connection: Connection, message: Message, descriptors: list[int]) -> None:
        """Do what a message asks for. A handler takes out of `descriptors` what it keeps."""
        try:
            if not connection.greeted:
                self._greet(connection, message)
                return
            number = message.get("id")

            def reply(result: Any) -> None:
                connection.send({"id": number, "result": result})

            def fail(error: BaseException) -> None:
                connection.send({"id": number, "error": _error_to_json(error)})

            handler = self._requests.get(str(message.get("call")))
            try:
                if handler is None:
                    raise InvalidParameter(f"the supervisor knows no call `{message.get('call')}`")
                handler(message, descriptors, reply, fail)
            except Exception as error:
                fail(error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _start(self, message: Message, descriptors: list[int], reply: Reply, fail: Fail) -> None:
        container_id = _identifier(message["container"])
        if self._asked_to_end:
            raise Conflict("the supervisor is ending")
        specification = ContainerSpec.from_json(message["spec"])
        self._check_joined(specification)
        target = self._fresh(container_id, container_id)
        log = message["log"]
        options = StartOptions(
            stdin=message["open_stdin"],
            stdin_once=message["stdin_once"],
            tty=specification.tty,
            terminal_size=_size(message["terminal_size"]),
            log=None if log is None else LogOptions(**log),
            observe=message["observe"],
        )
        network = descriptors[0] if descriptors else None

        def begin(stdio: Stdio | None) -> Process:
            return self._runtime.start(container_id, specification, stdio, options.terminal_size, network)

        def started(process: Process) -> Message:
            if specification.limits.memory_bytes is not None and "memory" in process.group_paths:
                self._memory.watch(container_id, Path(process.group_paths["memory"]))
            return {"group_paths": process.group_paths}

        with contextlib.suppress(OSError):
            remove_exit(self.root / "containers" / container_id)
        self._launch(target, options, begin, started, reply, fail)

    def _exec(self, message: Message, _: list[int], reply: Reply, fail: Fail) -> None:
        container = self._running(message["container"])
        if container.process is None:
            raise NotFound(f"container {container.id} is not running")
        inside = container.process
        if container.paused:
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        program = ExecSpec.from_json(message["spec"])
        target = self._fresh(_identifier(message["exec"]), container.id)
        options = StartOptions(
            stdin=message["stdin"],
            stdin_once=True,
            tty=program.tty,
            terminal_size=_size(message["terminal_size"]),
            observe=message["observe"],
        )

        def begin(stdio: Stdio | None) -> Process:
            return self._runtime.enter(inside, program, stdio, options.terminal_size)

        self._launch(target, options, begin, lambda _: {}, reply, fail)

    def _launch(
        self,
        target: Target,
        options: StartOptions,
        begin: Callable[[Stdio | None], Process],
        started: Callable[[Process], Message],
        reply: Reply,
        fail: Fail,
    ) -> None:
        """Start a program, and answer when it runs; `started` adds to the answer."""

        def done(steps: list[dict[str, Any]], error: BaseException | None) -> None:
            if error is not None or target.process is None:
                self._failed(target)
                fail(error or RuntimeError("no process has been started"))
                return
            process = target.process
            answer = {"pid": process.pid, "started_at": target.started_at, "steps": steps}
            reply(answer | started(process))

        try:
            target.start(options, begin, done, self.loop.work)
        except BaseException:
            self._failed(target)
            raise

    def _attach(self, message: Message, descriptors: list[int], reply: Reply, _: object) -> None:
        target_id = _identifier(message["target"])
        if len(descriptors) != 1:
            raise InvalidParameter("a client is attached by its connection")
        target = self._targets.get(target_id)
        if target is None:
            # Of one that isn't known we can't say yet whose it is; `start` and `exec` do.
            target = self._targets[target_id] = Target(self, target_id, target_id)
        streams = frozenset(name for name in ("stdout", "stderr") if message[name])
        target.attach(
            descriptors.pop(),
            streams=streams,
            stdin=message["stdin"],
            framed=message["framed"],
            detach_keys=bytes.fromhex(message["detach_keys"]),
            pending_input=bytes.fromhex(message["pending_input"]),
        )
        reply(None)

    def _signal(self, message: Message, _: list[int], reply: Reply, __: object) -> None:
        self._known(message["target"]).signal(int(message["number"]))
        reply(None)

    def _resize(self, message: Message, _: list[int], reply: Reply, __: object) -> None:
        self._known(message["target"]).resize(int(message["rows"]), int(message["columns"]))
        reply(None)

    def _close_stdin(self, message: Message, _: list[int], reply: Reply, __: object) -> None:
        self._known(message["target"]).close_stdin()
        reply(None)

    def _pause(self, message: Message, _: list[int], reply: Reply, __: object) -> None:
        target = self._running(message["container"])
        self._runtime.freeze(target.id)
        target.paused = True
        reply(None)

    def _unpause(self, message: Message, _: list[int], reply: Reply, __: object) -> None:
        target = self._running(message["container"])
        self._runtime.thaw(target.id)
        target.paused = False
        reply(None)

    def _update(self, message: Message, _: list[int], reply: Reply, __: object) -> None:
        self._runtime.update(self._running(message["container"]).id, message["limits"])
        reply(None)

    def _acknowledge(self, message: Message, _: list[int], reply: Reply, __: object) -> None:
        target_id = message["target"]
        target = self._targets.get(target_id)
        if not self._acknowledged(target_id) and target is not None and target.state == CREATED:
            target.acknowledge()
            self._remove(target)
        reply(None)

    def _list(self, _: Message, __: list[int], reply: Reply, ___: object) -> None:
        reply([_entry(target) for target in (*self._targets.values(), *self._ended.values())])

    def _leave(self, _: Message, __: list[int], reply: Reply, ___: object) -> None:
        self._left = True
        reply(None)

    def _shutdown(self, _: Message, __: list[int], reply: Reply, ___: object) -> None:
        self._asked_to_end = True
        self._ending.append(reply)
        for target in self._targets.values():
            target.kill()
        for target in self._targets.values():
            if target.paused:  # on cgroup v1 the frozen meet their end only when they go on
                self._runtime.thaw(target.id)
        self._end_when_all_have()

    # --- what they need ----------------------------------------------------------------------------------------------

    def _check_joined(self, specification: ContainerSpec) -> None:
        """See that the namespaces to join are those of programs that run here, or of what never ends by itself.

        The daemon names them by a process. When that has ended its number may be another's, with the host's namespaces;
        but until we have taken note of the end, which we do not while this is done, nobody else can have it.

        Raises:
            Conflict: the process has ended.
        """
        pids = {target.process.pid for target in self._targets.values() if target.process is not None and target.lives}
        for place in (specification.pid, specification.ipc, specification.uts, specification.network):
            named = _NAMESPACE_OF.fullmatch(place)
            if named is not None and int(named[1]) not in pids:
                raise Conflict(f"cannot join {named[2]} of a non running container")

    def _fresh(self, target_id: str, container_id: str) -> Target:
        """The target to start: the one that clients were attached to before, or a new one.

        Raises:
            Conflict: it runs.
        """
        target = self._targets.get(target_id)
        if target is not None and target.state != CREATED:
            raise Conflict(f"{target_id} is already running")
        self._acknowledged(target_id)  # who starts it again knows that it has ended
        if target is None:
            target = self._targets[target_id] = Target(self, target_id, container_id)
        target.container_id = container_id
        return target

    def _known(self, target_id: str) -> Target:
        target = self._targets.get(target_id)
        if target is None:
            raise NotFound(f"{target_id} is not running")
        return target

    def _running(self, container_id: str) -> Target:
        target = self._known(container_id)
        if not target.running or target.is_exec:
            raise NotFound(f"container {container_id} is not running")
        return target

    def _acknowledged(self, target_id: str) -> bool:
        """The end of the last run is known; whether there was one to be known."""
        target = self._ended.pop(target_id, None)
        if target is not None:
            target.acknowledge()
        return target is not None

    def _failed(self, target: Target) -> None:
        """Its start has failed; clients of an exec stay until the daemon has acknowledged that."""
        self._remove(target)
        if target.is_exec:
            self._ended[target.id] = target

    def _remove(self, target: Target) -> None:
        if self._targets.get(target.id) is target:
            del self._targets[target.id]
        self._notice_idleness()

    def _out_of_memory(self, container_id: str) -> None:
        target = self._targets.get(container_id)
        if target is not None:
            target.memory_exceeded = True
            self.tell(OutOfMemory(container_id))

    # --- the supervisor's own end ------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        return any(target.state != CREATED for target in self._targets.values())

    def _notice_idleness(self) -> None:
        self._idle_since = time.monotonic()
        if self._daemon is None:
            self.loop.call_later(0 if self._left else self._idle_seconds, self._end_when_idle)

    def _end_when_idle(self) -> None:
        """Ends that nobody has acknowledged don't keep us: they are on disk."""
        if self._daemon is not None or self._busy:
            return
        rest = 0 if self._left else self._idle_since + self._idle_seconds - time.monotonic()
        if self._attached:  # who reads slowly gets what is left
            rest = max(rest, self._idle_seconds)
        if rest > 0:
            self.loop.call_later(rest, self._end_when_idle)
        else:
            self.loop.stop()

    def _end_when_all_have(self) -> None:
        if self._busy:
            return
        for reply in self._ending:
            reply(None)
        self.loop.stop()

    def _watch_signals(self) -> None:
        """SIGTERM ends us when there is no container; other signals of a terminal or a session don't."""
        receive, send = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(send, warn_on_full_buffer=False)

        def ready(_: int) -> None:
            os.read(receive, 4096)
            if self._busy:
                _log("SIGTERM is ignored while containers run")
            else:
                self.loop.stop()

        self.loop.watch(receive, READABLE, ready)


def _lock(path: Path) -> int:
    """The lock of the data root, held until this process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunning(f"{path}: another supervisor holds it") from None
    return descriptor


def _identifier(text: Any) -> str:
    """An id, which will be the name of a directory."""
    if not isinstance(text, str) or not text.isalnum() or not text.isascii():
        raise InvalidParameter(f"`{text}` is no id")
    return text


def _size(value: Any) -> tuple[int, int] | None:
    return None if value is None else (int(value[0]), int(value[1]))


def _entry(target: Target) -> dict[str, Any]:
    end, process = target.end, target.process
    return {
        "target_id": target.id,
        "container_id": target.container_id,
        "state": target.state,
        "paused": target.paused,
        "pid": process.pid if process is not None and target.running else 0,
        "started_at": target.started_at,
        "group_paths": process.group_paths if process is not None else {},
        "status": end.status if end is not None else 0,
        "oom_killed": end.oom_killed if end is not None else False,
        "finished_at": end.finished_at if end is not None else 0,
    }


def _error_to_json(error: BaseException) -> Message:
    if isinstance(error, StartError):
        return {
            "kind": "StartError",
            "message": str(error),
            "status": error.status,
            "reason": error.reason,
            "from_runtime": error.from_runtime,
        }
    if isinstance(error, EngineError):
        return {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, OSError):
        return {"kind": "EngineError", "message": str(error)}
    traceback.print_exception(error, file=sys.stderr)
    return {"kind": "EngineError", "message": f"the supervisor failed: {type(error).__name__}: {error}"}


def _log(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + text, file=sys.stderr, flush=True)
