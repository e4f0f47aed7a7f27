"""Messages of the domain name system (RFC 1035), as far as a resolver of containers' names needs them.

What comes from a container or an upstream server is hostile until it has been read: every length is checked, and a
name's pointers may only lead backwards, so that none can lead in a circle.
"""

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, OPT = 1, 12, 28, 41
INTERNET = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = range(6)
LEAST_UDP_BYTES = 512
"""What every client takes in a datagram (RFC 1035, 2.3.4); with EDNS it says how much more (RFC 6891)."""
MOST_UDP_BYTES = 4096
TTL_SECONDS = 600  # libnetwork, respTTL

_HEADER = struct.Struct("!6H")  # id, flags, questions, answers, authorities, additionals
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x400, 0x200, 0x100, 0x80
_OPCODE = 0x7800
_POINTER_TO_QUESTION = b"\xc0\x0c"
_MOST_NAME_BYTES = 255
_MOST_POINTERS = 127  # of one name, which has no more labels to point to: pointers to pointers only cost time


class MalformedMessage(ValueError):
    """It is not a message of the domain name system."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `name` is in lower case without the dot at its end; `question` is it as it came."""

    id: int
    flags: int
    name: str
    kind: int
    klass: int
    question: bytes
    udp_bytes: int
    edns: bool

    @property
    def standard(self) -> bool:
        """Whether it is a plain question, and not an update or such."""
        return self.flags & _OPCODE == 0


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """The name at `offset`, and where what follows it begins.

    Raises:
        MalformedMessage: it runs over the end, is too long, or its pointers don't lead backwards or are too many.
    """
    labels: list[str] = []
    length = pointers = 0
    after = -1
    limit = offset
    while True:
        if offset >= len(data):
            raise MalformedMessage("a name runs over the end")
        size = data[offset]
        if size >= 0xC0:
            if offset + 2 > len(data):
                raise MalformedMessage("a pointer runs over the end")
            target = (size & 0x3F) << 8 | data[offset + 1]
            pointers += 1
            if target >= limit or pointers > _MOST_POINTERS:
                raise MalformedMessage("a pointer that doesn't lead backwards, or to too many others")
            after = after if after >= 0 else offset + 2
            offset = limit = target
            continue
        if size > 63:
            raise MalformedMessage("a label of an unknown kind")
        if size == 0:
            return ".".join(labels), after if after >= 0 else offset + 1
        label = data[offset + 1 : offset + 1 + size]
        length += size + 1
        if len(label) < size or length >= _MOST_NAME_BYTES:
            raise MalformedMessage("a name that is too long")
        labels.append(_label_text(label))
        offset += size + 1


def _end_of_name(data: bytes, offset: int) -> int:
    """Where what follows the name at `offset` begins; where its pointer leads, if it has one, is not looked at.

    Raises:
        MalformedMessage: it runs over the end, or has a label of an unknown kind.
    """
    while offset < len(data):
        size = data[offset]
        if size >= 0xC0:
            return offset + 2
        if size > 63:
            raise MalformedMessage("a label of an unknown kind")
        offset += size + 1
        if size == 0:
            return offset
    raise MalformedMessage("a name runs over the end")


def _label_text(label: bytes) -> str:
    """A label in lower case; a dot or backslash inside it, or what is no ASCII, is escaped as RFC 1035, 5.1 has it."""
    return "".join(
        f"\\{byte:03d}" if byte in b".\\" or not 0x21 <= byte < 0x7F else chr(byte) for byte in label
    ).lower()


def write_name(name: str) -> bytes:
    """`name` as labels, without compression.

    Raises:
        ValueError: a label is empty or longer than 63 bytes, or the whole too long.
    """
    written = b""
    for label in name.rstrip(".").split(".") if name.rstrip(".") else ():
        encoded = label.encode("idna") if not label.isascii() else label.encode()
        if not 0 < len(encoded) < 64:
            raise ValueError(f"{label!r} can't be a label of a name")
        written += bytes([len(encoded)]) + encoded
    if len(written) >= _MOST_NAME_BYTES:
        raise ValueError(f"{name!r} is too long for a name")
    return written + b"\0"


def read_query(data: bytes) -> Query:
    """The question that `data` asks.

    Raises:
        MalformedMessage: it asks none, or several, or is broken.
    """
    if len(data) < _HEADER.size:
        raise MalformedMessage("too short for a message")
    identity, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & _RESPONSE or questions != 1:
        raise MalformedMessage("not one question")
    name, end = read_name(data, _HEADER.size)
    if end + 4 > len(data):
        raise MalformedMessage("a question runs over the end")
    kind, klass = _QUESTION.unpack_from(data, end)
    udp_bytes, edns = LEAST_UDP_BYTES, False
    offset = end + 4
    for _ in range(answers + authorities + additionals):
        offset = _end_of_name(data, offset)  # thousands of names that point to one another would take seconds to read
        if offset + _RECORD.size > len(data):
            raise MalformedMessage("a record runs over the end")
        record, size, _, length = _RECORD.unpack_from(data, offset)
        offset += _RECORD.size + length
        if offset > len(data):
            raise MalformedMessage("a record runs over the end")
        if record == OPT:
            udp_bytes, edns = min(max(size, LEAST_UDP_BYTES), MOST_UDP_BYTES), True
    return Query(identity, flags, name, kind, klass, data[_HEADER.size : end + 4], udp_bytes, edns)


def is_answer_to(data: bytes, identity: int, question: bytes) -> bool:
    """Whether `data` answers `question`, which was asked under `identity`: its names may differ in case."""
    if len(data) < _HEADER.size:
        return False
    got, flags, questions, *_ = _HEADER.unpack_from(data)
    if got != identity or not flags & _RESPONSE:
        return False
    # A server that can't read a question may answer with none.
    return questions == 0 or data[_HEADER.size : _HEADER.size + len(question)].lower() == question.lower()


def with_identity(data: bytes, identity: int) -> bytes:
    """The same message under another id."""
    return struct.pack("!H", identity) + data[2:]


def failure(query: Query, code: int) -> bytes:
    """An answer with nothing in it but a code."""
    return _answer(query, code, b"", 0, 0)


def refuse(data: bytes) -> bytes:
    """The answer to what could not be read: a format error under its id."""
    identity = struct.unpack_from("!H", data)[0] if len(data) >= 2 else 0
    return _HEADER.pack(identity, _RESPONSE | FORMAT_ERROR, 0, 0, 0, 0)


def addresses(query: Query, found: Sequence[str], limit: int) -> bytes:
    """The answer that a name has these addresses, all of the kind that was asked for; none: the name is there without.

    Of more than fit into `limit` bytes, the first, and a word that there are more (ask by TCP).
    """
    records = [ipaddress.ip_address(each).packed for each in found]
    return _records(query, records, limit)


def pointer(query: Query, name: str, limit: int) -> bytes:
    """The answer that an address has this name."""
    return _records(query, [write_name(name)], limit)


def _records(query: Query, values: Sequence[bytes], limit: int) -> bytes:
    written, count = b"", 0
    room = limit - _HEADER.size - len(query.question) - (11 if query.edns else 0)
    for value in values:
        record = _POINTER_TO_QUESTION + _RECORD.pack(query.kind, INTERNET, TTL_SECONDS, len(value)) + value
        if len(written) + len(record) > room:
            return _answer(query, NO_ERROR, written, count, _TRUNCATED)
        written += record
        count += 1
    return _answer(query, NO_ERROR, written, count, 0)


def _answer(query: Query, code: int, records: bytes, count: int, flags: int) -> bytes:
    flags |= _RESPONSE | _RECURSION_AVAILABLE | query.flags & (_RECURSION_DESIRED | _OPCODE) | code
    if count:
        flags |= _AUTHORITATIVE
    # An OPT record: the root's name, the size that we take, no options.
    extra = b"\0" + _RECORD.pack(OPT, MOST_UDP_BYTES, 0, 0) if query.edns else b""
    return _HEADER.pack(query.id, flags, 1, count, 0, int(query.edns)) + query.question + records + extra


def address_of_pointer(name: str) -> str | None:
    """The address that a name beneath in-addr.arpa or ip6.arpa stands for."""
    try:
        if name.endswith(".in-addr.arpa"):
            return str(ipaddress.IPv4Address(".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))))
        if name.endswith(".ip6.arpa"):
            digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
            return str(ipaddress.IPv6Address(int(digits, 16))) if len(digits) == 32 else None
    except ValueError:
        return None
    return None
