"""Which daemon gets the next replica: the one with the fewest of its service, then with the fewest containers at all.

The rule is Docker swarm's default, *spread*. Each decision can be told in a sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from real_engine.compose.fleet import Fleet
from real_engine.compose.host import Container, Host
from real_engine.compose.project import Project


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a replica goes, and why."""

    host: Host
    why: str


def spread_services(project: Project, fleet: Fleet) -> set[str]:
    """The services whose replicas are spread: those that the file names, else those with ports; none on one daemon."""
    if not fleet.several:
        return set()
    named = project.document.spreading.spread
    if named is not None:
        return set(named)
    return {name for name, service in project.document.services.items() if service.ports}


def place(service: str, hosts: Sequence[Host], containers: Mapping[str, Sequence[Container]]) -> Decision:
    """The daemon for one more replica of `service`. `containers` are the project's, by the names of the daemons."""

    def load(host: Host) -> tuple[int, int, int]:
        there = containers.get(host.name, ())
        replicas = sum(1 for one in there if one.service == service)
        return replicas, len(there), hosts.index(host)

    chosen = min(hosts, key=load)
    replicas, total, _ = load(chosen)
    loads = ", ".join(f"{host.name} has {load(host)[0]}" for host in hosts)
    why = f"{chosen.name}: fewest replicas of {service} ({loads})"
    if sum(1 for host in hosts if load(host)[0] == replicas) > 1:
        why += f", and of those the fewest containers ({total})"
    return Decision(chosen, why)
