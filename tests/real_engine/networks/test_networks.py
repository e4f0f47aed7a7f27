"""Networks as containers meet them, in the real kernel."""

import ipaddress
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from real_engine.container.steps import Step
from real_engine.errors import Conflict, EngineError, Forbidden, InvalidParameter, NotFound
from real_engine.linux import netlink
from real_engine.linux.netlink import RouteSocket
from real_engine.linux.network_namespaces import create_network_namespace, entered, read_setting, write_setting
from real_engine.networks import EndpointRequest, Networks, NetworkSpec

pytestmark = pytest.mark.root
SUBNET = ({"Subnet": "10.211.1.0/24"},)


def links() -> set[str]:
    with RouteSocket() as route:
        return {link.name for link in route.links()}


def inside(namespace: int) -> tuple[dict[str, set[str]], dict[int, str]]:
    """The addresses of each interface, and the gateway of each version's default route."""
    with RouteSocket(namespace) as route:
        names = {link.index: link.name for link in route.links()}
        addresses: dict[str, set[str]] = {name: set() for name in names.values()}
        for index, address in route.addresses():
            if not address.ip.is_link_local:
                addresses[names[index]].add(str(address))
        gateways = {r.destination.version: str(r.gateway) for r in route.routes() if not r.destination.prefixlen}
    return addresses, gateways


def test_the_default_network(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    one, two = containers.start("one", "bridge"), containers.start("two", "bridge")
    network = networks.get("bridge")
    gateway = str(network.gateway(4))
    (first,), (second,) = networks.endpoints_of(one[0]), networks.endpoints_of(two[0])
    assert ({"lo": {"127.0.0.1/8"}, "eth0": {f"{first.ipv4}/16"}}, {4: gateway}) == inside(one[1])
    assert {first.id, second.id} == {each.id for each in networks.endpoints(network.id)}
    assert f"02:42:{ipaddress.ip_address(first.ipv4).packed.hex(':')}" == first.mac
    containers.serve(one, 80)
    assert second.ipv4 == ask(first.ipv4, 80, two)
    assert gateway == ask(first.ipv4, 80)


def test_several_networks_connected_and_disconnected_while_it_runs(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("beta", pools=SUBNET))
    networks.create(NetworkSpec("alpha", pools=({"Subnet": "10.211.2.0/24"},), enable_ipv6=True))
    networks.create(NetworkSpec("zeta", pools=({"Subnet": "10.211.3.0/24"},), internal=True))
    identifier, namespace = containers.start("one", "beta")
    assert {4: "10.211.1.1"} == inside(namespace)[1]
    networks.connect("alpha", identifier, namespace, EndpointRequest(container_name="one"))
    six = str(networks.get("alpha").gateway(6))
    addresses, gateways = inside(namespace)
    assert {4: "10.211.2.1", 6: six} == gateways  # the first by name leads out
    assert {"10.211.1.2/24"} == addresses["eth0"]
    assert "10.211.2.2/24" in addresses["eth1"]
    networks.connect("zeta", identifier, namespace, EndpointRequest(container_name="one", gateway_priority=9))
    assert {4: "10.211.2.1", 6: six} == inside(namespace)[1]  # an internal one never does
    assert ["beta", "alpha", "zeta"] == [each.network_name for each in networks.endpoints_of(identifier)]
    networks.disconnect(networks.endpoints_of(identifier)[1])
    addresses, gateways = inside(namespace)
    assert ({"lo", "eth0", "eth2"}, {4: "10.211.1.1"}) == (set(addresses), gateways)
    networks.connect("alpha", identifier, namespace)
    assert "eth1" in inside(namespace)[0]  # the lowest number that is free
    with pytest.raises(Forbidden, match="already exists in network alpha"):
        networks.connect("alpha", identifier, namespace)


def test_a_priority_decides_who_leads_out(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("alpha", pools=SUBNET))
    identifier, namespace = containers.start("one", "alpha")
    networks.connect("bridge", identifier, namespace, EndpointRequest(gateway_priority=1))
    assert {4: str(networks.get("bridge").gateway(4))} == inside(namespace)[1]


def test_addresses_that_are_asked_for(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("n1", pools=(*SUBNET, {"Subnet": "fd00:9::/64"}), enable_ipv6=True))
    identifier, namespace = containers.start(
        "one", "n1", ipv4="10.211.1.77", ipv6="fd00:9::77", mac="02:00:00:00:00:77", aliases=("a",)
    )
    (endpoint,) = networks.endpoints_of(identifier)
    assert ("10.211.1.77", "fd00:9::77", "02:00:00:00:00:77") == (endpoint.ipv4, endpoint.ipv6, endpoint.mac)
    assert {"10.211.1.77/24", "fd00:9::77/64"} == inside(namespace)[0]["eth0"]
    with RouteSocket(namespace) as route:
        link = route.link("eth0")
    assert link is not None
    assert "02:00:00:00:00:77" == link.mac


@pytest.mark.parametrize(
    ("network", "request_", "kind", "message"),
    [
        ("n1", {"ipv4": "10.99.0.9"}, EngineError, "Invalid address 10.99.0.9: It does not belong to any"),
        ("n1", {"ipv4": "10.211.1.1"}, Forbidden, "Address already in use"),
        ("n1", {"ipv4": "junk"}, EngineError, r"Invalid IPv4 address: junk\)"),
        (
            "n1",
            {"ipv6": "fd00::9"},
            InvalidParameter,
            "supported only when connecting to networks with user configured",
        ),
        ("bridge", {"ipv4": "172.17.0.9"}, InvalidParameter, "supported on user defined networks only"),
        ("bridge", {"aliases": ("x",)}, InvalidParameter, "alias is supported only for containers in user defined"),
        ("n1", {"ipv6": "fe80::1%x"}, EngineError, "Invalid IPv6 address: fe80::1%x"),
        ("n1", {"mac": "junk"}, InvalidParameter, "invalid MAC address: junk"),
        ("n1", {"mac": "01:00:00:00:00:01"}, InvalidParameter, "invalid MAC address"),
        ("nosuch", {}, NotFound, "network nosuch not found"),
        ("n1", {"interface": "eth/0"}, EngineError, "failed to create endpoint one on network n1"),
    ],
)
def test_what_cannot_be_asked_for_leaves_nothing(
    networks: Networks, containers: Any, network: str, request_: dict[str, Any], kind: type[Exception], message: str
) -> None:
    networks.create(NetworkSpec("n1", pools=({"Subnet": "10.211.1.0/30"},)))
    before = links()
    with pytest.raises(kind, match=message):
        containers.start("one", network, **request_)
    assert before == links()
    assert [] == [each for network in networks.list() for each in networks.endpoints(network.id)]
    containers.start("two", "n1")
    (endpoint,) = networks.endpoints(networks.get("n1").id)
    assert "10.211.1.2" == endpoint.ipv4  # the only one that there is


def test_a_subnet_that_is_used_up(networks: Networks, containers: Any) -> None:
    network = networks.create(NetworkSpec("small", pools=({"Subnet": "10.211.7.0/30"},)))
    one = containers.start("one", "small")
    with pytest.raises(EngineError) as refused:
        containers.start("two", "small")
    text = f"no available IPv4 addresses on this network's address pools: small ({network.id})"
    assert text == str(refused.value)
    networks.release(one[0])
    containers.start("three", "small")


def test_a_bridge_with_all_ports_in_use_is_refused_with_the_reason(networks: Networks, containers: Any) -> None:
    containers.start("one", "bridge")
    network = networks.get("bridge")
    with RouteSocket() as route:
        bridge = route.link(network.bridge)
        assert bridge is not None
        try:
            for number in range(1100):
                here = netlink.settings(name=f"p{number}", master=bridge.index)
                route.do(netlink.new_veth(here, netlink.settings(name=f"q{number}"), up=False))
        except OSError:
            assert 1022 == number
    with pytest.raises(Forbidden, match=r"exchange full: the kernel's bridge has 1023 ports at most \(BR_MAX_PORTS\)"):
        containers.start("two", "bridge")
    networks.create(NetworkSpec("n1", pools=SUBNET))
    containers.start("two", "n1")


def test_networks_are_kept_apart(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET))
    one, two = containers.start("one", "bridge"), containers.start("two", "n1")
    containers.serve(one, 80)
    with pytest.raises(TimeoutError):
        ask(networks.endpoints_of(one[0])[0].ipv4, 80, two)


def test_an_internal_network_leads_nowhere(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET, internal=True))
    one, two = containers.start("one", "n1"), containers.start("two", "n1")
    containers.serve(one, 80)
    assert "" == networks.endpoints_of(one[0])[0].ipv4_gateway
    assert "10.211.1.3" == ask("10.211.1.2", 80, two)
    with pytest.raises(OSError, match="unreachable"):
        ask("192.0.2.1", 80, two)


def test_containers_that_may_not_reach_one_another(
    networks: Networks, containers: Any, ask: Callable[..., str]
) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET, options={"com.docker.network.bridge.enable_icc": "false"}))
    one, two = containers.start("one", "n1"), containers.start("two", "n1")
    containers.serve(one, 80)
    assert "10.211.1.1" == ask("10.211.1.2", 80)
    with pytest.raises(OSError, match=r"timed out|No route to host"):
        ask("10.211.1.2", 80, two)


@pytest.mark.parametrize("masquerade", [True, False])
def test_the_outside_sees_the_host(
    networks: Networks, containers: Any, ask: Callable[..., str], masquerade: bool
) -> None:
    """Another machine, by a cable from the host, that knows no way to the containers but the host."""
    options = {"com.docker.network.bridge.enable_ip_masquerade": str(masquerade).lower()}
    networks.create(NetworkSpec("n1", pools=SUBNET, options=options))
    outside = "outside", create_network_namespace()
    with RouteSocket() as route, RouteSocket(outside[1]) as there:
        route.do(netlink.new_veth(netlink.settings(name="out0"), netlink.settings(name="eth0", namespace=outside[1])))
        near, far = route.link("out0"), there.link("eth0")
        assert near is not None
        assert far is not None
        route.do(netlink.new_address(near.index, ipaddress.ip_interface("192.0.2.1/24")))
        there.do(
            netlink.set_link(far.index, up=True),
            netlink.new_address(far.index, ipaddress.ip_interface("192.0.2.2/24")),
            netlink.new_route(ipaddress.ip_network("10.211.1.0/24"), ipaddress.ip_address("192.0.2.1"), far.index),
        )
    one = containers.start("one", "n1")
    containers.serve(outside, 80)
    assert ("192.0.2.1" if masquerade else "10.211.1.2") == ask("192.0.2.2", 80, one)
    containers.serve(one, 80)
    with pytest.raises(TimeoutError):  # nobody published that
        ask("10.211.1.2", 80, outside)
    os.close(outside[1])


def test_mtu(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET, options={"com.docker.network.driver.mtu": "1300"}))
    _, namespace = containers.start("one", "n1")
    with RouteSocket(namespace) as route, RouteSocket() as host:
        mtus = {link.mtu for link in route.links() if link.name == "eth0"}
        mtus |= {link.mtu for link in host.links() if link.name.startswith(("br-", "veth"))}
    assert {1300} == mtus


def test_a_network_in_use_stays_and_another_goes_without_a_trace(networks: Networks, containers: Any) -> None:
    network = networks.create(NetworkSpec("n1", pools=SUBNET))
    one = containers.start("one", "n1")
    with pytest.raises(Forbidden) as refused:
        networks.remove("n1")
    assert f"error while removing network: network n1 id {network.id} has active endpoints" == str(refused.value)
    networks.release(one[0])
    networks.remove("n1")
    assert network.bridge not in links()
    for name in ("bridge", "host", "none"):
        with pytest.raises(Forbidden, match=f"{name} is a pre-defined network and cannot be removed"):
            networks.remove(name)


def test_a_bridge_of_somebody_elses_stays(networks: Networks, containers: Any) -> None:
    with RouteSocket() as route:
        route.do(netlink.new_link("bridge", netlink.settings(name="mine")))
        mine = route.link("mine")
        assert mine is not None
        theirs = ipaddress.ip_interface("192.0.2.1/24")
        route.do(netlink.new_address(mine.index, theirs))
    networks.create(NetworkSpec("n1", pools=SUBNET, options={"com.docker.network.bridge.name": "mine"}))
    containers.start("one", "n1")
    with pytest.raises(Forbidden, match="networks have same bridge name"):
        networks.create(NetworkSpec("n2", options={"com.docker.network.bridge.name": "mine"}))
    networks.release(b"one".hex().ljust(64, "0"))
    networks.remove("n1")
    with RouteSocket() as route:
        left = [address for index, address in route.addresses() if index == mine.index and not address.ip.is_link_local]
    assert [theirs] == left


def test_host_and_none(networks: Networks, containers: Any) -> None:
    for name in ("host", "none"):
        identifier, namespace = containers.start(f"in-{name}", name)
        (endpoint,) = networks.endpoints_of(identifier)
        assert ("", "") == (endpoint.ipv4, endpoint.interface)
        assert {"lo"} == set(inside(namespace)[0])


def test_ambiguous_and_unknown_names(networks: Networks) -> None:
    first = networks.create(NetworkSpec("n1"))
    second = networks.create(NetworkSpec("n1"))
    assert f"Network with name n1 (id : {first.id}) already exists" == second.warning
    with pytest.raises(InvalidParameter, match=r"network n1 is ambiguous \(2 matches found based on name\)"):
        networks.get("n1")
    assert first.id == networks.get(first.id[:20]).id == networks.get(first.id).id
    with pytest.raises(Conflict, match="network with name n1 already exists"):
        networks.create(NetworkSpec("n1", check_duplicate=True))
    with pytest.raises(NotFound):
        networks.get("")


def test_pruning(networks: Networks, containers: Any) -> None:
    for name in ("a", "b", "c"):
        networks.create(NetworkSpec(name, labels={"keep": name}))
    containers.start("one", "b")
    assert ["a"] == networks.prune(lambda network: network.labels["keep"] != "c")
    assert [] == networks.prune(in_use=[networks.get("c").id])
    assert {"b", "c", "bridge", "host", "none"} == {network.name for network in networks.list()}


def test_a_form_is_no_network_and_stays_while_it_is_used(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("form", config_only=True, options={"com.docker.network.driver.mtu": "1400"}))
    networks.create(NetworkSpec("n1", config_from="form"))
    with pytest.raises(Forbidden, match="cannot create endpoint on configuration-only network"):
        containers.start("one", "form")
    with pytest.raises(Forbidden, match='configuration network "form" is in use'):
        networks.remove("form")
    assert ["n1"] == list(networks.prune())
    assert "form" == networks.remove("form").name


def test_many_at_once_never_share_an_address(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET))
    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(lambda number: containers.start(f"c{number}", "n1"), range(24)))
    addresses = [networks.endpoints_of(identifier)[0].ipv4 for identifier, _ in started]
    assert 24 == len(set(addresses))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: networks.release(one[0]), started))
    assert [] == networks.endpoints(networks.get("n1").id)


def test_a_bridge_that_somebody_removed_comes_back(
    networks: Networks, containers: Any, run: Callable[..., str]
) -> None:
    containers.start("one", "bridge")
    run("ip", "link", "del", networks.get("bridge").bridge)
    _, namespace = containers.start("two", "bridge")
    assert {4: str(networks.get("bridge").gateway(4))} == inside(namespace)[1]
    assert networks.get("bridge").bridge in links()


def test_each_step_tells_what_it_does_and_why(networks: Networks, containers: Any) -> None:
    steps: list[Step] = []
    identifier, namespace = containers.start("one")
    networks.connect("bridge", identifier, namespace, observer=steps.append)
    calls = [step.call for step in steps]
    assert calls[0].startswith("ip link add veth")
    assert calls[-1].startswith("ip -n CONTAINER route replace default via")
    assert all(step.why and step.wall_seconds > 0 and step.phase == "network" for step in steps)


def test_events(networks: Networks, containers: Any) -> None:
    seen: list[tuple[str, str, str]] = []
    networks.publish_event = lambda kind, action, _, attributes: seen.append((kind, action, attributes["name"]))
    networks.create(NetworkSpec("n1", pools=SUBNET))
    one = containers.start("one", "n1")
    networks.release(one[0])
    networks.remove("n1")
    assert [("network", action, "n1") for action in ("create", "connect", "disconnect", "destroy")] == seen


def test_the_kernel_holds_nothing_when_nobody_uses_it(
    networks: Networks, containers: Any, run: Callable[..., str]
) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET, enable_ipv6=True))
    one = containers.start("one", "n1", "bridge")
    assert "table ip onggi_" in run("nft", "list", "ruleset")
    networks.release(one[0])
    containers.close()
    containers._namespaces.clear()
    networks.close()
    assert {"lo"} == links()
    assert "" == run("nft", "list", "ruleset")


@dataclass
class Wanted:
    """Options of an engine."""

    bridge: str = ""
    default_address_pools: tuple[Any, ...] = ()
    userland_proxy: bool = True
    mtu: int = 0


def test_options(host: int, tmp_path: Path) -> None:
    networks = Networks(tmp_path, Wanted("mybridge", mtu=1400))
    network = networks.get("bridge")
    assert ("mybridge", 1400) == (network.bridge, network.mtu)
    networks.close()
    with RouteSocket() as route:
        route.do(netlink.new_link("bridge", netlink.settings(name="mybridge")))
        mine = route.link("mybridge")
        assert mine is not None
        route.do(netlink.new_address(mine.index, ipaddress.ip_interface("10.211.6.9/24")))
    on_theirs = Networks(tmp_path / "theirs", Wanted("mybridge"))
    on_theirs.restore([])
    (pool,) = on_theirs.get("bridge").pools
    assert ("10.211.6.0/24", "10.211.6.9") == (str(pool.subnet), str(pool.gateway))
    on_theirs.close()
    assert "mybridge" in links()
    without = Networks(tmp_path / "other", Wanted("none"))
    assert ["host", "none"] == [each.name for each in without.list()]
    without.close()


def test_the_default_subnet_keeps_clear_of_the_hosts(host: int, tmp_path: Path) -> None:
    with RouteSocket() as route:
        route.do(netlink.new_link("bridge", netlink.settings(name="other")))
        other = route.link("other")
        assert other is not None
        route.do(netlink.new_address(other.index, ipaddress.ip_interface("172.17.5.1/24")))
    networks = Networks(tmp_path)
    assert ["172.18.0.0/16"] == [str(pool.subnet) for pool in networks.get("bridge").pools]
    with RouteSocket() as route:  # and what comes to be between then and the first container
        route.do(netlink.new_address(other.index, ipaddress.ip_interface("172.18.5.1/24")))
    networks.restore([])
    assert ["172.19.0.0/16"] == [str(pool.subnet) for pool in networks.get("bridge").pools]
    networks.close()


def test_an_engine_after_another(host: int, tmp_path: Path, ask: Callable[..., str], run: Callable[..., str]) -> None:
    """The first is killed; its containers run on, one ends meanwhile, and somebody flushes the rules."""
    first = Networks(tmp_path)
    network = first.create(NetworkSpec("n1", pools=SUBNET))
    living, dead = create_network_namespace(), create_network_namespace()
    for name, namespace in (("a" * 64, living), ("b" * 64, dead)):
        first.connect("n1", name, namespace, EndpointRequest(container_name=name[0], aliases=("web",)))
    first._namespaces.close()  # its threads, which a kill would have ended
    run("nft", "flush", "ruleset")
    run("ip", "link", "del", network.bridge)

    second = Networks(tmp_path)
    assert ["10.211.1.2"] == [each.ipv4 for each in second.adopt("a" * 64, living)]
    second.restore(["a" * 64])
    assert network == second.get("n1")
    assert ["a" * 64] == [each.container_id for each in second.endpoints(network.id)]
    assert network.bridge in links()
    assert network.bridge in run("nft", "list", "ruleset")
    answer = run("busybox", "nslookup", "-type=a", "web", "127.0.0.11", inside=("a", living))
    assert "10.211.1.2" in answer
    assert "10.211.1.3" not in answer
    third = create_network_namespace()
    assert "10.211.1.2" != second.connect("n1", "c" * 64, third).ipv4
    for name in ("a" * 64, "c" * 64):
        second.release(name)
    for namespace in (living, dead, third):
        os.close(namespace)
    second.close()
    first._resolver.close()
    first._publisher.close()


def test_what_is_on_disk_and_broken(host: int, tmp_path: Path) -> None:
    Networks(tmp_path).close()
    directory = tmp_path / "networks"
    (directory / ".half.json").write_text("{")
    (directory / "containers/c1.json").write_text("{")
    Networks(tmp_path).close()
    assert not {".half.json", "c1.json"} & {path.name for path in directory.rglob("*")}
    (directory / "odd.json").write_text("{}")
    with pytest.raises(EngineError, match=r"odd\.json is not a network"):
        Networks(tmp_path)


def test_forwarding_is_on(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET, enable_ipv6=True))
    assert ["1", "1"] == [read_setting(f"net/{name}") for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")]


def test_who_makes_the_machine_forward_packets_makes_no_router_of_it(
    host: int, tmp_path: Path, run: Callable[..., str]
) -> None:
    forwarding = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    for name in forwarding:
        write_setting(name, "0")
    networks = Networks(tmp_path)
    networks.create(NetworkSpec("n1", pools=SUBNET, enable_ipv6=True))
    assert ["1", "1"] == [read_setting(name) for name in forwarding]
    for family in ("ip", "ip6"):
        assert "policy drop" in run("nft", "list", "chain", family, "filter", "FORWARD")
    run("nft", "add", "rule", "ip", "filter", "FORWARD", "counter")  # somebody else's, which stays
    networks.close()
    assert ["0", "0"] == [read_setting(name) for name in forwarding]
    left = run("nft", "list", "ruleset")
    assert ["table ip filter {"] == [line for line in left.splitlines() if line.startswith("table")]
    assert "policy accept" in left
    assert "counter" in left


def test_where_packets_were_forwarded_before_others_go_on(host: int, tmp_path: Path, run: Callable[..., str]) -> None:
    forwarding = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    for name in forwarding:
        write_setting(name, "1")
    networks = Networks(tmp_path)
    networks.create(NetworkSpec("n1", pools=SUBNET, enable_ipv6=True))
    assert "policy drop" not in run("nft", "list", "ruleset")
    networks.close()
    assert ["1", "1"] == [read_setting(name) for name in forwarding]


def test_cables_go_when_the_namespace_is_kept_by_another(networks: Networks, containers: Any) -> None:
    identifier, namespace = containers.start("one", "bridge")
    (endpoint,) = networks.endpoints_of(identifier)
    networks.release(identifier)
    assert endpoint.host_interface in links()
    networks._sweeper.sweep()
    assert endpoint.host_interface not in links()
    with entered(namespace):
        assert {"lo"} == links()


def test_joining_is_quick(networks: Networks, containers: Any) -> None:
    """A bound far above what it takes (about 2 ms), that a slow program or a lost lock would pass."""
    containers.start("zero", "bridge")
    taken = []
    for number in range(10):
        identifier, namespace = containers.start(f"c{number}")
        begin = time.perf_counter()
        networks.connect("bridge", identifier, namespace)
        taken.append(time.perf_counter() - begin)
    assert sorted(taken)[2] < 0.02
