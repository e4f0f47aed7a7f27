"""Takes a project, or containers of it, away: stopped in the reverse order of their dependencies, then removed."""

from collections.abc import Callable, Mapping, Sequence

from real_engine.compose import labels
from real_engine.compose.fleet import Fleet
from real_engine.compose.host import Container, Host, shown_on
from real_engine.compose.images import image_name
from real_engine.compose.ordering import at_once, in_order
from real_engine.compose.progress import Reporter
from real_engine.compose.project import Project
from real_engine.errors import EngineError, InvalidParameter

Pairs = Sequence[tuple[Host, Container]]


def stop_containers(pairs: Pairs, reporter: Reporter, seconds: int | None = None) -> None:
    """Stop containers, each service after those that depend on it.

    Raises:
        EngineError: what a daemon says.
    """

    def stop(pair: tuple[Host, Container]) -> None:
        host, container = pair
        shown = shown_on(host, container.name)
        if container.running:
            reporter.report("Container", shown, "Stopping")
            host.stop(container.id, seconds)
            reporter.report("Container", shown, "Stopped")

    _dependents_first(pairs, stop)


def remove_containers(pairs: Pairs, reporter: Reporter, seconds: int | None = None, *, volumes: bool = False) -> None:
    """Stop and remove containers, each service after those that depend on it; `volumes` takes the anonymous ones too.

    Raises:
        EngineError: what a daemon says.
    """

    def remove(pair: tuple[Host, Container]) -> None:
        host, container = pair
        shown = shown_on(host, container.name)
        if container.running:
            reporter.report("Container", shown, "Stopping")
            host.stop(container.id, seconds)
            reporter.report("Container", shown, "Stopped")
        reporter.report("Container", shown, "Removing")
        host.remove(container.id, force=True, volumes=volumes)
        reporter.report("Container", shown, "Removed")

    _dependents_first(pairs, remove)


def down(
    project: Project,
    fleet: Fleet,
    reporter: Reporter,
    *,
    volumes: bool = False,
    images: str = "",
    remove_orphans: bool = False,
    seconds: int | None = None,
) -> None:
    """Remove the project's containers and networks; its volumes and images if asked (`images`: local or all).

    Raises:
        EngineError: what a daemon says.
    """
    if images not in ("", "local", "all"):
        raise InvalidParameter(f"--rmi: `{images}` is neither local nor all")
    known = project.document.services
    pairs = fleet.containers(project.name, oneoff=None)
    chosen = [pair for pair in pairs if remove_orphans or pair[1].service in known]
    remove_containers(chosen, reporter, seconds, volumes=volumes)
    for host in fleet:
        if volumes:
            for key, volume in project.document.volumes.items():
                if not volume.external:
                    _removed("Volume", project.resource_name("volumes", key), host, host.remove_volume, reporter)
        if images:
            for name, service in known.items():
                if images == "all" or not service.image:
                    _removed("Image", image_name(project, name), host, host.remove_image, reporter)
        declared = {
            project.resource_name("networks", key)
            for key, network in project.document.networks.items()
            if not network.external
        }
        for network in sorted(declared | set(host.networks(project.name))):
            if host.network(network) is not None:
                _removed("Network", network, host, host.remove_network, reporter)


def _removed(kind: str, name: str, host: Host, remove: Callable[[str], bool], reporter: Reporter) -> None:
    shown = shown_on(host, name)
    reporter.report(kind, shown, "Removing")
    try:
        gone = remove(name)
    except EngineError as error:
        reporter.report(kind, shown, f"Error: {error}")
        return
    reporter.report(kind, shown, "Removed" if gone else "Resource is still in use or not there")


def _dependents_first(pairs: Pairs, work: Callable[[tuple[Host, Container]], None]) -> None:
    """Call `work` with each container, after those of the services that depend on its service, by the labels."""
    services: dict[str, list[tuple[Host, Container]]] = {}
    needs: dict[str, set[str]] = {}
    for pair in pairs:
        services.setdefault(pair[1].service, []).append(pair)
        for name in depended_on(pair[1].labels):
            needs.setdefault(name, set()).add(pair[1].service)
    in_order(services, needs, lambda name: at_once(services[name], work))


def depended_on(tags: Mapping[str, str]) -> list[str]:
    """The services that a container depends on, by its label (`db:service_started:false,…`)."""
    return [part.partition(":")[0] for part in tags.get(labels.DEPENDS_ON, "").split(",") if part]
