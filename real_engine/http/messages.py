"""What a handler sees: the request, the answer it gives, and the raw connection that a request can become."""

from __future__ import annotations

import json
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from real_engine.errors import InvalidParameter
from real_engine.http.query import Query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import BinaryIO

    from real_engine.http.headers import Headers
    from real_engine.http.wire import Reader, RequestBody

MOST_JSON_BYTES = 16 << 20
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
_TIMEVAL = struct.Struct("ll")  # struct timeval: seconds and microseconds
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL if hasattr(select, "POLLRDHUP") else 0


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: a process of this machine (by SO_PEERCRED) or an address."""

    address: str = ""
    pid: int = 0
    uid: int = -1
    gid: int = -1
    certificate: str = ""

    def __str__(self) -> str:
        if self.pid:
            return f"process {self.pid} of user {self.uid}"
        return f"{self.address} ({self.certificate})" if self.certificate else self.address or "unknown"


@dataclass(slots=True)
class Hijacked:
    """A connection that is no longer HTTP's: the socket, and what the client sent before the answer was out.

    It is the handler's, which must close it. The two directions end one after the other: an end of what the client
    sends (`recv` gives nothing) doesn't keep it from reading.
    """

    socket: socket.socket
    buffered: bytes = b""
    encrypted: bool = False
    """Whether it is TLS's: then its descriptor carries no plain bytes, and can't be given to another process."""

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def __enter__(self) -> Hijacked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Response:
    """An answer. `body` is bytes, an iterator of bytes (sent in chunks, each flushed), or a file from where it stands.

    With an iterator the head is flushed before the first item is asked for, and `close()` of the iterator is called
    when the client goes away. A file is sent with its length and by sendfile where it has a descriptor, else in chunks.
    A `Content-Length` among `headers` is taken as it is.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        body: bytes | Iterable[bytes] | BinaryIO = b"",
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = dict(headers) if headers else {}
        self.content_type = content_type
        """None: application/json where there is a body, and none where there isn't."""

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """An answer of JSON, on a line of its own as Go's encoder ends it."""
        return cls(status, json_line(value), headers, "application/json")

    @classmethod
    def error(cls, status: int, message: str) -> Response:
        """An error as Docker's API tells it."""
        return cls.json({"message": message}, status)


def json_line(value: Any, ending: bytes = b"\n") -> bytes:
    r"""`value` as one line of compact JSON; progress lines of build, pull and push end in "\r\n".

    What is no text (bytes of a file's name that are no UTF-8, half of a surrogate pair) becomes U+FFFD, as in Go: it
    may be a container's or a stranger's, and whoever reads JSON strictly would take none of the answer for its sake.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode() + ending
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode() + ending


@dataclass(slots=True, eq=False)
class Request:
    """A request. `path` is decoded; the daemon strips the API's version from it and puts that into `version`."""

    method: str
    path: str
    headers: Headers
    body: RequestBody
    reader: Reader
    query_text: str = ""
    protocol: tuple[int, int] = (1, 1)
    peer: Peer = field(default_factory=Peer)
    version: tuple[int, int] | None = None
    match: dict[str, str] = field(default_factory=dict)
    response_headers: dict[str, str] = field(default_factory=dict)
    """Sent with whatever answer this request gets, a hijack's too."""
    hijacked: Hijacked | None = None
    received_at: float = 0.0
    """When its head was complete, by `time.perf_counter`, in seconds."""
    note_head: Any = None
    _query: Query | None = None

    @property
    def query(self) -> Query:
        """The parameters of the address."""
        if self._query is None:
            self._query = Query(self.query_text)
        return self._query

    @property
    def socket(self) -> socket.socket:
        """The connection. Whoever wants to use it calls `hijack`."""
        return self.reader.socket

    def json(self, limit: int = MOST_JSON_BYTES, *, required: bool = False) -> Any:
        """The body as JSON; None if there is no body.

        Raises:
            InvalidParameter: it is none, of another content type, longer than `limit` bytes, or missing though
                `required` (moby v24 api/server/httputils ReadJSON).
        """
        kind = self.headers.get("Content-Type")
        if (kind or self.body.length != 0) and kind.partition(";")[0].strip().lower() != "application/json":
            raise InvalidParameter(f"unsupported Content-Type header ({kind}): must be 'application/json'")
        data = self.read_all(limit)
        if not data:
            if self.body.length == 0 and not required:
                return None
            raise InvalidParameter("invalid JSON: got EOF while reading request body")
        return parse_json(data)

    def read_all(self, limit: int = MOST_JSON_BYTES) -> bytes:
        """The whole body.

        Raises:
            InvalidParameter: longer than `limit` bytes.
        """
        pieces, left = [], limit
        while piece := self.body.read(min(left + 1, 1 << 20)):
            left -= len(piece)
            if left < 0:
                raise InvalidParameter(f"the request's body is longer than the {limit} bytes that are taken here")
            pieces.append(piece)
        return b"".join(pieces)

    def client_gone(self, timeout: float = 0.0) -> bool:
        """Whether the client has closed its side (as Go's server, we take a half-closed connection for closed).

        Waits up to `timeout` seconds for that.
        """
        return self.poll(None, timeout) == "gone"

    def poll(self, descriptor: int | None, timeout: float | None) -> Literal["ready", "gone", "timeout"]:
        """Wait until `descriptor` can be read, the client goes away, or `timeout` seconds are over (None: for ever)."""
        poller = select.poll()
        poller.register(self.socket.fileno(), _GONE & ~(select.POLLHUP | select.POLLERR | select.POLLNVAL))
        if descriptor is not None:
            poller.register(descriptor, select.POLLIN)
        events = dict(poller.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999))))
        if events.get(self.socket.fileno(), 0) & _GONE:
            return "gone"
        return "ready" if events else "timeout"

    def limit_stalls(self, seconds: float) -> None:
        """From now on, a client that neither sends nor takes anything for so long, though it is its turn, is dropped.

        For servers of clients that nobody knows: without it, one that stands still holds its thread for ever.
        """
        if hasattr(self.socket, "pending"):  # TLS reads again and again where the kernel's own limit wakes it
            self.socket.settimeout(seconds)
            return
        # The kernel's limit leaves the descriptor a blocking one, as sendfile needs it.
        limit = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client asks for another protocol on this connection."""
        return "upgrade" in self.headers.tokens("Connection") and "Upgrade" in self.headers

    def hijack(
        self, status: int = 101, headers: Mapping[str, str] | None = None, *, content_type: str = RAW_STREAM
    ) -> Hijacked:
        """Answer, and hand the connection over; the server forgets it, and the handler returns None afterwards.

        101 is said to a client that asked for an upgrade; one that didn't gets 200 and the stream right after the head,
        as older clients of Docker expect (moby api/server/router/container postContainersAttach).

        Raises:
            ConnectionError: the client has gone.
        """
        fields = {"Content-Type": content_type}
        if status == 101 and not self.wants_upgrade:
            status = 200
        if status == 101:
            fields |= {"Connection": "Upgrade", "Upgrade": self.headers.get("Upgrade", "tcp")}
        fields |= self.response_headers
        fields |= headers or {}
        reason = "UPGRADED" if status == 101 else "OK"
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return self.take_over(f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1"), status, fields)

    def take_over(self, head: bytes, status: int, fields: Mapping[str, str]) -> Hijacked:
        """Send the bytes of `head` and hand the connection over; for protocols with an answer of their own."""
        if not self.body.awaited and not self.body.discard(1 << 20):
            raise InvalidParameter("a request that becomes a stream has a body that is too long")
        connection = self.reader.socket
        connection.settimeout(None)  # also: the descriptor must not be non-blocking for whoever gets it
        connection.sendall(head)
        if self.note_head is not None:
            self.note_head(status, dict(fields))
        self.hijacked = Hijacked(connection, self.reader.take_buffered(), hasattr(connection, "pending"))
        return self.hijacked


def parse_json(data: bytes) -> Any:
    """JSON, with what is wrong told in the words of Go's decoder.

    Raises:
        InvalidParameter: it is none.
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidParameter(_in_the_words_of_go(error)) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidParameter(f"invalid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidParameter("invalid JSON: exceeded max depth") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


_GO_CONTEXT = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair or array element",
    "Invalid control character at": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": "in \\u hexadecimal character escape",
}


def _in_the_words_of_go(error: json.JSONDecodeError) -> str:
    if error.msg == "Extra data":
        return "unexpected content after JSON"
    character = error.doc[error.pos : error.pos + 1]
    if error.msg.startswith("Unterminated") or not character:
        return "invalid JSON: unexpected EOF"
    context = _GO_CONTEXT.get(error.msg.removesuffix(": "), "looking for beginning of value")
    shown = "'\\''" if character == "'" else f"'{character}'"
    return f"invalid JSON: invalid character {shown} {context}"
