"""The API's calls that speak to registries: pull, push, search, what is there under a name, and logging in."""

from __future__ import annotations

import json
import logging
import queue
import threading
from typing import TYPE_CHECKING, Any, Protocol

from real_engine.errors import EngineError, InvalidParameter
from real_engine.explain.recorder import carried
from real_engine.filters import parse_filters
from real_engine.http.messages import Response, json_line
from real_engine.images.references import Reference
from real_engine.registry import credentials as known
from real_engine.registry import progress
from real_engine.registry.client import RegistryClient
from real_engine.registry.inspect import inspect
from real_engine.registry.origins import Origins
from real_engine.registry.platforms import Platform
from real_engine.registry.pull import Pull
from real_engine.registry.push import Push, references_to_push

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from real_engine.daemon.app import Daemon
    from real_engine.http.messages import Request
    from real_engine.http.router import Router
    from real_engine.registry.progress import Line

Json = dict[str, Any]

_log = logging.getLogger("onggi")

_WATCH_SECONDS = 0.25  # how often we look whether the client is still there while nothing is to be told
_MOST_CREDENTIALS_BYTES = 64 << 10
_SEARCH_FILTERS = ("is-automated", "is-official", "stars")
_SEARCH_LIMIT = 25


class _Work(Protocol):
    """A pull or a push."""

    def run(self) -> list[Any]:
        """Do it."""

    def cancel(self) -> None:
        """Break it off, from another thread."""


class Transfer:
    """A pull or a push in a thread of its own, whose lines a client reads.

    It goes on for as long as the client is there: one that goes away breaks it off.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: queue.SimpleQueue[Line | BaseException | None] = queue.SimpleQueue()
        self._work: _Work | None = None

    def emit(self, line: Line) -> None:
        """Tell the client something; from any thread."""
        self._lines.put(line)

    def begin(self, work: _Work, done: Callable[[list[Any]], None], over: Callable[[], None]) -> None:
        """Let `work` run; `done` gets what it gave before the client learns of the end; `over` is always called."""
        self._work = work
        threading.Thread(target=carried(self._run), args=(work, done, over), name=self._name, daemon=True).start()

    def cancel(self) -> None:
        """Break it off."""
        if self._work is not None:
            self._work.cancel()

    def first(self, request: Request) -> Line | None:
        """The first line; None if there is none.

        Raises:
            EngineError: what went wrong before there was one.
        """
        return self._next(request)

    def lines(self, request: Request, first: Line | None) -> Iterator[bytes]:
        """Every line from the first one on; what goes wrong from here on is a line too."""
        line = first
        try:
            while line is not None:
                yield json_line(line, b"\r\n")
                try:
                    line = self._next(request)
                except EngineError as error:
                    yield json_line(progress.failure(str(error)), b"\r\n")
                    return
        finally:
            self.cancel()  # does nothing when it has ended

    def _next(self, request: Request) -> Line | None:
        while True:
            try:
                line = self._lines.get(timeout=_WATCH_SECONDS)
            except queue.Empty:
                if request.client_gone():
                    self.cancel()
                    raise ConnectionResetError("the client has gone") from None
                continue
            if isinstance(line, BaseException):
                raise _for_the_client(line)
            return line

    def _run(self, work: _Work, done: Callable[[list[Any]], None], over: Callable[[], None]) -> None:
        end: BaseException | None = None
        try:
            done(work.run())
        except BaseException as error:
            end = error
            if not isinstance(error, (EngineError, OSError)):
                _log.exception("%s failed", self._name)
        over()
        self._lines.put(end)


class TransferRoutes:
    """What a request about registries means, and how the answer looks."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._origins: Origins | None = None
        self._lock = threading.Lock()
        self._running: set[Transfer] = set()

    def create(self, request: Request) -> Response | None:
        """POST /images/create: a pull, or with `fromSrc` an import."""
        if not request.query.get("fromImage") and request.query.get("fromSrc"):
            from real_engine.daemon.routes.images import import_image

            imported: Response | None = import_image(self._daemon, request)
            return imported
        reference = _wanted(request.query.get("fromImage"), request.query.get("tag"))
        platform = request.query.get("platform")
        if platform:
            Platform.parse(platform)
        config = self._daemon.config
        transfer = Transfer("pull")
        pull = Pull(
            self._daemon.images,
            self._known_origins(),
            reference,
            known.from_header(request.headers.get("X-Registry-Auth")),
            platform=platform,
            all_tags=not reference.tag and not reference.digest,
            mirrors=config.registry_mirrors,
            insecure_registries=config.insecure_registries,
            emit=transfer.emit,
        )

        def done(pulled: list[Any]) -> None:
            for one in pulled:
                self._publish("pull", one.reference, one.image.labels)

        return self._answer(request, transfer, pull, done)

    def push(self, request: Request) -> Response | None:
        """POST /images/{name}/push."""
        encoded = request.headers.get("X-Registry-Auth")
        credentials = known.from_header(encoded) if encoded else _from_body(request)
        reference = _parsed(request.match["name"])
        if request.query.get("tag"):
            reference = reference.with_tag(request.query.get("tag"))
        elif reference.digest:
            raise InvalidParameter("cannot push a digest reference")
        transfer = Transfer("push")
        transfer.emit(progress.message(f"The push refers to repository [{reference.name}]"))
        try:
            push = Push(
                self._daemon.images,
                self._known_origins(),
                references_to_push(self._daemon.images, reference),
                credentials,
                insecure_registries=self._daemon.config.insecure_registries,
                emit=transfer.emit,
            )
        except EngineError as error:
            return Response(200, _told(transfer, request, error))

        def done(pushed: list[Any]) -> None:
            for one in pushed:
                image = self._daemon.images.find(one.reference)
                self._publish("push", one.reference, image.labels if image else {})

        return self._answer(request, transfer, push, done)

    def search(self, request: Request) -> Response:
        """GET /images/search."""
        filters = parse_filters(request.query.get("filters"))
        filters.check(_SEARCH_FILTERS)
        automated = filters.flag("is-automated") if "is-automated" in filters else None
        official = filters.flag("is-official") if "is-official" in filters else None
        stars = 0
        for text in filters.get("stars"):
            if not (text.isascii() and text.isdigit()):
                raise InvalidParameter(f"invalid filter 'stars=[{text}]'")
            stars = max(stars, int(text))
        limit = request.query.integer("limit", _SEARCH_LIMIT) or _SEARCH_LIMIT
        if not 1 <= limit <= 100:
            raise InvalidParameter(f"Limit {limit} is outside the range of [1, 100]")
        domain, term = _search_index(request.query.get("term"))
        client = RegistryClient(
            domain,
            known.from_header(request.headers.get("X-Registry-Auth")),
            insecure_registries=self._daemon.config.insecure_registries,
        )
        found = []
        for one in client.search(term, limit):
            result = _search_result(one)
            if automated is not None and result["is_automated"] != automated:
                continue
            if official is not None and result["is_official"] != official:
                continue
            if result["star_count"] >= stars:
                found.append(result)
        return Response.json(found)

    def inspect(self, request: Request) -> Response:
        """GET /distribution/{name}/json."""
        reference = _parsed(request.match["name"]).with_default_tag()
        client = RegistryClient(
            reference.domain,
            known.from_header(request.headers.get("X-Registry-Auth")),
            insecure_registries=self._daemon.config.insecure_registries,
        )
        return Response.json(inspect(client, reference))

    def stop(self) -> None:
        """Break off whatever is under way: the daemon ends."""
        with self._lock:
            running = list(self._running)
        for transfer in running:
            transfer.cancel()

    def _answer(
        self, request: Request, transfer: Transfer, work: _Work, done: Callable[[list[Any]], None]
    ) -> Response | None:
        """The answer, once it is known whether it begins well: what fails before the first line is a status."""
        with self._lock:
            self._running.add(transfer)
        transfer.begin(work, done, over=lambda: self._forget(transfer))
        first = transfer.first(request)
        return Response(200, transfer.lines(request, first))

    def _forget(self, transfer: Transfer) -> None:
        with self._lock:
            self._running.discard(transfer)

    def _known_origins(self) -> Origins:
        with self._lock:
            if self._origins is None:
                self._origins = Origins(self._daemon.images.root / "origins.json")
            return self._origins

    def _publish(self, action: str, reference: Reference, labels: dict[str, str]) -> None:
        attributes = labels | {"name": reference.familiar_name}
        self._daemon.events.publish("image", action, reference.familiar, attributes)


def authenticate(daemon: Daemon, config: Json) -> Json:
    """Log in to a registry with an AuthConfig of the API; returns `{"Status", "IdentityToken"}`.

    Raises:
        EngineError: the registry doesn't take it, or is away.
    """
    credentials = known.Credentials.from_json(config)
    domain = known.normalized_host(credentials.server_address or "docker.io")
    client = RegistryClient(
        domain, credentials, insecure_registries=daemon.config.insecure_registries, offline=bool(credentials.password)
    )
    try:
        token = client.login()
    finally:
        client.transport.close()
    return {"IdentityToken": token, "Status": "Login Succeeded"}


def register(router: Router, daemon: Daemon) -> None:
    """Add the calls to the router."""
    routes = TransferRoutes(daemon)
    daemon.on_stop(routes.stop)
    router.add("POST", "/images/create", routes.create)
    router.add("POST", "/images/{name*}/push", routes.push)
    router.add("GET", "/images/search", routes.search)
    router.add("GET", "/distribution/{name*}/json", routes.inspect)


def _parsed(name: str) -> Reference:
    return Reference.parse(name)


def _wanted(name: str, tag: str) -> Reference:
    """The reference of `fromImage` and `tag`, which may be a digest (moby api/server/router/image postImagesCreate).

    Raises:
        InvalidParameter: they make none.
    """
    reference = _parsed(name.removesuffix(":"))
    if not tag:
        return reference
    if ":" in tag:
        return reference.with_digest(tag)
    return reference.with_tag(tag)


def _from_body(request: Request) -> known.Credentials:
    """The credentials of old clients, which put them into the body.

    Raises:
        InvalidParameter: there are none.
    """
    content = request.read_all(_MOST_CREDENTIALS_BYTES)
    try:
        if not content:
            raise ValueError("EOF")
        value = json.loads(content)
        if not isinstance(value, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise InvalidParameter(f"Bad parameters and missing X-Registry-Auth: {error}") from error
    return known.Credentials.from_json(value)


def _for_the_client(error: BaseException) -> Exception:
    """What a pull or push ended with, as an error that has a message for a person."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, OSError):
        return EngineError((error.strerror or str(error)).lower())
    return EngineError(f"{type(error).__name__}: {error}")


def _told(transfer: Transfer, request: Request, error: EngineError) -> Iterator[bytes]:
    """The first line of a push that goes no further, and why."""
    first = transfer.first(request)
    if first is not None:
        yield json_line(first, b"\r\n")
    yield json_line(progress.failure(str(error)), b"\r\n")


def _search_index(term: str) -> tuple[str, str]:
    """The registry that is to be searched, and for what: `HOST/term` names one (moby registry/search.go)."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return known.normalized_host(first), rest
    return "docker.io", term.removeprefix("library/")


def _search_result(found: Json) -> Json:
    stars = found.get("star_count")
    return {
        "star_count": stars if isinstance(stars, int) else 0,
        "is_official": found.get("is_official") is True,
        "name": str(found.get("name", "")),
        "is_automated": found.get("is_automated") is True,
        "description": str(found.get("description") or ""),
    }
