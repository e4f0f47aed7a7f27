"""Files from the web: for ADD, and for a build context that is an address."""

import hashlib
import http.client
import os
import posixpath
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from real_engine.errors import EngineError, InvalidParameter
from real_engine.linux import outside

LARGEST = 16 << 30  # bytes; what is longer is refused, so that no address can fill the disk without end
TIMEOUT_SECONDS = 60.0
_CHUNK = 1 << 20
_SCHEMES = ("http://", "https://")
_GIT = re.compile(r"(git://|git@|ssh://|github\.com/)|https?://.*\.git(#.*)?$")
_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Download:
    """A file that was fetched, and its name as its address or server tells it ("" if neither does)."""

    path: Path
    name: str
    content_type: str


def is_address(name: str) -> bool:
    """Whether a source of ADD is to be fetched."""
    return name.startswith(_SCHEMES)


def is_git(name: str) -> bool:
    """Whether a source or context is a git repository, which the classic API of this engine doesn't clone."""
    return _GIT.match(name) is not None


def fetch(
    address: str,
    path: Path,
    checksum: str = "",
    cancelled: Callable[[], bool] = lambda: False,
    limit: int = LARGEST,
) -> Download:
    """Fetch an http(s) address to `path`, which mustn't exist; its time is what the server says.

    Raises:
        EngineError: it can't be fetched, is larger than `limit` bytes, or isn't what `checksum` (`sha256:...`) says.
    """
    expected = _CHECKSUM.fullmatch(checksum) if checksum else None
    if checksum and expected is None:
        raise InvalidParameter(f"invalid checksum digest format: {checksum}")
    hasher = hashlib.new(expected[1]) if expected else None
    opener = urllib.request.build_opener(_OnlyTheWeb(), _Plain(), _Secure())
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "onggi-build"})  # noqa: S310 - see is_address
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer, path.open("xb") as file:
            size = 0
            while data := answer.read(_CHUNK):
                size += len(data)
                if size > limit:
                    raise EngineError(f"{address} is larger than {limit} bytes")
                if cancelled():
                    raise EngineError("Build cancelled")
                file.write(data)
                if hasher is not None:
                    hasher.update(data)
            headers = answer.headers
            name = _name(headers.get("Content-Disposition", ""), answer.url)
            os.fchmod(file.fileno(), 0o600)
            file.flush()  # what is written later would change the time again
            _set_time(file.fileno(), headers.get("Last-Modified", ""))
    except urllib.error.HTTPError as error:
        reason = http.client.responses.get(error.code, "")
        raise EngineError(f"failed to GET {address} with status {error.code} {reason}: ".rstrip()) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise EngineError(f'Get "{address}": {_reason(error, address)}') from error
    except ValueError as error:  # it has no form of an address, or its host none of a name
        raise EngineError(f'parse "{address}": {error}') from error
    if hasher is not None and expected is not None and hasher.hexdigest() != expected[2]:
        raise InvalidParameter(f"digest mismatch {expected[1]}:{hasher.hexdigest()}: {checksum}")
    return Download(path, name, headers.get_content_type())


class _Connection(http.client.HTTPConnection):
    """A connection from the network that users mean (cf. `real_engine.linux.outside`)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = _connect


class _SecureConnection(http.client.HTTPSConnection):
    """The same with TLS."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = _connect


def _connect(address: tuple[str, int], timeout: float | None, source: object = None) -> socket.socket:
    return outside.connect(*address, timeout)


class _Plain(urllib.request.HTTPHandler):
    """Opens http addresses by `_Connection`."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """The answer."""
        return self.do_open(_Connection, request)


class _Secure(urllib.request.HTTPSHandler):
    """Opens https addresses by `_SecureConnection`."""

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """The answer."""
        return self.do_open(_SecureConnection, request)


class _OnlyTheWeb(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not away from http and https to files of this machine."""

    def redirect_request(
        self,
        request: urllib.request.Request,
        response: IO[bytes],
        code: int,
        message: str,
        headers: http.client.HTTPMessage,
        address: str,
    ) -> urllib.request.Request | None:
        """The request to the new address.

        Raises:
            URLError: it is no web address.
        """
        if not is_address(address):
            raise urllib.error.URLError(f"redirected to {address}")
        return super().redirect_request(request, response, code, message, headers, address)


def _name(disposition: str, address: str) -> str:
    match = re.search(r'filename="?([^";]+)"?', disposition)
    name = match[1] if match else unquote(posixpath.basename(urlsplit(address).path))
    name = posixpath.basename(name.replace("\\", "/"))
    return "" if name in (".", "..") or "\0" in name else name


def _set_time(descriptor: int, text: str) -> None:
    """The time of last change that the server tells; without one 1970, so that a digest stays the same."""
    try:
        seconds = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    os.utime(descriptor, (seconds, seconds))


def _reason(error: Exception, address: str) -> str:
    reason = getattr(error, "reason", error)
    host = urlsplit(address).netloc
    if isinstance(reason, ConnectionRefusedError):
        port = urlsplit(address).port or (443 if address.startswith("https") else 80)
        return f"dial tcp {urlsplit(address).hostname}:{port}: connect: connection refused"
    if isinstance(reason, OSError) and reason.errno is not None and reason.errno < 0:  # getaddrinfo's own numbers
        return f"dial tcp: lookup {urlsplit(address).hostname}: no such host"
    return f"{host}: {reason}"
