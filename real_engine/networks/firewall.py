"""The packet filter of the networks: a table of our own in nftables, of fixed rules over sets and maps that change.

A rule says what is so for every network ("a packet from a masqueraded subnet that leaves by no bridge of ours carries
the host's address"); which those are, the sets say. A new network or published port is an element more, one transaction
of `nft`, and a look-up in the kernel costs the same for one port and for a thousand.

A container that asks for a port of its own, by way of the host, is left to the userland proxy (`own`): where the kernel
has br_netfilter, its packet would turn round inside the bridge, to the very port that it came in by, and be dropped.

Constants: priorities and hooks of nft(8).
"""

import ipaddress
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from real_engine.errors import EngineError
from real_engine.linux.netlink import Subnet
from real_engine.networks.spec import Network
from real_engine.networks.steps import Observer, Timed

_SECONDS = 20.0

_RULES = """
add table {ip} {table}
delete table {ip} {table}
table {ip} {table} {{
    set bridges {{ type ifname; }}
    set internal {{ type ifname; }}
    set same {{ type ifname . ifname; }}
    set subnets {{ type {address}; flags interval; }}
    set masqueraded {{ type {address}; flags interval; }}
    map published {{ type inet_proto . inet_service : {address} . inet_service; }}
    map published_at {{ type inet_proto . {address} . inet_service : {address} . inet_service; }}
    set own {{ type {address} . inet_proto . inet_service; }}

    chain publish {{
        dnat {ip} to meta l4proto . {ip} daddr . th dport map @published_at
        dnat {ip} to meta l4proto . th dport map @published
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {ip} saddr . meta l4proto . th dport @own return
        fib daddr type local goto publish
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        {published_here}fib daddr type local goto publish
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {ip} saddr @masqueraded oifname != @bridges masquerade
        {ip} saddr @subnets {ip} daddr @subnets ct status dnat masquerade
    }}
{loopback}
{forward}
}}
"""

# The host reaches published ports at 127.0.0.1 too (cf. `bridge.let_loopback_through`). By the same door containers
# would reach what listens on its loopback, or speak as if they were of it. The kernel has no such door for ::1, where
# the userland proxy serves.
_LOOPBACK = """
    chain loopback_is_the_hosts {
        type filter hook prerouting priority raw; policy accept;
        iifname @bridges ip daddr 127.0.0.0/8 drop
        iifname @bridges ip saddr 127.0.0.0/8 drop
    }
    chain loopback_comes_from_the_bridge {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 127.0.0.0/8 oifname @bridges masquerade
    }
"""

# What is forwarded: answers; between containers of one network; to a published port; from a network to the outside.
# Not: out of an internal network or into one, from network to network, from outside to a port that nobody published.
_FORWARD = """
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname @bridges ct state established,related accept
        oifname @bridges ct state established,related accept
        iifname . oifname @same accept
        iifname @internal drop
        oifname @internal drop
        oifname @bridges ct status dnat accept
        oifname @bridges drop
    }
"""


@dataclass(frozen=True, slots=True)
class PortRule:
    """A port of the host that leads to one of a container. `host` is empty for every address of the host."""

    protocol: str
    host: str
    host_port: int
    container: str
    container_port: int

    @property
    def family(self) -> str:
        """The family of its table: `ip` or `ip6`."""
        return "ip" if ipaddress.ip_address(self.container).version == 4 else "ip6"

    def elements(self, own_by_proxy: bool) -> list[tuple[str, str]]:
        """The map and sets that it belongs in, and what it is there."""
        value = f"{self.container} . {self.container_port}"
        if self.host:
            found = [("published_at", f"{self.protocol} . {self.host} . {self.host_port} : {value}")]
        else:
            found = [("published", f"{self.protocol} . {self.host_port} : {value}")]
        if own_by_proxy:
            found.append(("own", f"{self.container} . {self.protocol} . {self.host_port}"))
        return found


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """What the packet filter has to know of a network."""

    bridge: str
    internal: bool
    inter_container: bool
    masqueraded: bool
    subnets: tuple[Subnet, ...]

    @classmethod
    def of(cls, network: Network) -> "NetworkRules":
        """Those of `network`."""
        versions = (4, 6) if network.enable_ipv6 else (4,)
        subnets = tuple(pool.subnet for pool in map(network.pool_of, versions) if pool is not None)
        return cls(network.bridge, network.internal, network.inter_container, network.masqueraded, subnets)

    def elements(self, family: str) -> list[tuple[str, str]]:
        """Its elements in the table of `family`: set and element."""
        subnets = [str(each) for each in self.subnets if each.version == (4 if family == "ip" else 6)]
        if not subnets:
            return []
        name = f'"{self.bridge}"'
        found = [("bridges", name)]
        if self.internal:
            found.append(("internal", name))
        if self.inter_container:
            found.append(("same", f"{name} . {name}"))
        found += [("subnets", subnet) for subnet in subnets]
        if self.masqueraded:
            found += [("masqueraded", subnet) for subnet in subnets]
        return found


def _rules_of(family: str, table: str) -> str:
    """The table of a family (`ip`, `ip6`) with its fixed rules, its sets empty."""
    ipv4 = family == "ip"
    return _RULES.format(
        ip=family,
        table=table,
        address="ipv4_addr" if ipv4 else "ipv6_addr",
        published_here="" if ipv4 else "ip6 daddr != ::1 ",
        loopback=_LOOPBACK if ipv4 else "",
        forward=_FORWARD,
    )


class NftUnavailable(EngineError):
    """There is no nft here, or the kernel has no nftables."""


def run_nft(ruleset: str) -> None:
    """Have nft(8) carry out `ruleset` in one transaction: all of it, or nothing.

    Raises:
        NftUnavailable: there is no nft.
        EngineError: it was refused, with nft's reason.
    """
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=ruleset, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise NftUnavailable("no program nft (package nftables)") from None
    except subprocess.TimeoutExpired:
        raise EngineError(f"nft gave no answer for {_SECONDS:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise EngineError(lines[0] if lines else f"nft ended with status {done.returncode}")


class Firewall:
    """The rules of one engine's networks. Thread-safe: one change at a time, each a single transaction.

    It knows all that should be there, so when others have flushed the packet filter, the next change puts all back.
    """

    def __init__(self, tag: str, *, own_by_proxy: bool = True, execute: Callable[[str], None] = run_nft) -> None:
        self.table = f"onggi_{tag}"
        self._own_by_proxy = own_by_proxy
        self._execute = execute
        self._lock = threading.Lock()
        self._networks: dict[str, NetworkRules] = {}
        self._ports: set[PortRule] = set()
        self._there: set[str] = set()

    @property
    def unavailable(self) -> str:
        """Why there can be no rules here; empty when there can."""
        return "" if shutil.which("nft") else "no program nft (package nftables)"

    def restore(self, networks: Iterable[NetworkRules], ports: Iterable[PortRule]) -> None:
        """Replace what is there, perhaps of a daemon that was killed, by the rules of these networks and ports.

        Raises:
            EngineError: it was refused.
        """
        with self._lock:
            self._networks = {each.bridge: each for each in networks}
            self._ports = set(ports)
            self._replace(None)

    def add_network(self, rules: NetworkRules, observer: Observer | None = None) -> None:
        """Let the containers of a network reach what they may.

        Raises:
            EngineError: it was refused.
        """
        with self._lock:
            self._networks[rules.bridge] = rules
            try:
                self._change("add", self._network_lines("add", rules), observer)
            except EngineError:
                del self._networks[rules.bridge]
                raise

    def remove_network(self, bridge: str, observer: Observer | None = None) -> None:
        """Forget a network. Of the last one the tables go too.

        Raises:
            EngineError: it was refused.
        """
        with self._lock:
            rules = self._networks.pop(bridge, None)
            if rules is None:
                return
            if self._networks:
                self._change("delete", self._network_lines("delete", rules), observer)
            else:
                self._remove_tables()

    def publish(self, ports: Iterable[PortRule], observer: Observer | None = None) -> None:
        """Lead ports of the host to containers.

        Raises:
            EngineError: it was refused.
        """
        with self._lock:
            new = [each for each in ports if each not in self._ports]
            self._ports.update(new)
            try:
                self._change("add", self._port_lines("add", new), observer)
            except EngineError:
                self._ports.difference_update(new)
                raise

    def unpublish(self, ports: Iterable[PortRule], observer: Observer | None = None) -> None:
        """Lead them there no more.

        Raises:
            EngineError: it was refused.
        """
        with self._lock:
            old = [each for each in ports if each in self._ports]
            self._ports.difference_update(old)
            self._change("delete", self._port_lines("delete", old), observer)

    def remove_all(self) -> None:
        """Take everything out of the packet filter.

        Raises:
            EngineError: it was refused.
        """
        with self._lock:
            self._networks.clear()
            self._ports.clear()
            self._remove_tables()

    def _remove_tables(self) -> None:
        # `add` first, since `delete` of what isn't there is an error.
        self._execute("".join(f"add table {f} {self.table}\ndelete table {f} {self.table}\n" for f in ("ip", "ip6")))
        self._there.clear()

    def _families(self) -> set[str]:
        return {"ip"} | {"ip6" for rules in self._networks.values() for subnet in rules.subnets if subnet.version == 6}

    def _network_lines(self, verb: str, rules: NetworkRules) -> list[str]:
        return [
            f"{verb} element {family} {self.table} {name} {{ {element} }}"
            for family in ("ip", "ip6")
            for name, element in rules.elements(family)
        ]

    def _port_lines(self, verb: str, ports: Iterable[PortRule]) -> list[str]:
        lines = [
            f"{verb} element {port.family} {self.table} {name} {{ {element} }}"
            for port in ports
            for name, element in port.elements(self._own_by_proxy)
        ]
        return list(dict.fromkeys(lines))

    def _change(self, verb: str, lines: list[str], observer: Observer | None) -> None:
        """Carry out a few lines; if that fails, the table or a part of it being gone, put all there anew."""
        if not lines:
            return
        if not self._families() <= self._there:
            self._replace(observer)
            return
        text = "\n".join(lines) + "\n"
        try:
            with Timed(
                f"nft: {'; '.join(lines)}", "rules are fixed; who they are for stands in sets and maps", observer
            ):
                self._execute(text)
        except NftUnavailable:
            raise
        except EngineError:
            self._replace(observer)

    def _replace(self, observer: Observer | None) -> None:
        families = self._families()
        text = _rules_of("ip", self.table)
        if "ip6" in families:
            text += _rules_of("ip6", self.table)
        lines = [line for rules in self._networks.values() for line in self._network_lines("add", rules)]
        lines += self._port_lines("add", sorted(self._ports, key=str))
        with Timed(f"nft: table {self.table}", "all rules anew, in one transaction", observer):
            self._execute(text + "\n".join(lines) + "\n")
        self._there = set(families)
