"""Getting along with other people's packet filters: their chains in which a forwarded packet may be dropped.

Each base chain of the forward hook judges a packet by itself, and "drop" of any is final: accepting it in our own table
doesn't help where another (an installed Docker, ufw, firewalld) has the policy DROP. So ours are let through there, by
rules that carry our tag and that we take out again. They need not be strict: our own table is.

Docker keeps a chain for such rules of others, DOCKER-USER, at the head of FORWARD: what an administrator wrote there
still comes first.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from real_engine.errors import EngineError
from real_engine.networks.steps import Observer, Timed

_SECONDS = 20.0
_WAIT = ("-w", "5")  # for the lock of iptables, which others may hold
_USER_CHAIN = "DOCKER-USER"
_LEGACY_TABLES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
_WHY = "another packet filter of this machine forwards only what it is told to"
# The chain as iptables-nft makes it, so that iptables can read it.
_IPTABLES_FORWARD = "FORWARD { type filter hook forward priority 0;"
_COMMANDS = {4: "iptables", 6: "ip6tables"}
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}


@dataclass(frozen=True, slots=True)
class _Chain:
    family: str
    table: str
    name: str
    policy: str

    @property
    def of_iptables(self) -> bool:
        """Whether iptables-nft manages it, so that it has to be changed by iptables to stay legible to that."""
        return self.family in ("ip", "ip6") and (self.table, self.name) == ("filter", "FORWARD")


Execute = Callable[[list[str], str], tuple[int, str, str]]


def _execute(argv: list[str], given: str) -> tuple[int, str, str]:
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        return 127, "", f"no program {argv[0]}"
    except subprocess.TimeoutExpired:
        return 124, "", f"{argv[0]} gave no answer for {_SECONDS:g} s"
    return done.returncode, done.stdout, done.stderr


class ForwardAccepts:
    """The rules in others' chains that let our bridges' packets through. Callers see to one call at a time."""

    def __init__(self, tag: str, execute: Execute = _execute) -> None:
        self._tag = f"onggi_{tag}"
        self._chain = f"ONGGI-{tag}"
        self._execute = execute

    def ensure(self, bridges: Iterable[str], version: int = 4, observer: Observer | None = None) -> None:
        """See to it that packets of exactly these bridges are let through everywhere, whoever flushed what meanwhile.

        Raises:
            EngineError: a chain that drops them could not be changed.
        """
        names = sorted(bridges)
        chains = self._forward_chains(version)
        if self._has_iptables(version, chains):
            with Timed(f"{_COMMANDS[version]}: -I FORWARD -j {self._chain}", _WHY, observer):
                self._ensure_iptables(names, version)
            chains = [each for each in chains if not each.of_iptables]
        for chain in chains:
            if chain.policy == "drop":
                with Timed(f"nft insert rule {chain.family} {chain.table} {chain.name}", _WHY, observer):
                    self._ensure_nft(chain, names)

    def refuse_others(self, version: int) -> None:
        """Have FORWARD drop what no rule lets through, as Docker does.

        For when it was us who made the machine forward packets: without this it would be a router between all networks
        that it is in, which nobody has asked for. It stays so for as long as our containers run. Who comes after us,
        Docker or libvirt, has rules of their own in that chain.

        Raises:
            EngineError: the chain could not be changed.
        """
        family = _FAMILIES[version][0]
        self._nft([f"add table {family} filter", f"add chain {family} filter {_IPTABLES_FORWARD} policy drop; }}"])

    def refuse_no_more(self, version: int) -> None:
        """Take that back; the chain and its table go, if nobody has put anything into them.

        Raises:
            EngineError: the chain could not be changed.
        """
        family = _FAMILIES[version][0]
        self._nft([f"add chain {family} filter {_IPTABLES_FORWARD} policy accept; }}"])
        _, listed, _ = self._execute(["nft", "list", "table", family, "filter"], "")
        empty = (
            f"table {family} filter {{ chain FORWARD {{ type filter hook forward priority filter; policy accept; }} }}"
        )
        if listed.split() == empty.split():
            self._nft([f"delete table {family} filter"])

    def remove(self, versions: Iterable[int] = (4, 6)) -> None:
        """Take all our rules out again.

        Raises:
            EngineError: one could not be.
        """
        for version in versions:
            chains = self._forward_chains(version)
            if self._has_iptables(version, chains):
                self._remove_iptables(version)
                chains = [each for each in chains if not each.of_iptables]
            for chain in chains:
                self._nft(self._deletions(chain))

    # --- iptables ----------------------------------------------------------------------------------------------------

    def _has_iptables(self, version: int, chains: list[_Chain]) -> bool:
        """Whether there is a FORWARD chain of iptables, and the program to change it."""
        if not shutil.which(_COMMANDS[version]):
            return False
        if any(each.of_iptables for each in chains):
            return True
        try:
            with open(_LEGACY_TABLES[version], encoding="ascii") as file:
                return "filter" in file.read().split()
        except OSError:
            return False

    def _list(self, version: int) -> list[str]:
        status, listed, reason = self._execute([_COMMANDS[version], *_WAIT, "-S"], "")
        if status:
            raise EngineError(f"{_COMMANDS[version]} -S: {reason.strip()}")
        return listed.splitlines()

    def _ensure_iptables(self, bridges: list[str], version: int) -> None:
        """Our chain anew, in one transaction, and a jump to it behind the one to the administrator's chain."""
        listed = self._list(version)
        forward = [line for line in listed if line.startswith("-A FORWARD ")]
        jump = f"-A FORWARD -j {self._chain}"
        rules = [f"-A {self._chain} {way} {name} -j ACCEPT" for name in bridges for way in ("-i", "-o")]
        there = [line for line in listed if line.startswith(f"-A {self._chain} ")]
        if rules == there and (jump in forward or not rules):
            return
        lines = ["*filter", f":{self._chain} - [0:0]", *rules]
        if jump not in forward:
            user = f"-A FORWARD -j {_USER_CHAIN}"
            position = forward.index(user) + 2 if user in forward else 1
            lines.append(f"-I FORWARD {position} -j {self._chain}")
        self._restore(lines, version)

    def _remove_iptables(self, version: int) -> None:
        listed = self._list(version)
        if f"-N {self._chain}" not in listed:
            return
        jumps = [f"-D{line[2:]}" for line in listed if line.startswith("-A ") and line.endswith(f"-j {self._chain}")]
        self._restore(["*filter", *jumps, f"-F {self._chain}", f"-X {self._chain}"], version)

    def _restore(self, lines: list[str], version: int) -> None:
        command = f"{_COMMANDS[version]}-restore"
        status, _, reason = self._execute([command, *_WAIT, "--noflush"], "\n".join([*lines, "COMMIT", ""]))
        if status:
            raise EngineError(f"{command}: {reason.strip()}")

    # --- nftables ----------------------------------------------------------------------------------------------------

    def _forward_chains(self, version: int) -> list[_Chain]:
        status, listed, _ = self._execute(["nft", "-j", "list", "chains"], "")
        if status:
            return []
        try:
            entries = json.loads(listed)["nftables"]
        except (ValueError, KeyError):
            raise EngineError("nft -j list chains: no JSON of nftables") from None
        chains: list[dict[str, Any]] = [each["chain"] for each in entries if "chain" in each]
        return [
            _Chain(each["family"], each["table"], each["name"], each.get("policy", "accept"))
            for each in chains
            if each.get("hook") == "forward"
            and each["family"] in _FAMILIES[version]
            and not each["table"].startswith("onggi_")  # ours, or another engine's, which knows its own bridges
        ]

    def _rules(self, chain: _Chain) -> list[str]:
        status, listed, _ = self._execute(["nft", "-a", "list", "chain", chain.family, chain.table, chain.name], "")
        return [] if status else [line.strip() for line in listed.splitlines() if f'comment "{self._tag}"' in line]

    def _deletions(self, chain: _Chain) -> list[str]:
        handles = [match[1] for rule in self._rules(chain) if (match := re.search(r"# handle (\d+)$", rule))]
        return [f"delete rule {chain.family} {chain.table} {chain.name} handle {handle}" for handle in handles]

    def _ensure_nft(self, chain: _Chain, bridges: list[str]) -> None:
        there = {match[1] for rule in self._rules(chain) if (match := re.search(r'[io]ifname "([^"]+)"', rule))}
        if there == set(bridges):
            return
        place = f"{chain.family} {chain.table} {chain.name}"
        new = [
            f'insert rule {place} {way} "{name}" accept comment "{self._tag}"'
            for name in bridges
            for way in ("iifname", "oifname")
        ]
        self._nft([*self._deletions(chain), *new])

    def _nft(self, lines: list[str]) -> None:
        if not lines:
            return
        status, _, reason = self._execute(["nft", "-f", "-"], "\n".join(lines) + "\n")
        if status:
            raise EngineError(f"nft: {reason.strip().splitlines()[0] if reason.strip() else status}")
