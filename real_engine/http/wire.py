"""What travels: heads of requests, bodies of known length or in chunks, and a reader that keeps what came too early.

Sources: RFC 9110 (semantics), RFC 9112 (HTTP/1.1). Where the RFC lets a server be lenient, this one refuses: two
lengths that differ, a length beside chunks, blanks before a colon, lines that are folded or end in a bare line feed are
how requests are smuggled.
"""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote_to_bytes

from real_engine.http.headers import Headers

if TYPE_CHECKING:
    import socket

MOST_HEAD_BYTES = 65536
MOST_FIELDS = 256
_BLOCK = 65536
_MOST_CHUNK_LINE = 4096
_MOST_BLANK_BYTES = 64  # empty lines before a request
# Beyond 16 bytes a chunk and twice the data, what a body in chunks may have of lengths and extensions (Go's figures).
_MOST_EXCESS_BYTES = 16 << 10

_STALLED = "the client sent nothing for too long"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\xff]+) HTTP/(\d)\.(\d)")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,16}")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_HOST = re.compile(r"[-0-9A-Za-z!$%&'()*+,.:;=\[\]_~]*")  # as golang.org/x/net/http/httpguts ValidHostHeader has it
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Malformed(Exception):
    """What came is no HTTP, or more of it than is taken. `status` is the answer that it gets."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Disconnected(ConnectionError):
    """The other side closed the connection in the middle of a message."""


class Reader:
    """Reads a socket through a buffer, so that what came after a message stays for the next one."""

    __slots__ = ("_buffer", "_start", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""
        self._start = 0

    def head(self, most: int = MOST_HEAD_BYTES, seconds: float | None = None) -> bytes | None:
        """The bytes up to the empty line that ends a head, without it; None if the connection ended before one began.

        Once it has begun, all of it must come within `seconds`, so that nobody keeps us by a byte a minute.

        Raises:
            Malformed: longer than `most`, or no head that will ever end.
            Disconnected: it ended in the middle.
            TimeoutError: the socket's time is over.
        """
        data = self._buffer[self._start :] if self._start else self._buffer
        blanks = 0
        if data[:1] in (b"\r", b"\n"):
            data, blanks = _without_blank_lines(data, 0)
        searched, deadline = 0, 0.0
        while (end := data.find(b"\r\n\r\n", searched)) < 0:
            if len(data) > most:
                raise Malformed("request header fields too large", 431)
            # Whoever speaks another protocol to us would be waited for until its time is over.
            if (len(data) > 3 and data[0] < 0x21) or _BARE_LINE_FEED.search(data, searched):
                raise Malformed("malformed HTTP request")
            searched = max(0, len(data) - 3)
            if data and seconds is not None:
                deadline = deadline or time.monotonic() + seconds
                self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            more = self.socket.recv(_BLOCK)
            if not more:
                if data:
                    raise Disconnected("the connection ended in the middle of a request")
                return None
            if not data:
                more, blanks = _without_blank_lines(more, blanks)
            data += more
        if end > most:
            raise Malformed("request header fields too large", 431)
        self._buffer, self._start = data, end + 4
        return data[:end]

    def some(self, most: int) -> bytes:
        """Up to `most` bytes: what is there already, else what comes next; empty at the end of the connection.

        Raises:
            Disconnected: nothing comes for too long.
        """
        start = self._start
        if start < len(self._buffer):
            piece = self._buffer[start : start + most]
            self._start = start + len(piece)
            return piece
        try:
            return self.socket.recv(min(most, 1 << 20))
        except (TimeoutError, BlockingIOError):
            raise Disconnected(_STALLED) from None

    def into(self, view: memoryview) -> int:
        """As `some`, into `view`; 0 at the end of the connection. Raises as `some`."""
        start = self._start
        if start < len(self._buffer):
            piece = self._buffer[start : start + len(view)]
            self._start = start + len(piece)
            view[: len(piece)] = piece
            return len(piece)
        try:
            return self.socket.recv_into(view)
        except (TimeoutError, BlockingIOError):
            raise Disconnected(_STALLED) from None

    def line(self, most: int = _MOST_CHUNK_LINE) -> bytes:
        """The bytes up to the end of the line, without it.

        Raises:
            Malformed: longer than `most`, or the line ends in a bare line feed.
            Disconnected: the connection ended before, or nothing comes for too long.
        """
        while (end := self._buffer.find(b"\n", self._start)) < 0:
            if len(self._buffer) - self._start > most:
                raise Malformed("header line too long")
            kept = self._buffer[self._start :]
            self._buffer, self._start = b"", 0
            more = self.some(_BLOCK)
            if not more:
                raise Disconnected("the connection ended in the middle of a body")
            self._buffer = kept + more
        line = self._buffer[self._start : end]
        if len(line) > most:
            raise Malformed("header line too long")
        if not line.endswith(b"\r"):
            raise Malformed("chunked line ends with bare LF")
        self._start = end + 1
        return line[:-1]

    def take_buffered(self) -> bytes:
        """What has been read from the socket and not been used; it is the caller's then."""
        rest = self._buffer[self._start :]
        self._buffer, self._start = b"", 0
        return rest

    @property
    def buffered(self) -> bool:
        """Whether something has been read that nobody has used."""
        return self._start < len(self._buffer)


def _without_blank_lines(data: bytes, before: int) -> tuple[bytes, int]:
    """Without the empty lines at its beginning, which RFC 9112 2.2 has passed over, and how many bytes they have now.

    Raises:
        Malformed: more of them than come by mistake.
    """
    rest = data.lstrip(b"\r\n")
    blanks = before + len(data) - len(rest)
    if blanks > _MOST_BLANK_BYTES:
        raise Malformed("malformed HTTP request")
    return rest, blanks


def parse_head(head: bytes) -> tuple[str, str, tuple[int, int], Headers]:
    """Method, target, version of the protocol, and header fields of a request's head.

    Raises:
        Malformed: it is none.
    """
    lines = head.decode("latin-1").split("\r\n")
    matched = _REQUEST_LINE.fullmatch(lines[0])
    if matched is None:
        raise Malformed("malformed HTTP request")
    version = (int(matched[3]), int(matched[4]))
    if version[0] != 1:
        raise Malformed("unsupported protocol version", 505)
    return matched[1], matched[2], version, parse_fields(lines[1:])


def parse_target(target: str) -> tuple[str, str]:
    """Path, decoded, and query of a request's target: of the form `/path`, or that which proxies send (RFC 9112 3.2).

    Raises:
        Malformed: it is of another form, or names what nothing can have for a name.
    """
    if not target.startswith("/"):
        target = _path_of(target)
    path, _, query = target.partition("?")
    if "%" in path:
        if _BAD_ESCAPE.search(path):
            raise Malformed("malformed HTTP request: invalid URL escape")
        path = unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")
        if "\0" in path:
            raise Malformed("malformed HTTP request: a path with a NUL in it")
    elif not path.isascii():
        path = path.encode("latin-1").decode("utf-8", "replace")
    if not query.isascii():
        query = query.encode("latin-1").decode("utf-8", "replace")
    return path, query


def _path_of(target: str) -> str:
    """Path and query of a target in absolute form.

    Raises:
        Malformed: it is of another form.
    """
    if target == "*":
        return "/"
    for scheme in ("http://", "https://"):
        if target.lower().startswith(scheme):
            authority = re.split(r"[/?#]", target[len(scheme) :], maxsplit=1)[0]
            rest = target[len(scheme) + len(authority) :]
            if authority:
                return rest if rest.startswith("/") else f"/{rest}"
    raise Malformed("malformed HTTP request")


def check_host(headers: Headers, version: tuple[int, int]) -> None:
    """See that a request names one host, as HTTP/1.1 wants it (RFC 9112 3.2).

    Raises:
        Malformed: it names none, several, or what can't be one.
    """
    hosts = headers.all("Host") if "Host" in headers else []
    if not hosts and version >= (1, 1):
        raise Malformed("missing required Host header")
    if len(hosts) > 1:
        raise Malformed("too many Host headers")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise Malformed("malformed Host header")


def parse_fields(lines: list[str]) -> Headers:
    """Header fields, one a line.

    Raises:
        Malformed: a line that is none, or too many.
    """
    if len(lines) > MOST_FIELDS:
        raise Malformed("request header fields too large", 431)
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or _TOKEN.fullmatch(name) is None or _FORBIDDEN.search(value):
            raise Malformed("malformed HTTP request header")
        fields.append((name, value.strip(" \t")))
    return Headers(fields)


class _Counted:
    """A body whose length is known."""

    __slots__ = ("_left", "_reader")

    def __init__(self, reader: Reader, length: int) -> None:
        self._reader = reader
        self._left = length

    @property
    def finished(self) -> bool:
        return self._left == 0

    def read(self, most: int = -1) -> bytes:
        if self._left == 0 or most == 0:
            return b""
        piece = self._reader.some(self._left if most < 0 else min(most, self._left))
        if not piece:
            raise Disconnected("the connection ended in the middle of a body")
        self._left -= len(piece)
        return piece

    def readinto(self, view: memoryview) -> int:
        if self._left == 0 or not len(view):
            return 0
        count = self._reader.into(view[: self._left])
        if not count:
            raise Disconnected("the connection ended in the middle of a body")
        self._left -= count
        return count


class _Chunked:
    """A body in chunks (RFC 9112 7.1). Extensions are passed over, trailing fields are read and dropped."""

    __slots__ = ("_excess", "_left", "_reader", "finished")

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._left = 0
        self._excess = 0
        self.finished = False

    def read(self, most: int = -1) -> bytes:
        if most == 0 or not self._more():
            return b""
        piece = self._reader.some(self._left if most < 0 else min(most, self._left))
        self._count(len(piece))
        return piece

    def readinto(self, view: memoryview) -> int:
        if not len(view) or not self._more():
            return 0
        count = self._reader.into(view[: self._left])
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        if not count:
            raise Disconnected("the connection ended in the middle of a body")
        self._left -= count
        if self._left == 0 and self._reader.line():
            raise Malformed("malformed chunked encoding")

    def _more(self) -> bool:
        """Whether there is a byte to read, after the next chunk's line has been read if it was its turn."""
        if self.finished or self._left:
            return not self.finished
        line = self._reader.line()
        size = line.partition(b";")[0].rstrip(b" \t")
        if _HEXADECIMAL.fullmatch(size) is None:
            raise Malformed("invalid byte in chunk length")
        self._left = int(size, 16)
        self._excess = max(0, self._excess + len(line) + 2 - 16 - 2 * self._left)
        if self._excess > _MOST_EXCESS_BYTES:
            raise Malformed("chunked encoding contains too much non-data")
        if self._left == 0:
            for _ in range(MOST_FIELDS):
                if not self._reader.line():
                    break
            else:
                raise Malformed("too many trailing fields")
            self.finished = True
        return not self.finished


if TYPE_CHECKING:

    class _BinaryFile(io.RawIOBase, BinaryIO):
        pass
else:
    _BinaryFile = io.RawIOBase


class RequestBody(_BinaryFile):
    """The body as a handler sees it: a file that can be read once.

    A client that waits for a word before it sends the body (`Expect: 100-continue`) gets that at the first read.
    """

    def __init__(self, raw: _Counted | _Chunked, length: int | None, awaited: bool, connection: socket.socket) -> None:
        self._raw = raw
        self.length = length
        """Bytes, where the client said how many; None for a body in chunks."""
        self.taken = 0
        """Bytes that have been read."""
        self._awaited = awaited
        self._socket = connection
        self._capture: Capture | None = None

    @property
    def finished(self) -> bool:
        """Whether all of it has been read. A body that the client holds back is not."""
        return self._raw.finished

    @property
    def awaited(self) -> bool:
        """Whether the client still waits for a word before it sends the body."""
        return self._awaited and not self._raw.finished

    def capture(self, capture: Capture) -> None:
        """Keep the beginning of what is read in `capture`."""
        self._capture = capture

    def read(self, most: int | None = -1, /) -> bytes:
        """Up to `most` bytes, at least one of them unless the body has ended; all the rest at -1.

        Raises:
            Disconnected: the client went away before it had sent all.
            Malformed: the chunks are none.
        """
        if most is None or most < 0:
            pieces = []
            while piece := self.read(1 << 20):
                pieces.append(piece)
            return b"".join(pieces)
        if self._awaited:
            self._ask()
        piece = self._raw.read(most)
        self.taken += len(piece)
        if self._capture is not None:
            self._capture.add(piece)
        return piece

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as one read does; returns the count, 0 at the end. Raises as `read`."""
        if self._awaited:
            self._ask()
        view = memoryview(buffer).cast("B")
        count = self._raw.readinto(view)
        self.taken += count
        if self._capture is not None:
            self._capture.add(view[:count])
        return count

    def readable(self) -> bool:
        """True: it is what it is for."""
        return True

    def discard(self, most: int) -> bool:
        """Read up to `most` bytes and throw them away; whether that was all."""
        while not self._raw.finished and most > 0:
            most -= len(self._raw.read(min(most, _BLOCK)))
        return self._raw.finished

    def _ask(self) -> None:
        self._awaited = False
        if not self._raw.finished:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


class Capture:
    """The first bytes of a body and how many there were, for a record of the exchange."""

    __slots__ = ("count", "data", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.data = bytearray()

    def add(self, piece: bytes | memoryview) -> None:
        """Count a piece, and keep as much of it as there is room for."""
        self.count += len(piece)
        room = self.limit - len(self.data)
        if room > 0:
            self.data += piece[:room]


def request_body(reader: Reader, headers: Headers, version: tuple[int, int]) -> RequestBody:
    """The body that these header fields announce.

    Raises:
        Malformed: lengths that contradict each other, or an encoding that isn't known.
    """
    lengths = headers.all("Content-Length") if "Content-Length" in headers else []
    raw: _Counted | _Chunked
    length: int | None = 0
    if "Transfer-Encoding" in headers:
        if lengths or version < (1, 1):
            raise Malformed("a body has either a length or chunks, and not both; and chunks only since HTTP/1.1")
        if headers.tokens("Transfer-Encoding") != ["chunked"]:
            raise Malformed("unsupported transfer encoding", 501)
        raw, length = _Chunked(reader), None
    else:
        if lengths:
            if len(set(lengths)) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or len(lengths[0]) > 18:
                raise Malformed("bad Content-Length")
            length = int(lengths[0])
        raw = _Counted(reader, length or 0)
    expectations = headers.tokens("Expect") if "Expect" in headers else []
    if expectations and expectations != ["100-continue"]:
        raise Malformed("only 100-continue can be expected", 417)
    return RequestBody(raw, length, bool(expectations) and version >= (1, 1), reader.socket)
