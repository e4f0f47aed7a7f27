"""A client of registries: manifests, blobs, tags, uploads, as the OCI distribution specification has them.

    client = RegistryClient("localhost:5000")
    digest, manifest = client.manifest("me/app", "latest")
    with client.open_blob("me/app", str(manifest.layers[0].digest)) as reply: ...

What comes by digest is verified: a manifest here, a blob by whoever reads its stream to the end (`download`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

from real_engine.errors import EngineError
from real_engine.registry import media_types
from real_engine.registry.authentication import Authenticator, NoCredentials
from real_engine.registry.credentials import ANONYMOUS, Credentials
from real_engine.registry.errors import RegistryError
from real_engine.registry.manifests import Descriptor, Manifest, parse_manifest
from real_engine.registry.names import parse_digest, sha256
from real_engine.registry.replies import UnexpectedStatus, error_of
from real_engine.registry.retries import ATTEMPTS, may_pass, pause_before
from real_engine.registry.transport import Reply, Transport, Unreachable, split_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

_Result = TypeVar("_Result")

DOCKER_HUB = "registry-1.docker.io"
"""The host behind `docker.io`."""

_FIRST_PAUSE_SECONDS = 0.25
_MOST_REDIRECTS = 10
_BLOCK_BYTES = 256 << 10
_LIST_LIMIT_BYTES = 8 << 20
_REDIRECTIONS = (301, 302, 303, 307, 308)
_NEXT = re.compile(r'<([^>]+)>\s*;.*\brel="?next"?')
_ACCEPT = ", ".join(media_types.MANIFESTS)


class RegistryClient:
    """Speaks to the registry `domain` (`docker.io`, `localhost:5000`). Safe for threads, which share its connections.

    Arguments:
        insecure_registries: hosts, HOST:PORT or networks (CIDR) whose certificates aren't checked, and which may do
            without TLS, as this machine's own addresses may always.
        base_url: where it is, if its name doesn't say so: a mirror.
        offline: ask for a token for the time to come, as a login does.
    """

    def __init__(
        self,
        domain: str,
        credentials: Credentials = ANONYMOUS,
        *,
        insecure_registries: Sequence[str] = (),
        base_url: str = "",
        offline: bool = False,
    ) -> None:
        self.domain = domain
        self._insecure = tuple(insecure_registries)
        self.transport = Transport(self._is_insecure)
        self._authenticator = Authenticator(self.transport, credentials, offline)
        self._given = base_url.rstrip("/")
        self._base = ""
        self._lock = threading.Lock()

    # Where it is

    def ping(self) -> str:
        """Find out how to speak to the registry, and what it wants to be shown; returns its address.

        Raises:
            Unreachable: nobody is there.
            EngineError: somebody is, and it's no registry.
        """
        with self._lock:
            if self._base:
                return self._base
            bases = self._bases()
            for number, base in enumerate(bases, 1):
                try:
                    with self.transport.request("GET", f"{base}/v2/") as reply:
                        if reply.status == 401:
                            self._authenticator.learn(reply.headers.get_all("WWW-Authenticate") or ())
                        elif reply.status != 200:
                            raise error_of(reply)
                except Unreachable:
                    if number == len(bases):
                        raise
                else:
                    self._authenticator.only_tls = base.startswith("https://")
                    self._base = base
                    return base
            raise AssertionError("a registry has an address at least")

    def login(self) -> str:
        """See whether the credentials are taken; returns a token that stands for them from then on, or "".

        Raises:
            EngineError: they aren't.
        """
        url = f"{self.ping()}/v2/"
        try:
            headers = self._authenticator.headers(())
        except RegistryError as error:
            raise RegistryLoginError(f'Get "{url}": {error}', error.status) from error
        with self.transport.request("GET", url, headers) as reply:
            if reply.status != 200:
                raise RegistryLoginError(
                    f"login attempt to {url} failed with status: {reply.status} {reply.reason}", reply.status
                )
        return self._authenticator.identity_token

    # Manifests and tags

    def resolve(self, repository: str, reference: str) -> tuple[str, str, int] | None:
        """Digest, media type and size of a manifest, without asking for it; None if the registry won't say.

        Registries count manifests that are fetched, and not those that are only looked at.
        """
        path = self._path(repository, "manifests", reference)

        def ask() -> tuple[str, str, int] | None:
            with self._call("HEAD", path, _pull(repository), _accept()) as reply:
                digest = parse_digest(reply.header("Docker-Content-Digest"))
                media_type = reply.header("Content-Type").partition(";")[0].strip()
                if reply.header("Retry-After") and may_pass(error := error_of(reply)):
                    raise error
                if reply.status != 200 or digest is None or reply.length is None:
                    return None
                if parse_digest(reference) not in (None, digest):
                    return None
                return str(digest), media_type, reply.length

        return self._retrying(ask)

    def manifest(self, repository: str, reference: str) -> tuple[str, Manifest]:
        """A manifest with its digest, which is the one that was asked for, if it was asked for by digest.

        Raises:
            RegistryError: MANIFEST_UNKNOWN, DENIED, …; MANIFEST_INVALID for what can't be checked.
        """

        def fetch() -> tuple[str, Manifest]:
            path = self._path(repository, "manifests", reference)
            with self._call("GET", path, _pull(repository), _accept()) as reply:
                _expect(reply, 200)
                if (reply.length or 0) > media_types.MANIFEST_LIMIT_BYTES:
                    raise RegistryError("MANIFEST_INVALID", "manifest invalid: larger than 4 MiB")
                content = _read(reply, media_types.MANIFEST_LIMIT_BYTES)
                said = parse_digest(reply.header("Docker-Content-Digest"))
                media_type = reply.header("Content-Type")
            wanted = parse_digest(reference)
            for digest in (wanted, said):
                if digest is not None and not digest.matches(content):
                    raise EngineError(f"manifest verification failed for digest {digest}")
            try:
                manifest = parse_manifest(content, media_type)
            except RegistryError as error:
                raise EngineError(f"{error}: {error.detail}") from error
            return str(wanted or sha256(content)), manifest

        return self._retrying(fetch)

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns its digest."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))}
        path = self._path(repository, "manifests", reference)

        def put() -> str:
            with self._call("PUT", path, _push(repository), headers, content) as reply:
                _expect(reply, 201, 200, 202)
            return str(sha256(content))

        return self._retrying(put)

    def delete_manifest(self, repository: str, reference: str) -> None:
        """Delete a tag or, by digest, a manifest."""
        scopes = (f"repository:{repository}:delete",)
        with self._call("DELETE", self._path(repository, "manifests", reference), scopes) as reply:
            _expect(reply, 202, 200, 204)

    def tags(self, repository: str) -> list[str]:
        """Every tag of a repository, page after page."""
        return self._list(self._path(repository, "tags", "list"), _pull(repository), "tags")

    def referrers(self, repository: str, digest: str, artifact_type: str = "") -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `digest`; of one artifact type, if that is given."""
        path = self._path(repository, "referrers", digest)
        if artifact_type:
            path += f"?{urlencode({'artifactType': artifact_type})}"
        found: list[dict[str, Any]] = self._list(path, _pull(repository), "manifests")
        # Whether the registry has filtered is its own choice.
        return [one for one in found if not artifact_type or one.get("artifactType") == artifact_type]

    # Blobs

    def open_blob(self, repository: str, digest: str, offset: int = 0) -> Reply:
        """Begin to read a blob, from byte `offset` on if the registry can (then the status is 206).

        The bytes aren't verified here: see `download`.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        reply = self._call("GET", self._path(repository, "blobs", digest), _pull(repository), headers)
        if reply.status not in (200, 206):
            with reply:
                raise error_of(reply)
        return reply

    def blob(self, repository: str, descriptor: Descriptor, limit: int = 8 << 20) -> bytes:
        """A small blob as a whole, verified (a configuration).

        Raises:
            EngineError: it isn't what its digest says, or longer than `limit` bytes.
        """

        def fetch() -> bytes:
            if descriptor.size > limit:
                raise EngineError(f"blob {descriptor.digest} is longer than the {limit} bytes that are taken here")
            with self.open_blob(repository, str(descriptor.digest)) as reply:
                content = _read(reply, descriptor.size)
            if len(content) != descriptor.size or not descriptor.digest.matches(content):
                raise EngineError(f"verification failed for digest {descriptor.digest}")
            return content

        return self._retrying(fetch)

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a repository has a blob."""

        def ask() -> bool:
            with self._call("HEAD", self._path(repository, "blobs", digest), _push(repository)) as reply:
                if reply.status in (404, 405):
                    return False
                _expect(reply, 200)
                return True

        return self._retrying(ask)

    def upload_blob(
        self,
        repository: str,
        digest: str,
        size: int,
        source: Callable[[], BinaryIO],
        progress: Callable[[int], None] = lambda done: None,
        mount_from: str = "",
    ) -> bool:
        """Store a blob of `size` bytes, which `source` opens; True if it was mounted from a repository instead.

        `progress` is told how many bytes have gone. After a failure it begins again, with a new upload.
        """

        def upload() -> bool:
            path = f"{self._path(repository, 'blobs', 'uploads')}/"
            scopes = _push(repository)
            if mount_from:
                path += f"?{urlencode({'mount': digest, 'from': mount_from})}"
                scopes += (f"repository:{mount_from}:pull",)
            with self._call("POST", path, scopes, {"Content-Length": "0"}, b"") as reply:
                _expect(reply, 202, 201)
                if reply.status == 201:
                    return True
                location = self._location(reply)
            if size:
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
                with source() as file, self._call("PATCH", location, scopes, headers, _blocks(file, progress)) as reply:
                    _expect(reply, 202, 204)
                    location = self._location(reply)
            location += f"{'&' if urlsplit(location).query else '?'}{urlencode({'digest': digest})}"
            with self._call("PUT", location, scopes, {"Content-Length": "0"}, b"") as reply:
                _expect(reply, 201, 204)
            return False

        return self._retrying(upload)

    # Search

    def search(self, term: str, limit: int) -> list[dict[str, Any]]:
        """Repositories whose name or description has `term` in it, by the search of Docker's first registry API.

        Raises:
            EngineError: the registry can't, or is away.
        """
        query = urlencode({"q": term, "n": limit})
        base = "https://index.docker.io" if self.domain == "docker.io" else self.ping()
        with self.transport.request("GET", f"{base}/v1/search?{query}", {"X-Docker-Token": "true"}) as reply:
            if reply.status != 200:
                raise EngineError(f"Unexpected status code {reply.status}")
            results = _json(reply).get("results")
        return [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []

    # Requests

    def _path(self, repository: str, kind: str, reference: str) -> str:
        return f"/v2/{repository}/{kind}/{quote(reference, safe=':')}"

    def _call(
        self,
        method: str,
        path: str,
        scopes: tuple[str, ...],
        headers: dict[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
    ) -> Reply:
        """Send a request with what the registry wants to be shown, and follow where it leads.

        `path` may be a whole address, as uploads have them; only at the registry's own does it get the credentials.
        """
        base = self.ping()
        url = path if "://" in path else base + path
        known_scopes = self._authenticator.by_token
        for attempt in (1, 2):
            fields = dict(headers or {})
            if _origin(url) == _origin(base):
                try:
                    fields |= self._authenticator.headers(scopes)
                except NoCredentials:
                    raise NoCredentials(f'{method.capitalize()} "{url}"') from None
            reply = self.transport.request(method, url, fields, body)
            if reply.status == 401 and attempt == 1 and (body is None or isinstance(body, bytes)):
                challenges = reply.headers.get_all("WWW-Authenticate") or ()
                self._authenticator.learn(challenges)
                # A password that wasn't taken won't be taken the second time; a token may have been too old.
                if challenges and (
                    self._authenticator.by_token or (not known_scopes and "Authorization" not in fields)
                ):
                    reply.close()
                    self._authenticator.forget(scopes)
                    continue
            if reply.status in _REDIRECTIONS and method in ("GET", "HEAD"):
                return self._follow(reply, method, fields)
            return reply
        raise AssertionError("the second attempt returns")

    def _follow(self, reply: Reply, method: str, fields: dict[str, str]) -> Reply:
        for _ in range(_MOST_REDIRECTS):
            with reply:
                target = _joined(reply.url, reply.header("Location"))
                before, after = urlsplit(reply.url), urlsplit(target)
                if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme == "http"):
                    raise EngineError(f"the registry redirects to {target}, which can't be trusted")
                if _origin(reply.url) != _origin(target):
                    # What we show the registry is for nobody else.
                    fields = {name: value for name, value in fields.items() if name != "Authorization"}
            reply = self.transport.request(method, target, fields)
            if reply.status not in _REDIRECTIONS:
                return reply
        reply.close()
        raise EngineError(f'{method.capitalize()} "{reply.url}": stopped after {_MOST_REDIRECTS} redirects')

    def _location(self, reply: Reply) -> str:
        """Where an upload goes on."""
        location = reply.header("Location")
        if not location:
            raise EngineError("the registry does not say where the upload goes on")
        url = _joined(reply.url, location)
        if reply.url.startswith("https://") and url.startswith("http://"):
            url = "https://" + url.removeprefix("http://")  # it doesn't know of the proxy in front of it that does TLS
        return url

    def _list(self, path: str, scopes: tuple[str, ...], key: str) -> list[Any]:
        items: list[Any] = []
        while path:

            def fetch(path: str = path) -> tuple[list[Any], str]:
                with self._call("GET", path, scopes) as reply:
                    _expect(reply, 200)
                    found = _json(reply).get(key)
                    matched = _NEXT.search(reply.header("Link"))
                    following = _joined(reply.url, matched[1]) if matched else ""
                    return (found if isinstance(found, list) else []), following

            found, path = self._retrying(fetch)
            items += found
            if not found:
                break
        return items

    def _retrying(self, action: Callable[[], _Result]) -> _Result:
        """Do it, and again after a while if the registry was only just away."""
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return action()
            except (Unreachable, UnexpectedStatus, RegistryError, OSError) as error:
                if attempt == ATTEMPTS or not may_pass(error):
                    raise
                seconds = pause_before(error, pause)
            self.transport.pause(seconds)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _bases(self) -> list[str]:
        """Addresses to try: with TLS first, and without it where that is allowed."""
        if self._given:
            return [self._given]
        host = DOCKER_HUB if self.domain == "docker.io" else self.domain
        return [f"https://{host}", f"http://{host}"] if self._is_insecure(host) else [f"https://{host}"]

    def _is_insecure(self, netloc: str) -> bool:
        """Whether a host may be spoken to without a certificate that is right (moby registry.isSecureIndex).

        Other than there, all addresses of a name must be such: who can add one of this machine to the answer of a name
        server could else have a registry's password sent to another of his own choice.
        """
        if netloc in self._insecure:
            return True
        host = urlsplit(f"//{netloc}").hostname or ""
        if host in self._insecure:
            return True
        if self.domain == "docker.io":
            return False  # whatever the name server says: what comes from there is nobody's on this machine
        networks = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
        for entry in self._insecure:
            with contextlib.suppress(ValueError):
                networks.append(ipaddress.ip_network(entry, strict=False))
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
            except OSError:
                return False
        return all(
            any(ipaddress.ip_address(address.partition("%")[0]) in network for network in networks)
            for address in addresses
        )


class RegistryLoginError(EngineError):
    """A login that was not taken."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _joined(base: str, location: str) -> str:
    """Where an answer of `base` points to.

    Raises:
        EngineError: nowhere.
    """
    try:
        url = urljoin(base, location)
    except ValueError:
        url = ""
    if split_url(url) is None or not url:
        raise EngineError(f'"{base}" points to {location[:200]!r}, which is no address')
    return url


def _pull(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull",)


def _push(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


def _accept() -> dict[str, str]:
    return {"Accept": _ACCEPT}


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)


def _expect(reply: Reply, *statuses: int) -> None:
    if reply.status not in statuses:
        raise error_of(reply)
    if reply.status != 200:
        _read(reply, 1 << 20)  # so that the connection can be kept


def _read(reply: Reply, limit: int) -> bytes:
    try:
        return reply.read(limit)
    except ConnectionError:
        raise
    except TimeoutError:
        raise
    except OSError as error:
        raise EngineError(f'"{reply.url}": {error}') from error


def _json(reply: Reply) -> dict[str, Any]:
    try:
        value = json.loads(_read(reply, _LIST_LIMIT_BYTES))
    except (ValueError, RecursionError) as error:
        raise EngineError(f'"{reply.url}" gave no JSON: {error}') from error
    if not isinstance(value, dict):
        raise EngineError(f'"{reply.url}" gave no JSON object')
    return value


def _blocks(file: BinaryIO, progress: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    while block := file.read(_BLOCK_BYTES):
        yield block
        done += len(block)
        progress(done)
