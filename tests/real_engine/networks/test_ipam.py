"""Which addresses are given out: never one twice, always of the range."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import EngineError, Forbidden, NotFound
from real_engine.linux.netlink import Address
from real_engine.networks.addresses import AddressBook
from real_engine.networks.ipam import (
    DEFAULT_POOLS,
    NoAddress,
    PoolAllocator,
    choose_subnet,
    choose_subnet6,
    first_address,
    mac_of,
)
from real_engine.networks.spec import AddressPool, EndpointRequest, Network

ip = ipaddress.ip_address
net = ipaddress.ip_network


@given(
    st.sampled_from(["10.0.0.0/29", "10.0.0.0/28", "10.0.0.0/30", "fd00::/125"]),
    st.lists(st.one_of(st.just("take"), st.integers(0, 20)), max_size=60),
)
def test_no_address_is_given_out_twice(subnet: str, actions: list[str | int]) -> None:
    network = net(subnet)
    gateway = first_address(network)
    pool = PoolAllocator(AddressPool(network, gateway))
    held: list[Address] = []
    for action in actions:
        if action == "take":
            try:
                address = pool.allocate()
            except NoAddress:
                room = network.num_addresses - (2 if network.version == 4 else 1)
                assert room - 1 == len(held)
                continue
            assert address in network
            assert address not in (network.network_address, gateway, *held)
            assert network.version == 6 or address != network.broadcast_address
            held.append(address)
        elif held:
            pool.release(held.pop(int(action) % len(held)))


@given(st.integers(0, 255), st.sets(st.integers(1, 254), max_size=5))
def test_a_range_and_auxiliary_addresses_are_kept_to(start: int, auxiliary: set[int]) -> None:
    subnet, part = net("10.1.0.0/16"), net(f"10.1.{start}.0/28")
    kept = {str(n): ip(int(subnet.network_address) + (start << 8) + n) for n in auxiliary}
    pool = PoolAllocator(AddressPool(subnet, first_address(subnet, part, kept.values()), part, kept))
    given_out = set()
    while True:
        try:
            address = pool.allocate()
        except NoAddress:
            break
        assert address in part
        assert address not in kept.values()
        given_out.add(address)
    assert 16 - 1 - len([each for each in kept.values() if each in part]) - (2 if start in (0,) else 1) <= len(
        given_out
    )


def test_an_address_that_was_released_rests_until_the_others_had_their_turn() -> None:
    pool = PoolAllocator(AddressPool(net("10.0.0.0/29"), ip("10.0.0.1")))
    first = pool.allocate()
    pool.release(first)
    assert ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"] == [str(pool.allocate()) for _ in range(5)]


def test_claiming() -> None:
    pool = PoolAllocator(AddressPool(net("10.0.0.0/29"), ip("10.0.0.1")))
    pool.claim(ip("10.0.0.3"))
    for taken in ("10.0.0.3", "10.0.0.1"):
        with pytest.raises(Forbidden, match="Address already in use"):
            pool.claim(ip(taken))
    for outside in ("10.0.0.0", "10.0.0.7", "10.0.1.1"):
        with pytest.raises(EngineError, match="Requested address is out of range"):
            pool.claim(ip(outside))
    assert ["10.0.0.2", "10.0.0.4"] == [str(pool.allocate()) for _ in range(2)]
    pool.release(ip("10.0.0.1"))  # the gateway's own stays
    with pytest.raises(Forbidden):
        pool.claim(ip("10.0.0.1"))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 31), unique=True, max_size=20))
def test_a_subnet_is_clear_of_what_is_taken(seconds: list[int]) -> None:
    taken = [net(f"172.{16 + second}.64.0/24") for second in seconds if second < 16]
    taken.append(net("0.0.0.0/0"))  # a default route leads everywhere and takes nothing
    chosen = choose_subnet((), taken)
    assert not any(chosen.overlaps(each) for each in taken[:-1])
    assert any(chosen.subnet_of(ipaddress.IPv4Network(base)) for base, _ in DEFAULT_POOLS)


def test_pools_that_are_used_up() -> None:
    assert net("10.9.0.0/25") == choose_subnet([("10.9.0.0/24", 25)], [])
    assert net("10.9.0.128/25") == choose_subnet([("10.9.0.0/24", 25)], [net("10.9.0.7/32")])
    with pytest.raises(NotFound, match="could not find an available, non-overlapping IPv4 address pool"):
        choose_subnet([("10.9.0.0/24", 25)], [net("10.9.0.0/16")])


def test_subnets_of_ipv6_are_unique_and_local() -> None:
    drawn = {choose_subnet6((), []) for _ in range(20)}
    assert 20 == len(drawn)
    assert all(each.prefixlen == 64 and each.subnet_of(ipaddress.IPv6Network("fd00::/8")) for each in drawn)
    assert net("fd00:9::/64") == choose_subnet6([("fd00:9::/60", 64)], [])


def test_the_hardware_address_follows_from_the_address() -> None:
    assert "02:42:ac:11:00:02" == mac_of("172.17.0.2")


def test_a_network_that_was_removed_has_no_addresses() -> None:
    pools = (AddressPool(net("10.1.0.0/24")),)
    network = Network("a" * 64, "", "gone", "bridge", False, False, False, None, pools, (), {}, {})
    book = AddressBook()
    book.add(network)
    assert ("10.1.0.1", 24, "", 0) == book.allocate(network, EndpointRequest())
    book.remove(network.id)  # while another thread was about to join it
    with pytest.raises(NotFound, match=f"network {network.id} not found"):
        book.allocate(network, EndpointRequest())
