"""The daemons of a project: mostly one. With several, those that are lost are left out.

One host is *home*: services that aren't spread live there.
"""

import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from real_engine.compose.host import Container, Host, HostLost
from real_engine.compose.model import Spreading
from real_engine.errors import InvalidParameter


class Fleet:
    """Some daemons, the first of which that is there is home. Thread-safe."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.hosts = tuple(hosts)
        self._lost: set[str] = set()
        self._lock = threading.Lock()

    @property
    def several(self) -> bool:
        """Whether there is more than one, lost or not."""
        return len(self.hosts) > 1

    @property
    def present(self) -> list[Host]:
        """The daemons that aren't lost.

        Raises:
            HostLost: none is left.
        """
        with self._lock:
            found = [host for host in self.hosts if host.name not in self._lost]
        if not found:
            raise HostLost("no daemon is left: " + ", ".join(f"{host.name} ({host.url})" for host in self.hosts))
        return found

    @property
    def home(self) -> Host:
        """Where services live that aren't spread."""
        return self.present[0]

    def host(self, name: str) -> Host:
        """By its name."""
        return next(host for host in self.hosts if host.name == name)

    def lose(self, name: str) -> bool:
        """Leave a daemon out from now on; whether that is news."""
        with self._lock:
            if name in self._lost:
                return False
            self._lost.add(name)
            return True

    def check(self) -> tuple[list[str], list[str]]:
        """Ask each daemon whether it is there; returns the names of those just lost, and of those just back."""
        lost, back = [], []
        for host in self.hosts:
            there = host.alive()
            with self._lock:
                was_lost = host.name in self._lost
                if there and was_lost:
                    self._lost.discard(host.name)
                    back.append(host.name)
                elif not there and not was_lost:
                    self._lost.add(host.name)
                    lost.append(host.name)
        return lost, back

    def containers(
        self, project: str, services: Sequence[str] = (), *, oneoff: bool | None = False
    ) -> list[tuple[Host, Container]]:
        """The containers of a project on every daemon that is there, by service and number."""
        found = [
            (host, container)
            for host in self.present
            for container in host.containers(project, services, oneoff=oneoff)
        ]
        return sorted(found, key=lambda pair: (pair[1].service, pair[1].number))

    def close(self) -> None:
        """Close all connections."""
        for host in self.hosts:
            host.close()

    def __iter__(self) -> Iterator[Host]:
        return iter(self.present)


def fleet_of(spreading: Spreading, urls: Sequence[str]) -> Fleet:
    """The daemons that the command line names (`URL`, or `NAME=URL` several times), else those of the file, else one.

    Raises:
        InvalidParameter: two of one name, or several without names.
    """
    named: list[tuple[str, str, str]] = []
    for text in urls:
        name, equals, url = text.partition("=")
        if not equals or "/" in name or ":" in name:
            name, url = "", text
        named.append((name, url, ""))
    if not named:
        named = [(name, host.url, host.address) for name, host in spreading.hosts.items()]
    if len(named) > 1 and not all(name for name, _, _ in named):
        raise InvalidParameter("several daemons need names: --host a=unix:///run/a.sock --host b=unix:///run/b.sock")
    if len({name for name, _, _ in named}) != len(named):
        raise InvalidParameter("two daemons have the same name")
    addresses = {name: host.address for name, host in spreading.hosts.items()}
    hosts = [Host(url, name, address or addresses.get(name) or _address(url)) for name, url, address in named]
    return Fleet(hosts or [Host()])


def _address(url: str) -> str:
    """Where the ports of the daemon at `url` are reached: its own address, or this machine for a UNIX socket."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1" if parts.scheme in ("tcp", "http", "https", "ssh") else "127.0.0.1"
