"""Network interfaces, addresses and routes, by rtnetlink(7): messages to the kernel over a socket, each acknowledged.

A message is a header, a structure of its kind, and attributes (length, type, value, padded to four bytes) that may hold
attributes themselves. Several messages go in one datagram; the kernel executes them in order and answers each.
Constants and structures: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour,veth}.h.
"""

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from real_engine.linux.network_namespaces import entered

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK = 0x1, 0x2, 0x4
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED, _NLA_TYPE = 0x8000, 0x3FFF

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_GROUP = 18, 28, 27
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND = 1, 2, 5, 4
VETH_INFO_PEER = 1
IFLA_MACVLAN_MODE, IFLA_VLAN_ID = 1, 1
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IFF_UP = 0x1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 3, 0, 253, 1
NDA_DST = 1

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, lengths of dst and src, tos, table, protocol, scope, type
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # struct ndmsg: family, index, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_DATAGRAM_BYTES = 1 << 17  # more than the 32 KiB that the kernel puts into one datagram of a dump

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressWithPrefix = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel tells of it. `kind` is empty for one of hardware, `master` 0 for one without."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    master: int
    up: bool


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table: to `destination`, by `gateway` if it has one, out of the interface of `index`."""

    destination: Subnet
    gateway: Address | None
    index: int


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its padding."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a string."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that holds a number of 32 bits."""
    return attribute(kind, _NUMBER.pack(value))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute in `data`, which the kernel wrote."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def mac_bytes(mac: str) -> bytes:
    """`02:42:ac:11:00:02` as six bytes.

    Raises:
        ValueError: it is no such address.
    """
    value = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(value) != 6:
        raise ValueError(f"{mac} is not a hardware address of six bytes")
    return value


def settings(
    *,
    name: str = "",
    mac: str = "",
    mtu: int = 0,
    master: int = 0,
    parent: int = 0,
    namespace: int | None = None,
) -> bytes:
    """The attributes of a new or changed interface; what is empty is left out. `namespace` is an open descriptor."""
    return b"".join(
        (
            text(IFLA_IFNAME, name) if name else b"",
            attribute(IFLA_ADDRESS, mac_bytes(mac)) if mac else b"",
            number(IFLA_MTU, mtu) if mtu else b"",
            number(IFLA_MASTER, master) if master else b"",
            number(IFLA_LINK, parent) if parent else b"",
            number(IFLA_NET_NS_FD, namespace) if namespace is not None else b"",
        )
    )


Message = tuple[int, int, bytes]  # type, flags beside request and acknowledge, body


def new_link(kind: str, given: bytes, data: bytes = b"", up: bool = True) -> Message:
    """Make an interface of `kind` with the settings `given` and the `data` that its kind wants."""
    flags = IFF_UP if up else 0
    body = _LINK.pack(0, 0, 0, flags, flags) + given
    body += nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, data) if data else b"")
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body


def new_veth(given: bytes, peer: bytes, up: bool = True) -> Message:
    """Make a pair of interfaces, a cable with two ends: one `given`, and its `peer`, each where its settings say.

    The peer begins down: when the kernel makes it, it has no other end yet (drivers/net/veth.c, veth_open).
    """
    return new_link("veth", given, nested(VETH_INFO_PEER, _LINK.pack(0, 0, 0, 0, 0) + peer), up)


def new_macvlan(given: bytes, mode: str) -> Message:
    """Make an interface that shares its parent's hardware, with an address of its own."""
    return new_link("macvlan", given, number(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]))


def new_vlan(given: bytes, vlan_id: int) -> Message:
    """Make an interface of the VLAN `vlan_id` on a parent."""
    return new_link("vlan", given, attribute(IFLA_VLAN_ID, struct.pack("=H", vlan_id)))


def set_link(index: int, given: bytes = b"", up: bool | None = None) -> Message:
    """Change the interface of `index`: its settings, and whether it is up."""
    change = 0 if up is None else IFF_UP
    return RTM_NEWLINK, 0, _LINK.pack(0, 0, index, IFF_UP if up else 0, change) + given


def set_port(index: int, *, isolated: bool | None = None, hairpin: bool | None = None) -> Message:
    """How a bridge treats its port `index`: an isolated one reaches the bridge itself and no other isolated port.

    A hairpin port may get back what came in by it. What is not said stays as it is.
    """
    chosen = ((IFLA_BRPORT_ISOLATED, isolated), (IFLA_BRPORT_MODE, hairpin))
    data = b"".join(attribute(kind, bytes([value])) for kind, value in chosen if value is not None)
    info = nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), nested(IFLA_INFO_SLAVE_DATA, data))
    return RTM_NEWLINK, 0, _LINK.pack(0, 0, index, 0, 0) + info


def delete_link(name: str) -> Message:
    """Remove the interface `name`; the peer of a pair goes with it."""
    return RTM_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def _address_body(index: int, address: AddressWithPrefix) -> bytes:
    packed = address.ip.packed
    body = _ADDRESS.pack(_family(address.version), address.network.prefixlen, 0, 0, index)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if isinstance(address, ipaddress.IPv4Interface):
        if address.network.prefixlen < 31:
            body += attribute(IFA_BROADCAST, address.network.broadcast_address.packed)
    else:  # we gave the address ourselves: no need to wait for a second until nobody has objected
        body += number(IFA_FLAGS, IFA_F_NODAD)
    return body


def new_address(index: int, address: AddressWithPrefix) -> Message:
    """Give the interface of `index` an address; the kernel adds the route to its subnet."""
    return RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address_body(index, address)


def delete_address(index: int, address: AddressWithPrefix) -> Message:
    """Take an address from the interface of `index`."""
    return RTM_DELADDR, 0, _address_body(index, address)


def _route_body(destination: Subnet, gateway: Address | None, index: int) -> bytes:
    scope = RT_SCOPE_LINK if gateway is None and destination.version == 4 else RT_SCOPE_UNIVERSE
    body = _ROUTE.pack(
        _family(destination.version), destination.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0
    )
    if destination.prefixlen:
        body += attribute(RTA_DST, destination.network_address.packed)
    if gateway is not None:
        body += attribute(RTA_GATEWAY, gateway.packed)
    return body + number(RTA_OIF, index)


def new_route(destination: Subnet, gateway: Address | None, index: int, replace: bool = False) -> Message:
    """Send what goes to `destination` by `gateway` out of the interface of `index`."""
    return (
        RTM_NEWROUTE,
        NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL),
        _route_body(destination, gateway, index),
    )


def delete_route(destination: Subnet, gateway: Address | None, index: int) -> Message:
    """Forget such a route."""
    return RTM_DELROUTE, 0, _route_body(destination, gateway, index)


class NetlinkSocket:
    """A socket to one of the kernel's netlink families, for one thread at a time. It stays in the network namespace in
    which it was opened, wherever its user goes afterwards.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._sequence = 0
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            with contextlib.suppress(OSError):  # an older kernel: answers are longer, or without the reason in words
                self._socket.setsockopt(SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _number(self, messages: tuple[Message, ...], acknowledge: int) -> bytes:
        datagram = bytearray()
        for kind, flags, body in messages:
            self._sequence = (self._sequence + 1) & 0xFFFF_FFFF
            length = _HEADER.size + len(body)
            datagram += _HEADER.pack(length, kind, NLM_F_REQUEST | acknowledge | flags, self._sequence, 0)
            datagram += body + bytes(-length % 4)
        return bytes(datagram)

    def _answers(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, sequence and body of each message of the next datagram."""
        data = self._socket.recv(_DATAGRAM_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += max(_HEADER.size, (length + 3) & ~3)

    def do(self, *messages: Message) -> None:
        """Have the kernel execute `messages`, in one system call each way.

        Raises:
            OSError: one was refused, with the kernel's reason in words where it gives one. The others were executed.
        """
        self._socket.send(self._number(messages, NLM_F_ACK))
        waiting, last = len(messages), self._sequence
        first_error: OSError | None = None
        while waiting:
            for kind, flags, sequence, body in self._answers():
                if kind != NLMSG_ERROR or (last - sequence) & 0xFFFF_FFFF >= len(messages):
                    continue
                waiting -= 1
                error = read_error(flags, body)
                first_error = first_error or error
        if first_error:
            raise first_error

    def ask(self, message: Message) -> list[bytes]:
        """The bodies of what the kernel answers: one, or for a dump all.

        Raises:
            OSError: it was refused.
        """
        dump = message[1] & NLM_F_DUMP == NLM_F_DUMP
        self._socket.send(self._number((message,), 0))
        bodies: list[bytes] = []
        while True:
            for kind, flags, sequence, body in self._answers():
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR:
                    error = read_error(flags, body)
                    if error:
                        raise error
                elif kind == NLMSG_DONE:
                    return bodies
                else:
                    bodies.append(body)
            if not dump and bodies:
                return bodies


def read_error(flags: int, body: bytes) -> OSError | None:
    """What an acknowledgement says: `None` for done, else the error with the kernel's words."""
    number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
    if number == 0:
        return None
    reason = os.strerror(number)
    if flags & NLM_F_ACK_TLVS:
        # After the number comes the header of what was asked, and all of it unless the kernel capped that.
        asked = int.from_bytes(body[4:8], sys.byteorder)
        start = 4 + (_HEADER.size if flags & NLM_F_CAPPED else (asked + 3) & ~3)
        for kind, value in attributes(body[start:]):
            if kind == NLMSGERR_ATTR_MSG:
                reason += f": {value.rstrip(bytes(1)).decode(errors='replace')}"
    return OSError(number, reason)


class RouteSocket(NetlinkSocket):
    """Asks about the interfaces, addresses and routes of a network namespace, and changes them.

    With `namespace`, an open descriptor, of that one; else of the one that the calling thread is in.
    """

    def __init__(self, namespace: int | None = None) -> None:
        with contextlib.nullcontext() if namespace is None else entered(namespace):
            super().__init__(socket.NETLINK_ROUTE)

    def link(self, name: str) -> Link | None:
        """The interface `name`, or none."""
        body = _LINK.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
        try:
            return _read_link(self.ask((RTM_GETLINK, 0, body))[0])
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):  # the last two: no name can look like that
                return None
            raise

    def links(self) -> list[Link]:
        """All interfaces."""
        return [_read_link(body) for body in self.ask((RTM_GETLINK, NLM_F_DUMP, _LINK.pack(0, 0, 0, 0, 0)))]

    def addresses(self) -> list[tuple[int, AddressWithPrefix]]:
        """All addresses of IPv4 and IPv6, with the index of the interface of each."""
        found: list[tuple[int, AddressWithPrefix]] = []
        for body in self.ask((RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))):
            _, prefix, _, _, index = _ADDRESS.unpack_from(body)
            values = dict(attributes(body[_ADDRESS.size :]))
            packed = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
            if packed:
                found.append((index, ipaddress.ip_interface((packed, prefix))))
        return found

    def routes(self) -> list[Route]:
        """The routes of the main table, of IPv4 and IPv6."""
        found: list[Route] = []
        for body in self.ask((RTM_GETROUTE, NLM_F_DUMP, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))):
            family, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
            values = dict(attributes(body[_ROUTE.size :]))
            if RTA_TABLE in values:
                table = _NUMBER.unpack(values[RTA_TABLE])[0]
            if table != RT_TABLE_MAIN or kind != RTN_UNICAST or family not in (socket.AF_INET, socket.AF_INET6):
                continue
            packed = values.get(RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
            gateway = ipaddress.ip_address(values[RTA_GATEWAY]) if RTA_GATEWAY in values else None
            index = _NUMBER.unpack(values[RTA_OIF])[0] if RTA_OIF in values else 0
            found.append(Route(ipaddress.ip_network((packed, prefix)), gateway, index))
        return found


def _read_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    values = dict(attributes(body[_LINK.size :]))
    info = dict(attributes(values.get(IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=values.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="surrogateescape"),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        mac=values.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_NUMBER.unpack(values[IFLA_MTU])[0] if IFLA_MTU in values else 0,
        master=_NUMBER.unpack(values[IFLA_MASTER])[0] if IFLA_MASTER in values else 0,
        up=bool(flags & IFF_UP),
    )
