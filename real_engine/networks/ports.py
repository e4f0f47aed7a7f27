"""Published ports: which port of the host leads to which of a container.

A port is taken by really opening it on the host: a socket that stands there keeps others out of it, and the userland
proxy serves it where the packet filter doesn't (IPv6 to a container without, or no packet filter at all).
"""

import errno
import ipaddress
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from real_engine.errors import EngineError, InvalidParameter
from real_engine.linux import outside
from real_engine.networks.ipam import parse_address

PROTOCOLS = ("tcp", "udp", "sctp")
_EVERY = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - what -p 80 means to Docker
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
_USUAL_EPHEMERAL = (49153, 65535)  # libnetwork, portallocator: where the kernel doesn't say


@dataclass(frozen=True, slots=True)
class PortBinding:
    """What was asked: `port` of the container at one of the host's from `first` to `last`; 0: any that is free.

    `host` is an address of the host, empty for all.
    """

    port: int
    protocol: str = "tcp"
    host: str = ""
    first: int = 0
    last: int = 0

    @property
    def key(self) -> str:
        """As the API names the container's port: `80/tcp`."""
        return f"{self.port}/{self.protocol}"


def parse_bindings(shown: Mapping[str, Sequence[Mapping[str, str]] | None]) -> list[PortBinding]:
    """The API's `PortBindings`: `{"80/tcp": [{"HostIp": "", "HostPort": "8080-8090"}]}`.

    Raises:
        InvalidParameter: a port, protocol or address of them isn't one.
    """
    found = []
    for key, bindings in shown.items():
        number, _, protocol = key.partition("/")
        protocol = (protocol or "tcp").lower()
        if protocol not in PROTOCOLS:
            raise InvalidParameter(f'invalid port specification: "{key}"')
        port = _port(number, key)
        for binding in bindings or ():
            host = binding.get("HostIp") or ""
            if host:
                try:
                    host = str(parse_address(host))
                except ValueError:
                    raise InvalidParameter(f"invalid IP address {host} in port mapping") from None
            first, dash, last = (binding.get("HostPort") or "").partition("-")
            low = _port(first, key, 0) if first else 0
            high = _port(last, key) if dash else low
            if high < low:
                raise InvalidParameter(f'invalid port specification: "{binding.get("HostPort")}"')
            found.append(PortBinding(port, protocol, host, low, high))
    return found


def _port(text: str, shown: str, least: int = 1) -> int:
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= 65535:
        raise InvalidParameter(f'invalid port specification: "{shown}"')
    return int(text)


@dataclass(slots=True)
class PublishedPort:
    """A port of the host that is taken for a container's: `binding` with the `host_port` that was chosen.

    `addresses` are the host's own that it is open on, `sockets` what stands there.
    """

    binding: PortBinding
    host_port: int
    addresses: tuple[str, ...]
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The address of the host that it is open on; empty for all."""
        return "" if self.addresses[0] in _EVERY.values() and not self.binding.host else self.addresses[0]

    def close(self) -> None:
        """Give the port back."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def shown(self) -> list[dict[str, str]]:
        """As the API shows it: an entry for each address of the host."""
        return [{"HostIp": address, "HostPort": str(self.host_port)} for address in self.addresses]


def ports_shown(ports: Iterable[PublishedPort]) -> dict[str, list[dict[str, str]]]:
    """The API's `NetworkSettings.Ports` of what is published."""
    shown: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        shown.setdefault(port.binding.key, []).extend(port.shown())
    return shown


def host_addresses(binding: PortBinding, default: str = "") -> tuple[str, ...]:
    """The addresses of the host that a port is opened at: the one that was asked for, else `default`, else all."""
    host = binding.host or default
    if not host:
        return (_EVERY[4], *((_EVERY[6],) if outside.has_ipv6() else ()))
    return (host,)


class PortAllocator:
    """Takes ports of the host. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[tuple[str, int], set[str]] = {}  # the addresses on which a protocol's port is taken
        self._last = 0

    def take(self, binding: PortBinding, default_host: str = "") -> PublishedPort:
        """Take a port for `binding`, and open it, at `default_host` if it names no address.

        Raises:
            EngineError: it is taken, by a container of ours or by another program; or all of the range are.
        """
        addresses = host_addresses(binding, default_host)
        refused: EngineError | None = None
        for port in self._candidates(binding):
            try:
                return self._take(binding, port, addresses)
            except EngineError as error:
                refused = error
        if binding.first == binding.last != 0 and refused:
            raise refused
        if binding.first:
            place = f"{_shown_address(addresses[0])}:{binding.first}-{binding.last}"
            raise EngineError(f"Bind for {place} failed: all ports are allocated")
        raise EngineError("all ports are allocated")

    def _candidates(self, binding: PortBinding) -> Iterator[int]:
        if binding.first:
            yield from range(binding.first, binding.last + 1)
            return
        low, high = _ephemeral_range()
        start = self._last + 1 if low <= self._last < high else low
        yield from range(start, high + 1)
        yield from range(low, start)

    def _take(self, binding: PortBinding, port: int, addresses: tuple[str, ...]) -> PublishedPort:
        key = (binding.protocol, port)
        with self._lock:
            taken = self._taken.get(key, set())
            for address in addresses:
                wide = _EVERY[ipaddress.ip_address(address).version]
                of_family = {
                    each for each in taken if ipaddress.ip_address(each).version == (4 if wide == _EVERY[4] else 6)
                }
                if address in taken or wide in taken or (address == wide and of_family):
                    raise EngineError(f"Bind for {_shown_address(address)}:{port} failed: port is already allocated")
            self._taken.setdefault(key, set()).update(addresses)
            if not binding.first:
                self._last = port
        published = PublishedPort(binding, port, addresses)
        try:
            for address in addresses:
                published.sockets.extend(_open(binding.protocol, address, port))
        except BaseException:
            self.release(published)
            raise
        return published

    def release(self, published: PublishedPort) -> None:
        """Give a port back."""
        published.close()
        key = (published.binding.protocol, published.host_port)
        with self._lock:
            taken = self._taken.get(key, set())
            taken.difference_update(published.addresses)
            if not taken:
                self._taken.pop(key, None)


def _open(protocol: str, address: str, port: int) -> list[socket.socket]:
    """A socket of the host that stands at the port; none for SCTP in a kernel without: then only rules lead there."""
    version = ipaddress.ip_address(address).version
    try:
        return [outside.listen(protocol, address, port)]
    except OSError as error:
        if protocol == "sctp" and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return []
        reason = {
            errno.EADDRINUSE: "address already in use",
            errno.EADDRNOTAVAIL: "cannot assign requested address",
            errno.EACCES: "permission denied",
        }.get(error.errno or 0, (error.strerror or str(error)).lower())
        place = f"{protocol}{version} {_shown_address(address)}:{port}"
        if error.errno == errno.EACCES and outside.is_elsewhere():
            reason += " (a rootless engine may open ports from net.ipv4.ip_unprivileged_port_start on, usually 1024)"
        raise EngineError(f"Error starting userland proxy: listen {place}: bind: {reason}") from None


def _shown_address(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _ephemeral_range() -> tuple[int, int]:
    try:
        with open(_EPHEMERAL, encoding="ascii") as file:
            low, high = file.read().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return _USUAL_EPHEMERAL


def bindings_json(bindings: Iterable[PortBinding]) -> list[dict[str, Any]]:
    """What was asked, to be written beside an endpoint and read again by `bindings_from_json`."""
    return [
        {"port": each.port, "protocol": each.protocol, "host": each.host, "first": each.first, "last": each.last}
        for each in bindings
    ]


def bindings_from_json(written: Iterable[Mapping[str, Any]]) -> list[PortBinding]:
    """What `bindings_json` wrote."""
    return [PortBinding(**each) for each in written]
