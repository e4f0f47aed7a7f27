"""More programs in a running container: `docker exec`."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from real_engine.container.container import StartError
from real_engine.container.spec import ExecSpec
from real_engine.daemon.containers.merge import environment
from real_engine.daemon.containers.record import Record, new_id
from real_engine.daemon.containers.requests import check_no_nul
from real_engine.daemon.containers.streams import parse_detach_keys
from real_engine.daemon.containers.translate import DEFAULT_PATH
from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.explain import recorder
from real_engine.supervisor.client import Exited

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

Json = dict[str, Any]

_START_SECONDS = 10.0  # that a change of its terminal's size waits for a start, as in moby's daemon/resize.go
_MOST_KEPT = 1000  # of those that have ended, so that a client can ask how


@dataclass(slots=True)
class Execution:
    """One of them. `exit_code` is None until it has ended."""

    id: str
    record: Record
    argv: list[str]
    settings: Json
    user: str
    running: bool = False
    started: bool = False
    pid: int = 0
    exit_code: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    waiters: list[int] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def terminal(self) -> bool:
        """Whether its standard streams are a terminal."""
        return bool(self.settings.get("Tty"))

    @property
    def interactive(self) -> bool:
        """Whether it reads what a client sends."""
        return bool(self.settings.get("AttachStdin"))


class Execs:
    """All of them, of all containers. Thread-safe."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers
        self._lock = threading.Lock()
        self._executions: dict[str, Execution] = {}

    def get(self, identifier: str) -> Execution:
        """By id.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            if identifier in self._executions:
                return self._executions[identifier]
        raise NotFound(f"No such exec instance: {identifier}")

    def of(self, record: Record) -> list[str]:
        """The ids of those of a container that have not ended."""
        with self._lock:
            return [one.id for one in self._executions.values() if one.record is record and one.exit_code is None]

    def create(self, name: str, settings: Json) -> Execution:
        """Prepare one, as the API asks for it.

        Raises:
            Conflict: the container does not run, or is paused.
            InvalidParameter: no command.
        """
        record = self._containers.get(name)
        if not record.state.running:
            raise Conflict(f"Container {record.id} is not running")
        if record.state.paused:
            raise Conflict(f"Container {name} is paused, unpause the container before exec")
        if record.state.restarting:
            raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
        if settings.get("DetachKeys"):
            parse_detach_keys(settings["DetachKeys"])
        return self.make(record, settings)

    def make(self, record: Record, settings: Json) -> Execution:
        """Prepare one in a container that may run, as health checks do.

        Raises:
            InvalidParameter: no command, or what no program can be given.
            NotFound: the container has been removed.
        """
        argv = settings.get("Cmd") or []
        if not argv or not all(isinstance(one, str) for one in argv):
            raise InvalidParameter("No exec command specified")
        check_no_nul(settings)
        execution = Execution(
            new_id(), record, list(argv), settings, settings.get("User") or record.config["User"] or "0"
        )
        with self._lock:
            self._executions[execution.id] = execution
            ended = [one.id for one in self._executions.values() if one.exit_code is not None]
            for identifier in ended[: max(0, len(ended) - _MOST_KEPT)]:
                del self._executions[identifier]
        if record.state.dead:  # removed just now, and what it had has been forgotten
            self.forget(record)
            raise NotFound(f"No such container: {record.id}")
        self._containers.publish(record, f"exec_create: {' '.join(execution.argv)}", {"execID": execution.id})
        return execution

    def check_startable(self, execution: Execution) -> None:
        """Raise where it cannot be started.

        Raises:
            Conflict: it has been started before, or the container does not run.
        """
        if execution.exit_code is not None or execution.started:
            what = f"Error: Exec command {execution.id} has already run"
            raise Conflict(
                what if execution.exit_code is not None else f"Error: Exec command {execution.id} is already running"
            )
        if not execution.record.state.running:
            raise Conflict(f"Container {execution.record.id} is not running")

    def launch(
        self,
        execution: Execution,
        connection: int | None,
        *,
        framed: bool,
        keys: bytes = b"",
        pending: bytes = b"",
        size: tuple[int, int] | None = None,
        explain: Callable[[str], None] | None = None,
    ) -> None:
        """Start it, its streams on the descriptor `connection` if there is one.

        `explain` is called with the reason if that fails, while the client's connection is open and the exit code
        already known.

        Raises:
            InvalidParameter: its program cannot be executed (its exit code says 126 or 127 then).
        """
        record = execution.record
        with execution.lock:
            self.check_startable(execution)
            execution.started = True
        self._containers.publish(record, f"exec_start: {' '.join(execution.argv)}", {"execID": execution.id})
        supervisor = self._containers.supervisor
        try:
            if connection is not None:
                supervisor.attach(
                    execution.id,
                    connection,
                    stdin=execution.interactive,
                    stdout=bool(execution.settings.get("AttachStdout")) or execution.terminal,
                    stderr=bool(execution.settings.get("AttachStderr")) or execution.terminal,
                    framed=framed,
                    detach_keys=keys,
                    pending_input=pending,
                )
            execution.running = True
            listener = recorder.current()
            started = supervisor.exec(
                record.id,
                execution.id,
                self._spec(execution),
                stdin=execution.interactive,
                terminal_size=size,
                observe=listener is not None,
            )
            if listener is not None:
                recorder.tell_plain(listener, started.steps)
        except BaseException as error:
            # Of a program in a container that runs, all but one that is not there counts as one that can't be executed.
            status = 127 if isinstance(error, StartError) and error.status == 127 else 126
            self._set_ended(execution, status)
            said: BaseException = error
            if isinstance(error, NotFound):  # it has ended, and the report of it is on its way
                said = Conflict(f"Container {record.id} is not running")
            elif isinstance(error, StartError):
                failed = "OCI runtime exec failed: exec failed: unable to start container process"
                said = InvalidParameter(f"{failed}: {error.reason}: unknown" if error.from_runtime else error.reason)
            try:
                if explain is not None:
                    explain(str(said))
            finally:
                with contextlib.suppress(EngineError):  # it has gone, and the connections with it
                    supervisor.acknowledge(execution.id)
            if said is not error:
                raise said from error
            raise
        execution.pid = started.pid
        execution.begun.set()

    def resize(self, execution: Execution, rows: int, columns: int) -> None:
        """Change the size of its terminal. Clients ask for that as soon as they have asked to start it, so this waits.

        Raises:
            EngineError: it does not start in time.
            Conflict: it has ended.
        """
        if not execution.begun.wait(_START_SECONDS):
            raise EngineError("timeout waiting for exec session ready")
        try:
            self._containers.supervisor.resize(execution.id, rows, columns)
        except NotFound as error:
            raise Conflict(f"Exec command {execution.id} is not running") from error

    @contextlib.contextmanager
    def finishing(self, execution: Execution) -> Iterator[int]:
        """A descriptor that becomes readable when it has ended."""
        descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with execution.lock:
            if execution.exit_code is not None:
                os.eventfd_write(descriptor, 1)
            execution.waiters.append(descriptor)
        try:
            yield descriptor
        finally:
            with execution.lock:
                execution.waiters.remove(descriptor)
            os.close(descriptor)

    def inspect(self, identifier: str) -> Json:
        """All about one, as the API shows it."""
        one = self.get(identifier)
        settings = one.settings
        return {
            "ID": one.id,
            "Running": one.running,
            "ExitCode": one.exit_code,
            "ProcessConfig": {
                "tty": one.terminal,
                "entrypoint": one.argv[0],
                "arguments": one.argv[1:],
                "privileged": bool(settings.get("Privileged")),
                **({"user": settings["User"]} if settings.get("User") else {}),
            },
            "OpenStdin": one.interactive,
            "OpenStderr": bool(settings.get("AttachStderr")),
            "OpenStdout": bool(settings.get("AttachStdout")),
            "CanRemove": False,
            "ContainerID": one.record.id,
            "DetachKeys": settings.get("DetachKeys") or "",
            "Pid": one.pid,
        }

    def ended(self, event: Exited) -> None:
        """The supervisor tells that one has ended. Its stream is closed once we have acknowledged that."""
        with self._lock:
            execution = self._executions.get(event.target_id)
        if execution is not None and execution.exit_code is None:
            self._note_end(execution, event.status)
            # Before whoever waits goes on: what a health check found is told after the end of its program.
            self._containers.publish(
                execution.record, "exec_die", {"execID": execution.id, "exitCode": str(event.status)}
            )
            self._wake(execution)
        self._containers.supervisor.acknowledge(event.target_id)

    def detached(self, identifier: str) -> None:
        """The supervisor tells that a client has detached from one."""
        with self._lock:
            execution = self._executions.get(identifier)
        if execution is not None:
            self._containers.publish(execution.record, "exec_detach", {"execID": execution.id})

    def container_ended(self, record: Record) -> None:
        """The container has ended, and all that ran in it."""
        with self._lock:
            found = [one for one in self._executions.values() if one.record is record and one.running]
        for execution in found:
            self._set_ended(execution, 137)

    def forget(self, record: Record) -> None:
        """The container is removed."""
        with self._lock:
            self._executions = {key: one for key, one in self._executions.items() if one.record is not record}

    def _set_ended(self, execution: Execution, status: int) -> None:
        self._note_end(execution, status)
        self._wake(execution)

    @staticmethod
    def _note_end(execution: Execution, status: int) -> None:
        with execution.lock:
            if execution.exit_code is None:
                execution.running, execution.exit_code = False, status

    @staticmethod
    def _wake(execution: Execution) -> None:
        with execution.lock:
            execution.begun.set()  # whoever waits for its start learns that it has ended
            for descriptor in execution.waiters:
                os.eventfd_write(descriptor, 1)

    def _spec(self, execution: Execution) -> ExecSpec:
        record, settings = execution.record, execution.settings
        variables = {"PATH": DEFAULT_PATH, "HOSTNAME": record.config["Hostname"]}
        if execution.terminal:
            variables["TERM"] = "xterm"
        variables |= environment(record.config)
        variables |= environment({"Env": settings.get("Env")})
        return ExecSpec(
            argv=tuple(execution.argv),
            environment=variables,
            user=execution.user,
            workdir=settings.get("WorkingDir") or record.config["WorkingDir"] or "/",
            privileged=bool(settings.get("Privileged")),
            tty=execution.terminal,
        )
