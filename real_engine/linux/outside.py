"""Sockets of the network that users mean: this process's own, or the one that somebody opens sockets in for it.

The daemon of an ordinary user lives in a network namespace of its own, from which a port of the machine can't be opened
and a registry only be reached by way of a slow uplink, if at all. A socket stays in the namespace in which it was made,
whoever holds it: so a process outside makes those sockets, and passes them in (`real_engine.rootless`). That is so for
a whole process, as its namespaces are; hence there is one opener for all of its code.
"""

import contextlib
import ipaddress
import socket
from typing import Protocol

_BACKLOG = 512


class Opener(Protocol):
    """Makes sockets in another network namespace."""

    def listen(self, protocol: str, address: str, port: int) -> socket.socket:
        """As the function `listen` does it there."""

    def connect(self, host: str, port: int, timeout_seconds: float | None) -> socket.socket:
        """As the function `connect` does it there."""


_opener: list[Opener] = []


def open_through(opener: Opener | None) -> None:
    """From now on sockets of the outside come from `opener`; None: they are this process's own again."""
    _opener[:] = [] if opener is None else [opener]


def is_elsewhere() -> bool:
    """Whether the outside is another network namespace than that of this process."""
    return bool(_opener)


def listen(protocol: str, address: str, port: int) -> socket.socket:
    """A socket that stands at a port of the outside: `tcp`, `udp` or `sctp`, at a numeric address.

    It listens, unless it is for UDP, and does not block.

    Raises:
        OSError: EADDRINUSE, EADDRNOTAVAIL, EACCES, or EPROTONOSUPPORT from a kernel without SCTP.
    """
    return (_opener[0].listen if _opener else open_port)(protocol, address, port)


def connect(host: str, port: int, timeout_seconds: float | None) -> socket.socket:
    """A TCP connection from the outside to the first address of `host` that takes it.

    Raises:
        socket.gaierror: the name has no address.
        OSError: no address took it; `filename` is the one that was tried last. TimeoutError where one said nothing.
    """
    return (_opener[0].connect if _opener else open_connection)(host, port, timeout_seconds)


def open_port(protocol: str, address: str, port: int) -> socket.socket:
    """`listen` in the network namespace of this thread."""
    ipv6 = ipaddress.ip_address(address.partition("%")[0]).version == 6
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    opened = socket.socket(
        socket.AF_INET6 if ipv6 else socket.AF_INET, kind, socket.IPPROTO_SCTP if protocol == "sctp" else 0
    )
    try:
        if protocol != "udp":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        if protocol != "udp":
            opened.listen(_BACKLOG)
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened


def open_connection(host: str, port: int, timeout_seconds: float | None) -> socket.socket:
    """`connect` in the network namespace of this thread."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout_seconds)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
            failure.filename = address[0]
        else:
            return connection
    raise failure or socket.gaierror(socket.EAI_NONAME, "no such host")


def has_ipv6() -> bool:
    """Whether ports can be opened at IPv6 addresses of the outside."""
    with contextlib.suppress(OSError), listen("udp", "::1", 0):
        return True
    return False
