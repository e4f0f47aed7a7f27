"""Publishing a container's ports: the host's ports, the packet filter's rules and the userland proxy, put together."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence

from real_engine.errors import EngineError
from real_engine.linux import conntrack
from real_engine.networks.bridge import let_loopback_through, let_turn_round
from real_engine.networks.firewall import Firewall, NetworkRules, PortRule
from real_engine.networks.forwarding import ForwardAccepts
from real_engine.networks.ports import PortAllocator, PortBinding, PublishedPort
from real_engine.networks.proxy import UserlandProxy
from real_engine.networks.spec import Endpoint, Network
from real_engine.networks.steps import Observer

_log = logging.getLogger("onggi")
_CHECKED_SECONDS = 2.0


class Publisher:
    """Opens the way from outside to containers, whatever others do to the packet filter. Thread-safe."""

    def __init__(self, tag: str, *, userland_proxy: bool) -> None:
        self._firewall = Firewall(tag, own_by_proxy=userland_proxy)
        self._accepts = ForwardAccepts(tag)
        self._accepts_lock = threading.Lock()
        self._checked = 0.0
        self._bridges: dict[str, bool] = {}  # names, and whether each has IPv6
        self._allocator = PortAllocator()
        self._proxy = UserlandProxy()
        self._userland_proxy = userland_proxy

    @property
    def unavailable(self) -> str:
        """Why the packet filter has no rules of ours; empty when it has."""
        return self._firewall.unavailable

    def restore(self, networks: Iterable[Network], led: Iterable[tuple[Endpoint, Sequence[PublishedPort]]]) -> None:
        """Put the rules of these networks in the place of whatever an engine before us left.

        `led` are endpoints with the ports that led to them: their way stays open while nobody has opened them again.

        Raises:
            EngineError: the packet filter refuses them.
        """
        known = list(networks)
        self._bridges = {each.bridge: each.enable_ipv6 for each in known}
        if not self.unavailable:
            rules = [rule for endpoint, ports in led for port in ports for rule in _rules(endpoint, port)]
            self._firewall.restore([NetworkRules.of(each) for each in known], rules)
            self._let_through(None, now=True)

    def add_network(self, network: Network, observer: Observer | None = None) -> None:
        """Let a network's containers out.

        Raises:
            EngineError: the packet filter refuses its rules.
        """
        self._bridges[network.bridge] = network.enable_ipv6
        if self.unavailable:
            return
        try:
            self._firewall.add_network(NetworkRules.of(network), observer)
            self._let_through(observer, now=True)
        except EngineError:
            self._bridges.pop(network.bridge, None)
            raise

    def remove_network(self, network: Network) -> None:
        """Forget a network.

        Raises:
            EngineError: the packet filter refuses.
        """
        self._bridges.pop(network.bridge, None)
        if not self.unavailable:
            self._firewall.remove_network(network.bridge)
            self._let_through(None, now=True)

    def forward_nothing_else(self, version: int) -> None:
        """The machine forwards packets since just now: those of our bridges, and no others.

        Raises:
            EngineError: the packet filter refuses.
        """
        if not self.unavailable:
            self._accepts.refuse_others(version)

    def _let_through(self, observer: Observer | None, *, now: bool = False) -> None:
        """See that others' chains let ours through; looked at again after two seconds at the earliest."""
        with self._accepts_lock:
            if not now and time.monotonic() - self._checked < _CHECKED_SECONDS:
                return
            self._checked = time.monotonic()
            self._accepts.ensure(self._bridges, 4, observer)
            if any(self._bridges.values()):
                self._accepts.ensure([name for name, ipv6 in self._bridges.items() if ipv6], 6, observer)

    def publish(
        self,
        network: Network,
        endpoint: Endpoint,
        bindings: Sequence[PortBinding],
        observer: Observer | None = None,
    ) -> list[PublishedPort]:
        """Open the ports that `bindings` ask for, leading to a container's `endpoint`.

        Raises:
            EngineError: one is taken, or there is no way to lead it there; none of them is open then.
        """
        if not bindings:
            return []
        opened: list[PublishedPort] = []
        try:
            if self.unavailable and not self._userland_proxy:
                raise EngineError(f"ports can't be published without a userland proxy: {self.unavailable}")
            for binding in bindings:
                opened.append(self._allocator.take(binding, network.publish_address))
            self.lead(network, endpoint, opened, observer)
        except BaseException as error:
            self.release(endpoint, opened)
            if isinstance(error, EngineError):
                raise error.reworded(
                    "driver failed programming external connectivity on endpoint"
                    f" {endpoint.container_name} ({endpoint.id}): {error}"
                ) from error
            raise
        return opened

    def lead(
        self, network: Network, endpoint: Endpoint, ports: Iterable[PublishedPort], observer: Observer | None = None
    ) -> None:
        """Lead ports that are open to an endpoint.

        Raises:
            EngineError: the packet filter refuses.
        """
        ports = list(ports)
        if not self.unavailable:
            let_loopback_through(network.bridge)
            if not self._userland_proxy:
                let_turn_round(endpoint.host_interface)
            self._let_through(observer)
            self._firewall.publish([rule for port in ports for rule in _rules(endpoint, port)], observer)
            _forget_flows(ports)
        if self._userland_proxy:
            for port in ports:
                if port.binding.protocol == "sctp":
                    continue
                for listener in port.sockets:
                    ipv6 = bool(endpoint.ipv6) and ":" in listener.getsockname()[0]
                    self._proxy.serve(listener, (endpoint.ipv6 if ipv6 else endpoint.ipv4, port.binding.port))

    def mislead(self, endpoint: Endpoint, ports: Iterable[PublishedPort]) -> None:
        """Lead ports to an endpoint no more; they stay open."""
        ports = list(ports)
        try:
            if not self.unavailable:
                self._firewall.unpublish([rule for port in ports for rule in _rules(endpoint, port)])
                _forget_flows(ports)
        except EngineError as error:
            _log.error("published ports of %s: %s", endpoint.container_name, error)
        for port in ports:
            for listener in port.sockets:
                self._proxy.stop(listener)

    def release(self, endpoint: Endpoint, ports: Iterable[PublishedPort]) -> None:
        """Close ports, whatever their way was."""
        ports = list(ports)
        if not ports:
            return
        self.mislead(endpoint, ports)
        for port in ports:
            self._allocator.release(port)

    def remove_all(self, guarded: Iterable[int] = ()) -> None:
        """Take everything of ours out of the packet filter.

        `guarded` are the versions of IP for which `forward_nothing_else` was called.
        """
        self._bridges.clear()
        if self.unavailable:
            return
        try:
            self._firewall.remove_all()
            self._accepts.remove()
            for version in guarded:
                self._accepts.refuse_no_more(version)
        except EngineError as error:
            _log.error("the packet filter keeps rules of ours: %s", error)

    def close(self) -> None:
        """End the proxy. Rules stay: containers go on being reached by them."""
        self._proxy.close()


def _forget_flows(ports: Iterable[PublishedPort]) -> None:
    """Let the kernel forget where clients of UDP ports were led so far: they go on sending, and must be led anew."""
    numbers = {port.host_port for port in ports if port.binding.protocol == "udp"}
    if numbers:
        try:
            conntrack.forget_udp(numbers)
        except OSError as error:
            _log.warning("clients of UDP ports that send already: %s", error.strerror)


def _rules(endpoint: Endpoint, port: PublishedPort) -> list[PortRule]:
    """The packet filter's rules for a port, one for each address of the host whose version the container has too."""
    found = []
    for address in port.addresses:
        container = endpoint.ipv6 if ":" in address else endpoint.ipv4
        if container:
            wide = address in ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
            host = "" if wide else address
            found.append(PortRule(port.binding.protocol, host, port.host_port, container, port.binding.port))
    return found
