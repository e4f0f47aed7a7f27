"""A client of a daemon that hides nothing of HTTP: statuses, headers, and the raw stream that a connection becomes."""

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

JSON = dict[str, Any]

HARMLESS = {"NetworkMode": "none"}


@dataclass(frozen=True)
class Answer:
    """What a daemon answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None where there is none."""
        return json.loads(self.body) if self.body.strip() else None

    def lines(self) -> list[Any]:
        """The body as JSON lines."""
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def message(self) -> str:
        """The message of an error."""
        return str(self.json()["message"])


@dataclass
class Stream:
    """A connection after the head of an answer: what follows is read as it comes."""

    connection: socket.socket
    status: int
    headers: dict[str, str]
    rest: bytes = b""

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.connection.sendall(data)

    def no_more(self) -> None:
        """Half-close: we send nothing more."""
        self.connection.shutdown(socket.SHUT_WR)

    def some(self, seconds: float = 10.0) -> bytes:
        """What comes next; nothing at the end."""
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        self.connection.settimeout(seconds)
        return self.connection.recv(65536)

    def until(self, wanted: bytes, seconds: float = 10.0) -> bytes:
        """Read until `wanted` has come; returns all that came."""
        found, deadline = b"", time.monotonic() + seconds
        while wanted not in found:
            part = self.some(max(0.01, deadline - time.monotonic()))
            assert part, f"the stream ended with {found[-200:]!r}, before {wanted!r}"
            found += part
        return found

    def all(self, seconds: float = 10.0) -> bytes:
        """Everything until the end."""
        found = b""
        while part := self.some(seconds):
            found += part
        return found

    def body(self, seconds: float = 10.0) -> bytes:
        """An answer's body in chunks, to its end, after which the connection could be used again."""
        found = b""
        while not found.endswith(b"\r\n0\r\n\r\n") and found != b"0\r\n\r\n":
            part = self.some(seconds)
            assert part, f"the answer is broken off after {found[-200:]!r}"
            found += part
        return dechunked(found)

    def close(self) -> None:
        """Drop the connection."""
        self.connection.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class EngineApi:
    """A client of the daemon at a UNIX socket."""

    path: Path
    version: str = "/v1.43"
    timeout: float = 30.0
    image: str = ""
    heard: list[tuple[str, str, int]] = field(default_factory=list)
    """Every call that was made: method, path, status."""

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, /, **query: Any
    ) -> Answer:
        """Ask; `body` is bytes, or anything else to be sent as JSON, or an iterator to be sent in chunks."""
        fields = dict(headers or {})
        if body is not None and not isinstance(body, bytes) and not isinstance(body, Iterator):
            body = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        with contextlib.closing(http.client.HTTPConnection("localhost", timeout=self.timeout)) as connection:
            connection.sock = self._connect()
            target = self.version + path + query_text(query)
            with contextlib.suppress(BrokenPipeError):  # it has heard enough, and answers
                connection.request(method, target, body, fields, encode_chunked=isinstance(body, Iterator))
            response = connection.getresponse()
            answer = Answer(response.status, dict(response.getheaders()), response.read())
        self.heard.append((method, path, answer.status))
        return answer

    def get(self, path: str, /, **query: Any) -> Answer:
        """GET."""
        return self.request("GET", path, **query)

    def post(self, path: str, body: Any = None, /, **query: Any) -> Answer:
        """POST."""
        return self.request("POST", path, body, **query)

    def delete(self, path: str, /, **query: Any) -> Answer:
        """DELETE."""
        return self.request("DELETE", path, **query)

    def stream(self, method: str, path: str, body: bytes = b"", headers: JSON | None = None, /, **query: Any) -> Stream:
        """Ask, and read no more than the head of the answer."""
        connection = self._connect()
        fields = {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        target = self.version + path + query_text(query)
        connection.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(4096)
            assert part, f"no answer to {method} {target}: {data!r}"
            data += part
        head_bytes, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head_bytes.decode().split("\r\n")
        self.heard.append((method, path, int(first.split()[1])))
        found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Stream(connection, int(first.split()[1]), found, rest)

    def upgrade(self, path: str, body: Any = None, /, **query: Any) -> Stream:
        """Ask for the raw stream, as the command line does for attach and exec."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        data = b""
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        return self.stream("POST", path, data, headers, **query)

    # --- containers --------------------------------------------------------------------------------------------------

    def create(self, *command: str, name: str = "", host: JSON | None = None, **config: Any) -> str:
        """A container of the image, without a network unless `host` says otherwise; returns its id."""
        body = {"Image": self.image, "Cmd": list(command), "HostConfig": {**HARMLESS, **(host or {})}, **config}
        answer = self.post("/containers/create", body, **({"name": name} if name else {}))
        assert answer.status == 201, answer.body
        return str(answer.json()["Id"])

    def run(self, *command: str, **options: Any) -> str:
        """The same, started."""
        identifier = self.create(*command, **options)
        answer = self.post(f"/containers/{identifier}/start")
        assert answer.status == 204, answer.body
        return identifier

    def wait(self, identifier: str) -> int:
        """The exit code, when it runs no more."""
        return int(self.post(f"/containers/{identifier}/wait").json()["StatusCode"])

    def output(self, *command: str, **options: Any) -> tuple[int, str]:
        """Run to the end: the exit code and all output."""
        identifier = self.run(*command, **options)
        status = self.wait(identifier)
        text = b"".join(data for _, data in frames(self.logs(identifier)))
        self.remove(identifier)
        return status, text.decode()

    def logs(self, identifier: str, **query: Any) -> bytes:
        """What it has written, framed."""
        return self.get(f"/containers/{identifier}/logs", **{"stdout": 1, "stderr": 1, **query}).body

    def inspect(self, identifier: str) -> Any:
        """All about it."""
        return self.get(f"/containers/{identifier}/json").json()

    def remove(self, identifier: str) -> None:
        """By force, with its volumes."""
        answer = self.delete(f"/containers/{identifier}", force=1, v=1)
        assert answer.status in (204, 404), answer.body

    def execute(self, identifier: str, *command: str, **settings: Any) -> tuple[int | None, bytes]:
        """A command in a running container: its exit code as soon as its stream has ended, and its framed output."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command), **settings}
        created = self.post(f"/containers/{identifier}/exec", body)
        assert created.status == 201, created.body
        execution = created.json()["Id"]
        with self.upgrade(f"/exec/{execution}/start", {"Detach": False, "Tty": False}) as stream:
            assert stream.status == 101
            output = stream.all()
        return self.get(f"/exec/{execution}/json").json()["ExitCode"], output

    def until(self, met: Callable[[], Any], seconds: float = 15.0) -> Any:
        """Ask again and again until the answer is true; returns it."""
        deadline = time.monotonic() + seconds
        while not (found := met()):
            assert time.monotonic() < deadline, "it has not come about in time"
            time.sleep(0.03)
        return found

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self.timeout)
        connection.connect(str(self.path))
        return connection


def query_text(query: JSON) -> str:
    """A query; dictionaries and lists are sent as JSON, as filters are."""
    parts = []
    for name, value in query.items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        parts.append(f"{quote(name.replace('_', '-') if name == 'one_shot' else name)}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """The pieces of a multiplexed stream: (1 for standard output and 2 for errors, bytes); it must end with a whole."""
    found = []
    while data:
        assert len(data) >= 8, data
        number, length = struct.unpack(">BxxxI", data[:8])
        assert number in (1, 2), data[:40]
        assert len(data) >= 8 + length, f"a frame of {length} bytes has {len(data) - 8}"
        found.append((number, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


def of_stream(data: bytes, number: int) -> bytes:
    """What came on one of the two streams."""
    return b"".join(piece for stream, piece in frames(data) if stream == number)


def dechunked(data: bytes) -> bytes:
    """A body in chunks, as far as it has come."""
    found = b""
    while b"\r\n" in data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        found, data = found + data[:length], data[length + 2 :]
    return found
