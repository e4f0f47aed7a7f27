"""nftables without nft(8): the few messages that make a table with a chain and rules, over netlink in one transaction.

The engine's own rules are text for nft, which people can read and write. This is for what has to be done in a
container's network namespace at every start, where starting a program would take ten times as long.
Constants: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h, nf_nat.h.
"""

import socket
import struct

from real_engine.linux.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLMSG_ERROR,
    Message,
    NetlinkSocket,
    attribute,
    nested,
    read_error,
    text,
)

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_HOOK_OUTPUT, _PRIORITY_DNAT = 3, -100
_META_L4PROTO = 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_NAT_DESTINATION = 1
_APPEND = 0x800
_GENERIC = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource id
_ANSWER_SECONDS = 5.0


def _message(kind: int, flags: int, *attributes: bytes) -> Message:
    return _SUBSYSTEM << 8 | kind, flags, _GENERIC.pack(socket.AF_INET, 0, 0) + b"".join(attributes)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))  # unlike rtnetlink's, these are in network byte order


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def _value_is(value: bytes) -> bytes:
    """Register 1 equals `value`, or the rule ends here."""
    return _expression("cmp", _number(1, 1), _number(2, 0), nested(3, attribute(1, value)))


def _load(register: int, value: bytes) -> bytes:
    return _expression("immediate", _number(1, register), nested(2, attribute(1, value)))


def _payload(base: int, offset: int, length: int) -> bytes:
    """Load a piece of the packet into register 1."""
    return _expression("payload", _number(1, 1), _number(2, base), _number(3, offset), _number(4, length))


def new_table(name: str, exclusive: bool = False) -> Message:
    """A table of IPv4. If it is there already, that is an error (EEXIST) only when it must be `exclusive`ly ours."""
    return _message(_NEW_TABLE, NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0), text(1, name))


def delete_table(name: str) -> Message:
    """Remove it with all it holds."""
    return _message(_DELETE_TABLE, 0, text(1, name))


def new_output_chain(table: str, name: str) -> Message:
    """A chain that changes destinations of what this namespace itself sends."""
    hook = nested(4, _number(1, _HOOK_OUTPUT), _number(2, _PRIORITY_DNAT))
    return _message(_NEW_CHAIN, NLM_F_CREATE, text(1, table), text(3, name), hook, text(7, "nat"))


def new_redirection(table: str, chain: str, protocol: int, address: bytes, port: int, to_port: int) -> Message:
    """What goes to `port` of an IPv4 `address` by the IP `protocol` (TCP 6, UDP 17) goes to `to_port` there instead."""
    rule = (
        _expression("meta", _number(1, 1), _number(2, _META_L4PROTO)),
        _value_is(bytes([protocol])),
        _payload(_NETWORK_HEADER, 16, 4),
        _value_is(address),
        _payload(_TRANSPORT_HEADER, 2, 2),
        _value_is(struct.pack("!H", port)),
        _load(1, address),
        _load(2, struct.pack("!H", to_port)),
        _expression("nat", _number(1, _NAT_DESTINATION), _number(2, socket.AF_INET), _number(3, 1), _number(5, 2)),
    )
    return _message(_NEW_RULE, NLM_F_CREATE | _APPEND, text(1, table), text(2, chain), nested(4, *rule))


class NetfilterSocket(NetlinkSocket):
    """Changes the packet filter of the network namespace that the calling thread is in when it opens this."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER)
        self._socket.settimeout(_ANSWER_SECONDS)

    def transact(self, *messages: Message) -> None:
        """Carry out all of `messages`, or none.

        Raises:
            OSError: one was refused.
        """
        edge = _GENERIC.pack(0, 0, _SUBSYSTEM)
        datagram = self._number(((_BATCH_BEGIN, 0, edge),), 0)
        first = self._sequence + 1
        datagram += self._number(messages, NLM_F_ACK)
        last = self._sequence
        datagram += self._number(((_BATCH_END, 0, edge),), 0)
        self._socket.send(datagram)
        waiting = set(range(first, last + 1))
        while waiting:
            for kind, flags, sequence, body in self._answers():
                error = read_error(flags, body) if kind == NLMSG_ERROR else None
                if error:
                    raise error
                waiting.discard(sequence)
