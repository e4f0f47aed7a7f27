"""Takes apart what a client and a daemon say on one connection, as it passes by.

HTTP/1.1 in both directions (RFC 9112): heads, bodies by length, in chunks or to the end of the connection, and streams
into which an answer turns a connection, with Docker's frames where they have them (Engine API, `ContainerAttach`).
What passes is held in no other way than in heads that are not whole yet; bodies are kept only as far as they are shown.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from real_engine.explain import redaction

if TYPE_CHECKING:
    from collections.abc import Callable

    Record = dict[str, Any]

MOST_HEAD_BYTES = 64 << 10
MOST_SHOWN_BYTES = 16 << 10
"""Of a body; the rest is counted."""
_FRAME_HEAD_BYTES = 8
_STREAMS = {0: "stdin", 1: "stdout", 2: "stderr"}
_FRAMED = "application/vnd.docker.multiplexed-stream"
_RAW = "application/vnd.docker.raw-stream"


class Undecodable(ValueError):
    """It isn't HTTP."""


@dataclass(slots=True)
class _Exchange:
    number: int
    method: str
    path: str
    begun: float
    upgrade: bool
    answered: bool = False


@dataclass(slots=True)
class _Body:
    """What has passed of a body: its beginning, and how long it is. `left` counts the bytes of this length or chunk."""

    kind: str  # none, length, chunked, close
    left: int = 0
    text: bytearray = field(default_factory=bytearray)
    total: int = 0
    part: str = "size"  # of a chunked body: size, data, crlf, trailer
    line: bytearray = field(default_factory=bytearray)

    def take(self, data: memoryview) -> tuple[int, bool]:
        """How many of the bytes belong to it, and whether it has ended."""
        if self.kind == "none":
            return 0, True
        if self.kind == "close":
            self._keep(data)
            return len(data), False
        if self.kind == "length":
            piece = data[: self.left]
            self._keep(piece)
            self.left -= len(piece)
            return len(piece), self.left == 0
        return self._chunks(data)

    def _keep(self, data: memoryview) -> None:
        self.total += len(data)
        room = MOST_SHOWN_BYTES - len(self.text)
        if room > 0:
            self.text += data[:room]

    def _chunks(self, data: memoryview) -> tuple[int, bool]:
        used = 0
        while used < len(data):
            if self.part == "data":
                piece = data[used : used + self.left]
                self._keep(piece)
                used += len(piece)
                self.left -= len(piece)
                if self.left == 0:
                    self.part = "crlf"
                continue
            byte = data[used]
            used += 1
            if byte != 0x0A:
                self.line.append(byte)
                if len(self.line) > MOST_HEAD_BYTES:
                    raise Undecodable("a line of a chunked body has no end")
                continue
            line, self.line = bytes(self.line).strip(), bytearray()
            if self.part == "size":
                try:
                    self.left = int(line.split(b";")[0], 16)
                except ValueError as error:
                    raise Undecodable("a chunk without its size") from error
                self.part = "data" if self.left else "trailer"
            elif self.part == "crlf":
                self.part = "size"
            elif not line:
                return used, True
        return used, False


class Dialogue:
    """One connection. `tell` gets the records of `session`; `now` is the seconds since its beginning.

    `client` and `server` take what each of them sends; `client` returns what is to be passed on, with `extra` among the
    headers of each request. They are called under one lock. What can't be understood is passed on as it is.
    """

    def __init__(
        self,
        connection: int,
        next_number: Callable[[], int],
        tell: Callable[[Record], None],
        now: Callable[[], float],
        extra: str = "",
    ) -> None:
        self._connection = connection
        self._next_number = next_number
        self._tell = tell
        self._now = now
        self._extra = extra
        self._waiting: deque[_Exchange] = deque()
        self._client_head, self._server_head = bytearray(), bytearray()
        self._sending: tuple[_Exchange, _Body] | None = None
        self._receiving: tuple[_Exchange, _Body] | None = None
        self._asked_upgrade: _Exchange | None = None
        self._stream: _Exchange | None = None
        self._framed = False
        self._frame = bytearray()
        self._opaque = False

    def client(self, data: bytes) -> bytes:
        """What the client has sent; returns what is to be sent on."""
        if self._opaque:
            return data
        passed = bytearray()
        view = memoryview(data)
        while view:
            if self._stream is not None or self._asked_upgrade is not None:
                exchange = self._stream or self._asked_upgrade
                assert exchange is not None
                # What is typed may be a password: it is counted, and not shown.
                self._say("frame", exchange, stream="stdin", bytes=len(view))
                passed += view
                break
            if self._sending is not None:
                exchange, body = self._sending
                used, ended = body.take(view)
                passed += view[:used]
                view = view[used:]
                if ended:
                    self._sent(exchange, body)
                continue
            self._client_head += view
            end = self._client_head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._client_head) > MOST_HEAD_BYTES:
                    return bytes(passed) + self._give_up()
                break
            rest = bytes(self._client_head[end + 4 :])
            head, self._client_head = bytes(self._client_head[: end + 4]), bytearray()
            try:
                passed += self._request(head)
            except Undecodable:
                self._opaque = True
                return bytes(passed) + head + rest
            view = memoryview(rest)
        return bytes(passed)

    def client_ended(self) -> bytes:
        """The client sends no more; returns what had been held back."""
        held, self._client_head = bytes(self._client_head), bytearray()
        return held

    def server(self, data: bytes) -> None:
        """What the daemon has sent."""
        view = memoryview(data)
        try:
            while view and not self._opaque:
                if self._stream is not None:
                    self._streamed(view)
                    return
                if self._receiving is not None:
                    exchange, body = self._receiving
                    used, ended = body.take(view)
                    view = view[used:]
                    if ended:
                        self._received(exchange, body)
                    continue
                self._server_head += view
                end = self._server_head.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._server_head) > MOST_HEAD_BYTES:
                        raise Undecodable("a head without an end")
                    return
                view = memoryview(bytes(self._server_head[end + 4 :]))
                head, self._server_head = bytes(self._server_head[:end]), bytearray()
                self._response(head)
        except Undecodable:
            self._opaque = True

    def ended(self) -> None:
        """The connection has ended."""
        if self._receiving is not None:
            self._received(*self._receiving)

    # --- heads -------------------------------------------------------------------------------------------------------

    def _give_up(self) -> bytes:
        self._opaque = True
        return self.client_ended()

    def _request(self, head: bytes) -> bytes:
        line, fields = _parse(head[:-4])
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            raise Undecodable("no request line")
        method, target, _ = words
        path = target.partition("?")[0]
        connection = _value(fields, "connection").lower()
        exchange = _Exchange(self._next_number(), method, path, self._now(), "upgrade" in connection)
        self._waiting.append(exchange)
        self._say(
            "request",
            exchange,
            connection=self._connection,
            method=method,
            target=redaction.target(target),
            headers=redaction.headers(fields),
        )
        body = _body_of(fields, "none")
        self._sending = (exchange, body)
        if body.kind == "none" or (body.kind == "length" and body.left == 0):
            self._sent(exchange, body)
        if not self._extra:
            return head
        return head[:-2] + self._extra.encode("latin-1") + b"\r\n\r\n"

    def _sent(self, exchange: _Exchange, body: _Body) -> None:
        self._sending = None
        if exchange.upgrade and not exchange.answered:
            self._asked_upgrade = exchange
        if body.total:
            self._say("sent", exchange, bytes=body.total, **_shown(exchange.path, body))

    def _response(self, head: bytes) -> None:
        line, fields = _parse(head)
        words = line.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
            raise Undecodable("no status line")
        status = int(words[1])
        if not self._waiting:
            raise Undecodable("an answer to nothing")
        if 100 <= status < 200 and status != 101:
            return
        exchange = self._waiting.popleft()
        exchange.answered = True
        kind = _value(fields, "content-type").partition(";")[0].strip()
        self._say(
            "response",
            exchange,
            status=status,
            reason=words[2] if len(words) > 2 else "",
            headers=redaction.headers(fields),
            seconds=round(self._now() - exchange.begun, 6),
        )
        self._asked_upgrade = None
        attached = exchange.method == "POST" and kind in (_RAW, _FRAMED) and not _value(fields, "transfer-encoding")
        if status == 101 or (status == 200 and attached and not _value(fields, "content-length")):
            self._stream, self._framed = exchange, kind in (_FRAMED, _RAW)
            return
        silent = exchange.method == "HEAD" or status in (204, 304)
        body = _Body("none") if silent else _body_of(fields, "close")
        self._receiving = (exchange, body)
        if body.kind == "none" or (body.kind == "length" and body.left == 0):
            self._received(exchange, body)

    def _received(self, exchange: _Exchange, body: _Body) -> None:
        self._receiving = None
        seconds = round(self._now() - exchange.begun, 6)
        self._say("received", exchange, bytes=body.total, seconds=seconds, **_shown(exchange.path, body))

    # --- streams -----------------------------------------------------------------------------------------------------

    def _streamed(self, view: memoryview) -> None:
        exchange = self._stream
        assert exchange is not None
        if not self._framed:
            self._told_frame(exchange, "terminal", bytes(view), len(view))
            return
        self._frame += view
        while len(self._frame) >= _FRAME_HEAD_BYTES:
            if self._frame[0] not in _STREAMS or self._frame[1:4] != b"\0\0\0":
                self._framed = False  # a terminal's stream has no frames
                rest, self._frame = bytes(self._frame), bytearray()
                self._told_frame(exchange, "terminal", rest, len(rest))
                return
            length = int.from_bytes(self._frame[4:8], "big")
            if len(self._frame) - _FRAME_HEAD_BYTES < length:
                return
            data = bytes(self._frame[8 : 8 + length])
            self._told_frame(exchange, _STREAMS[self._frame[0]], data[:MOST_SHOWN_BYTES], length)
            del self._frame[: 8 + length]

    def _told_frame(self, exchange: _Exchange, stream: str, data: bytes, count: int) -> None:
        text = data[:MOST_SHOWN_BYTES].decode("utf-8", "replace")
        self._say("frame", exchange, stream=stream, bytes=count, text=text)

    def _say(self, kind: str, exchange: _Exchange, **more: Any) -> None:
        self._tell({"kind": kind, "at": round(self._now(), 6), "exchange": exchange.number, **more})


def _parse(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    line, *lines = head.decode("latin-1").split("\r\n")
    fields = []
    for each in lines:
        name, colon, value = each.partition(":")
        if not colon:
            raise Undecodable("a header without a colon")
        fields.append((name.strip(), value.strip()))
    return line, fields


def _value(fields: list[tuple[str, str]], name: str) -> str:
    return next((value for key, value in fields if key.lower() == name), "")


def _body_of(fields: list[tuple[str, str]], otherwise: str) -> _Body:
    if "chunked" in _value(fields, "transfer-encoding").lower():
        return _Body("chunked")
    length = _value(fields, "content-length")
    if length:
        if not (length.isascii() and length.isdigit()):
            raise Undecodable("a length that is none")
        return _Body("length", int(length))
    return _Body(otherwise)


def _shown(path: str, body: _Body) -> dict[str, Any]:
    """What is shown of a body: text without secrets, or nothing of what is none (an archive)."""
    if not body.total:
        return {}
    if redaction.hides_bodies(path):
        return {"text": redaction.HIDDEN}
    data = bytes(body.text)
    whole = body.total == len(data)
    try:
        text = data.decode("utf-8") if whole else data.decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return {}
    if "\0" in text:
        return {}
    try:
        return {"text": json.dumps(redaction.value_of(json.loads(text)), ensure_ascii=False)}
    except (ValueError, RecursionError):
        return {"text": "\n".join(_line(line) for line in text.splitlines()), **({} if whole else {"cut": True})}


def _line(text: str) -> str:
    """A line of a body of JSON lines. What is cut in the middle of a value that may be secret is left out."""
    try:
        return json.dumps(redaction.value_of(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return redaction.HIDDEN if text.lstrip().startswith(("{", "[")) else text
