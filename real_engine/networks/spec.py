"""What a network is, and what a container's place in one is: plain values that can be written as JSON and read again.

A network is what was asked for (`NetworkSpec`) with an id. An endpoint is the place that a container has in it: an
interface, addresses, names.
"""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from real_engine.linux.netlink import Address, Subnet

BRIDGE_NAME = "com.docker.network.bridge.name"
ENABLE_ICC = "com.docker.network.bridge.enable_icc"
ENABLE_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"
MTU = "com.docker.network.driver.mtu"
PARENT = "parent"
MACVLAN_MODE = "macvlan_mode"


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Addresses of one subnet that a network gives out, all of them or those of `ip_range`."""

    subnet: Subnet
    gateway: Address | None = None
    ip_range: Subnet | None = None
    auxiliary: Mapping[str, Address] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the API shows it, with nothing that is empty."""
        shown: dict[str, Any] = {"Subnet": str(self.subnet)}
        if self.ip_range is not None:
            shown["IPRange"] = str(self.ip_range)
        if self.gateway is not None:
            shown["Gateway"] = str(self.gateway)
        if self.auxiliary:
            shown["AuxiliaryAddresses"] = {name: str(address) for name, address in self.auxiliary.items()}
        return shown

    @classmethod
    def from_json(cls, shown: Mapping[str, Any]) -> "AddressPool":
        """What `to_json` wrote."""
        return cls(
            ipaddress.ip_network(shown["Subnet"]),
            ipaddress.ip_address(shown["Gateway"]) if "Gateway" in shown else None,
            ipaddress.ip_network(shown["IPRange"]) if "IPRange" in shown else None,
            {name: ipaddress.ip_address(each) for name, each in shown.get("AuxiliaryAddresses", {}).items()},
        )


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What is asked of a network. `pools` are in the words of the API (strings) until it has been made.

    One that is `config_only` is no network but a form that others are filled in from: `config_from` names theirs.
    """

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] | None = None
    pools: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    check_duplicate: bool = False
    scope: str = ""
    config_only: bool = False
    config_from: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """A network that exists. `created` is RFC 3339 in UTC.

    `given_pools` are the pools as they were asked for. A `bridge` or an address of it that is not ours was
    there before the network, and stays after it.
    """

    id: str
    created: str
    name: str
    driver: str
    internal: bool
    attachable: bool
    enable_ipv6: bool
    ipam_options: Mapping[str, str] | None
    pools: tuple[AddressPool, ...]
    given_pools: tuple[Mapping[str, Any], ...]
    options: Mapping[str, str]
    labels: Mapping[str, str]
    bridge: str = ""
    bridge_is_ours: bool = True
    bridge_address_is_ours: bool = True
    warning: str = ""
    config_only: bool = False
    config_from: str = ""

    @property
    def predefined(self) -> bool:
        """Whether it is one of the three that are always there."""
        return self.name in PREDEFINED

    @property
    def masqueraded(self) -> bool:
        """Whether what its containers send out carries the host's address."""
        return not self.internal and _flag(self.options.get(ENABLE_MASQUERADE), True)

    @property
    def inter_container(self) -> bool:
        """Whether its containers reach one another."""
        return _flag(self.options.get(ENABLE_ICC), True)

    @property
    def mtu(self) -> int:
        """The MTU of its interfaces; 0 leaves the kernel's."""
        return int(self.options.get(MTU, "0") or 0)

    @property
    def publish_address(self) -> str:
        """The host's address at which ports are published that name none; empty for all."""
        address = self.options.get(HOST_BINDING, "")
        return "" if address == "0.0.0.0" else address  # noqa: S104 - what is compared with

    def pool_of(self, version: int) -> AddressPool | None:
        """Its first pool of IPv4 or IPv6."""
        return next((pool for pool in self.pools if pool.subnet.version == version), None)

    def gateway(self, version: int) -> Address | None:
        """The address by which its containers reach other networks: for IPv4 and 6."""
        pool = self.pool_of(version)
        return pool.gateway if pool else None

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        written = {each.name: getattr(self, each.name) for each in fields(self)}
        written["pools"] = [pool.to_json() for pool in self.pools]
        written["given_pools"] = [dict(pool) for pool in self.given_pools]
        written["options"], written["labels"] = dict(self.options), dict(self.labels)
        written["ipam_options"] = None if self.ipam_options is None else dict(self.ipam_options)
        return written

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Network":
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        known = {each.name: written[each.name] for each in fields(cls) if each.name in written}
        known["pools"] = tuple(AddressPool.from_json(pool) for pool in written["pools"])
        known["given_pools"] = tuple(written["given_pools"])
        return cls(**known)


PREDEFINED = ("bridge", "host", "none")


def _flag(value: str | None, default: bool) -> bool:
    return default if value is None else value in ("1", "t", "T", "true", "TRUE", "True")


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """What a container asks of its place in a network; what is empty is chosen for it.

    `container_name` and `hostname` are names that it is found by, beside its `aliases`. `links` are pairs of another
    container's name or id and the name that this one knows it by. `interface` is chosen as eth0, eth1, … when empty. Of
    several networks the one of the highest `gateway_priority` has the default route.
    """

    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    container_name: str = ""
    hostname: str = ""
    interface: str = ""
    gateway_priority: int = 0
    driver_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The place of a container in a network. Addresses are strings, empty where there is none."""

    id: str
    network_id: str
    network_name: str
    container_id: str
    container_name: str = ""
    interface: str = ""
    host_interface: str = ""
    ipv4: str = ""
    ipv4_prefix: int = 0
    ipv4_gateway: str = ""
    ipv6: str = ""
    ipv6_prefix: int = 0
    ipv6_gateway: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    gateway_priority: int = 0
    internal: bool = False

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The names by which others on its network find it, each once."""
        names = (self.container_name, *self.aliases, self.container_id[:12], self.hostname)
        return tuple(dict.fromkeys(name for name in names if name))

    def settings(self) -> dict[str, Any]:
        """What it adds to the container's `EndpointSettings` in the API, beside what was asked for."""
        return {
            "NetworkID": self.network_id,
            "EndpointID": self.id,
            "Gateway": self.ipv4_gateway,
            "IPAddress": self.ipv4,
            "IPPrefixLen": self.ipv4_prefix,
            "IPv6Gateway": self.ipv6_gateway,
            "GlobalIPv6Address": self.ipv6,
            "GlobalIPv6PrefixLen": self.ipv6_prefix,
            "MacAddress": self.mac,
        }

    def shown(self) -> dict[str, str]:
        """How a network's inspection shows it."""
        return {
            "Name": self.container_name,
            "EndpointID": self.id,
            "MacAddress": self.mac,
            "IPv4Address": f"{self.ipv4}/{self.ipv4_prefix}" if self.ipv4 else "",
            "IPv6Address": f"{self.ipv6}/{self.ipv6_prefix}" if self.ipv6 else "",
        }

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Endpoint":
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError: it is something else.
        """
        known = {each.name: written[each.name] for each in fields(cls) if each.name in written}
        known["aliases"] = tuple(written["aliases"])
        known["links"] = tuple((name, alias) for name, alias in written["links"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class DnsOptions:
    """What a container asks of its name resolution (`--dns`, `--dns-search`, `--dns-option`)."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def tag_of(root: str) -> str:
    """Eight hexadecimal digits that stand for a data root in names of interfaces and tables of the packet filter."""
    return hashlib.sha256(root.encode()).hexdigest()[:8]
