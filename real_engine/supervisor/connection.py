"""The supervisor's side of a connection that a daemon has made."""

import os
import socket
from collections import deque
from collections.abc import Callable

from real_engine.supervisor.loop import READABLE, WRITABLE, Loop
from real_engine.supervisor.protocol import Message, ProtocolError, Receiver, encode

_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Connection:
    """Takes messages and sends them, and never waits. `took` gets each message with its descriptors."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        took: Callable[["Connection", Message, list[int]], None],
        closed: Callable[["Connection"], None],
    ) -> None:
        self.greeted = False
        self._loop, self._socket, self._took, self._closed = loop, connection, took, closed
        self._receiver = Receiver()
        self._kept: deque[bytes] = deque()
        self.open = True
        loop.watch(connection.fileno(), READABLE, self._ready)

    def send(self, message: Message) -> None:
        """Send a message, now or later; nothing if the other side has gone."""
        if not self.open:
            return
        self._kept.append(encode(message))
        if len(self._kept) == 1:
            self._flush()

    def close(self) -> None:
        """Close it; what isn't sent yet is lost. Doing it twice does no harm."""
        if not self.open:
            return
        self.open = False
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._receiver.close()
        self._closed(self)

    def _ready(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if not self.open or not events & ~WRITABLE:
            return
        try:
            messages = self._receiver.receive(self._socket, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except (EOFError, OSError, ProtocolError):
            self.close()
            return
        for position, (message, descriptors) in enumerate(messages):
            if self.open:
                self._took(self, message, descriptors)
            else:  # an earlier one had it closed
                for _, left in messages[position:]:
                    for descriptor in left:
                        os.close(descriptor)
                return

    def _flush(self) -> None:
        while self._kept:
            try:
                sent = self._socket.send(self._kept[0], _NOW)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            if sent < len(self._kept[0]):
                self._kept[0] = self._kept[0][sent:]
            else:
                self._kept.popleft()
        self._loop.change(self._socket.fileno(), READABLE | (WRITABLE if self._kept else 0))
