"""The API's calls about the engine itself: ping, version, info, events, disk usage, and logging in to a registry."""

from __future__ import annotations

import os
import platform
import threading
from typing import TYPE_CHECKING, Any

from real_engine.daemon import host
from real_engine.daemon.app import engine_version
from real_engine.daemon.config import API_VERSION, OLDEST_API_VERSION
from real_engine.errors import InvalidParameter, NotImplementedHere
from real_engine.filters import Filters, parse_filters
from real_engine.http.messages import Response, json_line, parse_json
from real_engine.images.marks import may_be_root
from real_engine.linux import cgroups
from real_engine.times import now, parse_moment, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from real_engine.daemon.app import Daemon
    from real_engine.daemon.events import Subscription
    from real_engine.http.messages import Request
    from real_engine.http.router import Router

Json = dict[str, Any]

_NOT_CACHED = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
_INDEX = "https://index.docker.io/v1/"
_LOOPBACK = ("::1/128", "127.0.0.0/8")
_INIT_PROGRAMS = ("docker-init", "tini", "tini-static")
_LOG_DRIVERS = ("json-file", "local")
_NETWORK_DRIVERS = ("bridge", "host", "macvlan", "null")
_USAGE_TYPES = ("container", "image", "volume", "build-cache")
_MOST_CREDENTIALS_BYTES = 1 << 20
_NO_SESSION = "this engine has the classic builder and no BuildKit, whose session this is: set DOCKER_BUILDKIT=0"


class SystemRoutes:
    """What a request about the engine means, and how the answer looks."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def ping(self, request: Request) -> Response:
        """GET and HEAD /_ping."""
        body = b"OK" if request.method == "GET" else b""
        headers = {**_NOT_CACHED, "Swarm": "inactive"}
        return Response(200, body, headers, "text/plain; charset=utf-8")

    def version(self, _: Request) -> Response:
        """GET /version."""
        engine = engine_version()
        kernel = platform.release()
        python = f"none (CPython {platform.python_version()})"
        system = platform.system().lower()
        versions = {
            "ApiVersion": "{}.{}".format(*API_VERSION),
            "MinAPIVersion": "{}.{}".format(*OLDEST_API_VERSION),
            "Os": system,
            "Arch": host.architecture(),
            "GitCommit": "",
            "GoVersion": python,
            "KernelVersion": kernel,
            "BuildTime": "",
        }
        details = {**versions, "Experimental": "false"}
        return Response.json(
            {
                "Platform": {"Name": "onggi"},
                "Components": [{"Name": "Engine", "Version": engine, "Details": details}],
                "Version": engine,
                **versions,
            }
        )

    def info(self, _: Request) -> Response:
        """GET /info."""
        daemon, config = self._daemon, self._daemon.config
        name, release = host.system_release()
        counts = container_counts(daemon)
        return Response.json(
            {
                "ID": daemon.id,
                **counts,
                "Images": len(daemon.images.images()),
                "Driver": "overlay2",
                "DriverStatus": [
                    ["Backing Filesystem", host.file_system(config.data_root)],
                    ["Supports d_type", "true"],
                    ["Native Overlay Diff", "true"],
                    ["userxattr", "false" if may_be_root() else "true"],
                ],
                "Plugins": {
                    "Volume": volume_drivers(daemon),
                    "Network": list(_NETWORK_DRIVERS),
                    "Authorization": None,
                    "Log": list(_LOG_DRIVERS),
                },
                **host.limits(),
                "IPv4Forwarding": host.switched_on("net/ipv4/ip_forward"),
                "BridgeNfIptables": host.switched_on("net/bridge/bridge-nf-call-iptables"),
                "BridgeNfIp6tables": host.switched_on("net/bridge/bridge-nf-call-ip6tables"),
                "Debug": False,
                "NFd": _descriptors(),
                "NGoroutines": threading.active_count(),
                "SystemTime": rfc3339(now()),
                "LoggingDriver": "json-file",
                "CgroupDriver": "cgroupfs" if host.usable_controllers() else "none",
                "CgroupVersion": "2" if cgroups.mode() == "v2" else "1",
                "NEventsListener": daemon.events.listeners,
                "KernelVersion": platform.release(),
                "OperatingSystem": name,
                "OSVersion": release,
                "OSType": platform.system().lower(),
                "Architecture": platform.machine(),
                "IndexServerAddress": _INDEX,
                "RegistryConfig": _registry_config(config.registry_mirrors, config.insecure_registries),
                "NCPU": len(os.sched_getaffinity(0)),
                "MemTotal": host.memory_bytes(),
                "GenericResources": None,
                "DockerRootDir": str(config.data_root),
                "HttpProxy": _without_password(os.environ.get("HTTP_PROXY", "")),
                "HttpsProxy": _without_password(os.environ.get("HTTPS_PROXY", "")),
                "NoProxy": os.environ.get("NO_PROXY", ""),
                "Name": platform.node(),
                "Labels": list(config.labels),
                "ExperimentalBuild": False,
                "ServerVersion": engine_version(),
                "Runtimes": {"onggi": {"path": "onggi"}},
                "DefaultRuntime": "onggi",
                "Swarm": {
                    "NodeID": "",
                    "NodeAddr": "",
                    "LocalNodeState": "inactive",
                    "ControlAvailable": False,
                    "Error": "",
                    "RemoteManagers": None,
                },
                "LiveRestoreEnabled": True,
                "Isolation": "",
                "InitBinary": _init_program(),
                "ContainerdCommit": {"ID": "", "Expected": ""},
                "RuncCommit": {"ID": "", "Expected": ""},
                "InitCommit": {"ID": "", "Expected": ""},
                "SecurityOptions": _security_options(),
                "DefaultAddressPools": [
                    {"Base": pool.base, "Size": pool.size} for pool in config.default_address_pools
                ],
                "Warnings": [*host.limit_warnings(), *config.warnings] or None,
            }
        )

    def events(self, request: Request) -> Response:
        """GET /events: what is kept of the past from `since` on, then what happens, until `until` or for ever."""
        query = request.query
        since, until = parse_moment(query.get("since")), parse_moment(query.get("until"))
        if since is not None and until is not None and until < since:
            raise InvalidParameter(
                f"`since` time ({query.get('since')}) cannot be after `until` time ({query.get('until')})"
            )
        subscription = self._daemon.events.subscribe(since, until, parse_filters(query.get("filters")))
        # A generator that was never begun can't close what it was given: it begins here, and the head is sent then.
        lines = _event_lines(request, subscription, until)
        next(lines)
        return Response(200, lines, content_type="application/json")

    def usage(self, request: Request) -> Response:
        """GET /system/df."""
        wanted = request.query.all("type") or list(_USAGE_TYPES)
        for kind in wanted:
            if kind not in _USAGE_TYPES:
                raise InvalidParameter(f"unknown object type: {kind}")
        answer: Json = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None, "BuildCache": None}
        for kind in _USAGE_TYPES:
            if kind in wanted:
                answer |= self._daemon.disk_usage(kind)
        if request.version is not None and request.version < (1, 42):
            answer["BuilderSize"] = sum(one["Size"] for one in answer["BuildCache"] or ())
        return Response.json(answer)

    def containers_usage(self) -> Json:
        """What GET /system/df tells of containers."""
        return {"Containers": self._daemon.containers.list(Filters(), everything=True, size=True)}

    def log_in(self, request: Request) -> Response:
        """POST /auth."""
        credentials = parse_json(request.read_all(_MOST_CREDENTIALS_BYTES))  # of any content type, as dockerd has it
        if not isinstance(credentials, dict):
            raise InvalidParameter("the body must be a JSON object")
        from real_engine.daemon.routes.transfer import authenticate

        return Response.json(authenticate(self._daemon, credentials))

    def session(self, request: Request) -> Response:
        """POST /session and /grpc, by which BuildKit speaks to its client."""
        if not request.wants_upgrade:
            raise InvalidParameter("no upgrade proto in request")
        raise NotImplementedHere(_NO_SESSION)


def register(router: Router, daemon: Daemon) -> None:
    """Add the calls to the router."""
    routes = SystemRoutes(daemon)
    daemon.on_disk_usage("container", routes.containers_usage)
    router.add("GET", "/_ping", routes.ping)
    router.add("HEAD", "/_ping", routes.ping)
    router.add("GET", "/version", routes.version)
    router.add("GET", "/info", routes.info)
    router.add("GET", "/events", routes.events)
    router.add("GET", "/system/df", routes.usage)
    router.add("POST", "/auth", routes.log_in)
    router.add("POST", "/session", routes.session)
    router.add("POST", "/grpc", routes.session)


def container_counts(daemon: Daemon) -> Json:
    """How many containers there are, and in which states."""
    counts = {"Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0, "ContainersStopped": 0}
    for record in daemon.containers.table:
        status = record.state.status
        kind = {"running": "ContainersRunning", "restarting": "ContainersRunning", "paused": "ContainersPaused"}
        counts["Containers"] += 1
        counts[kind.get(status, "ContainersStopped")] += 1
    return counts


def volume_drivers(daemon: Daemon) -> list[str]:
    """The volume drivers that can be used."""
    return list(daemon.volumes.drivers)


def _event_lines(request: Request, subscription: Subscription, until: int | None) -> Iterator[bytes]:
    with subscription:
        yield b""
        while True:
            for event in subscription.take():
                if until is None or event.nanoseconds <= until:
                    yield json_line(event.to_json())
            left = None if until is None else (until - now()) / 1e9
            if subscription.lost or (left is not None and left <= 0):
                return
            if request.poll(subscription.fileno(), left) == "gone":
                return


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _registry_config(mirrors: tuple[str, ...], insecure: tuple[str, ...]) -> Json:
    docker_hub = {"Name": "docker.io", "Mirrors": list(mirrors), "Secure": True, "Official": True}
    indexes = {"docker.io": docker_hub}
    for name in insecure:
        if "/" not in name:
            indexes[name] = {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
    return {
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": [*_LOOPBACK, *(name for name in insecure if "/" in name)],
        "IndexConfigs": indexes,
        "Mirrors": list(mirrors),
    }


def _security_options() -> list[str]:
    options = ["name=seccomp,profile=builtin"]
    if not may_be_root():
        options.append("name=rootless")
    if cgroups.mode() == "v2":
        options.append("name=cgroupns")
    return options


def _init_program() -> str:
    from shutil import which

    return next((name for name in _INIT_PROGRAMS if which(name)), "")


def _without_password(address: str) -> str:
    """A proxy's address as anybody may see it."""
    scheme, separator, rest = address.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{place}" if at and user else address
