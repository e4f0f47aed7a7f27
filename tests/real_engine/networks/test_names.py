"""Who is found under which name, and the files that tell a container."""

import pytest

from real_engine.networks import DnsOptions, Endpoint, dns_config, hosts_file
from real_engine.networks.name_files import read_resolv_conf
from real_engine.networks.names import NameDirectory
from real_engine.networks.resolver import Found

DNS = DnsOptions()


def endpoint(name: str, address: str, network: str = "n1", **more: object) -> Endpoint:
    identifier = name.encode().hex().ljust(64, "0")
    return Endpoint(
        id=f"{name}-{network}",
        network_id=network,
        network_name=network,
        container_id=identifier,
        container_name=name,
        ipv4=address,
        **more,  # type: ignore[arg-type]
    )


def test_names_aliases_ids_and_the_network_as_a_suffix() -> None:
    names = NameDirectory()
    one, two = endpoint("One", "10.0.0.1", aliases=("web",), hostname="box"), endpoint("two", "10.0.0.2")
    for each in (one, two):
        names.add(each, DNS)
    asker = two.container_id
    for name in ("one", "web", "box", one.container_id[:12], "one.n1"):
        assert Found(("10.0.0.1",)) == names.find(asker, name, 4), name
    assert Found(()) == names.find(asker, "one", 6)  # it is there, without such an address
    for unknown in ("three", "one.n2", "", "n1"):
        assert None is names.find(asker, unknown, 4)
    assert Found(name="One.n1") == names.find_address(asker, "10.0.0.1")
    names.remove(one)
    assert None is names.find(asker, "one", 4)
    assert None is names.find_address(asker, "10.0.0.1")


def test_names_of_other_networks_stay_unknown() -> None:
    names = NameDirectory()
    here, there = endpoint("here", "10.0.0.1"), endpoint("there", "10.1.0.1", "n2")
    names.add(here, DNS)
    names.add(there, DNS)
    assert None is names.find(here.container_id, "there", 4)
    assert None is names.find_address(here.container_id, "10.1.0.1")


def test_replicas_take_turns() -> None:
    names = NameDirectory()
    asker = endpoint("asker", "10.0.0.9")
    names.add(asker, DNS)
    for number in (1, 2, 3):
        names.add(endpoint(f"r{number}", f"10.0.0.{number}", aliases=("web",)), DNS)
    answers = [names.find(asker.container_id, "web", 4) for _ in range(3)]
    assert {"10.0.0.1", "10.0.0.2", "10.0.0.3"} == {each.addresses[0] for each in answers if each}
    assert all(each is not None and 3 == len(each.addresses) for each in answers)


def test_a_link_is_a_name_for_one_container_alone() -> None:
    names = NameDirectory()
    database, user = endpoint("pg", "10.0.0.1"), endpoint("app", "10.0.0.2", links=(("pg", "db"),))
    names.add(database, DNS)
    names.add(user, DNS)
    assert Found(("10.0.0.1",)) == names.find(user.container_id, "db", 4)
    assert None is names.find(database.container_id, "db", 4)


def test_whom_to_ask_about_other_names() -> None:
    names = NameDirectory(lambda: ("192.0.2.53",))
    one, two = endpoint("one", "10.0.0.1"), endpoint("two", "10.0.0.2", internal=True)
    names.add(one, DNS)
    names.add(two, DNS)
    assert ("192.0.2.53",) == names.upstreams(one.container_id)
    assert () == names.upstreams(two.container_id)
    names.add(endpoint("one", "10.1.0.1", "n2"), DnsOptions(("9.9.9.9",)))
    assert ("9.9.9.9",) == names.upstreams(one.container_id)


HOST = (
    "# a comment\nsearch example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fd00::1\noptions edns0\n"
)


def test_resolv_conf() -> None:
    assert DnsOptions(("127.0.0.53", "192.0.2.1", "fd00::1"), ("example.org",), ("edns0",)) == read_resolv_conf(HOST)
    embedded = dns_config(DNS, embedded=True, host=HOST).decode()
    assert "search example.org\nnameserver 127.0.0.11\noptions edns0 ndots:0\n" == embedded
    default = dns_config(DNS, embedded=False, host=HOST).decode()
    assert "search example.org\nnameserver 192.0.2.1\noptions edns0\n" == default
    assert "nameserver 8.8.8.8\nnameserver 8.8.4.4\n" == dns_config(DNS, embedded=False, host="").decode()
    asked = DnsOptions(("9.9.9.9",), (".",), ("timeout:1",))
    assert "nameserver 9.9.9.9\noptions timeout:1\n" == dns_config(asked, embedded=False, host=HOST).decode()
    assert HOST == dns_config(DNS, embedded=False, host_network=True, host=HOST).decode()


def test_hosts() -> None:
    text = hosts_file(
        "box",
        [endpoint("one", "10.0.0.1"), endpoint("one", "10.1.0.1", "n2", ipv6="fd00::1")],
        ["a:10.9.9.9", "gw:host-gateway", "six:fd00::9"],
        links=[("10.0.0.7", ["db", "pg"])],
        host_gateway="172.17.0.1",
    ).decode()
    lines = text.splitlines()
    assert ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"] == lines[:2]
    assert [
        "10.9.9.9\ta",
        "172.17.0.1\tgw",
        "fd00::9\tsix",
        "10.0.0.7\tdb pg",
        "10.0.0.1\tbox",
        "10.1.0.1\tbox",
        "fd00::1\tbox",
    ] == lines[6:]


@pytest.mark.parametrize(
    ("hostname", "domain", "names"),
    [("box", "", "box"), ("box", "c.d", "box.c.d box"), ("a.b", "", "a.b a"), ("a.b", "c.d", "a.b.c.d a")],
)
def test_a_host_name_with_its_domain_is_found_without_it_too(hostname: str, domain: str, names: str) -> None:
    text = hosts_file(hostname, [endpoint("one", "10.0.0.1")], domain=domain).decode()
    assert f"10.0.0.1\t{names}" == text.splitlines()[-1]
