"""What can be asked of a network, and Docker's words for what can't."""

import ipaddress
from typing import Any

import pytest

from real_engine.errors import EngineError, Forbidden, NotFound
from real_engine.networks import Network, NetworkSpec
from real_engine.networks.creation import Surroundings, new_network

NOWHERE = Surroundings((), lambda: ())


def pools(*given: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return given


def test_what_is_chosen() -> None:
    network = new_network(NetworkSpec("n1", enable_ipv6=True), NOWHERE)
    four, six = network.pools
    assert ("172.17.0.0/16", "172.17.0.1") == (str(four.subnet), str(four.gateway))
    assert (64, True) == (six.subnet.prefixlen, six.subnet.is_private)
    assert six.gateway == six.subnet[1]
    assert (64, f"br-{network.id[:12]}") == (len(network.id), network.bridge)
    assert network == Network.from_json(network.to_json())


def test_what_is_asked_for_is_kept() -> None:
    asked = {
        "Subnet": "10.1.7.9/16",
        "IPRange": "10.1.2.0/24",
        "Gateway": "10.1.0.9",
        "AuxiliaryAddresses": {"a": "10.1.2.3"},
    }
    network = new_network(
        NetworkSpec(
            "n1",
            internal=True,
            attachable=True,
            pools=pools(asked),
            options={"com.docker.network.bridge.name": "b0", "com.docker.network.driver.mtu": "1400", "other": "x"},
            labels={"a": "b"},
        ),
        NOWHERE,
    )
    (pool,) = network.pools
    assert ("10.1.0.0/16", "10.1.0.9", "10.1.2.0/24") == (str(pool.subnet), str(pool.gateway), str(pool.ip_range))
    assert {"a": ipaddress.ip_address("10.1.2.3")} == pool.auxiliary
    assert ("b0", 1400, True, (asked,)) == (network.bridge, network.mtu, network.internal, network.given_pools)
    assert network == Network.from_json(network.to_json())
    without = NetworkSpec("n", pools=pools({key: asked[key] for key in ("Subnet", "IPRange")}))
    assert "10.1.2.0" == str(new_network(without, NOWHERE).gateway(4))  # the first of the range, as of dockerd


def test_a_network_is_filled_in_from_a_form() -> None:
    asked = {"Subnet": "10.1.0.0/16"}
    mtu = {"com.docker.network.driver.mtu": "1400"}
    form = new_network(NetworkSpec("form", config_only=True, pools=pools(asked), options=mtu), NOWHERE)
    assert ("null", (), "") == (form.driver, form.pools, form.bridge)
    around = Surroundings((form,), lambda: ())
    network = new_network(NetworkSpec("n1", config_from="form", internal=True), around)
    assert ("bridge", "10.1.0.0/16", 1400, True, "form") == (
        network.driver,
        str(network.pools[0].subnet),
        network.mtu,
        network.internal,
        network.config_from,
    )
    for one in (form, network):
        assert one == Network.from_json(one.to_json())
    with pytest.raises(Forbidden, match="user specified configurations are not supported"):
        new_network(NetworkSpec("n2", config_from="form", labels={"a": "b"}), around)
    with pytest.raises(NotFound, match='configuration network "nosuch" does not exist'):
        new_network(NetworkSpec("n2", config_from="nosuch"), around)


# As dockerd 20.10.24 words them.
@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"name": ""}, EngineError, "invalid name: "),
        ({"scope": "swarm"}, Forbidden, "cannot create a swarm scoped network when swarm is not active"),
        (
            {"scope": "nosuch"},
            EngineError,
            (
                'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
                "node to swarm and try again."
            ),
        ),
        (
            {"config_only": True, "config_from": "x"},
            Forbidden,
            "a configuration network cannot depend on another configuration network",
        ),
        (
            {"config_only": True, "internal": True},
            Forbidden,
            (
                "configuration network can only contain network specific fields. "
                "Network operator fields like [ ingress | internal | attachable | scope ] are not supported."
            ),
        ),
        (
            {"config_only": True, "pools": pools({"Subnet": "x"})},
            EngineError,
            "Invalid subnet x : invalid CIDR address: x",
        ),
        ({"name": "host"}, Forbidden, "operation is not permitted on predefined host network "),
        ({"driver": "nosuch"}, NotFound, 'plugin "nosuch" not found'),
        ({"ipam_driver": "nosuch"}, NotFound, 'plugin "nosuch" not found'),
        ({"driver": "host"}, Forbidden, 'only one instance of "host" network is allowed'),
        ({"driver": "null"}, Forbidden, 'only one instance of "null" network is allowed'),
        ({"pools": pools({"Subnet": "junk"})}, EngineError, "Invalid subnet junk : invalid CIDR address: junk"),
        ({"pools": pools({"Gateway": "10.1.0.1"})}, EngineError, "Invalid subnet  : invalid CIDR address: "),
        (
            {"pools": pools({"Subnet": "10.1.0.0/24", "Gateway": "10.2.0.1"})},
            EngineError,
            "failed to allocate gateway (10.2.0.1): Requested address is out of range",
        ),
        (
            {"pools": pools({"Subnet": "10.1.0.0/24", "Gateway": "junk"})},
            EngineError,
            "invalid gateway address junk in Ipam configuration",
        ),
        (
            {"pools": pools({"Subnet": "10.1.0.0/24", "AuxiliaryAddresses": {"a": "10.2.0.4"}})},
            Forbidden,
            "auxiliary address: (a:10.2.0.4) must belong to the master pool: 10.1.0.0/24",
        ),
        (
            {"pools": pools({"Subnet": "10.1.0.0/24"}, {"Subnet": "10.2.0.0/24"})},
            Forbidden,
            "bridge driver doesn't support multiple subnets",
        ),
        (
            {"options": {"com.docker.network.bridge.enable_icc": "maybe"}},
            EngineError,
            (
                "failed to parse com.docker.network.bridge.enable_icc value: maybe"
                ' (strconv.ParseBool: parsing "maybe": invalid syntax)'
            ),
        ),
        (
            {"options": {"com.docker.network.driver.mtu": "x"}},
            EngineError,
            'failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing "x": invalid syntax)',
        ),
        (
            {"options": {"com.docker.network.bridge.name": "averyverylongbridgename"}},
            EngineError,
            "failed to check bridge interface existence: numerical result out of range",
        ),
        (
            {"driver": "macvlan", "options": {"macvlan_mode": "odd"}},
            EngineError,
            "requested macvlan mode 'odd' is not valid, 'bridge' mode is the macvlan driver default",
        ),
    ],
)
def test_what_is_refused(asked: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as refused:
        new_network(NetworkSpec(**{"name": "n1", **asked}), NOWHERE)
    assert (kind, message) == (type(refused.value), str(refused.value))


@pytest.mark.parametrize(
    "asked",
    [
        {"pools": pools({"Subnet": "127.0.0.0/24"})},
        {"pools": pools({"Subnet": "fe80::%x/64"}), "enable_ipv6": True},
        {"pools": pools({"Subnet": "fd00::/64", "Gateway": "fd00::1%x"}), "enable_ipv6": True},
        {"pools": pools({"Subnet": "224.0.0.0/24"})},
        {"pools": pools({"Subnet": "10.1.0.0/24", "IPRange": "10.2.0.0/25"})},
        {"options": {"com.docker.network.bridge.name": "a/b"}},
        {"options": {"com.docker.network.bridge.name": 'a"b'}},
        {"options": {"com.docker.network.bridge.name": ".."}},
        {"options": {"com.docker.network.driver.mtu": "10"}},
    ],
)
def test_what_could_do_harm_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        new_network(NetworkSpec("n1", **asked), NOWHERE)


def test_overlaps() -> None:
    first = new_network(NetworkSpec("n1", pools=pools({"Subnet": "10.1.0.0/16"})), NOWHERE)
    around = Surroundings((first,), lambda: [ipaddress.ip_network("172.17.0.0/24")])
    for subnet in ("10.1.0.0/16", "10.1.2.0/24", "10.0.0.0/8"):
        with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
            new_network(NetworkSpec("n2", pools=pools({"Subnet": subnet})), around)
    assert "172.18.0.0/16" == str(new_network(NetworkSpec("n2"), around).pools[0].subnet)
