"""A client that is attached to a program: what the program writes goes to it, and what it types to the program.

The connection is the client's own, handed over by the daemon. So it lives on when the daemon ends.

Output that the client doesn't read is kept for it, up to 1 MiB. Then nothing more is read from the program until the
client has taken half of it, so the program waits (once its pipe is full) and nothing is lost. Docker holds a program up
likewise, after 1 MB.
"""

import socket
import struct
from collections import deque
from typing import Protocol

from real_engine.supervisor.escape import EscapeProxy
from real_engine.supervisor.loop import GONE, READABLE, WRITABLE, Loop

KEPT_BYTES = 1 << 20
_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}
_HEADER = struct.Struct("!BxxxI")  # the stream's number, three zero bytes, the length (Docker's API, ContainerAttach)
_READ_BYTES = 65536
_MOST_PIECES = 64  # of what is kept, in one call
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL  # the connection itself stays as it was: the daemon may still have it


class Program(Protocol):
    """What an attachment tells the program that it is attached to."""

    def typed(self, data: bytes) -> bool:
        """The client has sent this; returns whether it may send more."""

    def input_ended(self, attachment: "Attachment") -> None:
        """The client sends no more, or has gone."""

    def detach(self, attachment: "Attachment") -> None:
        """The client has typed the detach keys."""

    def relieved(self) -> None:
        """The client has taken enough of what was kept for it."""

    def left(self, attachment: "Attachment") -> None:
        """The attachment is over."""


class Attachment:
    """One client's connection. `streams` are those that it wants; `framed` says which is which, by a header."""

    __slots__ = (
        "_connection",
        "_early",
        "_ending",
        "_escape",
        "_framed",
        "_kept",
        "_kept_bytes",
        "_loop",
        "_program",
        "_reading",
        "_stdin",
        "_streams",
        "_watched",
        "full",
    )

    def __init__(
        self,
        loop: Loop,
        connection: int,
        program: Program,
        *,
        streams: frozenset[str],
        stdin: bool,
        framed: bool,
        pending_input: bytes,
    ) -> None:
        self._loop, self._program = loop, program
        self._connection: socket.socket | None = socket.socket(fileno=connection)
        self._streams, self._stdin, self._framed = streams, stdin, framed
        self._escape: EscapeProxy | None = None
        self._early = pending_input if stdin else b""
        self._kept: deque[bytes | memoryview] = deque()
        self._kept_bytes = 0
        self._reading = False
        self._ending = False
        self.full = False
        self._watched = 0
        loop.watch(connection, 0, self._ready)

    @property
    def stdin(self) -> bool:
        """Whether what it sends is for the program."""
        return self._stdin

    def wants(self, stream: str) -> bool:
        """Whether it gets what the program writes to `stream`."""
        return stream in self._streams

    def begin(self, detach_keys: bytes | None) -> None:
        """The program runs: pass on what is typed. `detach_keys` are looked for unless they are None."""
        if detach_keys is not None:
            self._escape = EscapeProxy(detach_keys)
        early, self._early = self._early, b""
        self._reading = self._stdin
        if early:
            self._typed(early)
        self._watch()

    def take_input(self, ready: bool) -> None:
        """Read from the client, or let it wait."""
        self._reading = ready and self._stdin
        self._watch()

    def send(self, stream: str, data: memoryview) -> None:
        """Send what the program wrote, now or later; `data` is copied if need be."""
        if self._connection is None or self._ending:
            return
        parts: list[bytes | memoryview] = [data]
        if self._framed:
            parts.insert(0, _HEADER.pack(_STREAM_NUMBERS[stream], len(data)))
        sent = 0 if self._kept else self._send(parts)
        for part in parts:
            if sent < len(part):
                self._kept.append(bytes(part[sent:]))
                self._kept_bytes += len(part) - sent
            sent = max(0, sent - len(part))
        if self._kept_bytes >= KEPT_BYTES:
            self.full = True
        self._watch()

    def end(self) -> None:
        """Close the connection as soon as all is sent."""
        self._ending = True
        self._reading = False
        if not self._kept:
            self.close()
        else:
            self._watch()

    def close(self) -> None:
        """Close the connection now, whoever else has a descriptor of it."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        self._loop.forget(connection.fileno())
        self._kept.clear()
        self.full = False
        try:
            connection.shutdown(socket.SHUT_WR)
            # TCP would take unread input for a reason to throw away what the client hasn't read yet. (As much as a
            # socket holds, and not for as long as somebody sends.)
            for _ in range(_MOST_PIECES):
                if not connection.recv(_READ_BYTES, socket.MSG_DONTWAIT):
                    break
            connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it is gone, or has nothing for us
        connection.close()
        self._program.left(self)

    def _send(self, parts: list[bytes | memoryview]) -> int:
        """Send at once what can be; returns how many bytes. A client that has gone takes everything."""
        if self._connection is None:
            return 0
        try:
            return self._connection.sendmsg(parts, [], _NOW)
        except BlockingIOError:
            return 0
        except OSError:
            self._gone()
            return sum(map(len, parts))

    def _watch(self) -> None:
        if self._connection is None:
            return
        events = (READABLE if self._reading else 0) | (WRITABLE if self._kept else 0)
        if events != self._watched:
            self._watched = events
            self._loop.change(self._connection.fileno(), events)

    def _ready(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if self._connection is not None and events & READABLE and self._reading:
            self._read()
        elif events & GONE:
            self._gone()

    def _flush(self) -> None:
        while self._kept and self._connection is not None:
            pieces = [self._kept[index] for index in range(min(len(self._kept), _MOST_PIECES))]
            sent = self._send(pieces)
            if self._connection is None:
                return
            if sent == 0:
                break
            self._kept_bytes -= sent
            while self._kept and sent >= len(self._kept[0]):
                sent -= len(self._kept.popleft())
            if sent:
                self._kept[0] = memoryview(self._kept[0])[sent:]
        if not self._kept and self._ending:
            self.close()
            return
        self._watch()
        if self.full and self._kept_bytes <= KEPT_BYTES // 2:
            self.full = False
            self._program.relieved()

    def _read(self) -> None:
        if self._connection is None:
            return
        try:
            data = self._connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._gone()
            return
        if data:
            self._typed(data)
            return
        if self._escape is not None:
            self._program.typed(self._escape.rest())
        self._reading = self._stdin = False
        self._watch()
        self._program.input_ended(self)

    def _typed(self, data: bytes) -> None:
        detached = False
        if self._escape is not None:
            data, detached = self._escape.feed(data)
        more = self._program.typed(data)
        if detached:
            self._program.detach(self)
            self.end()
        elif not more:
            self.take_input(False)

    def _gone(self) -> None:
        self._ending = True
        if self._stdin:
            self._stdin = False
            self._program.input_ended(self)
        self.close()
