"""A bridge on the host, a virtual switch, and a cable from it into each container's network namespace.

The plan of an attachment is a list of a few messages. The cable is laid with its far end already in the container's
namespace, under its final name, and up: nothing has to be moved or renamed.
"""

import contextlib
import errno
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from real_engine.errors import EngineError, Forbidden
from real_engine.linux import netlink
from real_engine.linux.netlink import Address, AddressWithPrefix, Link, Message, RouteSocket
from real_engine.linux.network_namespaces import entered, read_setting, write_setting
from real_engine.networks.ipam import random_mac
from real_engine.networks.spec import Network
from real_engine.networks.steps import Operation, Site

MOST_PORTS = 1023
"""Ports of one bridge: BR_MAX_PORTS is 1024, and number 0 is not used (net/bridge/br_private.h, find_portno)."""

WHY = "a switch on the host, whose own address is the containers' gateway"
"""What a bridge is for, as a step of `--explain`."""

DEFAULT_ROUTES = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class LayCable(Operation):
    """Make a veth pair: one end a port of the bridge, the other an interface of the container."""

    why = "a cable: what goes in at one end comes out at the other, in the other namespace"
    host_interface: str
    bridge: str
    bridge_index: int
    interface: str
    mac: str
    mtu: int

    def execute(self, site: Site) -> None:
        """Lay it."""
        here = netlink.settings(name=self.host_interface, mtu=self.mtu, master=self.bridge_index)
        there = netlink.settings(name=self.interface, mac=self.mac, mtu=self.mtu, namespace=site.namespace)
        site.host.do(netlink.new_veth(here, there))

    def describe(self) -> str:
        """The calls, as for every operation."""
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        return (
            f"ip link add {self.host_interface} master {self.bridge}{mtu} up type veth"
            f" peer {self.interface} address {self.mac}{mtu} netns CONTAINER"
        )


@dataclass(frozen=True, slots=True)
class MakeMacvlan(Operation):
    """Make a macvlan interface on a parent of the host, in the container's namespace."""

    why = "an interface of the container's own on the host's network card, told apart by its hardware address"
    parent: str
    parent_index: int
    mode: str
    interface: str
    mac: str
    mtu: int

    def execute(self, site: Site) -> None:
        """Make it."""
        given = netlink.settings(
            name=self.interface, mac=self.mac, mtu=self.mtu, parent=self.parent_index, namespace=site.namespace
        )
        site.host.do(netlink.new_macvlan(given, self.mode))

    def describe(self) -> str:
        """The calls, as for every operation."""
        return (
            f"ip link add link {self.parent} {self.interface} address {self.mac} up netns CONTAINER"
            f" type macvlan mode {self.mode}"
        )


@dataclass(frozen=True, slots=True)
class FindInterface(Operation):
    """Learn the index of the container's interface."""

    why = "messages name an interface by its number, which the kernel chose"
    interface: str

    def execute(self, site: Site) -> None:
        """Look it up."""
        link = site.inside.link(self.interface)
        if link is None:
            raise OSError(errno.ENODEV, f"{self.interface} has gone")
        site.index = link.index

    def describe(self) -> str:
        """The calls, as for every operation."""
        return f"ip -n CONTAINER link show {self.interface}"


@dataclass(frozen=True, slots=True)
class EnableIpv6(Operation):
    """Let the container's interface have IPv6."""

    why = "interfaces begin without IPv6, and this network has it"
    interface: str

    def execute(self, site: Site) -> None:
        """Write the setting."""
        with entered(site.namespace):
            for name in (self.interface, "lo"):
                write_setting(f"net/ipv6/conf/{name}/disable_ipv6", "0")
            write_setting(f"net/ipv6/conf/{self.interface}/accept_ra", "0")

    def describe(self) -> str:
        """The calls, as for every operation."""
        return f"sysctl net.ipv6.conf.{self.interface}.disable_ipv6=0 in CONTAINER"


@dataclass(frozen=True, slots=True)
class GiveAddresses(Operation):
    """Bring the container's interface up and give it its addresses."""

    why = "up, with its address; the kernel adds the route to the network's other members by itself"
    interface: str
    addresses: tuple[AddressWithPrefix, ...]

    def execute(self, site: Site) -> None:
        """Give them."""
        site.inside.do(
            netlink.set_link(site.index, up=True),
            *(netlink.new_address(site.index, each) for each in self.addresses),
        )

    def describe(self) -> str:
        """The calls, as for every operation."""
        return "; ".join(
            (
                f"ip -n CONTAINER link set {self.interface} up",
                *(f"ip -n CONTAINER address add {each} dev {self.interface}" for each in self.addresses),
            )
        )


@dataclass(frozen=True, slots=True)
class RouteBy(Operation):
    """Make a gateway the default route."""

    why = "all else goes to the bridge's own address, and the host forwards it"
    interface: str
    gateways: tuple[Address, ...]

    def execute(self, site: Site) -> None:
        """Set it, in the place of another."""
        site.inside.do(
            *(netlink.new_route(DEFAULT_ROUTES[each.version], each, site.index, replace=True) for each in self.gateways)
        )

    def describe(self) -> str:
        """The calls, as for every operation."""
        return "; ".join(
            f"ip -n CONTAINER route replace default via {each} dev {self.interface}" for each in self.gateways
        )


@dataclass(frozen=True, slots=True)
class IsolatePort(Operation):
    """Keep the ports of a bridge from one another."""

    why = "asked for: containers of this network reach the host and not each other"
    host_interface: str

    def execute(self, site: Site) -> None:
        """Isolate it."""
        link = site.host.link(self.host_interface)
        if link is None:
            raise OSError(errno.ENODEV, f"{self.host_interface} has gone")
        site.host.do(netlink.set_port(link.index, isolated=True))

    def describe(self) -> str:
        """The calls, as for every operation."""
        return f"bridge link set dev {self.host_interface} isolated on"


def full_bridge(network: Network, host_interface: str) -> Forbidden:
    """The error for one port too many."""
    return Forbidden(
        f"adding interface {host_interface} to bridge {network.bridge} failed: exchange full: the kernel's bridge has"
        f" {MOST_PORTS} ports at most (BR_MAX_PORTS), and network {network.name} uses them all;"
        " connect further containers to another network"
    )


def ensure_bridge(route: RouteSocket, network: Network) -> tuple[int, bool]:
    """Make the network's bridge, or what is missing of it. Returns its index, and whether it was made now.

    Raises:
        EngineError: an interface of that name is something else.
        OSError: the kernel refused.
    """
    link = route.link(network.bridge)
    made = link is None
    if link is None:
        # A fixed address: else the bridge takes its lowest port's, and changes whenever that comes or goes.
        given = netlink.settings(name=network.bridge, mac=random_mac(), mtu=network.mtu)
        route.do(netlink.new_link("bridge", given, up=False))
        link = route.link(network.bridge)
    if link is None or link.kind != "bridge":
        raise EngineError(f"could not use {network.bridge} as a bridge: there is an interface of that name already")
    try:
        _configure(route, network, link)
    except BaseException:
        if made:
            route.do(netlink.delete_link(network.bridge))
        raise
    return link.index, made


def _configure(route: RouteSocket, network: Network, link: Link) -> None:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        write_setting(f"net/ipv6/conf/{network.bridge}/accept_ra", "0")
        if network.enable_ipv6:
            write_setting(f"net/ipv6/conf/{network.bridge}/disable_ipv6", "0")
    there = {address for index, address in route.addresses() if index == link.index}
    wanted = [each for each in gateway_addresses(network) if each not in there]
    messages: list[Message] = [netlink.new_address(link.index, each) for each in wanted]
    if not link.up:
        messages.append(netlink.set_link(link.index, up=True))
    if messages:
        route.do(*messages)


def gateway_addresses(network: Network) -> list[AddressWithPrefix]:
    """The bridge's own addresses: the gateways of its containers."""
    versions = (4, 6) if network.enable_ipv6 else (4,)
    pools = [pool for pool in map(network.pool_of, versions) if pool is not None and pool.gateway is not None]
    return [ipaddress.ip_interface(f"{pool.gateway}/{pool.subnet.prefixlen}") for pool in pools]


def let_loopback_through(bridge: str) -> None:
    """Let packets from 127.0.0.1 out by the bridge, so that a published port is there on the loopback address too.

    The packet filter keeps containers from reaching the host's loopback by the same door (cf. `firewall`).
    """
    write_setting(f"net/ipv4/conf/{bridge}/route_localnet", "1")


def let_turn_round(host_interface: str) -> None:
    """Let packets go back where they came from, so that a container reaches its own published port without a proxy."""
    with RouteSocket() as route:
        link = route.link(host_interface)
        if link is not None:
            route.do(netlink.set_port(link.index, hairpin=True))


_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def enable_forwarding(ipv6: bool) -> list[int]:
    """Let the host forward packets between its interfaces. Returns the versions of IP for which it did not before."""
    changed = []
    for version, name in _FORWARDING.items():
        if (version == 4 or ipv6) and read_setting(name) != "1":
            write_setting(name, "1")
            changed.append(version)
    return changed


def disable_forwarding(version: int) -> None:
    """Let the host forward nothing of this version of IP any more."""
    write_setting(_FORWARDING[version], "0")


def attachment(
    network: Network,
    bridge_index: int,
    host_interface: str,
    interface: str,
    mac: str,
    addresses: Sequence[AddressWithPrefix],
) -> tuple[Operation, ...]:
    """The plan by which a container joins a bridge network. Nothing is done yet."""
    ipv6 = any(each.version == 6 for each in addresses)
    return (
        LayCable(host_interface, network.bridge, bridge_index, interface, mac, network.mtu),
        FindInterface(interface),
        *([EnableIpv6(interface)] if ipv6 else []),
        GiveAddresses(interface, tuple(addresses)),
        *([] if network.inter_container else [IsolatePort(host_interface)]),
    )
