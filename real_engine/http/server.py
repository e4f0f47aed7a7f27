"""Takes connections and serves them, each by a thread.

The threads share the listening sockets: whoever is free waits in `accept`, takes a connection and serves it, and sees
to it that somebody waits in its place. So no connection is handed from thread to thread, which would cost more than a
small request does.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import socket
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError
from real_engine.http.messages import Request, Response
from real_engine.http.wire import (
    Capture,
    Disconnected,
    Malformed,
    Reader,
    check_host,
    parse_head,
    parse_target,
    request_body,
)
from real_engine.http.writer import REASONS, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from real_engine.http.listeners import Listener
    from real_engine.http.messages import Peer
    from real_engine.http.router import Handler
    from real_engine.http.trace import Exchange

_log = logging.getLogger("onggi.http")

_SPARE_THREADS = 2  # waiting in accept, on each listener: a burst of connections finds somebody there
_MOST_IDLE_THREADS = 16
_MOST_DRAINED_BYTES = 256 << 10  # of a body that nobody read, so that the connection can be kept (Go's figure)
_LINGER_SECONDS = 0.5
_HEAD_SECONDS = 60.0
_ROOM_SECONDS = 0.05  # between looks for a connection that has become idle
# Deep enough for JSON a thousand levels deep in C, small enough that glibc keeps forty of them (40 MiB) for reuse.
_STACK_BYTES = 1 << 20


class Server:
    """Serves `handler` on `listeners`.

    `idle_seconds` is how long a kept connection may be silent; of more than `most_connections`, those that have been so
    the longest are closed. `trace` is called with each finished `Exchange`.
    Threads are daemonic: `stop` waits for the requests, and the interpreter for nobody.
    """

    def __init__(
        self,
        handler: Handler,
        listeners: Sequence[Listener],
        *,
        idle_seconds: float | None = 300.0,
        most_connections: int = 4096,
        trace: Callable[[Exchange], None] | None = None,
        trace_body_bytes: int = 64 << 10,
    ) -> None:
        self._handler = handler
        self._listeners = tuple(listeners)
        self._idle_seconds = idle_seconds
        self._most_connections = most_connections
        self._trace = trace
        self._trace_body_bytes = trace_body_bytes
        self._lock = threading.Lock()
        self._waiting = dict.fromkeys(range(len(self._listeners)), 0)
        self._connections: dict[int, _Connection] = {}
        self._numbers = itertools.count(1)
        self._changed = threading.Condition(self._lock)
        self.stopping = False

    def start(self) -> None:
        """Begin to take connections; returns at once."""
        threading.stack_size(max(_STACK_BYTES, 0))
        for index in range(len(self._listeners)):
            for _ in range(_SPARE_THREADS):
                self._spawn(index)

    def close_listeners(self) -> None:
        """Take no more connections."""
        self.stopping = True
        for listener in self._listeners:
            listener.close()

    def stop(self, seconds: float = 5.0) -> bool:
        """Take no more connections, let the running requests end for up to `seconds`, and close what is left.

        To handlers that watch their client it looks as if that had gone, so that streams end, and end whole. Returns
        whether all ended by themselves.
        """
        self.close_listeners()
        with self._changed:
            for connection in self._connections.values():
                connection.wind_up()
            done = self._changed.wait_for(lambda: not self._connections, seconds)
            for connection in self._connections.values():
                connection.abort()
        return done

    @property
    def connections(self) -> int:
        """How many there are now; those that were hijacked don't count."""
        return len(self._connections)

    def _spawn(self, index: int) -> None:
        with self._lock:
            self._waiting[index] += 1
        try:
            threading.Thread(target=self._work, args=(index,), name=f"http-{index}", daemon=True).start()
        except RuntimeError:  # no thread to be had: those that there are go on
            with self._lock:
                self._waiting[index] -= 1
            _log.warning("no more threads can be started; connections wait for those that there are")

    def _work(self, index: int) -> None:
        """Take connections from a listener and serve them, until there are enough others who do."""
        listener = self._listeners[index]
        while True:
            try:
                accepted = listener.accept()
            except OSError as error:
                if self.stopping or error.errno in (errno.EBADF, errno.EINVAL):
                    break
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    _log.warning("cannot accept a connection: %s", error.strerror)
                    time.sleep(0.05)  # no descriptor or memory is free: let others finish
                continue
            self._await_room()  # who has no room keeps waiting, and others in the kernel's queue
            with self._lock:
                self._waiting[index] -= 1
                alone = self._waiting[index] < 1
            if alone:
                self._spawn(index)
            self._serve(listener, accepted)
            del accepted
            with self._lock:
                if self._waiting[index] >= _MOST_IDLE_THREADS:
                    return
                self._waiting[index] += 1
        with self._lock:
            self._waiting[index] -= 1

    def _await_room(self) -> None:
        """Wait until there is room for one more connection; meanwhile, close those that have been idle the longest."""
        with self._changed:
            while len(self._connections) >= self._most_connections and not self.stopping:
                idle = [connection for connection in self._connections.values() if connection.idle]
                if idle:
                    longest = min(idle, key=lambda connection: connection.idle_since)
                    longest.idle = False  # so that nobody takes it for another one
                    longest.abort()
                self._changed.wait(_ROOM_SECONDS)

    def _serve(self, listener: Listener, accepted: socket.socket) -> None:
        number = next(self._numbers)
        connection = _Connection(accepted)
        with self._lock:
            self._connections[number] = connection
        try:
            secured, peer = listener.secure(accepted)
            connection.socket = secured
            connection.reader = Reader(secured)
            while self._exchange(connection, number, peer):
                pass
        except (ConnectionError, TimeoutError):
            pass  # it ended, or was silent for too long: nobody is there to be told
        except OSError as error:
            _log.debug("connection of %s: %s", accepted, error)
        finally:
            if not connection.hijacked:
                connection.socket.close()
            with self._changed:
                del self._connections[number]
                self._changed.notify_all()

    def _exchange(self, connection: _Connection, number: int, peer: Peer) -> bool:
        """One request and its answer; whether the connection can be kept for another."""
        reader = connection.reader
        wire = reader.socket
        try:
            wire.settimeout(self._idle_seconds)
            connection.idle_since = time.monotonic()
            connection.idle = True
            if self.stopping:
                return False
            head = reader.head(seconds=_HEAD_SECONDS)
            connection.idle = False
            if head is None:
                return False
            received_at = time.perf_counter()
            method, target, protocol, headers = parse_head(head)
            check_host(headers, protocol)
            path, query = parse_target(target)
            body = request_body(reader, headers, protocol)
            wire.settimeout(None)
        except Malformed as error:
            _refuse(wire, error)
            return False
        request = Request(method, path, headers, body, reader, query, protocol, peer, received_at=received_at)
        connection.request = request
        writer = Writer(request, protocol, lambda: self.stopping)
        record = self._record(request, writer, number, target) if self._trace is not None else None
        try:
            response = self._answer(request, writer)
            if response is not None:
                writer.send(response)
        except Disconnected:
            writer.keep = False
        except Malformed as error:  # in the body, while the handler read it
            writer.keep = False
            if not writer.begun:
                writer.send(Response.error(error.status, str(error)))
        finally:
            connection.request = None
            connection.hijacked = request.hijacked is not None
            if record is not None:
                record()
        if connection.hijacked:
            return False
        kept = writer.keep and self._finish_body(request, wire)
        if not kept and not body.finished:
            linger(wire)  # the client may be sending still, and has the answer to read
        return kept

    def _answer(self, request: Request, writer: Writer) -> Response | None:
        try:
            response = self._handler(request)
        except Exception as error:
            if not isinstance(
                error, (ConnectionError, Malformed, EngineError)
            ):  # the client learns what kind of fault, the log where
                _log.error("%s %s: %s\n%s", request.method, request.path, error, traceback.format_exc().rstrip())
            if request.hijacked is not None:
                request.hijacked.close()  # it is a stream by now, which can only end
                return None
            if isinstance(error, (ConnectionError, Malformed)):
                raise
            if isinstance(error, EngineError):
                return Response.error(500, str(error))
            return Response.error(500, f"{type(error).__name__}: {error}")
        if response is None and request.hijacked is None:
            return Response(200)
        return response

    def _finish_body(self, request: Request, wire: socket.socket) -> bool:
        """Read what the handler left of the body, so that the next request can follow; whether that was possible."""
        body = request.body
        if body.finished:
            return True
        if body.awaited:
            return False  # we never asked for it, and the client may or may not send it
        wire.settimeout(_LINGER_SECONDS)
        try:
            return body.discard(_MOST_DRAINED_BYTES)
        except (OSError, Malformed):
            return False

    def _record(self, request: Request, writer: Writer, number: int, target: str) -> Callable[[], None]:
        """Watch the exchange; returns what is to be called when it has ended."""
        from real_engine.http.trace import Exchange

        started_at = time.time()
        sent, got = Capture(self._trace_body_bytes), Capture(self._trace_body_bytes)
        request.body.capture(got)
        writer.capture = sent
        noted: dict[str, Any] = {"status": 0, "headers": {}, "at": 0.0}

        def note_head(status: int, headers: Mapping[str, str]) -> None:
            noted.update(status=status, headers=dict(headers), at=time.perf_counter())

        request.note_head = note_head

        def finish() -> None:
            exchange = Exchange(
                connection=number,
                peer=request.peer,
                method=request.method,
                target=target,
                request_headers=list(request.headers),
                request_body=bytes(got.data),
                request_bytes=got.count,
                status=noted["status"],
                response_headers=noted["headers"],
                response_body=bytes(sent.data),
                response_bytes=sent.count,
                hijacked=request.hijacked is not None,
                started_at=started_at,
                head_seconds=max(0.0, noted["at"] - request.received_at) if noted["at"] else None,
                total_seconds=time.perf_counter() - request.received_at,
            )
            try:
                if self._trace is not None:
                    self._trace(exchange)
            except Exception:
                _log.exception("the record of an exchange could not be kept")

        return finish


class _Connection:
    """A connection, as `stop` needs to see it."""

    __slots__ = ("hijacked", "idle", "idle_since", "reader", "request", "socket")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.reader = Reader(accepted)
        self.idle = False
        """Whether it waits for a request, or for the rest of one's head."""
        self.idle_since = 0.0
        self.hijacked = False
        self.request: Request | None = None

    def wind_up(self) -> None:
        """Let it end: at once if nothing is under way, and else after the answer."""
        request = self.request
        if self.idle:
            self.abort()
        elif request is not None and request.hijacked is None and request.body.finished:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """Wake the thread that waits for this connection; it closes it."""
        if not self.hijacked:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


def _refuse(wire: socket.socket, error: Malformed) -> None:
    """Tell what was wrong, and let the client read it before the connection goes."""
    body = Response.error(error.status, str(error)).body
    assert isinstance(body, bytes)
    head = (
        f"HTTP/1.1 {error.status} {REASONS.get(error.status, 'Bad Request')}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    wire.sendall(head.encode() + body)
    linger(wire)


def linger(wire: socket.socket) -> None:
    """End our side, and read what still comes for a moment: closing with unread bytes would take the answer back."""
    with contextlib.suppress(OSError):
        wire.shutdown(socket.SHUT_WR)
        wire.settimeout(_LINGER_SECONDS)
        deadline = time.monotonic() + _LINGER_SECONDS
        while wire.recv(65536) and time.monotonic() < deadline:
            pass
