"""Published ports: who reaches them, who doesn't, and other people's packet filters."""

import ipaddress
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from real_engine.errors import EngineError, InvalidParameter
from real_engine.linux import netlink
from real_engine.linux.netlink import RouteSocket
from real_engine.linux.network_namespaces import create_network_namespace, entered, write_setting
from real_engine.networks import Networks, NetworkSpec, PortBinding, parse_bindings
from real_engine.networks.options import DefaultOptions


@dataclass(frozen=True)
class WithoutProxy(DefaultOptions):
    """An engine without the userland proxy."""

    userland_proxy: bool = False


pytestmark = pytest.mark.root
SUBNET = ({"Subnet": "10.211.1.0/24"},)
UDP = socket.SOCK_DGRAM


@pytest.fixture
def outside(networks: Networks) -> Iterator[tuple[str, int]]:
    """Another machine, 192.0.2.2, by a cable from the host, 192.0.2.1."""
    namespace = create_network_namespace()
    with RouteSocket() as route, RouteSocket(namespace) as there:
        route.do(netlink.new_veth(netlink.settings(name="out0"), netlink.settings(name="eth0", namespace=namespace)))
        near, far = route.link("out0"), there.link("eth0")
        assert near is not None
        assert far is not None
        route.do(netlink.new_address(near.index, ipaddress.ip_interface("192.0.2.1/24")))
        there.do(
            netlink.set_link(far.index, up=True),
            netlink.new_address(far.index, ipaddress.ip_interface("192.0.2.2/24")),
            netlink.new_route(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_address("192.0.2.1"), far.index),
        )
    yield "outside", namespace
    os.close(namespace)


def test_everybody_reaches_a_published_port(
    networks: Networks, containers: Any, ask: Callable[..., str], outside: tuple[str, int]
) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET))
    one, mate, other = (
        containers.start("one", "n1"),
        containers.start("mate", "n1"),
        containers.start("other", "bridge"),
    )
    containers.serve(one, 80)
    ports = networks.publish(one[0], parse_bindings({"80/tcp": [{"HostPort": "8080"}]}))
    both = [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]
    assert {"80/tcp": both} == ports == networks.ports(one[0])
    assert "192.0.2.2" == ask("192.0.2.1", 8080, outside)  # the container sees who it is
    assert "192.0.2.1" == ask("192.0.2.1", 8080)
    for address in ("127.0.0.1", "::1", "10.211.1.1"):
        assert "10.211.1.1" == ask(address, 8080), address
    assert "10.211.1.1" == ask("192.0.2.1", 8080, mate)
    assert "10.211.1.1" == ask("10.211.1.1", 8080, one)  # itself, by way of the host
    assert "10.211.1.1" == ask("192.0.2.1", 8080, other)
    networks.release(one[0])
    for frm, address in ((outside, "192.0.2.1"), (None, "127.0.0.1"), (None, "::1")):
        with pytest.raises(ConnectionRefusedError):
            ask(address, 8080, frm)


def test_a_port_of_one_address_alone(
    networks: Networks, containers: Any, ask: Callable[..., str], outside: tuple[str, int]
) -> None:
    one = containers.start("one", "bridge")
    containers.serve(one, 80)
    networks.publish(one[0], parse_bindings({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}))
    assert str(networks.get("bridge").gateway(4)) == ask("127.0.0.1", 8080)
    with pytest.raises(ConnectionRefusedError):
        ask("192.0.2.1", 8080, outside)


def test_no_container_reaches_the_hosts_loopback(networks: Networks, containers: Any, run: Callable[..., str]) -> None:
    """Publishing on the loopback opens the bridge to 127/8; a container that is root could use that door."""
    one = containers.start("one", "bridge")
    networks.publish(one[0], parse_bindings({"80/tcp": [{"HostPort": "8080"}]}))
    server = socket.create_server(("127.0.0.1", 7777))
    server.settimeout(0.5)
    gateway = str(networks.get("bridge").gateway(4))
    run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet", inside=one)
    run("ip", "address", "del", "127.0.0.1/8", "dev", "lo", inside=one)
    run("ip", "route", "add", "127.0.0.1/32", "via", gateway, "dev", "eth0", inside=one)
    run("sh", "-c", "busybox nc -w 1 127.0.0.1 7777 </dev/null || true", inside=one)
    with pytest.raises(TimeoutError):
        server.accept()
    server.close()


def test_no_container_speaks_as_if_it_were_the_hosts_loopback(
    networks: Networks, containers: Any, run: Callable[..., str]
) -> None:
    """By the same door: a service of the host may trust whoever has an address of the loopback."""
    one = containers.start("one", "bridge")
    containers.serve(one, 80)
    networks.publish(one[0], parse_bindings({"80/tcp": [{"HostPort": "8080"}]}))
    gateway, endpoint = str(networks.get("bridge").gateway(4)), networks.endpoints_of(one[0])[0]
    write_setting(f"net/ipv4/conf/{networks.get('bridge').bridge}/rp_filter", "0")  # as on many machines
    with socket.socket(socket.AF_INET, UDP) as trusting:
        trusting.bind((gateway, 7777))
        trusting.settimeout(0.5)
        run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet", inside=one)
        run("ip", "address", "add", "127.0.0.2/8", "dev", "eth0", inside=one)
        for address in (endpoint.ipv4, "127.0.0.2"):
            with entered(one[1]):
                speaker = socket.socket(socket.AF_INET, UDP)
            with speaker:
                speaker.bind((address, 0))
                speaker.sendto(address.encode(), (gateway, 7777))
        assert endpoint.ipv4 == trusting.recv(100).decode()
        with pytest.raises(TimeoutError):
            trusting.recv(100)


def test_udp(networks: Networks, containers: Any, ask: Callable[..., str], outside: tuple[str, int]) -> None:
    one = containers.start("one", "bridge")
    containers.serve(one, 53, UDP)
    networks.publish(one[0], parse_bindings({"53/udp": [{"HostPort": "5353"}]}))
    gateway = str(networks.get("bridge").gateway(4))
    assert "192.0.2.2" == ask("192.0.2.1", 5353, outside, kind=UDP)
    assert gateway == ask("127.0.0.1", 5353, kind=UDP)
    assert gateway == ask("::1", 5353, kind=UDP)  # IPv6 on the host, IPv4 in the container: by the proxy


def test_a_udp_client_that_goes_on_sending_is_led_anew(
    networks: Networks, containers: Any, outside: tuple[str, int]
) -> None:
    """Its conntrack entry would lead it to nobody: from before the port was published, and to who has ended."""
    with entered(outside[1]):
        client = socket.socket(socket.AF_INET, UDP)
    client.settimeout(0.3)
    client.bind(("192.0.2.2", 4444))
    for name in ("one", "two"):
        client.sendto(b"?", ("192.0.2.1", 5353))
        with pytest.raises(TimeoutError):
            client.recv(100)
        identifier, namespace = containers.start(name, "bridge")
        containers.serve((identifier, namespace), 53, UDP)
        networks.publish(identifier, [PortBinding(53, "udp", first=5353, last=5353)])
        client.sendto(b"?", ("192.0.2.1", 5353))
        assert b"192.0.2.2" == client.recv(100)
        networks.release(identifier)
    client.close()


def test_the_address_of_ports_that_name_none(networks: Networks, containers: Any, tmp_path: Path) -> None:
    option = {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
    networks.create(NetworkSpec("n1", pools=SUBNET, options=option))
    identifier, namespace = containers.start("one", "n1")
    ports = networks.publish(identifier, [PortBinding(80, first=8080, last=8080)])
    assert {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]} == ports
    networks.close()
    after = Networks(tmp_path)
    after.adopt(identifier, namespace)
    assert ports == after.ports(identifier)
    after.release(identifier)
    after.close()


def test_ipv6(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    networks.create(NetworkSpec("n1", pools=(*SUBNET, {"Subnet": "fd00:9::/64"}), enable_ipv6=True))
    one, two = containers.start("one", "n1"), containers.start("two", "n1")
    containers.serve(one, 80)
    networks.publish(one[0], parse_bindings({"80/tcp": [{"HostPort": "8080"}]}))
    assert "fd00:9::1" == ask("::1", 8080)
    assert "fd00:9::1" == ask("fd00:9::1", 8080, two)


def test_ports_that_nobody_chose_are_free_ones(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    one = containers.start("one", "bridge")
    for port in (80, 81, 82):
        containers.serve(one, port)
    asked = {"80/tcp": [{"HostPort": ""}], "81/tcp": [{"HostPort": "9000-9002"}], "82/tcp": [{"HostPort": "9000-9002"}]}
    with socket.create_server(("0.0.0.0", 9000)):
        ports = networks.publish(one[0], parse_bindings(asked))
    chosen = {key: int(shown[0]["HostPort"]) for key, shown in ports.items()}
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert low <= chosen["80/tcp"] <= high
    assert {"81/tcp": 9001, "82/tcp": 9002} == {key: chosen[key] for key in ("81/tcp", "82/tcp")}
    for port in chosen.values():
        assert ask("127.0.0.1", port)


@pytest.mark.parametrize(
    ("taken_by_us", "message"),
    [
        (True, "Bind for 0.0.0.0:8080 failed: port is already allocated"),
        (False, "Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use"),
    ],
)
def test_a_taken_port(
    networks: Networks, containers: Any, run: Callable[..., str], taken_by_us: bool, message: str
) -> None:
    one, two = containers.start("one", "bridge"), containers.start("two", "bridge")
    server = None
    if taken_by_us:
        networks.publish(one[0], [PortBinding(80, first=8080, last=8080)])
    else:
        server = socket.create_server(("0.0.0.0", 8080))
    before = run("nft", "list", "ruleset")
    with pytest.raises(EngineError) as refused:
        networks.publish(two[0], [PortBinding(79, first=8079, last=8079), PortBinding(80, first=8080, last=8080)])
    endpoint = networks.endpoints_of(two[0])[0].id
    prefix = f"driver failed programming external connectivity on endpoint two ({endpoint}): "
    assert prefix + message == str(refused.value)
    assert before == run("nft", "list", "ruleset")
    assert {} == networks.ports(two[0])
    socket.create_server(("0.0.0.0", 8079)).close()  # what was opened before it failed is closed again
    if server is not None:
        server.close()


def test_ports_follow_the_default_route(networks: Networks, containers: Any, ask: Callable[..., str]) -> None:
    networks.create(NetworkSpec("alpha", pools=SUBNET))
    identifier, namespace = one = containers.start("one", "bridge")
    containers.serve(one, 80)
    networks.publish(identifier, [PortBinding(80, first=8080, last=8080)])
    assert str(networks.get("bridge").gateway(4)) == ask("127.0.0.1", 8080)
    networks.connect("alpha", identifier, namespace)
    assert "10.211.1.1" == ask("127.0.0.1", 8080) == ask("::1", 8080)
    networks.disconnect(networks.endpoints_of(identifier)[1])
    assert str(networks.get("bridge").gateway(4)) == ask("127.0.0.1", 8080)
    assert "8080" == networks.ports(identifier)["80/tcp"][0]["HostPort"]


def test_a_container_without_a_way_out_publishes_nothing(networks: Networks, containers: Any) -> None:
    networks.create(NetworkSpec("n1", pools=SUBNET, internal=True))
    for name in ("none", "n1"):
        one = containers.start(f"in-{name}", name)
        assert {} == networks.publish(one[0], [PortBinding(80, first=8080, last=8080)])


def test_an_engine_after_another_publishes_the_same_ports(
    host: int, tmp_path: Path, ask: Callable[..., str], outside: tuple[str, int], containers: Any, networks: Networks
) -> None:
    one, two = containers.start("one", "bridge"), containers.start("two", "bridge")
    for each in (one, two):
        containers.serve(each, 80)
    ports = networks.publish(one[0], [PortBinding(80)])
    chosen = int(ports["80/tcp"][0]["HostPort"])
    networks.publish(two[0], [PortBinding(80, first=8081, last=8081)])
    networks.close()  # rules stay for the containers that use them
    assert "192.0.2.2" == ask("192.0.2.1", chosen, outside)
    after = Networks(tmp_path)
    after.adopt(one[0], one[1])
    assert "192.0.2.2" == ask("192.0.2.1", 8081, outside)  # not adopted yet, and reached all the same
    assert ports == after.ports(one[0])
    after.restore([one[0]])
    assert "192.0.2.2" == ask("192.0.2.1", chosen, outside)
    assert ask("::1", chosen)
    with pytest.raises(OSError, match=r"refused|timed out"):
        ask("192.0.2.1", 8081, outside)
    after.release(one[0])
    after.close()


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("kind", ["iptables", "nftables", "iptables with Docker's chain"])
def test_others_that_forward_nothing(
    networks: Networks,
    containers: Any,
    ask: Callable[..., str],
    outside: tuple[str, int],
    run: Callable[..., str],
    kind: str,
    flush: bool,
) -> None:
    if kind.startswith("iptables") and shutil.which("iptables") is None:
        pytest.skip("no program iptables")

    def others() -> None:
        if kind == "nftables":
            run(
                "nft",
                "-f",
                "-",
                given="table inet theirs { chain forward { type filter hook forward priority 0; policy drop; }; }",
            )
        else:
            run("iptables", "-P", "FORWARD", "DROP")
        if kind.endswith("chain"):
            run("iptables", "-N", "DOCKER-USER")
            run("iptables", "-A", "DOCKER-USER", "-s", "198.51.100.1", "-j", "DROP")
            run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
            run("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")

    others()
    networks.create(NetworkSpec("n1", pools=SUBNET))
    if flush:
        networks._publisher._checked = 0.0
        run("nft", "flush", "ruleset")
        others()
    one = containers.start("one", "n1")
    containers.serve(one, 80)
    containers.serve(outside, 80)
    networks.publish(one[0], [PortBinding(80, first=8080, last=8080)])
    assert "192.0.2.2" == ask("192.0.2.1", 8080, outside)
    assert "192.0.2.1" == ask("192.0.2.2", 80, one)
    if kind.endswith("chain"):
        forward = run("iptables", "-S", "FORWARD").splitlines()
        assert "-A FORWARD -j DOCKER-USER" == forward[1]  # what an administrator wrote comes first
        assert forward[2].startswith("-A FORWARD -j ONGGI-")
    networks.release(one[0])
    containers.close()
    containers._namespaces.clear()
    networks.close()
    left = run("nft", "list", "ruleset")
    assert "onggi" not in left.lower()
    assert "policy drop" in left


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"80/xyz": [{}]}, 'invalid port specification: "80/xyz"'),
        ({"0/tcp": [{}]}, 'invalid port specification: "0/tcp"'),
        ({"80/tcp": [{"HostPort": "70000"}]}, "invalid port specification"),
        ({"80/tcp": [{"HostPort": "90-80"}]}, 'invalid port specification: "90-80"'),
        ({"80/tcp": [{"HostIp": "nowhere"}]}, "invalid IP address nowhere"),
        ({"80/tcp": [{"HostIp": "fe80::1%x } ; flush ruleset"}]}, "invalid IP address fe80::1%x"),
    ],
)
def test_what_is_no_port(asked: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        parse_bindings(asked)


def test_without_a_proxy_a_container_still_reaches_itself(
    host: int, tmp_path: Path, ask: Callable[..., str], containers_of: Callable[[Networks], Any]
) -> None:
    networks = Networks(tmp_path, WithoutProxy())
    containers = containers_of(networks)
    one = containers.start("one", "bridge")
    containers.serve(one, 80)
    networks.publish(one[0], [PortBinding(80, first=8080, last=8080)])
    gateway = str(networks.get("bridge").gateway(4))
    assert gateway == ask(gateway, 8080, one) == ask("127.0.0.1", 8080)
    networks.release(one[0])
    networks.close()


def test_without_nft_the_proxy_carries_all(
    host: int,
    tmp_path: Path,
    ask: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where no program is
    networks = Networks(tmp_path)
    namespace = networks.take_namespace()
    networks.connect("bridge", "a" * 64, namespace)
    assert "and nothing beyond: no program nft" in caplog.text
    with entered(namespace):
        server = socket.create_server(("0.0.0.0", 80))
    networks.publish("a" * 64, [PortBinding(80, first=8080, last=8080)])
    client = socket.create_connection(("127.0.0.1", 8080))
    connection, (address, _) = server.accept()
    assert str(networks.get("bridge").gateway(4)) == address
    client.sendall(b"x" * 1_000_000)
    client.shutdown(socket.SHUT_WR)
    received = b""
    while data := connection.recv(1 << 16):
        received += data
    assert 1_000_000 == len(received)
    connection.sendall(b"answer after the end of the question")
    connection.close()
    assert b"answer after the end of the question" == client.recv(100)
    assert b"" == client.recv(100)
    client.close()
    server.close()
    networks.release("a" * 64)
    os.close(namespace)
    networks.close()
