"""The kernel's memory of connections (conntrack), of which UDP's outlive what they were about.

A UDP client that goes on sending keeps its entry alive, and with it the translation that was right when it began: to a
container that has ended, or to none, from before a port was published. So the entries of a port that changes hands go.
Constants: include/uapi/linux/netfilter/{nfnetlink,nfnetlink_conntrack}.h.
"""

import socket
import struct
from collections.abc import Collection

from real_engine.linux.netlink import NLM_F_DUMP, Message, NetlinkSocket, attribute, attributes

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_TUPLE_ORIGINAL, _TUPLE_PROTOCOL, _PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 2, 1, 3
_NESTED = 0x8000
_GENERIC = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource id


def forget_udp(ports: Collection[int]) -> int:
    """Forget the UDP connections of this network namespace that began by addressing one of `ports`; returns how many.

    Raises:
        OSError: the kernel has no conntrack, or we no right to it.
    """
    forgotten = 0
    with NetlinkSocket(_NETLINK_NETFILTER) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in kernel.ask(_message(_GET, NLM_F_DUMP, family)):
                original = dict(attributes(body[_GENERIC.size :])).get(_TUPLE_ORIGINAL, b"")
                if _udp_port(original) in ports:
                    try:
                        kernel.do(_message(_DELETE, 0, family, attribute(_TUPLE_ORIGINAL | _NESTED, original)))
                        forgotten += 1
                    except FileNotFoundError:  # its time was up
                        continue
    return forgotten


def _message(kind: int, flags: int, family: int, body: bytes = b"") -> Message:
    return _SUBSYSTEM << 8 | kind, flags, _GENERIC.pack(family, 0, 0) + body


def _udp_port(original: bytes) -> int:
    """The port that a connection of UDP addressed; 0 for another protocol."""
    protocol = dict(attributes(dict(attributes(original)).get(_TUPLE_PROTOCOL, b"")))
    if protocol.get(_PROTOCOL_NUMBER) != bytes([socket.IPPROTO_UDP]):
        return 0
    return int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big")
