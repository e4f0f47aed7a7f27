"""A client's connection becomes a container's standard streams.

A connection over the UNIX socket is given to the supervisor as it is, so what the container writes doesn't pass through
the daemon, and a session goes on while the daemon restarts. What has to be encrypted or put into websocket frames is
carried between the client and a socket pair by two threads here.
"""

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

from real_engine.daemon.containers import views
from real_engine.daemon.containers.record import Record
from real_engine.errors import Conflict, InvalidParameter
from real_engine.http.messages import MULTIPLEXED_STREAM, RAW_STREAM, Hijacked, Request
from real_engine.http.websocket import accept, relay
from real_engine.supervisor.logs import LogEntry, read_log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from real_engine.daemon.containers.service import Containers

_BUFFER = 65536
_HEADER = struct.Struct(">BxxxI")  # the stream, and how many bytes follow
_NUMBERS = {"stdout": 1, "stderr": 2}


def frame(stream: str, data: bytes) -> bytes:
    """Output as it is sent where two streams share one connection."""
    return _HEADER.pack(_NUMBERS[stream], len(data)) + data


def check_attachable(record: Record) -> None:
    """Raise where attaching makes no sense.

    Raises:
        Conflict: it is paused or restarting.
    """
    if record.state.paused:
        raise Conflict(f"Container {record.id} is paused, unpause the container before attach")
    if record.state.restarting:
        raise Conflict(f"Container {record.id} is restarting, wait until the container is running")


def attach(containers: "Containers", record: Record, request: Request, keys: bytes, *, multiplexed: bool) -> None:
    """Make the client's connection the container's standard streams, by leaving it to the supervisor."""
    query = request.query
    stdin, stdout, stderr = (query.flag(name) for name in ("stdin", "stdout", "stderr"))
    logs, stream = query.flag("logs"), query.flag("stream")
    if not logs and not stream:
        raise InvalidParameter("either logs or stream must be asked for")
    kind = MULTIPLEXED_STREAM if multiplexed and (request.version is None or request.version >= (1, 42)) else RAW_STREAM
    with request.hijack(content_type=kind) as hijacked:
        if logs:
            for entry in _log_of(containers, record, stdout=stdout, stderr=stderr):
                hijacked.socket.sendall(frame(entry.stream, entry.data) if multiplexed else entry.data)
        if stream:
            containers.publish(record, "attach")
            hand_over(
                containers,
                record.id,
                hijacked,
                stdin=stdin and record.config["OpenStdin"],
                stdout=stdout,
                stderr=stderr,
                framed=multiplexed,
                keys=keys,
            )
            _let_go_if_removed(containers, record)


def hand_over(
    containers: "Containers",
    target: str,
    hijacked: Hijacked,
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    framed: bool,
    keys: bytes,
) -> None:
    """Give the connection to the supervisor as the streams of `target`."""
    with plain(hijacked) as descriptor:
        containers.supervisor.attach(
            target,
            descriptor,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            framed=framed,
            detach_keys=keys,
            pending_input=hijacked.buffered,
        )


class plain:
    """A descriptor of the connection that carries plain bytes; where TLS is in the way, one end of a socket pair."""

    def __init__(self, hijacked: Hijacked) -> None:
        self._hijacked = hijacked
        self._theirs: socket.socket | None = None

    def __enter__(self) -> int:
        if not self._hijacked.encrypted:
            return self._hijacked.fileno()
        ours, self._theirs = socket.socketpair()
        # The server forgets the connection when the handler returns, and the handler closes it: pump a duplicate.
        carry(self._hijacked.socket, ours)
        self._hijacked.socket = self._theirs.dup()
        return self._theirs.fileno()

    def __exit__(self, *exception: object) -> None:
        if self._theirs is not None:
            self._theirs.close()


def carry(client: socket.socket, ours: socket.socket) -> None:
    """Carry bytes both ways between the two, each direction by a thread, until both have ended; then close both."""
    left = threading.Semaphore(0)

    def one_way(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(_BUFFER):
                sink.sendall(data)
        except OSError:
            pass  # either end is gone: that is how it ends
        finally:
            with contextlib.suppress(OSError):  # it is gone already
                sink.shutdown(socket.SHUT_WR)
            left.release()

    def close() -> None:
        left.acquire()
        left.acquire()
        client.close()
        ours.close()

    for work in ((lambda: one_way(client, ours)), (lambda: one_way(ours, client)), close):
        threading.Thread(target=work, name="carry", daemon=True).start()


def attach_websocket(containers: "Containers", record: Record, request: Request, keys: bytes) -> None:
    """Answer a request to attach over a websocket: every message is output, or input, as it is."""
    query = request.query
    stdin, stdout, stderr = (query.flag(name) for name in ("stdin", "stdout", "stderr"))
    websocket = accept(request)
    if query.flag("logs"):
        for entry in _log_of(containers, record, stdout=stdout, stderr=stderr):
            websocket.send(entry.data)
    if not query.flag("stream"):
        websocket.close()
        return
    ours, theirs = socket.socketpair()
    with theirs:
        containers.publish(record, "attach")
        containers.supervisor.attach(
            record.id,
            theirs.fileno(),
            stdin=stdin and record.config["OpenStdin"],
            stdout=stdout,
            stderr=stderr,
            framed=False,
            detach_keys=keys,
        )
        _let_go_if_removed(containers, record)
    relay(websocket, ours)


def _let_go_if_removed(containers: "Containers", record: Record) -> None:
    """Close the connection to a container that was removed just now: it will never be started."""
    if record.state.dead:
        containers.supervisor.acknowledge(record.id)


def _log_of(containers: "Containers", record: Record, *, stdout: bool, stderr: bool) -> "Iterable[LogEntry]":
    path = views.log_path(record, containers.path(record))
    return read_log(path, stdout=stdout, stderr=stderr) if os.path.exists(path) else ()
