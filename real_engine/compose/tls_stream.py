"""A hijacked connection over TLS that can be half-closed, which `ssl.SSLSocket` cannot: after its `shutdown`, it reads
what is encrypted.

`docker exec -i` ends the input of the program with TLS's own word for it (close_notify; RFC 8446, 6.1) and goes on
reading. OpenSSL can do that, but its second half of a shutdown refuses data that come afterwards. So it is only called
when it has nothing to read, which is known when we carry the bytes between it and the network.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from real_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK = 1 << 16
_LONGEST_HEAD = 1 << 16
_CONNECT_SECONDS = 30.0


class TlsStream:
    """What `pump` needs of a socket. One thread may read and one write."""

    def __init__(self, wire: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._lock = threading.Lock()
        self._early = b""
        while True:
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        while True:
            with self._lock:
                if self._early:
                    data, self._early = self._early[:size], self._early[size:]
                    return data
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    self._flush()
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            self._receive()

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        with self._lock:
            self._tls.write(data)
            waiting = self._outgoing.read()
        self._wire.sendall(waiting)

    def shutdown(self, how: int) -> None:
        """Say that we send no more; what the other side sends can still be read. `how` is `SHUT_WR`."""
        with self._lock:
            try:
                while piece := self._tls.read(_CHUNK):
                    self._early += piece
            except ssl.SSLWantReadError:
                pass  # all is read: from here on OpenSSL finds nothing that it would refuse
            with contextlib.suppress(ssl.SSLWantReadError):  # the other side's word for it comes when it comes
                self._tls.unwrap()
            waiting = self._outgoing.read()
        self._wire.sendall(waiting)

    def settimeout(self, seconds: float | None) -> None:
        """How long the network may be silent."""
        self._wire.settimeout(seconds)

    def close(self) -> None:
        """End the connection."""
        self._wire.close()

    def _flush(self) -> None:
        if waiting := self._outgoing.read():
            self._wire.sendall(waiting)

    def _receive(self) -> None:
        data = self._wire.recv(_CHUNK)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


def hijack(client: Any, path: str, body: bytes = b"", parameters: Mapping[str, Any] | None = None) -> TlsStream:
    """POST to a daemon that the SDK's `client` speaks TLS to, and have the connection as a stream.

    Raises:
        EngineError: the daemon's own message, or an answer that is none.
        OSError: the connection fails.
    """
    parts = urlsplit(client.base_url)
    host, port = str(parts.hostname), parts.port or 2376
    context = ssl.create_default_context(cafile=client.verify if isinstance(client.verify, str) else None)
    if client.verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client.cert:
        context.load_cert_chain(*client.cert)
    wire = socket.create_connection((host, port), _CONNECT_SECONDS)
    try:
        stream = TlsStream(wire, context, host)
        target = f"/v{client.api_version}{path}" + (f"?{urlencode(parameters)}" if parameters else "")
        named = f"[{host}]" if ":" in host else host
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {named}:{port}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        stream.sendall(head.encode() + body)
        _check_answer(stream)
        stream.settimeout(None)
    except BaseException:
        wire.close()
        raise
    return stream


def _check_answer(stream: TlsStream) -> None:
    """Read the head of the answer, byte by byte, since what follows is the stream's."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte or len(head) > _LONGEST_HEAD:
            raise EngineError("the daemon ended the connection before it answered")
        head += byte
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) > 1 and status[1] in (b"101", b"200"):
        return
    import json

    rest = b""
    while len(rest) < _LONGEST_HEAD and not rest.endswith((b"}", b"}\n", b"\r\n\r\n")) and (piece := stream.recv(1)):
        rest += piece
    try:
        message = str(json.loads(rest[rest.index(b"{") : rest.rindex(b"}") + 1])["message"])
    except (ValueError, KeyError):
        message = head.split(b"\r\n", 1)[0].decode("latin-1")
    raise EngineError(message)
