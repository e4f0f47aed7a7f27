"""The daemon: owns the services, starts and ends them in order, and answers requests with the routes of the API."""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import logging
import os
import platform
import posixpath
import re
import sys
import threading
import traceback
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from real_engine.daemon.config import API_VERSION, OLDEST_API_VERSION, DaemonConfig
from real_engine.daemon.errors_to_http import response_of, status_of
from real_engine.daemon.events import EventBus
from real_engine.errors import Conflict, EngineError, InvalidParameter, Unavailable
from real_engine.explain.recorder import HEADER, Explanations
from real_engine.files import write_durably
from real_engine.http.messages import Response
from real_engine.http.router import Router
from real_engine.times import now, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from real_engine.daemon.containers.service import Containers
    from real_engine.http.messages import Request
    from real_engine.images.build.builder import Builder
    from real_engine.images.store import ImageStore
    from real_engine.networks.networks import Networks
    from real_engine.supervisor.client import SupervisorClient
    from real_engine.volumes.store import Volumes

_log = logging.getLogger("onggi")
_Service = TypeVar("_Service")

ROUTE_MODULES = (
    "system",
    "swarm",
    "images",
    "transfer",
    "build",
    "networks",
    "volumes",
    "plugins",
    "containers",
    "exec",
    "commit",
    "onggi",
)
"""The modules of `real_engine.daemon.routes`, each with a `register(router, daemon)`."""

_DIRECTORIES = ("run", "images", "layers", "containers", "networks", "volumes", "builds", "plugins")
_VERSION = re.compile(r"/v([0-9]{1,4})\.([0-9]{1,4})(/.*)", re.DOTALL)

# What the machine lacks; any other OSError that comes so far is a fault of ours, and is logged with its stack.
_MACHINE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM))


class Daemon:
    """Docker's Engine API on a data root.

    The services are made when they are first asked for, so that a part can be used and tested alone; `start` makes
    them in the order in which a daemon needs them. Calling the daemon with a request answers it, from any thread.
    `routes` are the modules of the API that it has: all of them, but for a test of one.
    """

    def __init__(self, config: DaemonConfig, routes: Sequence[str] = ROUTE_MODULES) -> None:
        self.config = config
        self._route_modules = tuple(routes)
        self.events = EventBus()
        self.explanations = Explanations()
        self.started_at = now()
        self.ready = False
        """Whether it has started and not begun to end."""
        self._lock_descriptor = -1
        self._building = threading.RLock()
        self._closing = False
        self._services: dict[str, Any] = {}
        self._on_start: list[Callable[[], None]] = []
        self._on_stop: list[Callable[[], None]] = []
        self._usage: dict[str, Callable[[], dict[str, Any]]] = {}
        self._router: Router | None = None
        self._headers = {
            "Api-Version": "{}.{}".format(*API_VERSION),
            "Docker-Experimental": "false",
            "Ostype": platform.system().lower(),
            "Server": f"Onggi/{engine_version()} ({platform.system().lower()})",
        }

    # --- services ----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The engine's id: it stays the same for as long as its data root does."""
        return str(self._service("identity", self._identity)["id"])

    @property
    def images(self) -> ImageStore:
        """The images."""
        return self._service("images", self._make_images)

    @property
    def networks(self) -> Networks:
        """The networks."""
        return self._service("networks", self._make_networks)

    @property
    def volumes(self) -> Volumes:
        """The volumes."""
        return self._service("volumes", self._make_volumes)

    @property
    def containers(self) -> Containers:
        """The containers."""
        return self._service("containers", self._make_containers)

    @property
    def supervisor(self) -> SupervisorClient:
        """The process that holds the containers; started, or connected to again, where it is away."""
        return self._service("supervisor", self._connect_supervisor)

    @property
    def builder(self) -> Builder:
        """What builds images from Dockerfiles."""
        return self._service("builder", self._make_builder)

    @property
    def router(self) -> Router:
        """All routes of the API."""
        found = self._router  # without the lock: a service that takes long to build must not hold up requests
        return found if found is not None else self._build_router()

    def _build_router(self) -> Router:
        with self._building:
            if self._router is None:
                router = Router()
                for name in self._route_modules:
                    module = f"real_engine.daemon.routes.{name}"
                    if find_spec(module) is not None:
                        importlib.import_module(module).register(router, self)
                self._router = router
            return self._router

    def on_disk_usage(self, kind: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Let `measure` answer what `GET /system/df` has to say of a kind: container, image, volume, build-cache.

        It returns the fields of the answer, as `{"Volumes": [...]}`.
        """
        self._usage[kind] = measure

    def disk_usage(self, kind: str) -> dict[str, Any]:
        """What a kind of object takes on the disk, as fields of the answer of `GET /system/df`."""
        measure = self._usage.get(kind)
        return measure() if measure is not None else {}

    def restart_supervisor(self) -> None:
        """Forget the supervisor, which has gone; the next who needs it starts another."""
        with self._building:
            gone = self._services.pop("supervisor", None)
        if gone is not None:
            gone.close()

    def built(self, name: str) -> bool:
        """Whether a service has been made already."""
        return name in self._services

    def _service(self, name: str, build: Callable[[], _Service]) -> _Service:
        found = self._services.get(name)
        if found is None:
            with self._building:
                found = self._services.get(name)
                if found is None:
                    if self._closing:
                        raise Unavailable("the engine is ending")
                    self._directories()
                    found = self._services[name] = build()
        return cast("_Service", found)

    # Each is imported when it is made: a test of one part, or `onggi engine serve --help`, pays for no other.

    def _make_images(self) -> ImageStore:
        from real_engine.images.store import ImageStore

        return ImageStore(self.config.data_root)

    def _make_networks(self) -> Networks:
        from real_engine.networks.networks import Networks

        return Networks(self.config.data_root, self.config, self.events.publish)

    def _make_volumes(self) -> Volumes:
        from real_engine.volumes.store import Volumes

        return Volumes(self.config.data_root)

    def _make_containers(self) -> Containers:
        from real_engine.daemon.containers.service import Containers

        return Containers(self)

    def _make_builder(self) -> Builder:
        from real_engine.daemon.routes.build import make_builder

        return make_builder(self)

    def _connect_supervisor(self) -> SupervisorClient:
        from real_engine.supervisor.client import SupervisorClient

        return SupervisorClient.connect_or_start(self.config.data_root, self.containers.on_event)

    def _directories(self) -> None:
        root = self.config.data_root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in (*_DIRECTORIES, "tmp"):
                (root / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise _no_place(root, error) from error

    def _identity(self) -> dict[str, Any]:
        """What `engine.json` says, which is written at the first start."""
        path = self.config.data_root / "engine.json"
        try:
            known = json.loads(path.read_bytes())
            if isinstance(known, dict) and isinstance(known.get("id"), str):
                return known
            raise ValueError("no id in it")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise EngineError(f"cannot read {path}: {error}") from error
        import uuid

        made = {"id": str(uuid.uuid4()), "created": rfc3339(now())}
        try:
            write_durably(path, json.dumps(made).encode() + b"\n", mode=0o600)
        except OSError as error:
            raise _no_place(self.config.data_root, error) from error
        return made

    # --- beginning and end -------------------------------------------------------------------------------------------

    def on_start(self, hook: Callable[[], None]) -> None:
        """Call `hook` when the services have started, before the first connection is taken."""
        self._on_start.append(hook)

    def on_stop(self, hook: Callable[[], None]) -> None:
        """Call `hook` when the daemon ends, the last that was added first, after the last connection has ended."""
        self._on_stop.append(hook)

    def start(self) -> None:
        """Take the data root, and bring back what an earlier daemon has left.

        Raises:
            Conflict: another daemon uses the data root.
            EngineError: no right to it, or a service that can't start.
        """
        self._closing = False
        self._directories()
        self._take_lock()
        try:
            self._empty("tmp")
            self._empty("builds")
            _ = self.id
            _ = self.router  # all modules are loaded now: later, a container's files could be in their way
            self._restore_networks({entry.target_id for entry in self.supervisor.list() if entry.running})
            self.containers.adopt()
            self._settle_volumes()
            for hook in self._on_start:
                hook()
        except BaseException:
            self._close_services()
            self._drop_lock()
            raise
        self.ready = True

    def _settle_volumes(self) -> None:
        """Remove what a crash has left of volumes. It goes after the adoption, which tells what is in use."""
        try:
            self.volumes.settle()
        except (OSError, EngineError) as error:  # one bad volume keeps nobody from the others
            self.log_error(f"volumes of an earlier daemon: {error}", error)

    def _restore_networks(self, running: set[str]) -> None:
        """Bring back bridges and rules. It goes before the adoption, which starts containers again: what a container
        of an earlier daemon had is given back before it gets it anew.
        """
        try:
            self.networks.restore(running)
        except (EngineError, OSError) as error:  # containers without a network can run all the same
            self.log_error(f"the networks could not be brought back: {error}", error)

    def stop(self) -> None:
        """End the services; containers go on running. Doing it twice does no harm."""
        self.ready = False
        for hook in reversed(self._on_stop):
            self._quietly(hook)
        self._on_stop.clear()
        self._close_services()
        self._drop_lock()

    def log_error(self, text: str, error: BaseException | None = None) -> None:
        """Log something that failed and that nobody waits for; with the stack, if it is a fault of ours."""
        if error is not None and not isinstance(error, (EngineError, OSError)):
            text += "\n" + "".join(traceback.format_exception(error)).rstrip()
        _log.error("%s", text)

    def _close_services(self) -> None:
        with self._building:
            self._closing = True  # they are closed without the lock: what still runs in them may need another of them
            services = dict(self._services)
        if "supervisor" in services:
            self._quietly(services["supervisor"].leave)
        for name in ("containers", "networks", "volumes", "images", "supervisor"):
            close = getattr(services.get(name), "close", None)
            if close is not None:
                self._quietly(close)
        with self._building:
            self._services.clear()

    def _quietly(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # the others have to end too
            self.log_error(f"while ending: {error}", error)

    def _take_lock(self) -> None:
        path = self.config.data_root / "daemon.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Conflict(
                f"the data root {self.config.data_root} is used by another daemon"
                + (f" (process {holder})" if holder else "")
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise _no_place(self.config.data_root, error) from error
        self._lock_descriptor = descriptor

    def _drop_lock(self) -> None:
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def _empty(self, name: str) -> None:
        """Remove what an earlier daemon left half-done."""
        from real_engine.images.trees import remove_tree

        for path in (self.config.data_root / name).iterdir():
            try:
                remove_tree(path)
            except OSError as error:
                self.log_error(f"{path} is left over, and can't be removed: {error.strerror}", error)

    # --- requests ----------------------------------------------------------------------------------------------------

    def __call__(self, request: Request) -> Response | None:
        """Answer a request; errors become the statuses and messages of Docker's API."""
        request.response_headers = dict(self._headers)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s %s by %s", request.method, request.path, request.peer)
        try:
            moved = _cleaned(request)
            if moved is not None:
                return moved
            _strip_version(request)
            if request.method == "OPTIONS":
                return Response(200)
            token = request.headers.get(HEADER)
            if token:
                return self.explanations.answer(request, token, self.router, status_of)
            return self.router(request)
        except EngineError as error:
            if request.hijacked is not None:
                # The stream has begun: what went wrong can only be told by its end.
                _log.error("%s %s: %s", request.method, request.path, error)
                request.hijacked.close()
                return None
            _log.debug("%s %s: %s", request.method, request.path, error)
            return response_of(error)
        except OSError as error:
            if error.errno not in _MACHINE or request.hijacked is not None:
                raise
            place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            _log.error("%s %s: %s", request.method, request.path, error)
            return response_of(EngineError(f"{place}{(error.strerror or str(error)).lower()}"))


@cache
def engine_version() -> str:
    """The version of onggi, as it is installed; 0.0.0 where it only lies on the path.

    It stands in the name of the directory that every installer makes (PEP 376 and 491). `importlib.metadata` would find
    it too, and would take 50 ms and 7 MiB of a daemon's memory for that.
    """
    for entry in sys.path:
        for found in Path(entry or ".").glob("onggi-*.dist-info"):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return "0.0.0"


def _strip_version(request: Request) -> None:
    """Take `/v1.43` from the path (moby api/server/middleware/version.go).

    Raises:
        InvalidParameter: a version that isn't spoken here.
    """
    if not request.path.startswith("/v"):
        return
    matched = _VERSION.fullmatch(request.path)
    if matched is None:
        return  # /version, /volumes: the router knows them
    asked = (int(matched[1]), int(matched[2]))
    text = f"{matched[1]}.{matched[2]}"
    if asked > API_VERSION:
        raise InvalidParameter(
            f"client version {text} is too new. Maximum supported API version is {API_VERSION[0]}.{API_VERSION[1]}"
        )
    if asked < OLDEST_API_VERSION:
        raise InvalidParameter(
            f"client version {text} is too old. Minimum supported API version is "
            f"{OLDEST_API_VERSION[0]}.{OLDEST_API_VERSION[1]}, please upgrade your client to a newer version"
        )
    request.version = asked
    request.path = matched[3]


def _cleaned(request: Request) -> Response | None:
    """A redirection for a path with `//`, `.` or `..` in it, as Docker's router answers it."""
    path = request.path
    if "//" not in path and "/." not in path:
        return None
    clean = posixpath.normpath(path).replace("//", "/", 1)
    if path.endswith("/") and clean != "/":
        clean += "/"
    if clean == path:
        return None
    location = quote(clean) + (f"?{request.query_text}" if request.query_text else "")
    return Response(301, headers={"Location": location})


def _no_place(root: Path, error: OSError) -> EngineError:
    return EngineError(f"cannot keep the engine's data in {root}: {error.strerror}; name another")
