"""macvlan networks: containers with hardware addresses of their own on an interface of the host.

They are reached by others on the wire directly, without a bridge, rules or published ports, and not by the host itself.
"""

import contextlib
import errno
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace

from real_engine.errors import EngineError, NotImplementedHere
from real_engine.linux import netlink
from real_engine.linux.netlink import AddressWithPrefix, RouteSocket
from real_engine.networks.bridge import EnableIpv6, FindInterface, GiveAddresses, MakeMacvlan
from real_engine.networks.spec import MACVLAN_MODE, PARENT, Network
from real_engine.networks.steps import Operation

_VLAN = re.compile(r"(?P<parent>.+)\.(?P<id>[0-9]{1,4})")


def with_parent(network: Network) -> Network:
    """The same network, with a parent: without one, an interface of its own that leads nowhere (libnetwork)."""
    if network.options.get(PARENT):
        return network
    return replace(network, options={**network.options, PARENT: f"dm-{network.id[:12]}"}, internal=True)


def prepare(network: Network) -> None:
    """Make the network's parent on the host, if that is a dummy or a VLAN's interface that isn't there yet.

    Raises:
        NotImplementedHere: the kernel has no macvlan, or no dummy interfaces.
        EngineError: there is no such parent.
        OSError: the kernel refused.
    """
    parent = network.options[PARENT]
    with RouteSocket() as route:
        link = route.link(parent)
        if link is None:
            _make_parent(route, network, parent)
            link = route.link(parent)
        if link is None:
            raise EngineError(f"interface {parent} has gone")
        _try(route, link.index)


def _make_parent(route: RouteSocket, network: Network, parent: str) -> None:
    if parent == f"dm-{network.id[:12]}":
        try:
            route.do(netlink.new_link("dummy", netlink.settings(name=parent)))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise NotImplementedHere(
                "macvlan without a parent needs dummy interfaces, which this kernel has not: name one (-o parent=eth0)"
            ) from None
        return
    vlan = _VLAN.fullmatch(parent)
    if vlan is None or not 1 <= int(vlan["id"]) <= 4094:
        raise EngineError(f"invalid subinterface vlan name {parent}, example formatting is eth0.10")
    below = route.link(vlan["parent"])
    if below is None:
        raise EngineError(f"failed to find master interface {vlan['parent']} on the Docker host: Link not found")
    try:
        route.do(netlink.new_vlan(netlink.settings(name=parent, parent=below.index), int(vlan["id"])))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NotImplementedHere(f"{parent} needs VLAN interfaces, which this kernel has not") from None
        raise


def _try(route: RouteSocket, parent_index: int) -> None:
    """Make one and remove it: whether the kernel has macvlan, and takes this parent, shows in nothing else."""
    name = f"mv-{secrets.token_hex(5)}"
    try:
        route.do(netlink.new_macvlan(netlink.settings(name=name, parent=parent_index), "bridge"))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NotImplementedHere("this kernel has no macvlan interfaces") from None
        if error.errno == errno.ENETDOWN:  # the interface was made all the same, on a parent that is down
            with contextlib.suppress(OSError):
                route.do(netlink.delete_link(name))
            return
        raise
    route.do(netlink.delete_link(name))


def discard(network: Network) -> None:
    """Remove the parent if it was made for this network alone."""
    if network.options[PARENT] == f"dm-{network.id[:12]}":
        with RouteSocket() as route, contextlib.suppress(OSError):  # somebody has removed it already
            route.do(netlink.delete_link(network.options[PARENT]))


def attachment(
    network: Network, interface: str, mac: str, addresses: Sequence[AddressWithPrefix]
) -> tuple[Operation, ...]:
    """The plan by which a container joins it. Nothing is done yet.

    Raises:
        EngineError: the parent has gone.
    """
    parent = network.options[PARENT]
    with RouteSocket() as route:
        link = route.link(parent)
    if link is None:
        raise EngineError(f"interface {parent}, the parent of network {network.name}, has gone")
    mode = network.options.get(MACVLAN_MODE) or "bridge"
    return (
        MakeMacvlan(parent, link.index, mode, interface, mac, network.mtu),
        FindInterface(interface),
        *([EnableIpv6(interface)] if any(each.version == 6 for each in addresses) else []),
        GiveAddresses(interface, tuple(addresses)),
    )
