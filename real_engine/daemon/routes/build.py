"""The API's calls for building images: POST /build, /build/prune and /build/cancel."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

from real_engine.daemon.app import engine_version
from real_engine.errors import EngineError, InvalidParameter, NotImplementedHere
from real_engine.explain.recorder import carried
from real_engine.filters import parse_filters
from real_engine.http.messages import Response, json_line, parse_json
from real_engine.images.build.builder import Builder
from real_engine.images.build.options import BuildOptions, Platform
from real_engine.images.build.output import BuildOutput
from real_engine.images.build.stage import BuildFailed
from real_engine.times import parse_moment, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from real_engine.daemon.app import Daemon
    from real_engine.http.messages import Request
    from real_engine.http.query import Query
    from real_engine.http.router import Router
    from real_engine.images.references import Reference
    from real_engine.images.store import Image

_log = logging.getLogger("onggi")

_POLL_SECONDS = 0.25  # how soon it is noticed that a client has gone while a step says nothing
_MOST_WAITING_LINES = 256
_MOST_CREDENTIALS_BYTES = 1 << 20
_PRUNE_FILTERS = ("until", "id", "parent", "type", "description", "inuse", "shared", "private")


class BuildRoutes:
    """What a request about builds means."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._builder: Builder | None = None
        self._running: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def builder(self) -> Builder:
        """The daemon's builder, made when it is first needed."""
        with self._lock:
            if self._builder is None:
                self._builder = make_builder(self._daemon)
            return self._builder

    def build(self, request: Request) -> Response:
        """POST /build: the body is the context. What goes wrong before the first line has a status of its own."""
        options = build_options(request)
        remote = request.query.get("remote")
        build_id = request.query.get("buildid")
        context = remote or request.body
        running = RunningBuild(self.builder, options, context, request.client_gone)
        if build_id:
            with self._lock:
                self._running[build_id] = running.cancelled
            running.when_done(lambda: self._forget(build_id))
        try:
            first = running.first_line()
        except BaseException:
            running.close()
            raise
        return Response(200, _Lines(first, running), {}, "application/json")

    def prune(self, request: Request) -> Response:
        """POST /build/prune: remove what RUN --mount=type=cache has kept."""
        filters = parse_filters(request.query.get("filters"))
        filters.check(_PRUNE_FILTERS)
        until = filters.get("until")
        if len(until) > 1:
            raise InvalidParameter("more than one filter specified for until")
        removed, reclaimed = self.builder.prune(parse_moment(until[0]) if until else None)
        self._daemon.events.publish("builder", "prune", "", {"reclaimed": str(reclaimed)})
        return Response.json({"CachesDeleted": removed or None, "SpaceReclaimed": reclaimed})

    def cancel(self, request: Request) -> Response:
        """POST /build/cancel: end the build that was started with this `buildid`."""
        build_id = request.query.get("id")
        if not build_id:
            raise InvalidParameter("build ID not provided")
        with self._lock:
            running = self._running.get(build_id)
        if running is not None:
            running.set()
        return Response(204)

    def disk_usage(self) -> dict[str, Any]:
        """The builder's part of GET /system/df."""
        found = []
        for entry in self.builder.caches.entries():
            created, used = entry.pop("CreatedNanoseconds"), entry.pop("UsedNanoseconds")
            found.append({**entry, "CreatedAt": rfc3339(created), "LastUsedAt": rfc3339(used)})
        return {"BuildCache": found}

    def _forget(self, build_id: str) -> None:
        with self._lock:
            self._running.pop(build_id, None)


class RunningBuild:
    """A build on a thread of its own, whose lines are taken here; ended when the client goes away."""

    def __init__(
        self,
        builder: Builder,
        options: BuildOptions,
        context: Any,
        client_gone: Callable[[], bool],
    ) -> None:
        self.cancelled = threading.Event()
        self._client_gone = client_gone
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING_LINES)
        self._failure: EngineError | None = None
        self._done: list[Callable[[], None]] = []
        self._spoken = False
        self._over = False
        self._output = BuildOutput(self._send, options.quiet)
        arguments = (builder, options, context)
        self._thread = threading.Thread(target=carried(self._build), args=arguments, name="build", daemon=True)
        self._thread.start()

    def when_done(self, action: Callable[[], None]) -> None:
        """Call `action` when the build is over and its client served."""
        self._done.append(action)

    def first_line(self) -> bytes | None:
        """The first line, or None if there will be none.

        Raises:
            EngineError: the build failed before it had anything to say.
        """
        line = self.next_line()
        if line is None and self._failure is not None:
            raise self._failure
        return line

    def next_line(self) -> bytes | None:
        """The next line; None at the end, and ever after."""
        while not self._over:
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                # The word of the end may have been lost in a queue that was full.
                self._over = not self._thread.is_alive() and self._lines.empty()
                if self._client_gone():
                    self.cancelled.set()
                continue
            self._over = line is None
            return line
        return None

    def close(self) -> None:
        """End the build, if it isn't over, and wait until nothing of it is left."""
        self.cancelled.set()
        self._thread.join()
        for action in self._done:
            action()
        self._done.clear()

    def _send(self, line: bytes) -> None:
        self._spoken = True
        self._put(line)

    def _put(self, line: bytes | None) -> None:
        """Hand a line over; a client that reads slowly holds the build up, and one that has gone gets nothing."""
        while True:
            try:
                self._lines.put(line, timeout=_POLL_SECONDS)
            except queue.Full:
                if not self.cancelled.is_set():
                    continue
            return

    def _build(self, builder: Builder, options: BuildOptions, context: Any) -> None:
        try:
            builder.build(options, context, self._output, self.cancelled.is_set)
        except BuildFailed as error:
            self._output.error(str(error), error.code)
        except EngineError as error:
            self._fail(error)
        except OSError as error:
            self._fail(EngineError(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)))
        except Exception as error:
            _log.exception("a build failed")
            self._fail(EngineError(f"{type(error).__name__}: {error}"))
        finally:
            self._put(None)

    def _fail(self, error: EngineError) -> None:
        """Before the first line an error can still be a status; a quiet build that did something tells that first."""
        if self._spoken or self._output.has_kept:
            self._output.error(str(error))
        else:
            self._failure = error


class _Lines:
    """The body of an answer: closing it, also before it was begun, ends the build."""

    def __init__(self, first: bytes | None, running: RunningBuild) -> None:
        self._first = first
        self._running = running

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line, self._first = self._first, None
        if line is None:
            line = self._running.next_line()
        if line is None:
            self._running.close()
            raise StopIteration
        return line

    def close(self) -> None:
        """End the build."""
        self._running.close()


def build_options(request: Request) -> BuildOptions:
    """The options in the parameters and headers of POST /build.

    Raises:
        InvalidParameter: one that makes no sense, or that only BuildKit knows.
    """
    query = request.query
    version = query.get("version")
    if version == "2":
        raise InvalidParameter(
            "this engine has the classic builder and no BuildKit: set DOCKER_BUILDKIT=0, "
            "and don't ask for version=2 of POST /build"
        )
    if version not in ("", "1"):
        raise InvalidParameter(f"invalid version {version}")
    if query.flag("squash"):
        raise InvalidParameter("squash is only supported with experimental mode")
    if query.get("isolation") not in ("", "default"):
        raise InvalidParameter(f"Unsupported isolation: {query.get('isolation')!r}")
    outputs = _json(query, "outputs", list, "error reading outputs") or []
    if outputs:
        raise NotImplementedHere("the classic builder puts images into the image store, and knows no other outputs")
    platform = query.get("platform")
    return BuildOptions(
        dockerfile=query.get("dockerfile") or "Dockerfile",
        tags=tuple(tag for tag in dict.fromkeys(query.all("t")) if tag),
        target=query.get("target"),
        arguments=_texts(query, "buildargs", "error reading build args", may_be_none=True),
        labels={
            name: value or ""
            for name, value in _texts(query, "labels", "error reading labels", may_be_none=False).items()
        },
        quiet=query.flag("q"),
        no_cache=query.flag("nocache"),
        cache_from=tuple(str(name) for name in _json(query, "cachefrom", list, "error reading cache-from") or ()),
        pull=query.flag("pull"),
        remove=query.flag("rm", default=True) if query.get("rm") else True,
        force_remove=query.flag("forcerm"),
        platform=Platform.parse(platform) if platform else None,
        network=query.get("networkmode"),
        extra_hosts=_extra_hosts(query),
        shm_bytes=query.integer("shmsize"),
        memory_bytes=query.integer("memory"),
        memory_swap_bytes=query.integer("memswap"),
        cpu_shares=query.integer("cpushares"),
        cpu_period=query.integer("cpuperiod"),
        cpu_quota=query.integer("cpuquota"),
        cpuset_cpus=query.get("cpusetcpus"),
        cpuset_mems=query.get("cpusetmems"),
        cgroup_parent=query.get("cgroupparent"),
        ulimits=tuple(_json(query, "ulimits", list, "error reading ulimit settings") or ()),
        security=tuple(query.all("securityopt")),
        credentials=_credentials(request),
    )


def _extra_hosts(query: Query) -> tuple[str, ...]:
    """`extrahosts` comes as JSON from one client and once for each from another."""
    values = query.all("extrahosts")
    if len(values) == 1 and values[0].startswith("["):
        return tuple(str(host) for host in parse_json(values[0].encode()))
    return tuple(value for value in values if value)


def _json(query: Query, name: str, kind: type, wrong: str) -> Any:
    text = query.get(name)
    if not text:
        return None
    try:
        value = parse_json(text.encode("utf-8", "surrogateescape"))
    except InvalidParameter as error:
        raise InvalidParameter(f"{wrong}: {str(error).removeprefix('invalid JSON: ')}") from error
    if value is not None and not isinstance(value, kind):
        raise InvalidParameter(f"{wrong}: json: cannot unmarshal into Go value of another type")
    return value


def _texts(query: Query, name: str, wrong: str, *, may_be_none: bool) -> Mapping[str, str | None]:
    value = _json(query, name, dict, wrong) or {}
    for text in value.values():
        if not (isinstance(text, str) or (text is None and may_be_none)):
            raise InvalidParameter(f"{wrong}: json: cannot unmarshal into Go value of type string")
    return dict(value)


def _credentials(request: Request) -> Mapping[str, Any]:
    text = request.headers.get("X-Registry-Config")
    if not text or len(text) > _MOST_CREDENTIALS_BYTES:
        return {}
    from real_engine.registry.credentials import from_config_header

    return from_config_header(text)


class RegistryPull:
    """Fetches base images as `docker pull` does; its lines go into the build's."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def __call__(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Mapping[str, Any],
        progress: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> None:
        """Pull `reference`.

        Raises:
            EngineError: it can't be had.
        """
        from real_engine.registry.credentials import ANONYMOUS, normalized_host
        from real_engine.registry.origins import Origins
        from real_engine.registry.pull import Pull

        config = self._daemon.config
        pull = Pull(
            self._daemon.images,
            Origins(config.data_root / "images" / "origins.json"),
            reference,
            credentials.get(normalized_host(reference.domain), ANONYMOUS),
            platform=str(platform or ""),
            mirrors=config.registry_mirrors,
            insecure_registries=config.insecure_registries,
            emit=lambda line: progress(json_line(line, b"\r\n")),
        )
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_POLL_SECONDS):
                if cancelled():
                    pull.cancel()
                    return

        watcher = threading.Thread(target=watch, name="build-pull", daemon=True)
        watcher.start()
        try:
            pull.run()
        finally:
            over.set()
            watcher.join()
        self._daemon.events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})


def make_builder(daemon: Daemon) -> Builder:
    """A builder that runs its steps in containers of the daemon, and pulls as `docker pull` does."""

    def tagged(image: Image, reference: Reference) -> None:
        daemon.events.publish("image", "tag", image.id, {"name": reference.familiar})

    return Builder(
        daemon.images,
        daemon.containers.step_runner,
        daemon.config.data_root / "builds",
        RegistryPull(daemon),
        tagged,
        engine_version(),
        daemon.config.data_root / "build-cache",
    )


def register(router: Router, daemon: Daemon) -> None:
    """Add the calls to the router."""
    routes = BuildRoutes(daemon)
    daemon.on_disk_usage("build-cache", routes.disk_usage)
    router.add("POST", "/build", routes.build)
    router.add("POST", "/build/prune", routes.prune)
    router.add("POST", "/build/cancel", routes.cancel)
