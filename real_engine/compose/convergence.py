"""Makes what is there into what the file wants: images, networks, volumes, and then each service in order.

A container stays if it was made of the same configuration (by the hash in its label) and the same image. Else a new one
is made beside it under another name, and only when that has worked is the old one stopped and removed. Replicas beyond
those that are wanted go, those of an old configuration first.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from real_engine.compose import labels
from real_engine.compose.container_request import (
    ContainerRequest,
    container_request,
    granted_content,
    granted_path,
    network_request,
    with_containers,
    with_kept_volumes,
    with_labels,
)
from real_engine.compose.fleet import Fleet
from real_engine.compose.host import Container, Host
from real_engine.compose.images import ensure_images, image_name
from real_engine.compose.ordering import at_once, in_order
from real_engine.compose.placement import place, spread_services
from real_engine.compose.progress import Reporter
from real_engine.compose.project import Project, dependencies
from real_engine.compose.removal import remove_containers
from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.files import write_durably

Json = dict[str, Any]

_POLL_SECONDS = 0.1
_SHARED = ("NetworkMode", "IpcMode", "PidMode")


@dataclass(frozen=True, slots=True)
class UpOptions:
    """How `up` goes about it. `scales` are replicas by service; `seconds` how long a container has to stop."""

    scales: Mapping[str, int] = field(default_factory=dict)
    build: bool = False
    pull: str = ""
    force_recreate: bool = False
    no_recreate: bool = False
    no_deps: bool = False
    remove_orphans: bool = False
    renew_anonymous_volumes: bool = False
    start: bool = True
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the containers of a service on one host are to be."""

    request: ContainerRequest
    image_id: str


class Convergence:
    """Brings a project up on a fleet. `warn` gets what the person should know; `explain` why a replica goes where."""

    def __init__(
        self,
        project: Project,
        fleet: Fleet,
        reporter: Reporter,
        options: UpOptions | None = None,
        warn: Callable[[str], None] = lambda text: None,
        explain: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._project, self._fleet, self._reporter = project, fleet, reporter
        self._options = options or UpOptions()
        self._warn, self._explain = warn, explain
        self._spread = spread_services(project, fleet)
        self._recreated: set[str] = set()
        self._named: frozenset[str] = frozenset()
        self._scales: Mapping[str, int] = {}
        self._lock = threading.Lock()

    def up(self, names: Sequence[str] = (), scales: Mapping[str, int] | None = None) -> None:
        """Make the services of these names (all, without names), and what they depend on, be as the file wants.

        `scales` are replicas by service, over those of the options.

        Raises:
            NotFound: a service or image that there isn't.
            EngineError: what a daemon says.
        """
        options = self._options
        self._scales = {**options.scales, **(scales or {})}
        services = self._project.select(names, with_dependencies=not options.no_deps)
        self._named = frozenset(names or services)
        for name in self._scales:
            self._project.service(name)
        self._orphans()
        pairs = [(host, name) for name in services for host in self._hosts(name)]
        ensure_images(self._project, pairs, self._reporter, build=options.build, pull=options.pull)
        self._networks(pairs)
        self._volumes(pairs)
        self._granted_files(services)
        needs = {name: dependencies(service) for name, service in services.items()}
        in_order(services, needs, self._service)

    def prepare_run(self, name: str, *, with_dependencies: bool = True) -> None:
        """See to it that a container of the service could be started: its dependencies, image, networks and volumes.

        Raises:
            NotFound: no such service or image.
            EngineError: what a daemon says.
        """
        service = self._project.service(name)
        needed = [other for other in dependencies(service) if with_dependencies and other in self._project.services]
        if needed:
            self.up(needed)
        pairs = [(self._fleet.home, name)]
        ensure_images(self._project, pairs, self._reporter)
        self._networks(pairs)
        self._volumes(pairs)
        self._granted_files({name: service})
        if with_dependencies:
            self._wait_for_dependencies(name)

    # --- what services stand on ---------------------------------------------------------------------------------------

    def _hosts(self, name: str) -> list[Host]:
        """Where containers of a service may be."""
        return self._fleet.present if name in self._spread else [self._fleet.home]

    def _orphans(self) -> None:
        known = self._project.document.services
        orphans = [pair for pair in self._fleet.containers(self._project.name) if pair[1].service not in known]
        if not orphans:
            return
        if self._options.remove_orphans:
            remove_containers(orphans, self._reporter, self._options.seconds)
        else:
            found = ", ".join(container.name for _, container in orphans)
            self._warn(
                f"Found orphan containers ({found}) for this project. If you removed or renamed this service in your "
                "compose file, you can run this command with the --remove-orphans flag to clean it up."
            )

    def _networks(self, pairs: Sequence[tuple[Host, str]]) -> None:
        wanted: dict[tuple[Host, str], None] = {}
        for host, name in pairs:
            service = self._project.document.services[name]
            for key in () if service.network_mode else service.networks or ("default",):
                wanted[host, key] = None
        for host, key in wanted:
            self._network(host, key)

    def _network(self, host: Host, key: str) -> None:
        network = self._project.document.networks[key]
        name = self._project.resource_name("networks", key)
        found = host.network(name)
        if network.external:
            if found is None and name not in ("host", "none", "bridge"):
                raise NotFound(f"network {name} declared as external, but could not be found")
            return
        if found is not None:
            project = (found.get("Labels") or {}).get(labels.PROJECT)
            if project != self._project.name:
                self._warn(
                    f"a network with name {name} exists but was not created for project "
                    f'"{self._project.name}": set `external: true` to use an existing network'
                )
            return
        shown = self._shown(name, host)
        self._reporter.report("Network", shown, "Creating")
        host.create_network(network_request(self._project, key))
        self._reporter.report("Network", shown, "Created")

    def _volumes(self, pairs: Sequence[tuple[Host, str]]) -> None:
        wanted: dict[tuple[Host, str], None] = {}
        for host, name in pairs:
            for mount in self._project.document.services[name].volumes:
                if mount.type == "volume" and mount.source:
                    wanted[host, mount.source] = None
        for host, key in wanted:
            volume = self._project.document.volumes[key]
            name = self._project.resource_name("volumes", key)
            found = host.volume(name)
            if volume.external:
                if found is None:
                    raise NotFound(f'external volume "{name}" not found')
                continue
            if found is not None:
                if volume.driver and found.get("Driver") != volume.driver:
                    raise InvalidParameter(
                        f'volume "{name}" was made with the driver {found.get("Driver")}, and the file says '
                        f"{volume.driver}: remove it, or change the file"
                    )
                continue
            tags = {labels.PROJECT: self._project.name, labels.VOLUME: key, labels.VERSION: labels.WRITTEN_VERSION}
            shown = self._shown(name, host)
            self._reporter.report("Volume", shown, "Creating")
            host.create_volume(name, volume.driver, volume.driver_opts, {**volume.labels, **tags})
            self._reporter.report("Volume", shown, "Created")

    def _granted_files(self, services: Mapping[str, Any]) -> None:
        """Write the secrets and configs that are no files into files, in a directory that we alone may enter."""
        for service in services.values():
            for kind, grants in (("secrets", service.secrets), ("configs", service.configs)):
                for grant in grants:
                    entry = getattr(self._project.document, kind)[grant.source]
                    if entry.file:
                        continue
                    path = Path(granted_path(self._project, kind, grant.source))
                    _private_directory(path.parent.parent)
                    _private_directory(path.parent)
                    # Whatever user the container's program runs as has to read it; the directory keeps others out.
                    content = granted_content(self._project, kind, grant.source).encode()
                    write_durably(path, content, mode=0o444)

    # --- one service --------------------------------------------------------------------------------------------------

    def _service(self, name: str) -> None:
        existing = self._fleet.containers(self._project.name, [name])
        wanted = {host: self._wanted(name, host) for host in self._hosts(name)}
        target = self._scales.get(name, self._project.document.services[name].replicas)
        misplaced = [pair for pair in existing if pair[0] not in wanted]
        kept, surplus = self._choose([pair for pair in existing if pair[0] in wanted], wanted, target)
        if misplaced or surplus:
            remove_containers([*misplaced, *surplus], self._reporter, self._options.seconds)
        self._wait_for_dependencies(name)
        obsolete = [pair for pair in kept if self._is_obsolete(pair[1], wanted[pair[0]])]
        current = [pair for pair in kept if pair not in obsolete]
        places = self._places(name, kept, target)
        at_once(obsolete, lambda pair: self._recreate(name, *pair, wanted[pair[0]]))
        at_once(places, lambda item: self._create(name, item[0], item[1], wanted[item[0]]))
        at_once(current, lambda pair: self._start_again(name, *pair))

    def _wanted(self, name: str, host: Host) -> _Wanted:
        image = image_name(self._project, name)
        found = host.image(image)
        if found is None:
            raise NotFound(f"service {name}: No such image: {image}")
        request = container_request(self._project, name, image, host.api_version)
        body = request.body
        digest = request.config_hash
        if name in self._spread:
            body = _behind_balancer(body, host.address)
            digest = hashlib.sha256(f"{digest} behind a balancer on {host.address}".encode()).hexdigest()
        if any(str(body["HostConfig"].get(field) or "").startswith("service:") for field in _SHARED) or (
            body["HostConfig"].get("VolumesFrom")
        ):
            others = {
                container.service: container.id
                for other, container in reversed(self._fleet.containers(self._project.name))
                if other is host
            }
            body = with_containers(body, others)
            shared = [body["HostConfig"].get(field) for field in (*_SHARED, "VolumesFrom")]
            digest = hashlib.sha256(f"{digest} {shared}".encode()).hexdigest()
        return _Wanted(replace(request, body=body, config_hash=digest), str(found["Id"]))

    def _is_obsolete(self, container: Container, wanted: _Wanted) -> bool:
        if self._options.no_recreate:
            return False
        if self._options.force_recreate and container.service in self._named:
            return True
        image = container.labels.get(labels.IMAGE) or container.image_id
        return container.config_hash != wanted.request.config_hash or image != wanted.image_id

    def _choose(
        self, existing: Sequence[tuple[Host, Container]], wanted: Mapping[Host, _Wanted], target: int
    ) -> tuple[list[tuple[Host, Container]], list[tuple[Host, Container]]]:
        """Which containers stay and which are too many.

        Old configurations go first, then from where there are most, then those whose number another one has too: a
        daemon that comes back brings the replicas again that the others have made up for.
        """
        kept = list(existing)
        surplus: list[tuple[Host, Container]] = []
        while len(kept) > target:

            def weight(pair: tuple[Host, Container]) -> tuple[bool, int, bool, int]:
                there = sum(1 for host, _ in kept if host is pair[0])
                twice = sum(1 for _, other in kept if other.number == pair[1].number) > 1
                return self._is_obsolete(pair[1], wanted[pair[0]]), there, twice, pair[1].number

            worst = max(kept, key=weight)
            kept.remove(worst)
            surplus.append(worst)
        return kept, surplus

    def _places(self, name: str, kept: Sequence[tuple[Host, Container]], target: int) -> list[tuple[Host, int]]:
        """Where the missing replicas go, and which numbers they get."""
        missing = target - len(kept)
        if missing <= 0:
            return []
        taken = {container.number for _, container in kept}
        free = [number for number in range(1, target + len(taken) + 1) if number not in taken][:missing]
        hosts = self._hosts(name)
        if len(hosts) == 1:
            return [(hosts[0], number) for number in free]
        loads: dict[str, list[Container]] = {host.name: [] for host in hosts}
        for host, container in self._fleet.containers(self._project.name):
            if container.service != name or any(container.id == one.id for _, one in kept):
                loads.setdefault(host.name, []).append(container)
        found = []
        for number in free:
            decision = place(name, hosts, loads)
            self._explain(f"{self._container_name(name, number)} goes to {decision.why}")
            loads[decision.host.name].append(_planned(name, number, decision.host.name))
            found.append((decision.host, number))
        return found

    def _container_name(self, name: str, number: int) -> str:
        return self._project.document.services[name].container_name or f"{self._project.name}-{name}-{number}"

    def _create(self, name: str, host: Host, number: int, wanted: _Wanted) -> None:
        title = self._container_name(name, number)
        shown = self._shown(title, host)
        self._reporter.report("Container", shown, "Creating")
        identifier = self._make(name, host, number, wanted, title, wanted.request.body)
        self._reporter.report("Container", shown, "Created")
        if self._options.start:
            self._start(host, identifier, shown)

    def _recreate(self, name: str, host: Host, container: Container, wanted: _Wanted) -> None:
        title = self._container_name(name, container.number)
        shown = self._shown(title, host)
        self._reporter.report("Container", shown, "Recreate")
        body = wanted.request.body
        if not self._options.renew_anonymous_volumes:
            body = with_kept_volumes(body, host.inspect(container.id))
        temporary = f"{container.id[:12]}_{title}"
        identifier = self._make(name, host, container.number, wanted, temporary, body)
        try:
            if container.running:
                host.stop(container.id, self._options.seconds)
            host.remove(container.id, force=True)
            host.rename(identifier, title)
        except EngineError:
            with contextlib.suppress(EngineError):
                host.remove(identifier, force=True)
            raise
        with self._lock:
            self._recreated.add(name)
        self._reporter.report("Container", shown, "Recreated")
        if self._options.start:
            self._start(host, identifier, shown)

    def _make(self, name: str, host: Host, number: int, wanted: _Wanted, title: str, body: Json) -> str:
        """Create a container, on all of its networks."""
        request = replace(wanted.request, body=body)
        complete = with_labels(request, self._project, name, number, wanted.image_id)
        identifier = host.create(complete, title, self._project.document.services[name].platform)
        try:
            for network, endpoint in request.attachments[1:]:
                host.connect(network, identifier, endpoint)
        except BaseException:
            host.remove(identifier, force=True)
            raise
        return identifier

    def _start(self, host: Host, identifier: str, shown: str) -> None:
        self._reporter.report("Container", shown, "Starting")
        try:
            host.start(identifier)
        except EngineError:
            self._reporter.report("Container", shown, "Error")
            raise
        self._reporter.report("Container", shown, "Started")

    def _start_again(self, name: str, host: Host, container: Container) -> None:
        """A container that is as it should be: start it if it doesn't run."""
        shown = self._shown(container.name, host)
        if not self._options.start:
            return
        if not container.running:
            self._start(host, container.id, shown)
            return
        wanted = self._project.document.services[name].depends_on
        with self._lock:
            restart = any(dependency.restart and other in self._recreated for other, dependency in wanted.items())
        if restart:
            self._reporter.report("Container", shown, "Restarting")
            host.restart(container.id, self._options.seconds)
            self._reporter.report("Container", shown, "Restarted")
        else:
            self._reporter.report("Container", shown, "Running")

    # --- what a service waits for -------------------------------------------------------------------------------------

    def _wait_for_dependencies(self, name: str) -> None:
        if not self._options.start or self._options.no_deps:
            return
        for other, dependency in self._project.document.services[name].depends_on.items():
            if dependency.condition == "service_started":
                continue
            try:
                for host, container in self._fleet.containers(self._project.name, [other]):
                    wait_for(host, container, dependency.condition, self._reporter)
            except EngineError as error:
                if dependency.required:
                    raise
                self._warn(f"optional dependency {other} failed to start: {error}")

    def _shown(self, name: str, host: Host) -> str:
        return f"{name} on {host.name}" if self._fleet.several else name


def wait_for(
    host: Host, container: Container, condition: str, reporter: Reporter, deadline: float | None = None
) -> None:
    """Wait until a container is `service_healthy`, `service_completed_successfully` or runs (`running_or_healthy`).

    `deadline` is by `time.monotonic`.

    Raises:
        EngineError: it never will, or it takes too long.
    """
    told = False
    while True:
        state = host.inspect(container.id)["State"]
        health = (state.get("Health") or {}).get("Status", "")
        ended = not state.get("Running") and state.get("Status") in ("exited", "dead")
        if condition == "service_completed_successfully":
            if ended:
                if state["ExitCode"] != 0:
                    raise EngineError(
                        f'service "{container.service}" didn\'t complete successfully: exit {state["ExitCode"]}'
                    )
                reporter.report("Container", container.name, "Exited")
                return
        elif ended:
            raise EngineError(f"dependency failed to start: container {container.name} exited ({state['ExitCode']})")
        elif health == "unhealthy":
            raise EngineError(f"dependency failed to start: container {container.name} is unhealthy")
        elif health == "healthy" or (condition == "running_or_healthy" and not health and state.get("Running")):
            reporter.report("Container", container.name, "Healthy")
            return
        elif not health and condition == "service_healthy":
            raise EngineError(f"dependency failed to start: container {container.name} has no healthcheck configured")
        if not told:
            reporter.report("Container", container.name, "Waiting")
            told = True
        if deadline is not None and time.monotonic() > deadline:
            raise EngineError(f"timeout waiting for container {container.name}")
        time.sleep(_POLL_SECONDS)


def _behind_balancer(body: Json, address: str) -> Json:
    """The body with its TCP ports published wherever there is one free: the balancer has the ones of the file."""
    host = dict(body["HostConfig"])
    host["PortBindings"] = {
        port: [{"HostIp": address, "HostPort": ""}] if port.endswith("/tcp") else bindings
        for port, bindings in (host.get("PortBindings") or {}).items()
    }
    return {**body, "HostConfig": host}


def _planned(service: str, number: int, host: str) -> Container:
    return Container("", "", service, number, "created", "", "", "", "", 0, False, host)


def _private_directory(path: Path) -> None:
    """Make a directory that only we may enter, and refuse one that is somebody else's."""
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077 or path.is_symlink():
        raise InvalidParameter(f"{path} is not a private directory of ours: remove it")
