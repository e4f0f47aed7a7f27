"""The networks themselves, on disk and in the kernel: what is there, made, removed, and brought back."""

import contextlib
import ipaddress
import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from real_engine.errors import Conflict, EngineError, Forbidden, InvalidParameter, NotFound
from real_engine.linux import netlink
from real_engine.linux.netlink import AddressWithPrefix, RouteSocket, Subnet
from real_engine.networks import bridge, macvlan
from real_engine.networks.addresses import AddressBook
from real_engine.networks.creation import Surroundings, new_network, refuse_predefined
from real_engine.networks.ipam import DEFAULT_POOLS, overlaps
from real_engine.networks.options import NetworkOptions, default_bridge_name
from real_engine.networks.ports import PublishedPort
from real_engine.networks.publishing import Publisher
from real_engine.networks.spec import (
    BRIDGE_NAME,
    DEFAULT_BRIDGE,
    ENABLE_ICC,
    ENABLE_MASQUERADE,
    HOST_BINDING,
    MTU,
    Endpoint,
    Network,
    NetworkSpec,
    tag_of,
)
from real_engine.networks.steps import Observer, Timed
from real_engine.networks.store import NetworkStore

_log = logging.getLogger("onggi")
_USUAL_MTU = 1500


class Members(Protocol):
    """Who knows the containers on the networks."""

    def endpoints(self, network_id: str) -> Sequence[Endpoint]:
        """Their places in a network."""

    def led(self) -> Sequence[tuple[Endpoint, Sequence[PublishedPort]]]:
        """The endpoints to which published ports lead."""


class Catalogue:
    """All networks of an engine. Thread-safe.

    A network is written down before it is made in the kernel, and forgotten after it was removed there, so an engine
    that was killed at any moment leaves nothing that the next one doesn't know of. Nothing is done to the kernel before
    it is needed: `prepare` brings back what the networks on disk need.
    """

    def __init__(
        self, root: Path, options: NetworkOptions, store: NetworkStore, publisher: Publisher, members: Members
    ) -> None:
        self._options = options
        self._members = members
        self._default_bridge = options.bridge or default_bridge_name(root, tag_of(str(root.absolute())))
        self._store = store
        self._publisher = publisher
        self._lock = threading.Lock()  # around the dictionary; not held during what takes long
        self._making = threading.RLock()  # one network at a time is made or removed
        self._networks: dict[str, Network] = {network.id: network for network in store.networks()}
        self._indices: dict[str, int] = {}
        self._prepared = False
        self._made_to_forward: set[int] = set()  # the versions of IP of which the host forwards packets because of us
        self.addresses = AddressBook()
        """Who has which address of them."""
        self._make_predefined()
        for network in self._networks.values():
            self.addresses.add(network)

    def all(self) -> list[Network]:
        """All networks, by name."""
        with self._lock:
            return sorted(self._networks.values(), key=lambda network: network.name)

    def find(self, network_id: str) -> Network | None:
        """The network of that whole id, or none."""
        with self._lock:
            return self._networks.get(network_id)

    def get(self, term: str) -> Network:
        """The network of that id, name, or beginning of an id.

        Raises:
            NotFound: there is none.
            InvalidParameter: there are several.
        """
        found = self.find(term)
        if found is not None:
            return found
        everyone = self.all()
        for kind, matching in (
            ("name", [each for each in everyone if each.name == term]),
            ("ID prefix", [each for each in everyone if term and each.id.startswith(term)]),
        ):
            if len(matching) > 1:
                raise InvalidParameter(f"network {term} is ambiguous ({len(matching)} matches found based on {kind})")
            if matching:
                return matching[0]
        raise NotFound(f"network {term} not found")

    def create(self, spec: NetworkSpec, observer: Observer | None = None) -> Network:
        """Make a network. Its `warning` says what is odd about it.

        Raises:
            EngineError: of a kind and with the message that Docker has for what is wrong.
        """
        refuse_predefined(spec.name)
        with self._making:
            same = [each for each in self.all() if each.name == spec.name]
            if same and spec.check_duplicate:
                raise Conflict(f"network with name {spec.name} already exists")
            network = new_network(spec, self._surroundings())
            if network.driver == "macvlan":
                network = macvlan.with_parent(network)
            self.prepare()
            if network.driver == "bridge":
                there = _addresses_of(network.bridge)
                network = replace(
                    network,
                    bridge_is_ours=there is None,
                    bridge_address_is_ours=not set(bridge.gateway_addresses(network)) & set(there or ()),
                )
            self._remember(network)
            self.addresses.add(network)
            try:
                self._make(network, observer)
            except BaseException as error:
                self._unmake(network)
                self._forget(network)
                if isinstance(error, OSError):
                    raise EngineError(f"network {network.name} can't be made: {error.strerror}") from error
                raise
        return replace(
            network, warning=f"Network with name {spec.name} (id : {same[0].id}) already exists" if same else ""
        )

    def remove(self, term: str) -> Network:
        """Remove a network, unless containers are on it.

        Raises:
            NotFound, InvalidParameter: there is none or several of that name.
            Forbidden: it is one of the predefined, or containers are on it.
        """
        with self._making:
            network = self.get(term)
            if network.predefined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if network.config_only and any(each.config_from == network.name for each in self.all()):
                raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
            with self._lock:
                del self._networks[network.id]  # from now on nobody can join it
            if self._members.endpoints(network.id):
                with self._lock:
                    self._networks[network.id] = network
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints"
                )
            self._unmake(network)
            self._forget(network)
        return network

    # --- the kernel --------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring back in the kernel what the networks on disk need, once.

        Raises:
            EngineError: the kernel or the packet filter refuses.
        """
        if self._prepared:
            return
        with self._making:
            if self._prepared:
                return
            try:
                self._move_default()
                bridged = [network for network in self.all() if network.driver == "bridge"]
                for network in bridged:
                    self.make_bridge(network)
                if bridged:
                    self._enable_forwarding(any(network.enable_ipv6 for network in bridged))
                for network in self.all():
                    if network.driver == "macvlan":
                        self._prepare_macvlan(network)
            except OSError as error:
                raise EngineError(f"networks can't be made here: {error.strerror or error}") from error
            self._publisher.restore(bridged, self._members.led())
            for network in bridged:
                self._warn_without_filter(network)
            self._prepared = True

    def make_bridge(self, network: Network) -> int:
        """Make the bridge of a network, or what is missing of it. Returns its index.

        Raises:
            EngineError, OSError: it can't be made.
        """
        with RouteSocket() as route:
            index, _ = bridge.ensure_bridge(route, network)
        self._indices[network.id] = index
        return index

    def bridge_index(self, network: Network) -> int:
        """The index of a network's bridge as it was when that was made."""
        return self._indices[network.id]

    def remove_all(self) -> None:
        """Take the bridges and all rules out of the kernel. The networks stay known, and come back when used."""
        with self._making:
            if not self._prepared:
                return
            self._publisher.remove_all(self._made_to_forward)
            for network in self.all():
                if network.bridge:
                    self._unmake_bridge(network)
            while self._made_to_forward:
                bridge.disable_forwarding(self._made_to_forward.pop())
            self._indices.clear()
            self._prepared = False

    def _make(self, network: Network, observer: Observer | None) -> None:
        if network.driver == "bridge":
            addresses = "; ".join(
                f"ip address add {each} dev {network.bridge}" for each in bridge.gateway_addresses(network)
            )
            with Timed(f"ip link add {network.bridge} up type bridge; {addresses}", bridge.WHY, observer):
                self.make_bridge(network)
            self._enable_forwarding(network.enable_ipv6)
            self._publisher.add_network(network, observer)
            self._warn_without_filter(network)
        elif network.driver == "macvlan":
            macvlan.prepare(network)

    def _enable_forwarding(self, ipv6: bool) -> None:
        for version in bridge.enable_forwarding(ipv6):
            self._publisher.forward_nothing_else(version)
            self._made_to_forward.add(version)

    def _unmake(self, network: Network) -> None:
        if network.driver == "bridge":
            self._publisher.remove_network(network)
            self._unmake_bridge(network)
        elif network.driver == "macvlan":
            macvlan.discard(network)

    def _unmake_bridge(self, network: Network) -> None:
        """Remove a bridge, or from somebody else's the addresses that it got for the network."""
        with RouteSocket() as route, contextlib.suppress(OSError):  # somebody has removed it already
            if network.bridge_is_ours:
                route.do(netlink.delete_link(network.bridge))
            elif network.bridge_address_is_ours and (link := route.link(network.bridge)) is not None:
                route.do(*(netlink.delete_address(link.index, each) for each in bridge.gateway_addresses(network)))

    def _prepare_macvlan(self, network: Network) -> None:
        try:
            macvlan.prepare(network)
        except EngineError as error:  # its parent has gone: the other networks can be used all the same
            _log.error("network %s: %s", network.name, error)

    def _warn_without_filter(self, network: Network) -> None:
        if self._publisher.unavailable:
            _log.warning(
                "network %s: its containers reach one another and the host, and nothing beyond: %s",
                network.name,
                self._publisher.unavailable,
            )

    # --- the disk ----------------------------------------------------------------------------------------------------

    def _make_predefined(self) -> None:
        """The three that are always there, but for the bridge when it isn't wanted."""
        there = {network.name: network for network in self._networks.values() if network.predefined}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in there:
                self._remember(new_network(NetworkSpec(name, driver), self._surroundings(), secrets.token_hex(32)))
        options = {
            DEFAULT_BRIDGE: "true",
            ENABLE_ICC: "true",
            ENABLE_MASQUERADE: "true",
            HOST_BINDING: "0.0.0.0",  # noqa: S104 - as Docker shows it
            BRIDGE_NAME: self._default_bridge,
            MTU: str(self._options.mtu or _USUAL_MTU),
        }
        old = there.get("bridge")
        if old is not None and dict(old.options) != options:
            self._forget(old)
            old = None
        if old is None and self._default_bridge != "none":
            found = _addresses_of(self._default_bridge)
            # A bridge that is there has its subnet already.
            own = [each for each in found or () if isinstance(each, ipaddress.IPv4Interface)][:1]
            pools = tuple({"Subnet": str(each.network), "Gateway": str(each.ip)} for each in own)
            spec = NetworkSpec("bridge", "bridge", options=options, pools=pools)
            made = new_network(spec, self._surroundings(), secrets.token_hex(32))
            # One that `--bridge` names was made by somebody, for whom it stays.
            ours = found is None or not self._options.bridge
            self._remember(replace(made, bridge_is_ours=ours, bridge_address_is_ours=not own))

    def _move_default(self) -> None:
        """Give the default network another subnet, if something else on this host has come to have its own."""
        for network in self.all():
            if network.bridge != self._default_bridge or self._members.endpoints(network.id):
                continue
            pool = network.pool_of(4)
            if pool is not None and any(overlaps(pool.subnet, each) for each in self._reachable() if each.prefixlen):
                spec = NetworkSpec("bridge", "bridge", options=network.options)
                around = replace(self._surroundings(), networks=[each for each in self.all() if each.id != network.id])
                moved = replace(network, pools=new_network(spec, around, network.id).pools)
                self._remember(moved)
                self.addresses.add(moved)

    def _remember(self, network: Network) -> None:
        with self._lock:
            self._networks[network.id] = network
        self._store.save(network)

    def _forget(self, network: Network) -> None:
        with self._lock:
            self._networks.pop(network.id, None)
        self._indices.pop(network.id, None)
        self.addresses.remove(network.id)
        self._store.remove(network)

    def _surroundings(self) -> Surroundings:
        pools = tuple((pool.base, pool.size) for pool in self._options.default_address_pools)
        return Surroundings(self.all(), self._reachable, pools or DEFAULT_POOLS)

    def _reachable(self) -> Iterator[Subnet]:
        """What this host's interfaces and routes lead to, but for those of our own bridges."""
        own = {self._default_bridge, *(network.bridge for network in self.all())}
        with RouteSocket() as route:
            ours = {link.index for link in route.links() if link.name in own}
            addresses, routes = route.addresses(), route.routes()
        yield from (address.network for index, address in addresses if index not in ours)
        yield from (each.destination for each in routes if each.index not in ours)


def _addresses_of(name: str) -> list[AddressWithPrefix] | None:
    """The addresses of an interface of this host; None if there is no such interface."""
    with RouteSocket() as route:
        link = route.link(name)
        if link is None:
            return None
        return [address for index, address in route.addresses() if index == link.index]
