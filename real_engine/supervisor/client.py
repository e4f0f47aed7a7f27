"""The daemon's side of the supervisor: asks it to do things, and hears what happens."""

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_engine import errors
from real_engine.container.container import StartError
from real_engine.container.plain import to_plain
from real_engine.container.spec import ContainerSpec, ExecSpec, Limits
from real_engine.errors import EngineError, Unavailable
from real_engine.supervisor.bringing_up import START_SECONDS, connect, start
from real_engine.supervisor.events import (
    Detached,
    Event,
    Exited,
    LogFailed,
    LogRecovered,
    Lost,
    OutOfMemory,
    Replaced,
    event_from_json,
)
from real_engine.supervisor.log_options import LogOptions
from real_engine.supervisor.protocol import (
    LOG,
    Message,
    ProtocolError,
    Receiver,
    encode,
    send_with_descriptors,
)

__all__ = [
    "Detached",
    "Entry",
    "Event",
    "ExecStarted",
    "Exited",
    "LogFailed",
    "LogOptions",
    "LogRecovered",
    "Lost",
    "OutOfMemory",
    "Replaced",
    "StartError",
    "Started",
    "SupervisorClient",
]

_REPLY_SECONDS = 60.0

OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A container that runs. `started_at` is in nanoseconds since 1970. `group_paths` are its cgroups' directories.

    They are named by the controller (`memory`, `cpu`, …), and that of a v2 hierarchy has the empty name too. `steps`
    are those of the start, where they were to be observed (fields of `real_engine.container.steps.Step`).
    """

    pid: int
    started_at: int
    group_paths: dict[str, str]
    steps: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExecStarted:
    """A program that runs in a container; fields as those of `Started`."""

    pid: int
    started_at: int
    steps: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the supervisor knows of a container or an exec. `state` is created, starting, running or exited.

    It keeps those that have exited until they are acknowledged. Times are nanoseconds since 1970, 0 for none.
    """

    target_id: str
    container_id: str
    state: str
    paused: bool
    pid: int
    started_at: int
    group_paths: dict[str, str]
    status: int
    oom_killed: bool
    finished_at: int

    @property
    def running(self) -> bool:
        """Whether it runs, or is being started."""
        return self.state in ("starting", "running")

    @property
    def is_exec(self) -> bool:
        """Whether it is a program executed in a container, and not the container's own."""
        return self.target_id != self.container_id


class SupervisorClient:
    """A connection to the supervisor of a data root. Many threads may use it at once.

    Events are given to `on_event` by a thread of its own, one after the other; `on_event` must not call back into the
    client and wait there, so longer work belongs to another thread. All calls raise `Unavailable` when the supervisor
    has gone, or another daemon has taken over.
    """

    def __init__(self, connection: socket.socket, pid: int, on_event: OnEvent) -> None:
        self.pid = pid  # of the supervisor
        self._socket = connection
        self._on_event = on_event
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._replies: dict[int, Future[Any]] = {}
        self._last_id = 0
        self._over = ""
        self._closed = False
        self._reader = threading.Thread(target=self._read, name="supervisor", daemon=True)
        self._reader.start()

    @classmethod
    def connect_or_start(cls, data_root: Path, on_event: OnEvent) -> "SupervisorClient":
        """Connect to the supervisor of `data_root`; start it if there is none.

        An earlier daemon's connection ends (`Replaced`). What has ended meanwhile is told by `list`, not by events.

        Raises:
            Unavailable: it doesn't come up, or is of another version.
            EngineError: containers can't be run here, or not in this data root.
        """
        data_root = data_root.absolute()
        deadline = time.monotonic() + START_SECONDS
        while True:
            connected = connect(data_root)
            if connected is not None:
                return cls(*connected, on_event)
            if time.monotonic() > deadline:
                raise Unavailable(f"the supervisor of {data_root} does not come up; see {data_root}/run/{LOG}")
            if not start(data_root):
                time.sleep(0.01)  # another one has the lock: it comes up, or goes down, just now

    def start(
        self,
        container_id: str,
        spec: ContainerSpec,
        *,
        log: LogOptions | None,
        open_stdin: bool = False,
        stdin_once: bool = False,
        terminal_size: tuple[int, int] | None = None,
        network_namespace: int | None = None,
        observe: bool = False,
    ) -> Started:
        """Start a container; it runs when this returns. Clients that were attached before see all of its output.

        `terminal_size` is in rows and columns. `network_namespace` is an open descriptor of a prepared one, which stays
        the caller's.

        Raises:
            StartError: a step failed; nothing of it is left, and attached clients were let go.
            Conflict: it runs.
            EngineError: it can't be run as `spec` or `log` want it.
        """
        result = self._call(
            "start",
            {
                "container": container_id,
                "spec": spec.to_json(),
                "log": None if log is None else log.to_json(),
                "open_stdin": open_stdin,
                "stdin_once": stdin_once,
                "terminal_size": terminal_size,
                "observe": observe,
            },
            () if network_namespace is None else (network_namespace,),
        )
        return Started(**result)

    def exec(
        self,
        container_id: str,
        exec_id: str,
        spec: ExecSpec,
        *,
        stdin: bool = False,
        terminal_size: tuple[int, int] | None = None,
        observe: bool = False,
    ) -> ExecStarted:
        """Execute a program in a container that runs. Attach to `exec_id` first: its output is kept nowhere.

        Raises:
            StartError: a step failed.
            NotFound: the container doesn't run.
            Conflict: it is paused, or this exec runs already.
        """
        result = self._call(
            "exec",
            {
                "container": container_id,
                "exec": exec_id,
                "spec": spec.to_json(),
                "stdin": stdin,
                "terminal_size": terminal_size,
                "observe": observe,
            },
        )
        return ExecStarted(**result)

    def attach(
        self,
        target_id: str,
        connection_fd: int,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        framed: bool,
        detach_keys: bytes = b"",
        pending_input: bytes = b"",
    ) -> None:
        """Hand a client's connection over: it becomes the streams of a container or exec, started or not yet.

        The supervisor gets a descriptor of its own; the caller closes this one, and reads from it no more.
        `pending_input` is what the client has sent already. With `framed` each piece of output has Docker's header of 8
        bytes. `detach_keys` count where there is a terminal; none means ctrl-p ctrl-q.
        """
        self._call(
            "attach",
            {
                "target": target_id,
                "stdin": stdin,
                "stdout": stdout,
                "stderr": stderr,
                "framed": framed,
                "detach_keys": detach_keys.hex(),
                "pending_input": pending_input.hex(),
            },
            (connection_fd,),
        )

    def signal(self, target_id: str, number: int) -> None:
        """Send a signal to the program of a container or exec.

        Raises:
            NotFound: it doesn't run.
        """
        self._call("signal", {"target": target_id, "number": number})

    def resize(self, target_id: str, rows: int, columns: int) -> None:
        """Set the size of a terminal; nothing where there is none.

        Raises:
            NotFound: the program doesn't run.
        """
        self._call("resize", {"target": target_id, "rows": rows, "columns": columns})

    def close_stdin(self, target_id: str) -> None:
        """Let the program read the end of its input, if that is no terminal."""
        self._call("close-stdin", {"target": target_id})

    def pause(self, container_id: str) -> None:
        """Freeze all processes of a container.

        Raises:
            NotFound: it doesn't run.
            NotImplementedHere: this machine has no freezer.
        """
        self._call("pause", {"container": container_id})

    def unpause(self, container_id: str) -> None:
        """Thaw them. Raises as `pause`."""
        self._call("unpause", {"container": container_id})

    def update(self, container_id: str, limits: Limits) -> None:
        """Set other limits for a container that runs.

        Raises:
            NotFound: it doesn't run.
            EngineError: a limit that can't be set here, or not to that value.
        """
        self._call("update", {"container": container_id, "limits": to_plain(limits)})

    def acknowledge(self, target_id: str) -> None:
        """Say that its end is known (or that it won't be started): its clients' connections are closed now.

        Before that, or a few seconds, they stay open, so that a client finds the daemon informed when they end.
        """
        self._call("acknowledge", {"target": target_id})

    def list(self) -> "list[Entry]":
        """All containers and execs that the supervisor knows."""
        return [Entry(**entry) for entry in self._call("list", {})]

    def leave(self) -> None:
        """Say that this daemon ends in order: without a container the supervisor ends too, and needn't wait for us."""
        self._call("leave", {})

    def shutdown(self) -> None:
        """Kill all containers, and end the supervisor when they have ended."""
        self._call("shutdown", {})

    def close(self) -> None:
        """End the connection; the supervisor and its containers go on. Doing it twice does no harm."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError):  # the supervisor has gone
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join()

    def _call(self, name: str, values: Message, descriptors: tuple[int, ...] = ()) -> Any:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed or self._over:
                raise Unavailable(self._over or "the connection to the supervisor is closed")
            self._last_id += 1
            number = self._last_id
            self._replies[number] = future
        message = {"id": number, "call": name, **values, **({"descriptors": len(descriptors)} if descriptors else {})}
        try:
            data = encode(message)
            with self._sending:
                sent = send_with_descriptors(self._socket, data, descriptors)
                if sent < len(data):
                    self._socket.sendall(data[sent:])
            return future.result(_REPLY_SECONDS)
        except FutureTimeout:
            raise Unavailable(f"the supervisor has not answered `{name}` for {_REPLY_SECONDS:g} s") from None
        except OSError as error:
            raise Unavailable(f"the supervisor has gone: {error.strerror}") from error
        except ProtocolError as error:
            raise EngineError(str(error)) from error
        finally:
            with self._lock:
                self._replies.pop(number, None)

    def _read(self) -> None:
        """The reader thread: answers to those who wait for them, events to `on_event`."""
        receiver = Receiver()
        replaced = False
        try:
            while True:
                for message, descriptors in receiver.receive(self._socket):
                    for descriptor in descriptors:
                        os.close(descriptor)
                    if "event" in message:
                        event = event_from_json(message)
                        replaced = replaced or isinstance(event, Replaced)
                        if replaced:
                            self._end("another daemon has taken over")
                        self._tell(event)
                    else:
                        self._answer(message)
        except (EOFError, OSError):
            self._end("the supervisor has gone")
        except (ProtocolError, ValueError) as error:
            self._end(f"the supervisor cannot be understood: {error}")
        finally:
            receiver.close()
            with self._lock:
                expected = self._closed or replaced
            self._socket.close()
            if not expected:
                self._tell(Lost())

    def _answer(self, message: Message) -> None:
        with self._lock:
            future = self._replies.pop(message.get("id", 0), None)
        if future is None:
            return  # who asked has given up
        if "error" in message:
            future.set_exception(_error_from_json(message["error"]))
        else:
            future.set_result(message.get("result"))

    def _end(self, reason: str) -> None:
        with self._lock:
            self._over = self._over or reason
            waiting = list(self._replies.values())
            self._replies.clear()
        for future in waiting:
            future.set_exception(Unavailable(reason))

    def _tell(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception:  # the daemon's bug must not make us deaf to all that comes after
            traceback.print_exc(file=sys.stderr)


def _error_from_json(error: Message) -> Exception:
    message = str(error.get("message"))
    if error.get("kind") == "StartError":
        return StartError(message, int(error["status"]), str(error["reason"]), bool(error["from_runtime"]))
    kind = getattr(errors, str(error.get("kind")), EngineError)
    return kind(message) if isinstance(kind, type) and issubclass(kind, EngineError) else EngineError(message)
