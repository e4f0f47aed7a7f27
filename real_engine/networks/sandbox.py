"""What one container has of networks while it runs."""

import os
import threading
from dataclasses import dataclass, field, replace

from real_engine.networks.ports import PortBinding, PublishedPort, host_addresses
from real_engine.networks.spec import DnsOptions, Endpoint
from real_engine.networks.store import Membership


@dataclass(slots=True)
class Sandbox:
    """What a container has of networks. Its lock is held while that changes."""

    container_id: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    namespace: int = -1
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    routed: dict[int, str] = field(default_factory=dict)  # which network has the default route of IPv4, of IPv6
    bindings: tuple[PortBinding, ...] = ()
    published: list[PublishedPort] = field(default_factory=list)
    leading: Endpoint | None = None  # the endpoint to which the published ports lead
    dns: DnsOptions = field(default_factory=DnsOptions)

    def membership(self) -> Membership:
        """What is kept of it on disk: of the ports, those that were really chosen."""
        chosen = {
            port.binding: replace(port.binding, host=port.host, first=port.host_port, last=port.host_port)
            for port in self.published
        }
        bindings = tuple(chosen.get(each, each) for each in self.bindings)
        return Membership(self.container_id, tuple(self.endpoints.values()), bindings, self.dns)

    def gateway(self, version: int) -> Endpoint | None:
        """The endpoint that has the default route: of the highest priority, then of the first name (libnetwork)."""
        able = [each for each in self.endpoints.values() if (each.ipv4_gateway if version == 4 else each.ipv6_gateway)]
        return min(able, key=lambda each: (-each.gateway_priority, each.network_name), default=None)

    def led(self) -> tuple[Endpoint, list[PublishedPort]] | None:
        """The endpoint to which ports of the host lead, with these, none of which need be open by now."""
        endpoint = self.leading or self.gateway(4)
        chosen = [each for each in self.bindings if each.first and each.first == each.last]
        if endpoint is None or not chosen:
            return None
        return endpoint, self.published or [PublishedPort(each, each.first, host_addresses(each)) for each in chosen]

    def routes_to_change(self) -> list[tuple[Endpoint, str]]:
        """The endpoints that should have a default route and have not, each with the gateway that it leads to."""
        best = [(version, self.gateway(version)) for version in (4, 6)]
        return [
            (endpoint, endpoint.ipv4_gateway if version == 4 else endpoint.ipv6_gateway)
            for version, endpoint in best
            if endpoint is not None and self.routed.get(version) != endpoint.network_id
        ]

    def note_routes(self) -> None:
        """The default routes are as they should be."""
        best = {version: self.gateway(version) for version in (4, 6)}
        self.routed = {version: endpoint.network_id for version, endpoint in best.items() if endpoint is not None}

    def close_namespace(self) -> None:
        """Let go of its network namespace."""
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1
