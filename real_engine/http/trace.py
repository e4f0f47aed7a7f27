"""A record of each exchange, for `onggi engine trace`: one line of JSON, in which no secret is written."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from real_engine.http.messages import Peer

_SECRET_HEADERS = frozenset(("authorization", "proxy-authorization", "x-registry-auth", "x-registry-config", "cookie"))
# Bodies of these hold passwords, tokens or keys, in the request or in the answer.
_SECRET_PATHS = ("/auth", "/secrets", "/swarm", "/session")
HIDDEN = "(hidden)"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer. Bodies are their beginnings; `request_bytes` and `response_bytes` count the whole.

    Of a connection that was hijacked, only the heads are known. `started_at` is seconds since 1970; `head_seconds` is
    from the request's head to the answer's, `total_seconds` to the end of the answer.
    """

    connection: int
    peer: Peer
    method: str
    target: str
    request_headers: list[tuple[str, str]]
    request_body: bytes
    request_bytes: int
    status: int
    response_headers: dict[str, str]
    response_body: bytes
    response_bytes: int
    hijacked: bool
    started_at: float
    head_seconds: float | None
    total_seconds: float

    def to_json(self) -> dict[str, Any]:
        """The record that is kept: secrets are replaced by "(hidden)"."""
        from real_engine.explain import redaction  # the only rules for what is a secret

        path = self.target.partition("?")[0]
        secret = is_secret(path)
        return {
            "time": self.started_at,
            "connection": self.connection,
            "pid": self.peer.pid or None,
            "uid": self.peer.uid if self.peer.pid else None,
            "peer": self.peer.address or None,
            "method": self.method,
            "target": redaction.target(self.target),
            "request_headers": [[name, _value(name, value)] for name, value in self.request_headers],
            "request_body": HIDDEN if secret and self.request_body else _text(redaction.body(self.request_body)),
            "request_bytes": self.request_bytes,
            "status": self.status,
            "response_headers": [[name, _value(name, value)] for name, value in self.response_headers.items()],
            "response_body": HIDDEN if secret and self.response_body else _text(redaction.body(self.response_body)),
            "response_bytes": self.response_bytes,
            "hijacked": self.hijacked,
            "head_seconds": self.head_seconds,
            "total_seconds": self.total_seconds,
        }


def is_secret(path: str) -> bool:
    """Whether the bodies of a request to `path` (with the API's version or without) are not to be written down."""
    if path.startswith("/v"):
        version, _, rest = path[2:].partition("/")
        if version.replace(".", "").isdigit():
            path = "/" + rest
    return path.startswith(_SECRET_PATHS)


def _value(name: str, value: str) -> str:
    return HIDDEN if name.lower() in _SECRET_HEADERS else value


def _text(data: bytes) -> str | dict[str, str]:
    """Text as it is; what is none, in base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        from base64 import b64encode

        return {"base64": b64encode(data).decode()}


class TraceFile:
    """Appends each exchange to a file as a line of JSON. Only its owner can read the file.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        import os

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        """Write one line."""
        line = json.dumps(exchange.to_json(), separators=(",", ":"), ensure_ascii=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")
        with self._lock:
            self._file.write(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
