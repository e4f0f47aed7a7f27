"""The networks of an engine, and the containers on them: what the engine's other rooms use."""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from real_engine.errors import EngineError, Forbidden, NotFound
from real_engine.linux.network_namespaces import NamespacePool
from real_engine.networks import cables
from real_engine.networks.catalogue import Catalogue
from real_engine.networks.ipam import mac_of, random_mac
from real_engine.networks.names import NameDirectory
from real_engine.networks.options import DefaultOptions, NetworkOptions
from real_engine.networks.ports import PortBinding, PublishedPort, ports_shown
from real_engine.networks.publishing import Publisher
from real_engine.networks.resolver import Resolver
from real_engine.networks.sandbox import Sandbox
from real_engine.networks.spec import DnsOptions, Endpoint, EndpointRequest, Network, NetworkSpec, tag_of
from real_engine.networks.steps import Observer, Timed
from real_engine.networks.store import NetworkStore

_log = logging.getLogger("onggi")

_RESOLVER_STEP = (
    "socket(), bind(127.0.0.11) in CONTAINER; nft there: udp and tcp port 53 of 127.0.0.11 dnat to these sockets",
    "names of the network's containers, answered by the engine from inside",
)

Publish = Callable[[str, str, str, Mapping[str, str]], None]
Ports = dict[str, list[dict[str, str]]]


class Networks:
    """The networks of the engine whose data are in `root`, and the containers on them. Thread-safe.

    A container's place is written down before it is made in the kernel (cf. `Catalogue`). `publish_event`, if set, is
    told what happened: type, action, id, attributes.
    """

    def __init__(self, root: Path, options: NetworkOptions | None = None, publish_event: Publish | None = None) -> None:
        self.publish_event = publish_event
        options = options or DefaultOptions()
        self._store = NetworkStore(root / "networks")
        self._publisher = Publisher(tag_of(str(root.absolute())), userland_proxy=options.userland_proxy)
        self._lock = threading.Lock()  # around the dictionary; each sandbox has its own
        self._sandboxes: dict[str, Sandbox] = {}
        self._catalogue = Catalogue(root, options, self._store, self._publisher, self)
        self._names = NameDirectory()
        self._resolver = Resolver(self._names)
        self._sweeper = cables.CableSweeper()
        self._namespaces = NamespacePool()
        self._closed = False
        self._remember_memberships()

    # --- the networks ------------------------------------------------------------------------------------------------

    def list(self) -> Sequence[Network]:
        """All networks, by name."""
        return self._catalogue.all()

    def get(self, term: str) -> Network:
        """The network of that id, name, or beginning of an id.

        Raises:
            NotFound: there is none.
            InvalidParameter: there are several.
        """
        return self._catalogue.get(term)

    def create(self, spec: NetworkSpec, observer: Observer | None = None) -> Network:
        """Make a network. Its `warning` says what is odd about it.

        Raises:
            EngineError: of a kind and with the message that Docker has for what is wrong.
        """
        network = self._catalogue.create(spec, observer)
        self._tell("create", network)
        return network

    def remove(self, term: str) -> Network:
        """Remove a network, which no container may be on.

        Raises:
            NotFound, InvalidParameter: there is none or several of that name.
            Forbidden: it is one of the predefined, or containers are on it.
        """
        network = self._catalogue.remove(term)
        self._tell("destroy", network)
        return network

    def prune(self, wanted: Callable[[Network], bool] = lambda _: True, in_use: Collection[str] = ()) -> Sequence[str]:
        """Remove all networks that no container is on, of those that are `wanted`. Returns their names.

        `in_use` are ids of networks that stay, though no container that runs is on them.
        """
        removed = []
        for network in self.list():
            kept = network.predefined or network.config_only or network.id in in_use
            if kept or not wanted(network) or self.endpoints(network.id):
                continue
            try:
                removed.append(self.remove(network.id).name)
            except (NotFound, Forbidden):  # somebody was faster: it is gone, or in use now
                continue
        return removed

    def endpoints(self, network_id: str) -> Sequence[Endpoint]:
        """The places of containers in a network."""
        with self._lock:
            return [
                endpoint
                for sandbox in self._sandboxes.values()
                if (endpoint := sandbox.endpoints.get(network_id)) is not None
            ]

    def led(self) -> Sequence[tuple[Endpoint, Sequence[PublishedPort]]]:
        """The endpoints to which ports of the host lead, as it was written down."""
        with self._lock:
            return [led for sandbox in self._sandboxes.values() if (led := sandbox.led()) is not None]

    # --- containers on them ------------------------------------------------------------------------------------------

    def take_namespace(self) -> int:
        """A descriptor of a fresh network namespace with its loopback up, which is the caller's to close.

        Raises:
            EngineError: none can be made here.
        """
        try:
            return self._namespaces.take()
        except OSError as error:
            raise EngineError(f"no network namespace can be made: {error.strerror}") from error

    def connect(
        self,
        network: Network | str,
        container_id: str,
        namespace: int,
        request: EndpointRequest | None = None,
        *,
        dns: DnsOptions | None = None,
        observer: Observer | None = None,
    ) -> Endpoint:
        """Give a container a place in a network: an interface in the network `namespace` (a descriptor that stays the
        caller's), addresses, a default route, names. It may be running.

        Raises:
            NotFound: there is no such network.
            Forbidden: it is there already, an address is in use, or the bridge has no port left.
            InvalidParameter: it asks for what this network can't give.
            EngineError: no address is left, or the kernel refused.
        """
        request = request or EndpointRequest()
        network = self.get(network if isinstance(network, str) else network.id)
        if network.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        self._catalogue.prepare()
        sandbox = self._sandbox(container_id)
        with sandbox.lock:
            name = request.container_name or container_id[:12]
            if network.id in sandbox.endpoints:
                raise Forbidden(f"endpoint with name {name} already exists in network {network.name}")
            if sandbox.namespace < 0:
                sandbox.namespace = os.dup(namespace)
            if dns is not None:
                sandbox.dns = dns
            try:
                endpoint = self._new_endpoint(network, sandbox, request)
            except BaseException:
                self._drop_if_empty(sandbox)
                raise
            try:
                self._join(network, sandbox, endpoint)
                self._store.save_membership(sandbox.membership())
                if endpoint.interface:
                    cables.attach(self._catalogue, network, sandbox, endpoint, observer)
                    cables.reroute(sandbox, observer)
                    self._republish(sandbox, observer)
                if not network.predefined:
                    with Timed(*_RESOLVER_STEP, observer):
                        self._resolver.add(container_id, sandbox.namespace)
            except BaseException as error:
                self._part(sandbox, endpoint)
                if isinstance(error, OSError):
                    raise EngineError(
                        f"failed to create endpoint {name} on network {network.name}: {error.strerror}"
                    ) from error
                raise
        self._tell("connect", network, container_id)
        return endpoint

    def disconnect(self, endpoint: Endpoint) -> None:
        """Take a container's place in a network away. It may be running: then its interface goes now."""
        sandbox = self._known_sandbox(endpoint.container_id)
        if sandbox is None:
            return
        with sandbox.lock:
            current = sandbox.endpoints.get(endpoint.network_id)
            if current is None:
                return
            self._part(sandbox, current)
            if sandbox.endpoints:
                try:
                    cables.reroute(sandbox, None)
                    self._republish(sandbox, None)
                except OSError as error:
                    raise EngineError(f"the routes of container {endpoint.container_name}: {error.strerror}") from error
        self._tell_of(endpoint)

    def publish(self, container_id: str, bindings: Iterable[PortBinding], observer: Observer | None = None) -> Ports:
        """Open ports of the host that lead to a container; returns the API's `Ports`.

        They lead to its endpoint that has the default route, and move when another gets that. A container with none
        (network none, or internal ones alone) publishes nothing, as Docker does.

        Raises:
            EngineError: a port is taken; none is open then.
        """
        sandbox = self._known_sandbox(container_id)
        if sandbox is None:
            return {}
        with sandbox.lock:
            self._unpublish(sandbox)
            sandbox.bindings = tuple(bindings)
            try:
                self._republish(sandbox, observer)
            except BaseException:
                sandbox.bindings = ()
                raise
            self._store.save_membership(sandbox.membership())
            return ports_shown(sandbox.published)

    def ports(self, container_id: str) -> Ports:
        """The API's `Ports` of what a container publishes now."""
        sandbox = self._known_sandbox(container_id)
        if sandbox is None:
            return {}
        with sandbox.lock:
            return ports_shown(sandbox.published)

    def endpoints_of(self, container_id: str) -> Sequence[Endpoint]:
        """The places of a container, in the order in which it took them."""
        with self._lock:
            sandbox = self._sandboxes.get(container_id)
            return list(sandbox.endpoints.values()) if sandbox is not None else []

    def rename(self, container_id: str, name: str) -> None:
        """A container has another name now, by which others find it."""
        sandbox = self._known_sandbox(container_id)
        if sandbox is None:
            return
        with sandbox.lock:
            for network_id, old in list(sandbox.endpoints.items()):
                new = replace(old, container_name=name)
                self._unname(old)
                with self._lock:
                    sandbox.endpoints[network_id] = new
                self._name(new, sandbox)
                if sandbox.leading is not None and sandbox.leading.id == new.id:
                    sandbox.leading = new
            self._store.save_membership(sandbox.membership())

    def release(self, container_id: str) -> None:
        """A container has ended: give back all that it has. Its interfaces go with its namespace."""
        sandbox = self._known_sandbox(container_id)
        if sandbox is None:
            return
        with sandbox.lock:
            self._unpublish(sandbox)
            parted = list(sandbox.endpoints.values())
            self._resolver.remove(container_id, namespace_stays=False)
            for endpoint in parted:
                self._leave(sandbox, endpoint)
            self._store.save_membership(sandbox.membership())
            self._drop_if_empty(sandbox)
        self._sweeper.look_at(each.host_interface for each in parted if each.host_interface)
        for endpoint in parted:
            self._tell_of(endpoint)

    def adopt(self, container_id: str, namespace: int) -> Sequence[Endpoint]:
        """A container of an engine before us still runs, in the network `namespace` (a descriptor that stays the
        caller's): serve its names and ports again. Returns its places. What can't be served is logged.
        """
        self._catalogue.prepare()
        sandbox = self._known_sandbox(container_id)
        if sandbox is None:
            return []
        with sandbox.lock:
            if sandbox.namespace < 0:
                sandbox.namespace = os.dup(namespace)
            sandbox.note_routes()
            try:
                self._republish(sandbox, None)
                if self._has_names(sandbox):
                    self._resolver.add(container_id, sandbox.namespace)
            except (EngineError, OSError) as error:
                _log.error("networks of container %s: %s", container_id[:12], error)
            return list(sandbox.endpoints.values())

    # --- beginning and end -------------------------------------------------------------------------------------------

    def restore(self, live: Collection[str]) -> None:
        """Bring back bridges and rules, and release what containers have that don't run any more.

        Raises:
            EngineError: the kernel or the packet filter refuses.
        """
        self._catalogue.prepare()
        with self._lock:
            ended = [each for each in self._sandboxes if each not in live]
        for container_id in ended:
            self.release(container_id)

    def close(self) -> None:
        """End the threads; twice does no harm. What containers use stays in the kernel, and else nothing does."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._resolver.close()
        self._publisher.close()
        self._namespaces.close()
        self._sweeper.sweep()
        with self._lock:
            sandboxes = list(self._sandboxes.values())
        for sandbox in sandboxes:
            for port in sandbox.published:
                port.close()
            sandbox.close_namespace()
        if not any(sandbox.endpoints for sandbox in sandboxes):
            self._catalogue.remove_all()

    def remove_all(self) -> None:
        """Take the bridges and all rules out of the kernel. The networks stay known, and come back when used."""
        self._catalogue.remove_all()

    # --- within ------------------------------------------------------------------------------------------------------

    def _remember_memberships(self) -> None:
        for membership in self._store.memberships():
            sandbox = Sandbox(membership.container_id, bindings=membership.bindings, dns=membership.dns)
            for endpoint in membership.endpoints:
                if self._catalogue.find(endpoint.network_id) is not None:
                    sandbox.endpoints[endpoint.network_id] = endpoint
                    self._catalogue.addresses.claim(endpoint.network_id, (endpoint.ipv4, endpoint.ipv6))
                    self._name(endpoint, sandbox)
            self._sandboxes[membership.container_id] = sandbox

    def _known_sandbox(self, container_id: str) -> Sandbox | None:
        with self._lock:
            return self._sandboxes.get(container_id)

    def _sandbox(self, container_id: str) -> Sandbox:
        with self._lock:
            return self._sandboxes.setdefault(container_id, Sandbox(container_id))

    def _drop_if_empty(self, sandbox: Sandbox) -> None:
        if not sandbox.endpoints:
            with self._lock:
                self._sandboxes.pop(sandbox.container_id, None)
            sandbox.close_namespace()

    def _new_endpoint(self, network: Network, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
        """A place with addresses of its own, of which nothing is made yet."""
        identifier = secrets.token_hex(32)
        endpoint = Endpoint(
            id=identifier,
            network_id=network.id,
            network_name=network.name,
            container_id=sandbox.container_id,
            container_name=request.container_name,
            aliases=request.aliases,
            links=request.links,
            hostname=request.hostname,
            gateway_priority=request.gateway_priority,
            internal=network.internal,
        )
        if network.driver in ("host", "null"):
            return endpoint
        ipv4, prefix, ipv6, prefix6 = self._catalogue.addresses.allocate(network, request)
        used = {each.interface for each in sandbox.endpoints.values()}
        return replace(
            endpoint,
            interface=request.interface or next(name for n in range(len(used) + 1) if (name := f"eth{n}") not in used),
            host_interface=f"veth{identifier[:7]}" if network.driver == "bridge" else "",
            ipv4=ipv4,
            ipv4_prefix=prefix,
            ipv6=ipv6,
            ipv6_prefix=prefix6,
            ipv4_gateway="" if network.internal else str(network.gateway(4) or ""),
            ipv6_gateway="" if network.internal or not ipv6 else str(network.gateway(6) or ""),
            mac=request.mac.lower().replace("-", ":") or (mac_of(ipv4) if ipv4 else random_mac()),
        )

    def _join(self, network: Network, sandbox: Sandbox, endpoint: Endpoint) -> None:
        with self._lock:
            sandbox.endpoints[network.id] = endpoint
        if self._catalogue.find(network.id) is None:  # whoever removes a network looks for endpoints after this
            raise NotFound(f"network {network.name} not found")
        self._name(endpoint, sandbox)

    def _leave(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        """Take an endpoint out of the books: names, addresses, routes."""
        with self._lock:
            sandbox.endpoints.pop(endpoint.network_id, None)
        self._unname(endpoint)
        sandbox.routed = {v: each for v, each in sandbox.routed.items() if each != endpoint.network_id}
        self._catalogue.addresses.release(endpoint.network_id, (endpoint.ipv4, endpoint.ipv6))

    def _part(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        """Take an endpoint away from a container that runs: its interface, its ports' way, its names."""
        if sandbox.leading is not None and sandbox.leading.id == endpoint.id:
            self._mislead(sandbox)
        if endpoint.interface:
            cables.cut(sandbox, endpoint)  # first: an address is nobody else's before it is gone from here
        self._leave(sandbox, endpoint)
        if not self._has_names(sandbox):
            self._resolver.remove(sandbox.container_id)
        self._store.save_membership(sandbox.membership())
        if not sandbox.endpoints:
            self._unpublish(sandbox, endpoint)
        self._drop_if_empty(sandbox)

    def _has_names(self, sandbox: Sandbox) -> bool:
        networks = [self._catalogue.find(each) for each in sandbox.endpoints]
        return any(network is not None and not network.predefined for network in networks)

    def _republish(self, sandbox: Sandbox, observer: Observer | None) -> None:
        """Lead the container's ports to the endpoint that has its default route."""
        endpoint = sandbox.gateway(4)
        network = self._catalogue.find(endpoint.network_id) if endpoint is not None else None
        if endpoint is None or network is None or network.driver != "bridge":
            self._mislead(sandbox)
            return
        if not sandbox.bindings or (sandbox.leading is not None and sandbox.leading.id == endpoint.id):
            return
        if sandbox.published:
            self._mislead(sandbox)
            self._publisher.lead(network, endpoint, sandbox.published, observer)
        else:
            sandbox.published = self._publisher.publish(network, endpoint, sandbox.bindings, observer)
        sandbox.leading = endpoint

    def _mislead(self, sandbox: Sandbox) -> None:
        """The ports lead nowhere for now, and stay the container's."""
        if sandbox.leading is not None:
            self._publisher.mislead(sandbox.leading, sandbox.published)
            sandbox.leading = None

    def _unpublish(self, sandbox: Sandbox, last: Endpoint | None = None) -> None:
        led = sandbox.led()
        if sandbox.published:
            endpoint = sandbox.leading or last or next(iter(sandbox.endpoints.values()))
            self._publisher.release(endpoint, sandbox.published)
        elif led is not None:  # it ended while no engine was there, and only the rules are left
            self._publisher.mislead(*led)
        sandbox.published, sandbox.leading, sandbox.bindings = [], None, ()

    def _name(self, endpoint: Endpoint, sandbox: Sandbox) -> None:
        network = self._catalogue.find(endpoint.network_id)
        if network is not None and not network.predefined:
            self._names.add(endpoint, sandbox.dns)

    def _unname(self, endpoint: Endpoint) -> None:
        self._names.remove(endpoint)

    def _tell_of(self, endpoint: Endpoint) -> None:
        network = self._catalogue.find(endpoint.network_id)
        if network is not None:
            self._tell("disconnect", network, endpoint.container_id)

    def _tell(self, action: str, network: Network, container_id: str = "") -> None:
        if self.publish_event is not None:
            attributes = {"container": container_id} if container_id else {}
            self.publish_event(
                "network", action, network.id, attributes | {"name": network.name, "type": network.driver}
            )
