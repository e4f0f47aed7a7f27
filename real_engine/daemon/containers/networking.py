"""A container's places in networks, from its start to its end, and the files that tell it names and addresses."""

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers.record import Record
from real_engine.daemon.containers.requests import port_range
from real_engine.daemon.containers.roots import is_still
from real_engine.errors import Conflict, EngineError, Forbidden, InvalidParameter, NotFound
from real_engine.explain.recorder import observer as explained
from real_engine.explain.recorder import span
from real_engine.linux.network_namespaces import namespace_of, own_namespace
from real_engine.networks import (
    DnsOptions,
    Endpoint,
    EndpointRequest,
    Networks,
    PortBinding,
    dns_config,
    hosts_file,
    parse_bindings,
)

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

Json = dict[str, Any]

_HOST_NETWORK = "container cannot be disconnected from host network or connected to host network"
_PREDEFINED = ("bridge", "host", "none")
_ASKED = ("IPAMConfig", "Links", "Aliases", "DriverOpts", "MacAddress")


@dataclass(slots=True)
class Attached:
    """What a start gets from here: the network namespace to put the container into, and variables about its links."""

    namespace: int | None
    environment: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Give the descriptor back; the container has the namespace by now."""
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None


class Networking:
    """The networks of all containers. A method about one is called with its lock held."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers

    @property
    def _networks(self) -> Networks:
        networks: Networks = self._containers.daemon.networks
        return networks

    def attach(self, record: Record) -> Attached:
        """Give a container that starts its places; what was taken is given back if that fails.

        Raises:
            NotFound: a network has gone.
            EngineError: no address, or a port is taken.
        """
        if record.network_mode.startswith("container:"):
            self._share_files(record)
            return Attached(None)
        host = record.network_mode == "host"
        with span("network", "TakeNamespace", "a network namespace, from those that wait"):
            attached = Attached(own_namespace() if host else self._networks.take_namespace())
        try:
            for name in record.networks:
                self._join(record, name, attached.namespace)
            record.ports = self._networks.publish(record.id, _bindings(record), explained()) if not host else {}
            record.sandbox_id = record.sandbox_id or os.urandom(32).hex()
            links = self._links(record)
            attached.environment = {
                name: value for alias, other in links for name, value in _link_variables(alias, other, record).items()
            }
            with span("network", "WriteNameFiles", "write(hosts, resolv.conf, hostname)"):
                self._write_files(record, links)
        except BaseException:
            attached.close()
            self.release(record)
            raise
        if host:
            attached.close()
        return attached

    def release(self, record: Record) -> None:
        """The container has ended, or could not be started: its addresses and ports are free again."""
        self._networks.release(record.id)
        record.ports = {}
        record.sandbox_id = ""
        for settings in record.networks.values():
            for name in [name for name in settings if name not in _ASKED and name != "NetworkID"]:
                del settings[name]

    def forget(self, record: Record) -> None:
        """The container is removed."""
        self._networks.release(record.id)

    def adopt(self, record: Record) -> None:
        """A container of an earlier daemon runs: serve its names and ports again."""
        if record.network_mode.startswith("container:") or not record.networks:
            return
        try:
            namespace = namespace_of(record.state.pid)
        except OSError as error:  # it has just ended
            self._containers.daemon.log_error(f"the network of {record.name}: {error}", error)
            return
        try:
            for endpoint in self._networks.adopt(record.id, namespace):
                self._note(record, endpoint)
            record.ports = self._networks.ports(record.id)
        finally:
            os.close(namespace)

    def renamed(self, record: Record) -> None:
        """The container has another name."""
        self._networks.rename(record.id, record.name)

    def connect(self, record: Record, name: str, settings: Json) -> None:
        """Connect it to one more network.

        Raises:
            NotFound: there is no such network.
            Forbidden: it is on it already.
            InvalidParameter: it shares another's network, or one of the two is the host's or none.
        """
        network = self._networks.get(name)
        with record.lock:
            _check_stays(record)
            if network.name in record.networks and (
                record.state.running or "NetworkID" in record.networks[network.name]
            ):
                raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")
            if record.network_mode.startswith("container:") or record.network_mode == "host":
                raise InvalidParameter(
                    "container sharing network namespace with another container or host cannot be connected to "
                    "any other network"
                )
            if "none" in record.networks or (network.name == "none" and record.networks):
                raise InvalidParameter(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                )
            if network.name == "host":
                raise InvalidParameter(_HOST_NETWORK)
            record.networks[network.name] = {key: settings[key] for key in _ASKED if settings.get(key)}
            record.networks[network.name]["NetworkID"] = network.id
            _call_by_id(record, network.name)
            try:
                if record.state.running and not record.state.restarting:
                    try:
                        namespace = namespace_of(record.state.pid)
                    except OSError as error:
                        raise Conflict(f"Container {record.id} is not running") from error
                    try:
                        if not is_still(self._containers, record):  # and the number of its process perhaps the host's
                            raise Conflict(f"Container {record.id} is not running")
                        self._join(record, network.name, namespace)
                    finally:
                        os.close(namespace)
                    record.ports = self._networks.ports(record.id)
                    self._write_files(record, self._links(record))
            except BaseException:
                del record.networks[network.name]
                raise
            record.save(self._containers.path(record))

    def disconnect(self, record: Record, name: str, *, force: bool = False) -> None:
        """Disconnect it from a network.

        Raises:
            NotFound: there is no such network.
            InvalidParameter: it is on the host's own.
            Conflict: it is being removed.
            EngineError: it isn't on it.
        """
        network = self._networks.get(name)
        with record.lock:
            _check_stays(record)
            if network.name not in record.networks:
                if force:
                    return
                raise EngineError(f"container {record.id} is not connected to network {network.name}")
            if network.name == "host":
                raise InvalidParameter(_HOST_NETWORK)
            for endpoint in self._networks.endpoints_of(record.id):
                if endpoint.network_id == network.id:
                    self._networks.disconnect(endpoint)
            del record.networks[network.name]
            record.ports = self._networks.ports(record.id)
            if record.state.running:
                self._write_files(record, self._links(record))
            record.save(self._containers.path(record))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _join(self, record: Record, name: str, namespace: int | None) -> None:
        settings = record.networks[name]
        network = self._networks.get(name)
        addresses = settings.get("IPAMConfig") or {}
        user_defined = network.name not in _PREDEFINED
        _call_by_id(record, network.name)
        links = settings.get("Links") or (record.host_config["Links"] if user_defined else None) or ()
        host = record.host_config
        endpoint = self._networks.connect(
            network,
            record.id,
            -1 if namespace is None else namespace,
            EndpointRequest(
                ipv4=addresses.get("IPv4Address") or "",
                ipv6=addresses.get("IPv6Address") or "",
                mac=record.config.get("MacAddress") or settings.get("MacAddress") or "",
                aliases=tuple(settings.get("Aliases") or ()),
                links=tuple(_link(link) for link in links),
                container_name=record.name,
                hostname=record.config["Hostname"],
                driver_options=settings.get("DriverOpts") or {},
            ),
            dns=DnsOptions(tuple(host["Dns"]), tuple(host["DnsSearch"]), tuple(host["DnsOptions"])),
            observer=explained(),
        )
        self._note(record, endpoint)

    def _note(self, record: Record, endpoint: Endpoint) -> None:
        if endpoint.network_name in record.networks:
            record.networks[endpoint.network_name] |= endpoint.settings()

    def _links(self, record: Record) -> list[tuple[str, Record]]:
        """The containers that one on the default network is linked to: (alias, container).

        Raises:
            Conflict: one doesn't run.
        """
        if "bridge" not in record.networks:
            return []
        found = []
        for link in record.host_config["Links"] or ():
            name, alias = _link(link)
            other = self._containers.table.find(name)
            if other is None:
                raise NotFound(f"could not get container for {name}: No such container: {name}")
            if not other.state.running:
                raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}")
            found.append((alias, other))
        return found

    def _write_files(self, record: Record, links: list[tuple[str, Record]]) -> None:
        """The container's hostname, hosts and resolv.conf: rewritten in place, for they are mounted in it."""
        host, directory = record.host_config, self._containers.path(record)
        endpoints = self._networks.endpoints_of(record.id)
        own_net = record.network_mode != "host"
        embedded = any(endpoint.network_name not in ("bridge", "host", "none") for endpoint in endpoints)
        gateway = ""
        if any(extra.endswith(":host-gateway") for extra in host["ExtraHosts"] or ()):
            with contextlib.suppress(EngineError):  # there may be no default bridge
                gateway = str(self._networks.get("bridge").gateway(4) or "")
        linked = [
            (other.networks.get("bridge", {}).get("IPAddress", ""), [alias, other.config["Hostname"], other.name])
            for alias, other in links
        ]
        hosts = hosts_file(
            record.config["Hostname"] if own_net else "",
            endpoints,
            host["ExtraHosts"] or (),
            domain=record.config["Domainname"],
            links=linked,
            host_gateway=gateway,
        )
        options = DnsOptions(tuple(host["Dns"]), tuple(host["DnsSearch"]), tuple(host["DnsOptions"]))
        resolver = dns_config(options, embedded=embedded, host_network=not own_net)
        for name, content in (
            ("hosts", hosts),
            ("resolv.conf", resolver),
            ("hostname", f"{record.config['Hostname']}\n".encode()),
        ):
            with open(directory / name, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)

    def _share_files(self, record: Record) -> None:
        """Who shares another's network shares its names."""
        other = self._containers.table.get(record.network_mode.removeprefix("container:"))
        if not other.state.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        record.config["Hostname"] = other.config["Hostname"]
        record.config["Domainname"] = other.config["Domainname"]
        for name in ("hosts", "resolv.conf", "hostname"):
            source = self._containers.path(other) / name
            if source.exists():
                (self._containers.path(record) / name).write_bytes(source.read_bytes())


def _call_by_id(record: Record, network: str) -> None:
    """On a network of a user's own a container is found by its short id too."""
    settings = record.networks[network]
    aliases = list(settings.get("Aliases") or [])
    if network not in _PREDEFINED and record.short_id not in aliases:
        settings["Aliases"] = [*aliases, record.short_id]


def _check_stays(record: Record) -> None:
    if record.state.removing or record.state.dead:
        raise Conflict(f"Container {record.id} is marked for removal and cannot be connected or disconnected")


def _bindings(record: Record) -> list[PortBinding]:
    """The ports to publish: those that were asked for, and with `PublishAllPorts` every other one that is exposed."""
    asked = parse_bindings(record.host_config["PortBindings"] or {})
    if not record.host_config["PublishAllPorts"]:
        return asked
    have = {binding.key for binding in asked}
    exposed = [port_range(port) for port in record.config["ExposedPorts"] or {}]
    more = [PortBinding(number, protocol) for numbers, protocol in exposed for number in numbers]
    return asked + [binding for binding in more if binding.key not in have]


def _link(text: str) -> tuple[str, str]:
    """`name:alias`, or a name that is its own alias. (Docker itself writes `/name:/container/alias`.)"""
    name, _, alias = text.partition(":")
    name = name.lstrip("/")
    return name, alias.rpartition("/")[2] or name


def _link_variables(alias: str, other: Record, record: Record) -> dict[str, str]:
    """The variables that Docker's links set: the other's address and exposed ports."""
    address = other.networks.get("bridge", {}).get("IPAddress", "")
    prefix = alias.upper().replace("-", "_")
    found = {f"{prefix}_NAME": f"/{record.name}/{alias}"}
    ports = sorted(
        (number, protocol)
        for port in other.config["ExposedPorts"] or {}
        for numbers, protocol in [port_range(port)]
        for number in numbers
    )
    for index, (number, protocol) in enumerate(ports):
        place = f"{protocol}://{address}:{number}"
        if index == 0:
            found[f"{prefix}_PORT"] = place
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found |= {name: place, f"{name}_ADDR": address, f"{name}_PORT": str(number), f"{name}_PROTO": protocol}
    for pair in other.config["Env"] or ():
        name, _, value = pair.partition("=")
        if name not in ("PATH", "HOME"):
            found[f"{prefix}_ENV_{name}"] = value
    return found
