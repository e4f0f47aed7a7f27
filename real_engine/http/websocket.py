"""Websockets (RFC 6455) on a connection that was HTTP's: handshake, frames, pings, and an orderly end.

Extensions are not offered. A message is handed out whole; `relay` joins a websocket with a byte stream, as `docker
attach` over a websocket needs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket as sockets
import struct
import threading
import time
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from real_engine.http.messages import Hijacked, Request

MOST_MESSAGE_BYTES = 16 << 20
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _MASKED = 0x80, 0x80
_MOST_CONTROL_BYTES = 125
_CLOSE_SECONDS = 2.0

NORMAL, PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1000, 1002, 1007, 1009
"""Codes of the end of a connection (RFC 6455 7.4.1)."""
_GIVEN_CODES = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


class WebsocketClosed(ConnectionError):
    """Nothing can be sent any more."""


class _Violation(Exception):
    """The other side broke the protocol; `code` is what it is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def accept(request: Request, subprotocols: Sequence[str] = ()) -> Websocket:
    """Answer a websocket's handshake and take the connection over.

    Of the client's subprotocols, the first that is among `subprotocols` is chosen.

    Raises:
        InvalidParameter: it is no such handshake.
        ConnectionError: the client has gone.
    """
    headers = request.headers
    if (
        request.method != "GET"
        or "upgrade" not in headers.tokens("Connection")
        or "websocket" not in headers.tokens("Upgrade")
    ):
        raise InvalidParameter("not websocket protocol")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise InvalidParameter("missing or bad WebSocket Version")
    key = headers.get("Sec-WebSocket-Key")
    try:
        proper = len(b64decode(key, validate=True)) == 16
    except ValueError:
        proper = False
    if not proper:
        raise InvalidParameter("mismatch challenge/response")
    # SHA-1 is what the protocol prescribes; it shows that a websocket was meant and secures nothing.
    digest = hashlib.sha1(key.encode() + _MAGIC, usedforsecurity=False).digest()
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": b64encode(digest).decode(),
    }
    offered = [name.strip() for value in headers.all("Sec-WebSocket-Protocol") for name in value.split(",")]
    chosen = next((name for name in offered if name in subprotocols), None)
    if chosen is not None:
        fields["Sec-WebSocket-Protocol"] = chosen
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Websocket(request.take_over(f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode(), 101, fields))


class Websocket:
    """The server's end of a websocket. One thread may receive while others send."""

    def __init__(self, connection: Hijacked) -> None:
        self._socket = connection.socket
        self._buffer = connection.buffered
        self._sending = threading.Lock()
        self._closed = False

    def send(self, data: bytes | memoryview, *, text: bool = False) -> None:
        """Send one message.

        Raises:
            ConnectionError: it is closed, or the client has gone.
        """
        self._send(_TEXT if text else _BINARY, bytes(data))

    def receive(self) -> bytes | None:
        """The next message; None when the client closed the websocket or broke its rules.

        Pings are answered on the way.
        """
        try:
            return self._receive()
        except _Violation as violation:
            self.close(violation.code, str(violation))
        except OSError:
            self._closed = True
        return None

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say that it ends, wait a moment for the other side to say so too, and close the connection."""
        # Who takes nothing, so that another thread is still sending to it, won't take this either.
        if self._sending.acquire(timeout=_CLOSE_SECONDS):
            try:
                if not self._closed:
                    self._closed = True
                    self._say_goodbye(struct.pack("!H", code) + reason.encode()[: _MOST_CONTROL_BYTES - 2])
            except OSError:
                pass  # it has gone, or takes nothing
            finally:
                self._sending.release()
        self._closed = True
        # Another thread may wait in recv; closing alone would leave it there.
        with contextlib.suppress(OSError):
            self._socket.shutdown(sockets.SHUT_RDWR)
        self._socket.close()

    def _say_goodbye(self, data: bytes) -> None:
        self._socket.settimeout(_CLOSE_SECONDS)
        self._socket.sendall(_head(_CLOSE, len(data)) + data)
        self._socket.shutdown(sockets.SHUT_WR)
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._socket.recv(65536) and time.monotonic() < deadline:
            pass

    def _receive(self) -> bytes | None:
        message = bytearray()
        kind = 0
        while True:
            final, opcode, data = self._frame(MOST_MESSAGE_BYTES - len(message))
            if opcode == _CLOSE:
                self._answer_close(data)
                return None
            if opcode == _PING:
                self._send(_PONG, data)
                continue
            if opcode == _PONG:
                continue
            if (opcode == _CONTINUATION) != (kind != 0):
                raise _Violation(PROTOCOL_ERROR, "a fragment out of order")
            kind = kind or opcode
            message += data
            if final:
                if kind == _TEXT:
                    _check_text(bytes(message))
                return bytes(message)

    def _frame(self, room: int) -> tuple[bool, int, bytes]:
        first, second = self._exactly(2)
        opcode = first & 0x0F
        control = opcode & 0x8 != 0
        if first & 0x70 or opcode not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            raise _Violation(PROTOCOL_ERROR, "an extension that was not agreed on")
        if not second & _MASKED:
            raise _Violation(PROTOCOL_ERROR, "a client's frame without a mask")
        length = second & 0x7F
        if control and (length > _MOST_CONTROL_BYTES or not first & _FINAL):
            raise _Violation(PROTOCOL_ERROR, "a control frame that is too long or in fragments")
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        if not control and length > room:
            raise _Violation(TOO_BIG, "a message that is too long")
        mask = self._exactly(4)
        return bool(first & _FINAL), opcode, unmask(self._exactly(length), mask)

    def _answer_close(self, data: bytes) -> None:
        """The client wants to end: say the same, once."""
        code = NORMAL
        if len(data) >= 2:
            (code,) = struct.unpack("!H", data[:2])
            if code not in _GIVEN_CODES and not 3000 <= code < 5000:
                raise _Violation(PROTOCOL_ERROR, "a code that is none")
            _check_text(data[2:])
        elif data:
            raise _Violation(PROTOCOL_ERROR, "half a code")
        with contextlib.suppress(OSError):
            self._send(_CLOSE, struct.pack("!H", code) if data else b"")
        self._closed = True

    def _send(self, opcode: int, data: bytes) -> None:
        with self._sending:
            if self._closed:
                raise WebsocketClosed("the websocket is closed")
            self._socket.sendall(_head(opcode, len(data)) + data)

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            if self._buffer:
                piece, self._buffer = self._buffer[:count], self._buffer[count:]
            else:
                piece = self._socket.recv(min(count, 1 << 18))
                if not piece:
                    raise WebsocketClosed("the connection ended in the middle of a frame")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


def _head(opcode: int, length: int) -> bytes:
    """What stands before the data of a frame that is a whole message."""
    first = _FINAL | opcode
    if length < 126:
        return bytes((first, length))
    if length < 1 << 16:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def unmask(data: bytes, mask: bytes) -> bytes:
    """Each byte of `data` exclusive-or the byte of `mask` whose turn it is (RFC 6455 5.3); its own inverse."""
    count = len(data)
    key = (mask * (count // 4 + 1))[:count]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(count, "little")


def relay(websocket: Websocket, stream: sockets.socket, *, text: bool = False) -> None:
    """Join a websocket and a byte stream until one of them ends; closes both.

    A websocket has no half-closed state: a client that closes it wants nothing more.
    """

    def outward() -> None:
        try:
            while data := stream.recv(65536):
                websocket.send(data, text=text)
        except OSError:
            pass  # one of them has gone; the close below tells the other
        websocket.close()

    thread = threading.Thread(target=outward, name="websocket", daemon=True)
    thread.start()
    try:
        while (message := websocket.receive()) is not None:
            stream.sendall(message)
    except OSError:
        pass  # the stream takes no input any more
    finally:
        with contextlib.suppress(OSError):
            stream.shutdown(sockets.SHUT_RDWR)
        thread.join()
        stream.close()


def _check_text(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise _Violation(INVALID_DATA, "text that is not UTF-8") from error
