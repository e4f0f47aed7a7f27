"""Address management: which subnet a network gets, and which address a container.

Addresses are given out one after another, the search going on behind the one given last and from the beginning again at
the end, as Docker does: one that was just released rests as long as possible. The network and broadcast addresses of an
IPv4 subnet are never given out.
"""

import ipaddress
import secrets
from collections.abc import Iterable, Iterator, Sequence

from real_engine.errors import EngineError, Forbidden, NotFound
from real_engine.linux.netlink import Address, Subnet
from real_engine.networks.spec import AddressPool

# libnetwork, ipamutils: the local scope's default pools.
DEFAULT_POOLS: tuple[tuple[str, int], ...] = (
    *((f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    ("192.168.0.0/16", 20),
)
_RESERVED = tuple(ipaddress.ip_network(each) for each in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"))


class NoAddress(EngineError):
    """A pool has no address left."""


def parse_address(text: str) -> Address:
    """An address without a scope (`%eth0`), which is of one interface of one host, and whose text can hold anything.

    Raises:
        ValueError: it is none.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a scope")
    return ipaddress.ip_address(text)


def overlaps(one: Subnet, other: Subnet) -> bool:
    """Whether they have an address in common."""
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.overlaps(other)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one.overlaps(other)
    return False


def contains(subnet: Subnet, other: Subnet) -> bool:
    """Whether `other` lies within `subnet`."""
    return subnet.version == other.version and overlaps(subnet, other) and subnet.prefixlen <= other.prefixlen


def choose_subnet(pools: Sequence[tuple[str, int]], taken: Iterable[Subnet]) -> ipaddress.IPv4Network:
    """The first subnet of the default pools that has nothing in common with what is `taken`.

    Raises:
        NotFound: there is none.
    """
    used = [each for each in taken if isinstance(each, ipaddress.IPv4Network) and each.prefixlen]
    for base, prefix in pools or DEFAULT_POOLS:
        block = ipaddress.ip_network(base)
        if isinstance(block, ipaddress.IPv4Network):
            for subnet in block.subnets(new_prefix=prefix):
                if not any(subnet.overlaps(other) for other in used):
                    return subnet
    raise NotFound(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )


def choose_subnet6(pools: Sequence[tuple[str, int]], taken: Iterable[Subnet]) -> ipaddress.IPv6Network:
    """A subnet of 64 bits of the default pools of IPv6, or a unique local one drawn at random (RFC 4193)."""
    used = [each for each in taken if isinstance(each, ipaddress.IPv6Network) and each.prefixlen]
    for base, prefix in pools:
        block = ipaddress.ip_network(base)
        if isinstance(block, ipaddress.IPv6Network):
            for subnet in block.subnets(new_prefix=prefix):
                if not any(subnet.overlaps(other) for other in used):
                    return subnet
    while True:
        prefix_bits = 0xFD << 120 | secrets.randbits(40) << 80
        drawn = ipaddress.IPv6Network((prefix_bits, 64))
        if not any(drawn.overlaps(other) for other in used):
            return drawn


class PoolAllocator:
    """Which addresses of one pool are in use. Not thread-safe: its network's lock guards it."""

    def __init__(self, pool: AddressPool) -> None:
        self.pool = pool
        subnet = pool.subnet
        self._usable = _usable(subnet)
        self._range = _within(self._usable, pool.ip_range) if pool.ip_range is not None else self._usable
        self._used: set[int] = {int(address) for address in pool.auxiliary.values()}
        if pool.gateway is not None:
            self._used.add(int(pool.gateway))
        self._reserved = frozenset(self._used)
        self._next = self._range[0]

    def allocate(self) -> Address:
        """The next free address.

        Raises:
            NoAddress: all are in use.
        """
        first, last = self._range
        for start, end in ((max(first, self._next), last), (first, min(last, self._next - 1))):
            number = start
            while number <= end:  # ends soon: each turn meets an address in use, which are few beside what exists
                if number not in self._used:
                    self._take(number)
                    return _address(number, self.pool.subnet.version)
                number += 1
        raise NoAddress(str(self.pool.subnet))

    def _take(self, number: int) -> None:
        self._used.add(number)
        self._next = number + 1

    def claim(self, address: Address) -> None:
        """Take `address` itself.

        Raises:
            Forbidden: it is in use.
            EngineError: it is the subnet's own or its broadcast address, or of another subnet.
        """
        number = int(address)
        if address not in self.pool.subnet or not self._usable[0] <= number <= self._usable[1]:
            raise EngineError("Requested address is out of range")
        if number in self._used:
            raise Forbidden("Address already in use")
        self._used.add(number)

    def release(self, address: Address) -> None:
        """Give `address` back. The gateway's and the auxiliary ones stay."""
        if int(address) not in self._reserved:
            self._used.discard(int(address))

    def __iter__(self) -> Iterator[Address]:
        return (_address(number, self.pool.subnet.version) for number in sorted(self._used))


def _address(number: int, version: int) -> Address:
    return ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)


def _usable(subnet: Subnet) -> tuple[int, int]:
    """First and last address that a host may have. A subnet of one or two addresses has no broadcast (RFC 3021)."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.num_addresses <= 2:
        return first, last
    return (first + 1, last - 1) if subnet.version == 4 else (first + 1, last)


def _within(usable: tuple[int, int], part: Subnet) -> tuple[int, int]:
    return max(usable[0], int(part.network_address)), min(usable[1], int(part.broadcast_address))


def first_address(subnet: Subnet, ip_range: Subnet | None = None, avoid: Iterable[Address] = ()) -> Address:
    """The address that a gateway gets when none was asked for.

    Raises:
        EngineError: there is none.
    """
    first, last = _within(_usable(subnet), ip_range) if ip_range is not None else _usable(subnet)
    used = {int(each) for each in avoid}
    for number in range(first, min(last, first + len(used)) + 1):
        if number not in used:
            return _address(number, subnet.version)
    raise EngineError(f"no available addresses in {subnet} for a gateway")


def check_claimable(subnet: Subnet) -> None:
    """Refuse a subnet that cannot be a network of containers.

    Raises:
        EngineError: it is the loopback's, multicast, or otherwise not for hosts.
    """
    if any(overlaps(subnet, each) for each in _RESERVED) or (subnet.version == 6 and subnet.is_multicast):
        raise EngineError(f"invalid pool request: {subnet} is not for networks of hosts")


def mac_of(ipv4: str) -> str:
    """The hardware address that goes with an IPv4 address: locally administered, 02:42 and its four bytes (libnetwork,
    netutils.GenerateMACFromIP), so that an address that is given out again answers from where it did.
    """
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + ipaddress.IPv4Address(ipv4).packed)


def random_mac() -> str:
    """A hardware address for an endpoint without IPv4."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + secrets.token_bytes(4))
