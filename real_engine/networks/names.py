"""Who is called what on which network: what the resolver answers from."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

from real_engine.networks.name_files import host_resolv_conf, read_resolv_conf
from real_engine.networks.resolver import Found
from real_engine.networks.spec import DnsOptions, Endpoint


class NameDirectory:
    """The names of containers on the networks of users' own (the predefined have none). Thread-safe."""

    def __init__(self, host_servers: Callable[[], Sequence[str]] | None = None) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, dict[str, list[Endpoint]]] = defaultdict(dict)  # by network, then by name
        self._joined: dict[str, dict[str, Endpoint]] = defaultdict(dict)  # by container, then by network
        self._dns: dict[str, DnsOptions] = {}
        self._turns: dict[str, int] = defaultdict(int)
        self._host_servers = host_servers or _host_servers

    def add(self, endpoint: Endpoint, dns: DnsOptions) -> None:
        """A container has joined a network."""
        with self._lock:
            self._joined[endpoint.container_id][endpoint.network_id] = endpoint
            self._dns[endpoint.container_id] = dns
            names = self._names[endpoint.network_id]
            for name in endpoint.dns_names:
                names.setdefault(name.lower(), []).append(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """It has left; what isn't there is no error."""
        with self._lock:
            names = self._names.get(endpoint.network_id, {})
            for name in endpoint.dns_names:
                left = [each for each in names.get(name.lower(), ()) if each.id != endpoint.id]
                if left:
                    names[name.lower()] = left
                else:
                    names.pop(name.lower(), None)
                    self._turns.pop(f"{endpoint.network_id}/{name.lower()}", None)
            if not names:
                self._names.pop(endpoint.network_id, None)
            joined = self._joined.get(endpoint.container_id, {})
            joined.pop(endpoint.network_id, None)
            if not joined:
                self._joined.pop(endpoint.container_id, None)
                self._dns.pop(endpoint.container_id, None)

    def find(self, container_id: str, name: str, version: int) -> Found | None:
        """The addresses of a name as a container sees it; of several containers of one name, each is first in turn."""
        with self._lock:
            for network_id, endpoint in self._joined.get(container_id, {}).items():
                names = self._names.get(network_id, {})
                suffix = f".{endpoint.network_name.lower()}"
                for asked in (name, *([name.removesuffix(suffix)] if name.endswith(suffix) else [])):
                    linked = next((target.lower() for target, alias in endpoint.links if alias.lower() == asked), asked)
                    if linked in names:
                        return self._in_turn(f"{network_id}/{linked}", names[linked], version)
        return None

    def _in_turn(self, key: str, endpoints: list[Endpoint], version: int) -> Found:
        found = [address for each in endpoints if (address := each.ipv4 if version == 4 else each.ipv6)]
        if len(found) > 1:
            turn = self._turns[key] = (self._turns[key] + 1) % len(found)
            found = found[turn:] + found[:turn]
        return Found(tuple(found))

    def find_address(self, container_id: str, address: str) -> Found | None:
        """The name of what has an address on one of a container's networks."""
        with self._lock:
            mine = self._joined.get(container_id, {})
            for joined in self._joined.values():
                for network_id, endpoint in joined.items():
                    if network_id in mine and address in (endpoint.ipv4, endpoint.ipv6):
                        name = endpoint.container_name or endpoint.container_id[:12]
                        return Found(name=f"{name}.{endpoint.network_name}")
        return None

    def upstreams(self, container_id: str) -> Sequence[str]:
        """The servers to ask about other names: its own, or the host's; none for a container on internal networks."""
        with self._lock:
            joined = self._joined.get(container_id, {})
            dns = self._dns.get(container_id, DnsOptions())
            if all(each.internal for each in joined.values()):
                return ()
        return dns.servers or self._host_servers()


def _host_servers() -> Sequence[str]:
    return read_resolv_conf(host_resolv_conf()).servers
