"""HTTP connections to a registry, kept for reuse by several threads, with errors in the words that Docker has for them.

Nothing here knows of images. What is sent by whom, and what an answer means, is the client's business.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import socket
import ssl
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from real_engine.errors import EngineError
from real_engine.explain.recorder import current
from real_engine.explain.registry_requests import observe_reply
from real_engine.linux import outside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

CONNECT_SECONDS = 30.0
READ_SECONDS = 60.0
CERTIFICATES = Path("/etc/docker/certs.d")
"""Where authorities and client certificates of single registries lie, as dockerd finds them: HOST:PORT/*.crt."""

_END_SECONDS = 1.0
_IDLE_CONNECTIONS = 8
_BLOCK_BYTES = 256 << 10
_DRAINED_BYTES = 64 << 10
_HEADER_OF = {"GET": "Get", "HEAD": "Head", "POST": "Post", "PUT": "Put", "PATCH": "Patch", "DELETE": "Delete"}


class Unreachable(EngineError):
    """A registry could not be spoken to: no address, no connection, no certificate, or it ended in the middle."""

    def __init__(self, method: str, url: str, reason: str, lasting: bool = False) -> None:
        super().__init__(f'{_HEADER_OF.get(method, method)} "{url}": {reason}')
        self.reason = reason
        self.lasting = lasting
        """Whether trying again is of no use."""


class Cancelled(EngineError):
    """Who asked for it has gone away."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Reply:
    """An answer whose body is still to be read. Closing it gives its connection back."""

    def __init__(
        self, response: http.client.HTTPResponse, url: str, wire: socket.socket, release: Callable[[bool], None]
    ) -> None:
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.url = url
        self._response = response
        self._wire = wire
        self._release = release
        self._closed = False
        self.received = 0
        """Bytes of the body that have been read."""
        self.on_close: Callable[[Reply], None] | None = None

    def header(self, name: str) -> str:
        """The first header of that name, or ""."""
        value = self.headers.get(name)
        return value if value is not None else ""

    @property
    def length(self) -> int | None:
        """Bytes of the body, as the server said, or None."""
        text = self.header("Content-Length")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as one read does; 0 at the end.

        Raises:
            OSError: the connection broke, or ended before the body did.
        """
        try:
            # HTTPResponse.read1 would copy; readinto may wait for the whole buffer, which is no harm to a download.
            count = self._response.readinto(buffer)
        except http.client.HTTPException as error:
            raise ConnectionResetError(f"the answer ended early: {error!r}") from error
        if count == 0 and self._response.length:
            raise ConnectionResetError("unexpected EOF")
        self.received += count
        return count

    def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            OSError: the connection broke, or it is longer than `limit` bytes.
        """
        content = bytearray()
        block = memoryview(bytearray(min(limit + 1, _BLOCK_BYTES)))
        while count := self.readinto(block):
            content += block[:count]
            if len(content) > limit:
                raise OSError(f"the answer is longer than {limit} bytes")
        return bytes(content)

    def goes_on(self) -> bool:
        """Whether there is a byte more, where the body should be over; that is waited for only shortly."""
        self._wire.settimeout(_END_SECONDS)
        try:
            return self.readinto(memoryview(bytearray(1))) > 0
        except OSError:
            return False  # all that was wanted has come
        finally:
            self._wire.settimeout(READ_SECONDS)

    def close(self) -> None:
        """Give the connection back, or up if something of this answer is still on its way."""
        if not self._closed:
            self._closed = True
            if not self._response.isclosed() and (self._response.length or _DRAINED_BYTES) < _DRAINED_BYTES:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self._response.read()  # a few bytes are cheaper than another connection
            whole = self._response.isclosed()
            self._response.close()
            self._release(whole and not self._response.will_close)
            if self.on_close is not None:
                self.on_close(self)

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Transport:
    """A pool of connections. Safe for threads.

    `insecure` hosts need no certificate that can be checked. After `abort`, which another thread may call, all that is
    under way fails and nothing new begins.
    """

    def __init__(self, insecure: Callable[[str], bool] = lambda host: False, user_agent: str = "onggi") -> None:
        self._insecure = insecure
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._busy: set[http.client.HTTPConnection] = set()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._aborted = threading.Event()

    @property
    def aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._aborted.is_set()

    def pause(self, seconds: float) -> None:
        """Wait before another attempt.

        Raises:
            Cancelled: `abort` was called.
        """
        if self._aborted.wait(seconds):
            raise Cancelled

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Reply:
        """Send a request and return the answer's head. A body that is no bytes needs a Content-Length to go as it is.

        Raises:
            Unreachable: there was no answer.
            Cancelled: `abort` was called.
        """
        parts = split_url(url)
        if parts is None:
            raise Unreachable(method, url, "invalid URL", lasting=True)
        key = (parts.scheme, parts.netloc)
        fields = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **(headers or {})}
        again = body is None or isinstance(body, bytes)
        begin = time.perf_counter()
        while True:
            connection, kept = self._take(key)
            try:
                self._connect(connection)
                wire = connection.sock
                target = parts.path or "/"
                if parts.query:
                    target += f"?{parts.query}"
                if getattr(connection, "forward", False):
                    target = url
                response = self._exchange(connection, method, target, fields, body)
            except BaseException as error:
                self._release(key, connection, False)
                if self.aborted and isinstance(error, (OSError, http.client.HTTPException)):
                    raise Cancelled from error
                if not isinstance(error, (OSError, http.client.HTTPException)):
                    raise
                if kept and again and not isinstance(error, TimeoutError):
                    continue  # the server had closed it while nobody used it
                lasting = isinstance(error, (_DialError, ssl.SSLError))
                raise Unreachable(method, url, _reason(error), lasting) from error
            reply = Reply(response, url, wire, partial(self._release, key, connection))
            if current() is not None:
                observe_reply(reply, method, begin)
            return reply

    def abort(self) -> None:
        """Break off whatever is under way."""
        with self._lock:
            self._aborted.set()
            connections = list(self._busy)
        for connection in connections:
            _shut(connection)
        self.close()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        fields: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, target, body, dict(fields), encode_chunked=False)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before it had read all, to say why it won't.
            with contextlib.suppress(OSError, http.client.HTTPException):
                return connection.getresponse()
            raise
        return connection.getresponse()

    def _take(self, key: tuple[str, str]) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self.aborted:
                raise Cancelled
            idle = self._idle.get(key)
            connection = idle.pop() if idle else None
            kept = connection is not None
            if connection is None:
                connection = self._new(*key)
            self._busy.add(connection)
            return connection, kept

    def _release(self, key: tuple[str, str], connection: http.client.HTTPConnection, keep: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            idle = self._idle.setdefault(key, [])
            if keep and not self.aborted and len(idle) < _IDLE_CONNECTIONS:
                idle.append(connection)
                return
        connection.close()

    def _new(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        """A connection that isn't open yet, through the proxy that the environment names."""
        parts = urlsplit(f"{scheme}://{netloc}")
        host, port = parts.hostname or "", parts.port or (443 if scheme == "https" else 80)
        proxy = _proxy(scheme, host, port)
        options: dict[str, Any] = {"timeout": CONNECT_SECONDS, "blocksize": _BLOCK_BYTES}
        to = (proxy.hostname or "", proxy.port or 3128) if proxy else (host, port)
        connection: http.client.HTTPConnection
        if scheme == "https":
            connection = http.client.HTTPSConnection(*to, context=self._context(netloc), **options)
        else:
            connection = http.client.HTTPConnection(*to, **options)
        if proxy is not None:
            authorization = {}
            if proxy.username:
                secret = f"{proxy.username}:{proxy.password or ''}".encode()
                authorization["Proxy-Authorization"] = "Basic " + base64.b64encode(secret).decode()
            if scheme == "https":
                connection.set_tunnel(host, port, authorization)
            else:
                connection.forward = True  # type: ignore[attr-defined]
        return connection

    def _connect(self, connection: Any) -> None:
        if connection.sock is None:
            try:
                connection._create_connection = _dial  # for errors with the address in them
                connection.connect()
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from error
            connected: Any = connection.sock
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.settimeout(READ_SECONDS)
            if self.aborted:
                raise Cancelled

    def _context(self, netloc: str) -> ssl.SSLContext:
        """TLS for a host: with the authorities of the system, and those that are only for it."""
        context = self._contexts.get(netloc)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._insecure(netloc):
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            else:
                context.load_default_certs()  # some 20 ms, which a registry on this machine is spared
            _load_certificates(context, CERTIFICATES / netloc)
            self._contexts[netloc] = context
        return context


def split_url(url: str) -> SplitResult | None:
    """The parts of an address that somebody else has given; None if it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if url.isascii() and url.isprintable() and " " not in url else None


class _DialError(OSError):
    """No connection; the text says to what."""


def _dial(address: tuple[str, int], timeout: float | None, source: object = None) -> socket.socket:
    """Connect to the first address of a host that takes it."""
    host, port = address
    try:
        return outside.connect(host, port, timeout)
    except UnicodeError as error:  # it can't be the name of a host
        raise _DialError(f"dial tcp: lookup {host}: no such host") from error
    except socket.gaierror as error:
        raise _DialError(f"dial tcp: lookup {host}{_name_server()}: {_resolver_word(error)}") from error
    except OSError as error:
        to = error.filename or host
        word = "i/o timeout" if isinstance(error, TimeoutError) else f"connect: {_system_word(error)}"
        raise _DialError(f"dial tcp {f'[{to}]' if ':' in to else to}:{port}: {word}") from error


def _name_server() -> str:
    """ " on ADDRESS:53", as Go names the server that was asked."""
    if outside.is_elsewhere():
        return ""  # it isn't ours that was asked
    with contextlib.suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text(errors="replace").splitlines():
            if matched := re.match(r"\s*nameserver\s+(\S+)", line):
                server = f"[{matched[1]}]" if ":" in matched[1] else matched[1]
                return f" on {server}:53"
    return ""


def _resolver_word(error: socket.gaierror) -> str:
    if error.errno == socket.EAI_AGAIN:
        return "server misbehaving"
    return "no such host"


def _system_word(error: OSError) -> str:
    text = os.strerror(error.errno) if error.errno else str(error)
    return text[:1].lower() + text[1:]


def _reason(error: Exception) -> str:
    """What Docker, that is Go's net/http, says of the same failure."""
    if isinstance(error, _DialError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (18, 19, 20, 21):  # X509_V_ERR_…: self-signed, or an authority that isn't known
            return "x509: certificate signed by unknown authority"
        if error.verify_code == 10:
            return "x509: certificate has expired or is not yet valid"
        return f"x509: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return "http: server gave HTTP response to HTTPS client"
        return f"tls: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, http.client.RemoteDisconnected):
        return "EOF"
    if isinstance(error, http.client.BadStatusLine):
        return "net/http: HTTP/1.x transport connection broken: malformed HTTP response"
    if isinstance(error, OSError) and error.errno:
        return _system_word(error)
    return str(error) or type(error).__name__


def _proxy(scheme: str, host: str, port: int) -> Any:
    """The proxy for a host, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY; never one for this machine itself."""
    from urllib.request import getproxies, proxy_bypass

    if host == "localhost" or host.startswith("127.") or host == "::1":
        return None
    url = getproxies().get(scheme)
    if not url or proxy_bypass(f"{host}:{port}"):
        return None
    return urlsplit(url if "://" in url else f"http://{url}")


def _load_certificates(context: ssl.SSLContext, directory: Path) -> None:
    """Trust the authorities (*.crt) in the directory, and show the certificates (*.cert with *.key) that lie there."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        path = directory / name
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, path.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise EngineError(f"cannot use the certificate {path}: {error}") from error


def _shut(connection: http.client.HTTPConnection) -> None:
    """Wake who waits for the connection."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
