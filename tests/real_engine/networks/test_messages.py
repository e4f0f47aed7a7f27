"""Messages of the domain name system: what is written is read again, and what is broken is refused."""

import ipaddress
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.networks import messages
from real_engine.networks.messages import MalformedMessage

labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
names = st.lists(labels, min_size=1, max_size=5).map(".".join)


def question(name: str, kind: int = messages.A, identity: int = 7, more: bytes = b"", count: int = 0) -> bytes:
    head = struct.pack("!6H", identity, 0x100, 1, 0, 0, count)
    return head + messages.write_name(name) + struct.pack("!HH", kind, messages.INTERNET) + more


@given(names, st.integers(0, 0xFFFF), st.integers(1, 0xFFFF))
def test_a_question_is_read_as_it_was_asked(name: str, identity: int, kind: int) -> None:
    query = messages.read_query(question(name.upper(), kind, identity))
    assert (name, identity, kind, 512, False) == (query.name, query.id, query.kind, query.udp_bytes, query.edns)


@given(st.binary(max_size=120))
def test_garbage_is_refused_and_never_runs_away(data: bytes) -> None:
    for attempt in (data, question("a")[:12] + data):
        try:
            messages.read_query(attempt)
        except MalformedMessage:
            continue


@given(names, st.data())
def test_a_question_cut_short_is_refused(name: str, data: st.DataObject) -> None:
    whole = question(name)
    with pytest.raises(MalformedMessage):
        messages.read_query(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # points to itself
        b"\x01a\xc0\x0c",  # in a circle
        b"\xc0\xff",  # forwards
        b"\x40a",  # a label of a kind that was never used
        b"\x3f" + b"a" * 10,
        (b"\x3f" + b"a" * 63) * 4 + b"\0",  # 256 bytes
    ],
)
def test_hostile_names_are_refused(name: bytes) -> None:
    with pytest.raises(MalformedMessage):
        messages.read_query(struct.pack("!6H", 7, 0, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1))


def test_names_that_point_to_one_another_by_the_thousand_cost_next_to_nothing() -> None:
    # One datagram: a record of 8,000 pointers, each to the one before it, and 4,000 names that lead to its end.
    data = bytearray(question("a")) + b"\0" + struct.pack("!HHIH", 1, 1, 0, 16002) + b"\0\0"
    first = len(data)
    for number in range(8000):
        data += struct.pack("!H", 0xC000 | (first + 2 * number - 2))
    for _ in range(4000):
        data += struct.pack("!H", 0xC000 | (first + 15998)) + struct.pack("!HHIH", 1, 1, 0, 0)
    struct.pack_into("!H", data, 6, 4001)
    begin = time.process_time()
    assert "a" == messages.read_query(bytes(data)).name
    assert time.process_time() - begin < 1.0  # to follow them all takes ten
    with pytest.raises(MalformedMessage):
        messages.read_name(bytes(data), first + 15998)


def test_a_name_may_point_backwards() -> None:
    data = messages.write_name("example.org") + b"\x03www\xc0\x00"
    assert ("www.example.org", len(data)) == messages.read_name(data, 13)


@given(names, st.lists(st.ip_addresses(v=4).map(str), max_size=60), st.sampled_from([512, 1232, 65535]))
def test_an_answer_keeps_to_its_limit_and_says_if_there_is_more(name: str, found: list[str], limit: int) -> None:
    query = messages.read_query(question(name))
    answer = messages.addresses(query, found, limit)
    identity, flags, questions, count, *_ = struct.unpack_from("!6H", answer)
    assert len(answer) <= limit
    assert (7, 1) == (identity, questions)
    assert bool(flags & 0x200) == (count < len(found))
    assert messages.is_answer_to(answer, 7, query.question)
    offset = 12 + len(query.question)
    got = [str(ipaddress.ip_address(answer[offset + 16 * n + 12 : offset + 16 * n + 16])) for n in range(count)]
    assert found[:count] == got


def test_edns_says_how_much_a_client_takes() -> None:
    option = b"\0" + struct.pack("!HHIH", messages.OPT, 1232, 0, 0)
    query = messages.read_query(question("a", more=option, count=1))
    assert (1232, True) == (query.udp_bytes, query.edns)
    answer = messages.addresses(query, ["10.0.0.1"], query.udp_bytes)
    assert 1 == struct.unpack_from("!6H", answer)[5]  # its own OPT record


def test_an_answer_to_another_question_is_none() -> None:
    one, other = messages.read_query(question("a")), messages.read_query(question("b"))
    answer = messages.addresses(one, ["10.0.0.1"], 512)
    assert messages.is_answer_to(answer, 7, one.question)
    assert not messages.is_answer_to(answer, 8, one.question)
    assert not messages.is_answer_to(answer, 7, other.question)
    assert not messages.is_answer_to(question("a"), 7, one.question)


@given(st.ip_addresses())
def test_names_of_addresses(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert str(address) == messages.address_of_pointer(address.reverse_pointer)


@pytest.mark.parametrize("name", ["a.in-addr.arpa", "1.2.3.in-addr.arpa", "1.ip6.arpa", "example.org"])
def test_names_of_no_address(name: str) -> None:
    assert None is messages.address_of_pointer(name)
