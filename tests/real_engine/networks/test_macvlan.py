"""macvlan networks, where the kernel has them."""

import ipaddress
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from real_engine.errors import EngineError, NotImplementedHere
from real_engine.linux import netlink
from real_engine.linux.netlink import RouteSocket
from real_engine.linux.network_namespaces import create_network_namespace
from real_engine.networks import Networks, NetworkSpec

pytestmark = pytest.mark.root
SUBNET = ({"Subnet": "10.211.4.0/24"},)


def create(networks: Networks, name: str = "m1", **options: str) -> None:
    try:
        networks.create(NetworkSpec(name, "macvlan", pools=SUBNET, options=options))
    except NotImplementedHere as refused:
        pytest.skip(str(refused))


def _has_dummies() -> bool:
    """Whether the kernel has interfaces that lead nowhere; asked in a network namespace that is gone afterwards."""
    asked = subprocess.run(["unshare", "--net", "ip", "link", "add", "dummy9", "type", "dummy"], capture_output=True)
    return asked.returncode == 0


def test_containers_stand_on_the_wire_themselves(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    wire = "wire", create_network_namespace()
    with RouteSocket() as route, RouteSocket(wire[1]) as there:
        route.do(netlink.new_veth(netlink.settings(name="nic0"), netlink.settings(name="eth0", namespace=wire[1])))
        far = there.link("eth0")
        assert far is not None
        there.do(
            netlink.set_link(far.index, up=True),
            netlink.new_address(far.index, ipaddress.ip_interface("10.211.4.200/24")),
        )
    create(networks, parent="nic0")
    one, two = containers.start("one", "m1"), containers.start("two", "m1")
    containers.serve(one, 80)
    assert "10.211.4.3" == ask("10.211.4.2", 80, two)
    assert "10.211.4.200" == ask("10.211.4.2", 80, wire)
    (endpoint,) = networks.endpoints_of(one[0])
    assert ("", "10.211.4.1") == (endpoint.host_interface, endpoint.ipv4_gateway)
    networks.disconnect(endpoint)
    with RouteSocket(one[1]) as route:
        assert None is route.link("eth0")
    with pytest.raises(EngineError, match="is already using parent interface nic0"):
        networks.create(NetworkSpec("m2", "macvlan", options={"parent": "nic0"}))
    networks.release(two[0])
    networks.remove("m1")
    with RouteSocket() as route:
        assert route.link("nic0") is not None  # it isn't ours
    os.close(wire[1])


def test_a_parent_that_is_not_there(networks: Networks) -> None:
    with pytest.raises(EngineError, match=r"invalid subinterface vlan name nosuch0, example formatting is eth0\.10"):
        networks.create(NetworkSpec("m1", "macvlan", options={"parent": "nosuch0"}))
    with pytest.raises(EngineError, match="failed to find master interface nosuch0 on the Docker host"):
        networks.create(NetworkSpec("m1", "macvlan", options={"parent": "nosuch0.10"}))
    assert {"bridge", "host", "none"} == {network.name for network in networks.list()}


def test_no_parent_means_one_that_leads_nowhere(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    if not _has_dummies():
        with pytest.raises(NotImplementedHere, match="-o parent="):
            networks.create(NetworkSpec("m1", "macvlan", pools=SUBNET))
        assert "m1" not in [network.name for network in networks.list()]
        return
    create(networks)
    one, two = containers.start("one", "m1"), containers.start("two", "m1")
    containers.serve(one, 80)
    assert "10.211.4.3" == ask("10.211.4.2", 80, two)
    for each in (one, two):
        networks.release(each[0])
    parent = networks.get("m1").options["parent"]
    networks.remove("m1")
    with RouteSocket() as route:
        assert None is route.link(parent)
