"""Names of containers: a resolver at 127.0.0.11 inside each container that is on a network of its users' own.

Its sockets are opened in the container's network namespace and served by one thread in the engine's. They stand at
ports that the kernel chose, and the container's packet filter leads port 53 of 127.0.0.11 to them: so a name server of
the container's own may still bind port 53 of every address. What isn't a container's name is asked of the servers of
the host (or of `--dns`), from the host's namespace; nothing is kept.
"""

import contextlib
import errno
import os
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from real_engine.linux import nftables
from real_engine.linux.network_namespaces import entered
from real_engine.networks import messages
from real_engine.networks.event_thread import EventThread
from real_engine.networks.messages import MalformedMessage, Query

ADDRESS = "127.0.0.11"
_PORT = 53
_TABLE = "onggi_resolver"
_TRY_SECONDS = 2.0
_TRIES = 2  # of each server in turn
_MOST_IN_FLIGHT = 1024
_MOST_OF_ONE = 128  # questions of one container that wait for an answer: it must leave room for the others'
_MOST_CONNECTIONS = 64
_IDLE_SECONDS = 10.0
_DATAGRAM_BYTES = 65535
_MOST_UNSENT_BYTES = 1 << 18  # of answers to one client by TCP, who gets no more before he has taken some


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a name: addresses of the kind that was asked for, perhaps none, or a name for an address."""

    addresses: tuple[str, ...] = ()
    name: str = ""


class Directory(Protocol):
    """Who knows the containers' names."""

    def find(self, container_id: str, name: str, version: int) -> Found | None:
        """The addresses (of IPv4 or 6) of `name` as that container sees it; nothing if there is no such name."""

    def find_address(self, container_id: str, address: str) -> Found | None:
        """The name of what has `address` on one of that container's networks."""

    def upstreams(self, container_id: str) -> Sequence[str]:
        """The servers to ask about other names; none: nobody may be asked."""


@dataclass(slots=True, eq=False)
class _Served:
    """The resolver of one container."""

    container_id: str
    namespace: int
    datagrams: socket.socket
    listener: socket.socket
    connections: set["_Connection"] = field(default_factory=set)
    in_flight: int = 0


Reply = Callable[[bytes], None]


@dataclass(slots=True, eq=False)
class _Connection:
    """A client by TCP: messages with their length before them."""

    served: _Served
    client: socket.socket
    received: bytearray = field(default_factory=bytearray)
    to_send: bytearray = field(default_factory=bytearray)
    last: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class _Forwarded:
    """A question that was passed on and waits for an answer."""

    served: _Served
    query: Query
    data: bytes
    identity: int
    servers: list[str]
    by_tcp: bool
    reply: Reply
    upstream: socket.socket | None = None
    deadline: float = 0.0
    received: bytearray = field(default_factory=bytearray)
    to_send: bytearray = field(default_factory=bytearray)


class Resolver:
    """Serves the names of all containers. Thread-safe; its one thread starts with the first container."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._thread = EventThread("resolver", self._turn)
        self._served: dict[str, _Served] = {}
        self._in_flight: set[_Forwarded] = set()

    def add(self, container_id: str, namespace: int) -> None:
        """Serve a container whose network namespace is open at `namespace`, which stays the caller's.

        Raises:
            OSError: its sockets or its packet filter's rules could not be made.
        """
        with self._lock:
            if container_id in self._served:
                return
        datagrams, listener = _open_sockets(namespace)
        served = _Served(container_id, os.dup(namespace), datagrams, listener)
        with self._lock:
            self._served[container_id] = served
        self._thread.run(lambda: self._serve(served))

    def remove(self, container_id: str, *, namespace_stays: bool = True) -> None:
        """Serve it no more: its sockets are closed and, if its namespace lives on, the rules in that removed."""
        with self._lock:
            served = self._served.pop(container_id, None)
        if served is None:
            return
        if namespace_stays:
            with contextlib.suppress(OSError), entered(served.namespace), nftables.NetfilterSocket() as netfilter:
                netfilter.transact(nftables.delete_table(_TABLE))  # gone already, when somebody flushed all
        self._thread.run(lambda: self._close(served))

    def close(self) -> None:
        """End the thread and close all. Rules stay in the containers' namespaces, for the next engine to replace."""
        self._thread.close(self._close_all)

    # --- everything below runs in the thread, or when it has ended --------------------------------------------------

    def _close_all(self) -> None:
        for forwarded in list(self._in_flight):
            self._end(forwarded)
        for served in list(self._served.values()):
            self._close(served)
        self._served.clear()

    def _turn(self) -> float:
        self._expire()
        return 0.25 if self._in_flight else 2.0

    def _serve(self, served: _Served) -> None:
        self._thread.watch(served.datagrams, selectors.EVENT_READ, lambda _: self._datagrams(served))
        self._thread.watch(served.listener, selectors.EVENT_READ, lambda _: self._accept(served))

    def _close(self, served: _Served) -> None:
        for connection in list(served.connections):
            self._disconnect(connection)
        for each in (served.datagrams, served.listener):
            if each.fileno() >= 0:
                self._thread.watch(each, 0)
                each.close()
        if served.namespace >= 0:
            os.close(served.namespace)
            served.namespace = -1

    def _datagrams(self, served: _Served) -> None:
        for _ in range(64):
            try:
                data, client = served.datagrams.recvfrom(_DATAGRAM_BYTES)
            except OSError:  # none is left
                return

            def reply(answer: bytes, client: tuple[Any, ...] = client) -> None:
                with contextlib.suppress(OSError):  # it has gone
                    served.datagrams.sendto(answer, client)

            self._question(served, data, reply, by_tcp=False)

    def _accept(self, served: _Served) -> None:
        with contextlib.suppress(OSError):  # the client has gone again, or no descriptor is free
            accepted, _ = served.listener.accept()
            if len(served.connections) >= _MOST_CONNECTIONS:
                accepted.close()
                return
            accepted.setblocking(False)
            connection = _Connection(served, accepted)
            served.connections.add(connection)
            self._thread.watch(accepted, selectors.EVENT_READ, lambda mask: self._connection(connection, mask))

    def _disconnect(self, connection: _Connection) -> None:
        connection.served.connections.discard(connection)
        if connection.client.fileno() >= 0:
            self._thread.watch(connection.client, 0)
            connection.client.close()

    def _connection(self, connection: _Connection, mask: int) -> None:
        connection.last = time.monotonic()
        try:
            if mask & selectors.EVENT_READ:
                data = connection.client.recv(_DATAGRAM_BYTES)
                if not data:
                    self._disconnect(connection)
                    return
                connection.received += data
            self._flush(connection)
            while len(connection.to_send) < _MOST_UNSENT_BYTES:
                message = _take(connection.received)
                if message is None:
                    break
                self._question(connection.served, message, lambda answer: self._reply(connection, answer), by_tcp=True)
        except BlockingIOError:
            return
        except OSError:
            self._disconnect(connection)

    def _reply(self, connection: _Connection, answer: bytes) -> None:
        if connection.client.fileno() < 0:
            return
        connection.to_send += struct.pack("!H", len(answer)) + answer
        try:
            self._flush(connection)
        except OSError:
            self._disconnect(connection)

    def _flush(self, connection: _Connection) -> None:
        if connection.client.fileno() < 0:
            return
        if connection.to_send:
            with contextlib.suppress(BlockingIOError):
                sent = connection.client.send(connection.to_send)
                del connection.to_send[:sent]
        # Nothing more is read from one who doesn't take his answers.
        events = selectors.EVENT_WRITE if connection.to_send else selectors.EVENT_READ
        self._thread.watch(connection.client, events, lambda mask: self._connection(connection, mask))

    def _question(self, served: _Served, data: bytes, reply: Reply, *, by_tcp: bool) -> None:
        try:
            query = messages.read_query(data)
        except MalformedMessage:
            if len(data) >= 12 and not data[2] & 0x80:  # to an answer there is no answer
                reply(messages.refuse(data))
            return
        if not query.standard:
            reply(messages.failure(query, messages.NOT_IMPLEMENTED))
            return
        try:
            answer = self._known(served.container_id, query, 0xFFFF if by_tcp else query.udp_bytes)
        except ValueError:  # a container's name that no message can hold: a part of more than 63 bytes
            answer = messages.failure(query, messages.SERVER_FAILURE)
        if answer is not None:
            reply(answer)
            return
        servers = list(self._directory.upstreams(served.container_id))
        if not servers or len(self._in_flight) >= _MOST_IN_FLIGHT or served.in_flight >= _MOST_OF_ONE:
            reply(messages.failure(query, messages.SERVER_FAILURE))
            return
        self._try(_Forwarded(served, query, data, secrets.randbits(16), servers * _TRIES, by_tcp, reply))

    def _known(self, container_id: str, query: Query, limit: int) -> bytes | None:
        """The answer if the question is about a container."""
        if query.klass != messages.INTERNET:
            return None
        if query.kind == messages.PTR:
            address = messages.address_of_pointer(query.name)
            found = self._directory.find_address(container_id, address) if address else None
            return None if found is None else messages.pointer(query, found.name, limit)
        found = self._directory.find(container_id, query.name, 6 if query.kind == messages.AAAA else 4)
        if found is None:
            return None
        # A name that is there has no records of other kinds: "none", and not "no such name".
        wanted = found.addresses if query.kind in (messages.A, messages.AAAA) else ()
        return messages.addresses(query, wanted, limit)

    def _try(self, forwarded: _Forwarded) -> None:
        """Ask the next server; when there is none left, say so."""
        while forwarded.servers:
            server = forwarded.servers.pop(0)
            try:
                self._ask(forwarded, server)
            except OSError:  # it can't be reached from here
                self._end(forwarded)
                continue
            self._in_flight.add(forwarded)
            forwarded.served.in_flight += 1
            return
        forwarded.reply(messages.failure(forwarded.query, messages.SERVER_FAILURE))

    def _ask(self, forwarded: _Forwarded, server: str) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        kind = socket.SOCK_STREAM if forwarded.by_tcp else socket.SOCK_DGRAM
        forwarded.upstream = upstream = socket.socket(family, kind)
        upstream.setblocking(False)
        forwarded.deadline = time.monotonic() + _TRY_SECONDS
        question = messages.with_identity(forwarded.data, forwarded.identity)
        forwarded.received.clear()
        if forwarded.by_tcp:
            result = upstream.connect_ex((server, _PORT))
            if result not in (0, errno.EINPROGRESS):
                raise OSError(result, os.strerror(result))
            forwarded.to_send[:] = struct.pack("!H", len(question)) + question
            events = selectors.EVENT_WRITE
        else:
            upstream.connect((server, _PORT))
            upstream.send(question)
            events = selectors.EVENT_READ
        self._thread.watch(upstream, events, lambda mask: self._answered(forwarded, mask))

    def _answered(self, forwarded: _Forwarded, mask: int) -> None:
        upstream = forwarded.upstream
        if upstream is None:
            return
        try:
            if mask & selectors.EVENT_WRITE and forwarded.to_send:
                sent = upstream.send(forwarded.to_send)
                del forwarded.to_send[:sent]
                if not forwarded.to_send:
                    self._thread.watch(upstream, selectors.EVENT_READ, lambda mask: self._answered(forwarded, mask))
                return
            data = upstream.recv(_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._next(forwarded)
            return
        if forwarded.by_tcp:
            forwarded.received += data
            message = _take(forwarded.received)
            if message is None:
                if not data:
                    self._next(forwarded)
                return
            data = message
        if not messages.is_answer_to(data, forwarded.identity, forwarded.query.question):
            return  # somebody guesses: the true answer may still come
        self._end(forwarded)
        forwarded.reply(messages.with_identity(data, forwarded.query.id))

    def _next(self, forwarded: _Forwarded) -> None:
        self._end(forwarded)
        self._try(forwarded)

    def _end(self, forwarded: _Forwarded) -> None:
        if forwarded in self._in_flight:
            self._in_flight.remove(forwarded)
            forwarded.served.in_flight -= 1
        if forwarded.upstream is not None:
            self._thread.watch(forwarded.upstream, 0)
            forwarded.upstream.close()
            forwarded.upstream = None

    def _expire(self) -> None:
        now = time.monotonic()
        for forwarded in [each for each in self._in_flight if each.deadline < now]:
            self._next(forwarded)
        with self._lock:
            everyone = list(self._served.values())
        for served in everyone:
            if served.connections:
                for connection in [each for each in served.connections if now - each.last > _IDLE_SECONDS]:
                    self._disconnect(connection)


def _take(received: bytearray) -> bytes | None:
    """The first whole message of a TCP stream, taken out of it."""
    if len(received) < 2:
        return None
    length = received[0] << 8 | received[1]
    if len(received) < 2 + length:
        return None
    message = bytes(received[2 : 2 + length])
    del received[: 2 + length]
    return message


def _open_sockets(namespace: int) -> tuple[socket.socket, socket.socket]:
    """The resolver's sockets in a container's namespace, for UDP and TCP, with port 53 led to them."""
    with contextlib.ExitStack() as undo:
        with entered(namespace):
            datagrams = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            listener = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            netfilter = undo.enter_context(contextlib.closing(nftables.NetfilterSocket()))
        for each in (datagrams, listener):
            each.setblocking(False)
            each.bind((ADDRESS, 0))
        listener.listen(64)
        address = socket.inet_aton(ADDRESS)
        rules = [
            nftables.new_output_chain(_TABLE, "output"),
            nftables.new_redirection(_TABLE, "output", socket.IPPROTO_UDP, address, _PORT, datagrams.getsockname()[1]),
            nftables.new_redirection(_TABLE, "output", socket.IPPROTO_TCP, address, _PORT, listener.getsockname()[1]),
        ]
        try:
            netfilter.transact(nftables.new_table(_TABLE, exclusive=True), *rules)
        except FileExistsError:  # of an engine before us. (Deleting costs the kernel milliseconds, so not always.)
            netfilter.transact(nftables.delete_table(_TABLE), nftables.new_table(_TABLE), *rules)
        netfilter.close()
        undo.pop_all()
    return datagrams, listener
