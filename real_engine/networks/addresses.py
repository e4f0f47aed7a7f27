"""Who has which address: the pools of all networks, and what containers ask of them."""

import ipaddress
import threading
from collections.abc import Iterable

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.linux.netlink import Address
from real_engine.networks.ipam import NoAddress, PoolAllocator, parse_address
from real_engine.networks.spec import EndpointRequest, Network


class AddressBook:
    """Gives out the addresses of all networks, each once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[str, list[PoolAllocator]] = {}

    def add(self, network: Network) -> None:
        """Give out the addresses of `network` from now on."""
        with self._lock:
            self._pools[network.id] = [PoolAllocator(pool) for pool in network.pools]

    def remove(self, network_id: str) -> None:
        """No longer."""
        with self._lock:
            self._pools.pop(network_id, None)

    def claim(self, network_id: str, addresses: Iterable[str]) -> None:
        """A container that is there already has these. What a changed network has no more is passed over."""
        with self._lock:
            for text in addresses:
                if text:
                    address = ipaddress.ip_address(text)
                    pool = self._pool_of(network_id, address)
                    if pool is not None and address not in set(pool):
                        pool.claim(address)

    def allocate(self, network: Network, request: EndpointRequest) -> tuple[str, int, str, int]:
        """An IPv4 address with its prefix length, and one of IPv6 (empty where the network has none).

        Raises:
            InvalidParameter: it asks for one that this network can't give.
            Forbidden: the one that it asks for is in use.
            NotFound: the network has been removed.
            EngineError: none is left.
        """
        check_request(network, request)
        taken: list[tuple[PoolAllocator, Address]] = []
        versions = [4, *([6] if network.enable_ipv6 else [])]
        with self._lock:
            try:
                for version in versions:
                    taken.append(self._one(network, version, request.ipv4 if version == 4 else request.ipv6))
            except BaseException:
                for pool, address in taken:
                    pool.release(address)
                raise
        found = {address.version: (str(address), pool.pool.subnet.prefixlen) for pool, address in taken}
        return (*found[4], *found.get(6, ("", 0)))

    def _one(self, network: Network, version: int, wanted: str) -> tuple[PoolAllocator, Address]:
        known = self._pools.get(network.id)
        if known is None:
            raise NotFound(f"network {network.id} not found")  # removed while somebody was joining it
        pools = [pool for pool in known if pool.pool.subnet.version == version]
        if wanted:
            address = ipaddress.ip_address(wanted)
            for pool in pools:
                if address in pool.pool.subnet:
                    pool.claim(address)
                    return pool, address
            raise EngineError(f"Invalid address {wanted}: It does not belong to any of this network's subnets")
        for pool in pools:
            try:
                return pool, pool.allocate()
            except NoAddress:
                continue
        raise EngineError(
            f"no available IPv{version} addresses on this network's address pools: {network.name} ({network.id})"
        )

    def release(self, network_id: str, addresses: Iterable[str]) -> None:
        """Give them back."""
        with self._lock:
            for text in addresses:
                if text:
                    address = ipaddress.ip_address(text)
                    pool = self._pool_of(network_id, address)
                    if pool is not None:
                        pool.release(address)

    def _pool_of(self, network_id: str, address: Address) -> PoolAllocator | None:
        return next((pool for pool in self._pools.get(network_id, ()) if address in pool.pool.subnet), None)


def check_request(network: Network, request: EndpointRequest) -> None:
    """Refuse what no container can ask of this network, whether it runs or not.

    Raises:
        InvalidParameter: an address where nobody chose the network's, an alias on the default network, or nonsense.
    """
    user_defined = not network.predefined
    if request.aliases and not user_defined:
        raise InvalidParameter("network-scoped alias is supported only for containers in user defined networks")
    for version, wanted in ((4, request.ipv4), (6, request.ipv6)):
        if not wanted:
            continue
        if not user_defined:
            raise InvalidParameter("user specified IP address is supported on user defined networks only")
        try:
            if parse_address(wanted).version != version:
                raise ValueError(wanted)
        except ValueError:
            raise EngineError(f"Invalid IPv{version} address: {wanted})") from None
        if not any(_is_version(pool.get("Subnet"), version) for pool in network.given_pools):
            raise InvalidParameter(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
    if request.mac and request.mac != _canonical_mac(request.mac):
        raise InvalidParameter(f"invalid MAC address: {request.mac}")


def _is_version(subnet: object, version: int) -> bool:
    return (":" in str(subnet)) == (version == 6)


def _canonical_mac(text: str) -> str:
    """The address as the kernel writes it; empty if it is none, or one that no interface can have (multicast, zero)."""
    try:
        value = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        return ""
    if len(value) != 6 or value[0] & 1 or not any(value):
        return ""
    return text if value.hex(":") == text.lower().replace("-", ":") else ""
