"""Interfaces, addresses and routes, in network namespaces of the tests' own."""

import errno
import ipaddress
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.linux import netlink
from real_engine.linux.netlink import Route, RouteSocket
from real_engine.linux.network_namespaces import (
    NamespacePool,
    create_network_namespace,
    entered,
    own_namespace,
    read_setting,
)


@pytest.fixture
def namespaces() -> Iterator[tuple[int, int]]:
    made = create_network_namespace(), create_network_namespace()
    yield made
    for each in made:
        os.close(each)


@given(st.lists(st.tuples(st.integers(1, 200), st.binary(max_size=40)), max_size=8))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    assert pairs == list(netlink.attributes(b"".join(netlink.attribute(kind, value) for kind, value in pairs)))


@given(st.binary(max_size=200))
def test_reading_broken_attributes_ends(data: bytes) -> None:
    assert len(list(netlink.attributes(data))) <= len(data) // 4 + 1


@pytest.mark.parametrize("text", ["", "02:42", "02:42:ac:11:00:zz", "02:42:ac:11:00:02:03"])
def test_what_is_no_hardware_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hardware address|hexadecimal"):
        netlink.mac_bytes(text)


@pytest.mark.root
def test_a_new_namespace_has_a_loopback_that_is_up_and_no_ipv6(namespaces: tuple[int, int]) -> None:
    with RouteSocket(namespaces[0]) as route:
        assert [("lo", True)] == [(link.name, link.up) for link in route.links()]
        assert [ipaddress.ip_interface("127.0.0.1/8")] == [address for _, address in route.addresses()]
    with entered(namespaces[0]):
        assert "1" == read_setting("net/ipv6/conf/default/disable_ipv6")


@pytest.mark.root
def test_a_thread_comes_home_from_a_namespace(namespaces: tuple[int, int]) -> None:
    def where() -> int:
        descriptor = own_namespace()
        try:
            return os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)

    def leave_by_an_error() -> None:
        with entered(namespaces[0]):
            assert os.fstat(namespaces[0]).st_ino == where()
            raise KeyError

    before = where()
    with pytest.raises(KeyError):
        leave_by_an_error()
    assert before == where()


@pytest.mark.root
def test_a_cable_joins_two_namespaces(namespaces: tuple[int, int]) -> None:
    here, there = namespaces
    with RouteSocket(here) as host, RouteSocket(there) as inside:
        host.do(netlink.new_link("bridge", netlink.settings(name="br0", mac="02:00:00:00:00:01", mtu=1400)))
        bridge = host.link("br0")
        assert bridge is not None
        assert ("bridge", "02:00:00:00:00:01", 1400, True) == (bridge.kind, bridge.mac, bridge.mtu, bridge.up)
        host.do(
            netlink.new_veth(
                netlink.settings(name="veth0", master=bridge.index),
                netlink.settings(name="eth0", mac="02:42:0a:00:00:02", namespace=there),
            )
        )
        cable, peer = host.link("veth0"), inside.link("eth0")
        assert cable is not None
        assert peer is not None
        assert (bridge.index, True) == (cable.master, cable.up)
        assert ("02:42:0a:00:00:02", False) == (peer.mac, peer.up)
        inside.do(
            netlink.set_link(peer.index, up=True),
            netlink.new_address(peer.index, ipaddress.ip_interface("10.0.0.2/24")),
            netlink.new_route(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_address("10.0.0.1"), peer.index),
        )
        assert (peer.index, ipaddress.ip_interface("10.0.0.2/24")) in inside.addresses()
        assert {
            Route(ipaddress.ip_network("10.0.0.0/24"), None, peer.index),
            Route(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_address("10.0.0.1"), peer.index),
        } == set(inside.routes())
        other = ipaddress.ip_address("10.0.0.9")
        inside.do(netlink.new_route(ipaddress.ip_network("0.0.0.0/0"), other, peer.index, replace=True))
        assert [other] == [route.gateway for route in inside.routes() if route.gateway]
        inside.do(netlink.delete_route(ipaddress.ip_network("0.0.0.0/0"), other, peer.index))
        inside.do(netlink.delete_address(peer.index, ipaddress.ip_interface("10.0.0.2/24")))
        assert [] == inside.routes()
        host.do(netlink.delete_link("veth0"))
        assert None is inside.link("eth0")


@pytest.mark.root
def test_an_error_tells_the_kernels_reason_and_the_rest_is_done(namespaces: tuple[int, int]) -> None:
    with RouteSocket(namespaces[0]) as route:
        with pytest.raises(OSError, match="ipv4: Device not found") as refused:
            route.do(
                netlink.new_address(99, ipaddress.ip_interface("10.0.0.1/24")),
                netlink.new_link("bridge", netlink.settings(name="br0")),
            )
        assert errno.ENODEV == refused.value.errno
        assert route.link("br0") is not None
        with pytest.raises(FileExistsError):
            route.do(netlink.new_link("bridge", netlink.settings(name="br0")))
        route.do(netlink.set_link(1, up=True))  # the socket is fit for use after an error


@pytest.mark.root
def test_there_is_no_interface_of_an_impossible_name(namespaces: tuple[int, int]) -> None:
    with RouteSocket(namespaces[0]) as route:
        assert [None, None] == [route.link("nosuch"), route.link("a-name-of-far-too-many-bytes")]


@pytest.mark.root
def test_many_interfaces_are_listed_over_several_datagrams(namespaces: tuple[int, int]) -> None:
    with RouteSocket(namespaces[0]) as route:
        for number in range(60):
            route.do(netlink.new_link("bridge", netlink.settings(name=f"br{number}"), up=False))
        assert {"lo", *(f"br{number}" for number in range(60))} == {link.name for link in route.links()}


@pytest.mark.root
def test_a_pool_gives_fresh_namespaces_and_keeps_none() -> None:
    before = len(os.listdir("/proc/self/fd"))
    pool = NamespacePool(2)
    taken = [pool.take() for _ in range(5)]
    assert 5 == len({os.fstat(each).st_ino for each in taken})
    pool.close()
    for each in taken:
        os.close(each)
    assert before == len(os.listdir("/proc/self/fd"))
