"""Sends an answer: whole, as a stream that is flushed item by item, or as a file."""

from __future__ import annotations

import logging
import os
import time
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from real_engine.http.wire import Disconnected, Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

    from real_engine.http.messages import Request, Response
    from real_engine.http.wire import Capture

_log = logging.getLogger("onggi.http")

REASONS = {status.value: status.phrase for status in HTTPStatus}
"""What stands beside a status."""
_NO_BODY = frozenset((204, 304))
_JOINED_BYTES = 64 << 10  # up to here, copying is cheaper than another system call


class Writer:
    """Sends one answer. `stopping` tells whether the connection is to end after it."""

    __slots__ = ("_protocol", "_request", "_socket", "_stopping", "begun", "capture", "keep")

    def __init__(self, request: Request, protocol: tuple[int, int], stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._request = request
        self._protocol = protocol
        self._socket = request.reader.socket
        self.begun = False
        """Whether something of the answer is out."""
        self.capture: Capture | None = None
        """Where the beginning of the body is kept, for a record of the exchange."""
        options = request.headers.tokens("Connection") if "Connection" in request.headers else ()
        # Whether another request can follow on this connection.
        self.keep = "close" not in options if protocol >= (1, 1) else "keep-alive" in options

    def send(self, response: Response) -> None:
        """Send it; an iterator is closed whatever happens.

        Raises:
            ConnectionError: the client has gone.
        """
        body = response.body
        try:
            if isinstance(body, (bytes, bytearray, memoryview)):
                self._whole(response, bytes(body))
            elif hasattr(body, "read"):
                self._file(response, body)
            else:
                self._stream(response, iter(body))
        except OSError as error:
            self.keep = False
            if isinstance(error, (ConnectionError, TimeoutError)):
                raise
            raise Disconnected(str(error)) from error
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    def _whole(self, response: Response, body: bytes) -> None:
        length = None if response.status in _NO_BODY else len(body)
        head = self._head(response, length, bool(body))
        if self._request.method == "HEAD" or length is None:
            body = b""
        if self.capture is not None:
            self.capture.add(body)
        self._parts(head, body)

    def _stream(self, response: Response, items: Any) -> None:
        """An iterator: the head first, then each item as it comes."""
        chunked = self._protocol >= (1, 1) and "Content-Length" not in response.headers
        if not chunked and "Content-Length" not in response.headers:
            self.keep = False  # the end of the connection ends the body
        self._socket.sendall(self._head(response, None, True, chunked))
        if self._request.method == "HEAD":
            return
        try:
            for item in items:
                if not item:
                    continue  # an empty chunk would end the body
                if self.capture is not None:
                    self.capture.add(item)
                if chunked:
                    self._parts(b"%x\r\n" % len(item), item, b"\r\n")
                else:
                    self._socket.sendall(item)
        except (ConnectionError, Malformed):
            raise
        except Exception as error:
            # The status is out already; all that can be said is that the body isn't whole.
            _log.error(
                "%s %s, in its answer: %s\n%s",
                self._request.method,
                self._request.path,
                error,
                traceback.format_exc().rstrip(),
            )
            raise Disconnected("the answer ended early") from error
        if chunked:
            self._socket.sendall(b"0\r\n\r\n")

    def _file(self, response: Response, file: Any) -> None:
        """A file, from where it stands to its end or for the length that is among the headers."""
        given = response.headers.get("Content-Length")
        descriptor = _regular(file)
        if given is None and descriptor is None:
            self._stream(response, iter(lambda: file.read(_JOINED_BYTES), b""))
            return
        if given is not None:
            length = int(given)
        else:
            length = max(0, os.fstat(descriptor).st_size - file.tell()) if descriptor is not None else 0
        self._socket.sendall(self._head(response, length, True))
        if self._request.method == "HEAD":
            return
        if descriptor is not None and not hasattr(self._socket, "pending") and self.capture is None:
            self._sendfile(descriptor, file.tell(), length)
            return
        while length:
            piece = file.read(min(length, 256 << 10))
            if not piece:
                raise Disconnected("the file is shorter than was announced")
            if self.capture is not None:
                self.capture.add(piece)
            self._socket.sendall(piece)
            length -= len(piece)

    def _sendfile(self, descriptor: int, offset: int, length: int) -> None:
        out = self._socket.fileno()
        while length:
            sent = os.sendfile(out, descriptor, offset, min(length, 1 << 30))
            if not sent:
                raise Disconnected("the file is shorter than was announced")
            offset += sent
            length -= sent

    def _head(self, response: Response, length: int | None, has_body: bool, chunked: bool = False) -> bytes:
        self.begun = True
        if self._stopping() or self._request.body.awaited:
            self.keep = False
        fields = dict(self._request.response_headers)
        if response.content_type is not None:
            fields["Content-Type"] = response.content_type
        elif has_body:
            fields["Content-Type"] = "application/json"
        fields.update(response.headers)
        if chunked:
            fields["Transfer-Encoding"] = "chunked"
        elif length is not None:
            fields.setdefault("Content-Length", str(length))
        fields["Date"] = _date()
        if not self.keep:
            fields["Connection"] = "close"
        elif self._protocol < (1, 1):
            fields["Connection"] = "keep-alive"
        if self._request.note_head is not None:
            self._request.note_head(response.status, fields)
        lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}"]
        lines += [f"{name}: {_one_line(value)}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _parts(self, *parts: bytes) -> None:
        if sum(map(len, parts)) <= _JOINED_BYTES:
            self._socket.sendall(b"".join(parts))
        else:
            for part in parts:
                self._socket.sendall(part)


def _regular(file: Any) -> int | None:
    """The descriptor of a real, regular file; None for anything else that can be read."""
    from io import BufferedReader, FileIO
    from stat import S_ISREG

    if not isinstance(file, (BufferedReader, FileIO)):
        return None
    descriptor = file.fileno()
    return descriptor if S_ISREG(os.fstat(descriptor).st_mode) else None


def _one_line(value: str) -> str:
    """A header's value with what would end its line taken out."""
    if "\r" in value or "\n" in value:
        return value.replace("\r", " ").replace("\n", " ")
    return value


_date_of: tuple[int, str] = (0, "")


def _date() -> str:
    """Now as `Date` has it, formatted once a second."""
    global _date_of
    now = int(time.time())
    known = _date_of
    if known[0] != now:
        # Not strftime, whose names of days and months would be the locale's.
        t = time.gmtime(now)
        day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[t.tm_wday]
        month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[t.tm_mon - 1]
        clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
        known = _date_of = (now, f"{day}, {t.tm_mday:02} {month} {t.tm_year} {clock} GMT")
    return known[1]
