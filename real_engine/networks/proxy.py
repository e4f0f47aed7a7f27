"""The userland proxy: carries a published port's bytes to the container where the packet filter's rules don't.

One thread serves all ports with an event loop. A connection's two directions are independent: the end of one is passed
on as the end of that one (a half-close), and each holds at most 128 KiB, so that a slow reader slows its writer down
and fills no memory. A UDP client gets a socket of its own to the container, closed after 90 idle seconds (docker-proxy
does the same).
"""

import contextlib
import errno
import functools
import os
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from real_engine.networks.event_thread import EventThread, Ready

_BUFFER_BYTES = 1 << 16
_IDLE_SECONDS = 90.0
_MOST_CONNECTIONS = 4096
_DATAGRAM_BYTES = 65535
_CONNECT_SECONDS = 30.0
_ROUND_SECONDS = 10.0  # how often what is too old is looked for

Target = tuple[str, int]
_Peer = tuple[Any, ...]  # an address of IPv4 or IPv6 as `recvfrom` gives it


class _Stream:
    """One connection: two sockets, and for each the bytes that wait to go out of it."""

    def __init__(self, proxy: "UserlandProxy", client: socket.socket, target: Target) -> None:
        self._proxy = proxy
        self._sockets = (client, socket.socket(_family(target), socket.SOCK_STREAM))
        self._waiting = (bytearray(), bytearray())
        self._ended = [False, False]  # what the socket sends has come to its end
        self._shut = [False, False]  # the end of what goes to the socket was passed on
        self._connected = False
        self._since = time.monotonic()
        for each in self._sockets:
            each.setblocking(False)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result = self._sockets[1].connect_ex(target)
        if result not in (0, errno.EINPROGRESS):
            self.close()
            return
        proxy.streams.add(self)
        self._watch()

    @property
    def stale(self) -> bool:
        """Whether the container hasn't taken the connection for half a minute."""
        return not self._connected and time.monotonic() - self._since > _CONNECT_SECONDS

    def _watch(self) -> None:
        for side in (0, 1):
            events = 0
            if self._connected and not self._ended[side] and len(self._waiting[1 - side]) < _BUFFER_BYTES:
                events |= selectors.EVENT_READ
            if self._waiting[side] or (side == 1 and not self._connected):
                events |= selectors.EVENT_WRITE
            self._proxy.watch(self._sockets[side], events, functools.partial(self._ready, side))

    def _ready(self, side: int, mask: int) -> None:
        try:
            if side == 1 and not self._connected:
                error = self._sockets[1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                self._connected = True
            elif mask & selectors.EVENT_READ:
                self._receive(side)
            if mask & selectors.EVENT_WRITE:
                self._send(side)
            for each in (0, 1):
                if self._ended[1 - each] and not self._waiting[each] and not self._shut[each]:
                    self._shut[each] = True
                    self._sockets[each].shutdown(socket.SHUT_WR)
        except OSError:  # one side has gone: so does the other
            self.close()
            return
        if all(self._shut):
            self.close()
        else:
            self._watch()

    def _receive(self, side: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self._sockets[side].recv(_BUFFER_BYTES)
            if data:
                self._waiting[1 - side].extend(data)
                self._send(1 - side)
            else:
                self._ended[side] = True

    def _send(self, side: int) -> None:
        waiting = self._waiting[side]
        if waiting:
            with contextlib.suppress(BlockingIOError):
                sent = self._sockets[side].send(waiting)
                del waiting[:sent]

    def close(self) -> None:
        """End both."""
        self._proxy.streams.discard(self)
        for each in self._sockets:
            self._proxy.watch(each, 0, None)
            each.close()


@dataclass(slots=True)
class _Datagrams:
    """The clients of one UDP port, each with its own socket to the container."""

    proxy: "UserlandProxy"
    listener: socket.socket
    target: Target
    clients: dict[_Peer, tuple[socket.socket, float]] = field(default_factory=dict)

    def ready(self, _: int) -> None:
        """Datagrams have come from clients."""
        for _turn in range(64):
            try:
                data, client = self.listener.recvfrom(_DATAGRAM_BYTES)
            except OSError:  # none is left; or an error of an earlier one, which UDP allows to be lost
                return
            # The container's network may be gone, or no descriptor be free: the datagram is lost, as UDP allows.
            with contextlib.suppress(OSError):
                upstream = self._upstream(client)
                if upstream is not None:
                    upstream.send(data)

    def _upstream(self, client: _Peer) -> socket.socket | None:
        found = self.clients.get(client)
        if found is None:
            if len(self.clients) >= _MOST_CONNECTIONS:
                return None
            upstream = socket.socket(_family(self.target), socket.SOCK_DGRAM)
            try:
                upstream.setblocking(False)
                upstream.connect(self.target)
            except OSError:
                upstream.close()
                raise
            self.proxy.watch(upstream, selectors.EVENT_READ, lambda _: self._answer(client, upstream))
        else:
            upstream = found[0]
        self.clients[client] = upstream, time.monotonic()
        return upstream

    def _answer(self, client: _Peer, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):  # refused there, or the client has gone: UDP tells nobody
            data = upstream.recv(_DATAGRAM_BYTES)
            self.clients[client] = upstream, time.monotonic()
            self.listener.sendto(data, client)

    def expire(self, before: float) -> None:
        """Forget the clients that were last heard of before then."""
        for client, (upstream, last) in list(self.clients.items()):
            if last < before:
                del self.clients[client]
                self.proxy.watch(upstream, 0, None)
                upstream.close()


def _family(target: Target) -> int:
    return int(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)


class UserlandProxy:
    """Serves published ports. Thread-safe; its thread starts with the first port and ends with `close`."""

    def __init__(self) -> None:
        self._thread = EventThread("userland proxy", self._turn)
        self._expired = time.monotonic()
        self.streams: set[_Stream] = set()
        """The connections that stand, each of which enters and leaves by itself; for the loop's thread alone."""
        self._datagrams: dict[socket.socket, _Datagrams] = {}

    def serve(self, listener: socket.socket, target: Target) -> None:
        """Carry what comes to `listener`, a socket that stays the caller's, to `target` in the container."""
        self._thread.run(lambda: self._add(listener, target))

    def stop(self, listener: socket.socket) -> None:
        """Serve `listener` no more; once this returns, its owner may close it. Connections that stand stay."""
        done = threading.Event()

        def remove() -> None:
            try:
                self.watch(listener, 0, None)
                datagrams = self._datagrams.pop(listener, None)
                if datagrams is not None:
                    datagrams.expire(float("inf"))
            finally:
                done.set()

        if self._thread.run(remove):
            done.wait()

    def close(self) -> None:
        """End it all."""
        self._thread.close(self._close_all)

    def _close_all(self) -> None:
        for stream in list(self.streams):
            stream.close()
        for datagrams in self._datagrams.values():
            datagrams.expire(float("inf"))

    def _add(self, listener: socket.socket, target: Target) -> None:
        if listener.type == socket.SOCK_DGRAM:
            datagrams = self._datagrams[listener] = _Datagrams(self, listener, target)
            self.watch(listener, selectors.EVENT_READ, datagrams.ready)
        else:
            self.watch(listener, selectors.EVENT_READ, lambda _: self._accept(listener, target))

    def _accept(self, listener: socket.socket, target: Target) -> None:
        with contextlib.suppress(OSError):  # the client has gone again, or no descriptor is free
            client, _ = listener.accept()
            if len(self.streams) >= _MOST_CONNECTIONS:
                client.close()
                return
            try:
                _Stream(self, client, target)
            except OSError:
                client.close()

    def watch(self, watched: socket.socket, events: int, ready: Ready | None) -> None:
        """As `EventThread.watch`."""
        self._thread.watch(watched, events, ready)

    def _turn(self) -> float:
        now = time.monotonic()
        if now - self._expired > _ROUND_SECONDS:
            self._expired = now
            for datagrams in self._datagrams.values():
                datagrams.expire(now - _IDLE_SECONDS)
            for stream in [each for each in self.streams if each.stale]:
                stream.close()
        return _ROUND_SECONDS
