"""The keeper: a process outside that holds a rootless engine's namespaces, for as long as they are needed.

It is the user's own process, with no right that the user hasn't. It has one thread, and lets go when no daemon is
connected and no supervisor runs: then its uplink and the process that anchors the namespaces end with it, and the
kernel takes the namespaces back. Were it killed, containers would go on without their uplink; the next daemon that is
started has a new keeper, which finds the namespaces again by the supervisor.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path

from real_engine.errors import Conflict, EngineError
from real_engine.rootless import namespaces, outside, uplink
from real_engine.rootless.namespaces import KINDS, RESOLV_CONF, Namespaces
from real_engine.supervisor.loop import READABLE, Loop
from real_engine.supervisor.protocol import (
    SOCKET as SUPERVISOR_SOCKET,
)
from real_engine.supervisor.protocol import (
    Message,
    ProtocolError,
    Receiver,
    bind_path,
    encode,
    listen,
    send_with_descriptors,
)

SOCKET = "keeper.sock"
LOCK = "keeper.lock"
LOG = "keeper.log"

_FIRST_SECONDS = 30.0  # for the first daemon to come
_PATIENCE_SECONDS = 1.0  # after the last one has gone: one that is started again may just be coming
_AGAIN_SECONDS = 5.0  # between attempts to bring the uplink back
_CREDENTIALS = struct.Struct("3i")


class Keeper:
    """Holds the namespaces of a data root, whose directory `run` is given.

    Raises:
        Conflict: another keeper does.
        EngineError: they can't be had.
    """

    def __init__(self, run: Path, uplink_choice: str = "auto") -> None:
        self._run = run
        self._choice = uplink_choice
        self._directory = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = _lock(run / LOCK)
        (run / RESOLV_CONF).touch(0o644)
        self._namespaces = self._find_namespaces()
        try:
            self._uplink = self._connect_uplink(uplink_choice)
        except BaseException:
            self._namespaces.close()
            raise
        self._loop = Loop()
        self._daemons: dict[int, tuple[socket.socket, Receiver]] = {}
        self._watches_supervisor = False
        self._listener = listen(self._directory, SOCKET)
        self._loop.watch(self._listener.fileno(), READABLE, self._accept)
        self._leaving = self._loop.call_later(_FIRST_SECONDS, self._leave_if_unused)
        self._loop.watch(self._namespaces.pidfd, READABLE, self._anchor_ended)
        self._watch_uplink()

    def run(self) -> None:
        """Serve until nobody needs it."""
        try:
            self._loop.run()
        finally:
            self.close()

    def close(self) -> None:
        """Let all go."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=self._directory)
        self._listener.close()
        for connection, _ in self._daemons.values():
            connection.close()
        self._daemons.clear()
        self._uplink.close()
        self._namespaces.close()
        self._loop.close()
        os.close(self._lock)
        os.close(self._directory)

    # --- what it holds -----------------------------------------------------------------------------------------------

    def _find_namespaces(self) -> Namespaces:
        while True:
            found = find_supervisor(self._directory)
            if found is None:
                return namespaces.create(self._run)
            try:
                return namespaces.adopt(*found)
            except OSError:  # it has just ended
                os.close(found[1])
                time.sleep(0.01)

    def _connect_uplink(self, choice: str) -> uplink.Uplink:
        found = uplink.connect(self._namespaces.pid, self._run, choice)
        # In place, not replaced: it is this very file that stands in the mount namespace.
        (self._run / RESOLV_CONF).write_text(uplink.resolv_conf(found.name))
        return found

    def _watch_uplink(self) -> None:
        process = self._uplink.process
        if process is None:
            return
        pidfd = os.pidfd_open(process.pid)

        def ended(_: int) -> None:
            self._loop.forget(pidfd)
            os.close(pidfd)
            _log(f"{self._uplink.name} has ended with status {process.wait()}; it is started again")
            self._loop.call_later(_AGAIN_SECONDS, self._bring_back_uplink)

        self._loop.watch(pidfd, READABLE, ended)

    def _bring_back_uplink(self) -> None:
        name = self._uplink.name
        try:
            self._uplink = self._connect_uplink(name)
        except EngineError as error:
            _log(str(error))
            self._loop.call_later(_AGAIN_SECONDS, self._bring_back_uplink)
            return
        self._watch_uplink()

    def _anchor_ended(self, _: int) -> None:
        self._loop.forget(self._namespaces.pidfd)
        if self._namespaces.ours:
            _log("the process that anchors the namespaces was ended by somebody")
            self._loop.stop()
        # Else it was a supervisor: `_leave_if_unused` asks for it again.
        self._leave_if_unused()

    # --- connections -------------------------------------------------------------------------------------------------

    def _accept(self, _: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid != os.geteuid():
            connection.close()
            return
        self._leaving.cancel()
        self._daemons[connection.fileno()] = connection, Receiver()
        self._loop.watch(connection.fileno(), READABLE, lambda _: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        receiver = self._daemons[connection.fileno()][1]
        try:
            for message, descriptors in receiver.receive(connection):
                self._answer(connection, message, descriptors)
        except (EOFError, OSError, ProtocolError) as error:
            if isinstance(error, ProtocolError):
                _log(f"a daemon cannot be understood: {error}")
            self._drop(connection)

    def _answer(self, connection: socket.socket, message: Message, descriptors: list[int]) -> None:
        if message.get("call") == "enter":
            answer = {
                "single": self._namespaces.ids.single,
                "reason": self._namespaces.ids.reason,
                "uplink": self._uplink.name,
                "uplink_reason": self._uplink.reason,
                "descriptors": len(KINDS),
            }
            held = tuple(self._namespaces.descriptors[name] for name in KINDS)
            send_with_descriptors(connection, encode(answer), held)
            return
        if len(descriptors) != 1 or message.get("call") not in ("listen", "connect"):
            for descriptor in descriptors:
                os.close(descriptor)
            raise ProtocolError(f"no such call: {message.get('call')}")
        with socket.socket(fileno=descriptors[0]) as reply, contextlib.suppress(BrokenPipeError, ConnectionError):
            if message["call"] == "listen":
                outside.serve(message, reply)
            else:
                self._serve_apart(message, reply)

    def _serve_apart(self, message: Message, reply: socket.socket) -> None:
        """Answer in a fork, which may wait."""
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                outside.serve(message, reply)
            finally:
                os._exit(0)
        pidfd = os.pidfd_open(pid)

        def ended(_: int) -> None:
            self._loop.forget(pidfd)
            os.close(pidfd)
            os.waitpid(pid, 0)

        self._loop.watch(pidfd, READABLE, ended)

    def _drop(self, connection: socket.socket) -> None:
        self._loop.forget(connection.fileno())
        _, receiver = self._daemons.pop(connection.fileno())
        receiver.close()
        connection.close()
        if not self._daemons:
            self._leaving = self._loop.call_later(_PATIENCE_SECONDS, self._leave_if_unused)

    def _leave_if_unused(self) -> None:
        if self._daemons or self._watches_supervisor:
            return
        found = find_supervisor(self._directory)
        if found is None:
            self._loop.stop()
            return
        _, pidfd = found

        def ended(_: int) -> None:
            self._loop.forget(pidfd)
            os.close(pidfd)
            self._watches_supervisor = False
            self._leave_if_unused()

        self._loop.watch(pidfd, READABLE, ended)
        self._watches_supervisor = True


def find_supervisor(run: int) -> tuple[int, int] | None:
    """The number and a descriptor of the supervisor that listens in the open directory `run`; None if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(bind_path(run, SUPERVISOR_SOCKET))  # with no greeting it counts for nothing there
        except (FileNotFoundError, ConnectionError):
            return None
        pid, uid, _ = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid != os.geteuid():
            raise EngineError(f"the supervisor of this data root (process {pid}) is another user's")
        try:
            return pid, os.pidfd_open(pid)
        except ProcessLookupError:
            return None


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"{path}: another keeper holds it") from None
    return descriptor


def _log(text: str) -> None:
    os.write(2, f"onggi keeper: {text}\n".encode())
