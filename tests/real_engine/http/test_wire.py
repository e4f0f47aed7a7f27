import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.http.messages import json_line
from real_engine.http.wire import Disconnected, Malformed, Reader, parse_head, request_body


class Pieces:
    """A socket that gives what it has in pieces of the sizes that are asked of it, and then ends."""

    def __init__(self, data, sizes):
        self.data, self.sizes, self.sent = data, list(sizes), b""

    def recv(self, most):
        size = min(most, self.sizes.pop(0) if self.sizes else len(self.data))
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def recv_into(self, view):
        piece = self.recv(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def sendall(self, data):
        self.sent += data


sizes = st.lists(st.integers(1, 40), max_size=30)
HEAD = b"POST /x?y=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked"


def body_of(reader, head):
    _, _, version, headers = parse_head(head)
    return request_body(reader, headers, version)


def chunked(pieces):
    return b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: 1\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), sizes, st.integers(1, 60))
def test_chunks_come_out_whole_however_they_travel(pieces, sizes, most):
    reader = Reader(Pieces(HEAD + b"\r\n\r\n" + chunked(pieces) + b"NEXT", sizes))
    body = body_of(reader, reader.head())
    got = b""
    while piece := body.read(most):
        got += piece
    assert b"".join(pieces) == got
    assert body.finished
    assert b"NEXT"[: len(left := reader.take_buffered())] == left


@given(st.binary(max_size=200), sizes, st.integers(1, 60))
def test_a_counted_body_ends_where_it_says(data, sizes, most):
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d" % len(data)
    reader = Reader(Pieces(head + b"\r\n\r\n" + data + b"NEXT", sizes))
    assert head == reader.head()
    body = body_of(reader, head)
    room = bytearray(most)
    got = b""
    while count := body.readinto(room):
        got += room[:count]
    assert data == got
    assert len(data) == body.taken


@given(st.binary(max_size=300))
def test_noise_is_refused_and_nothing_else_happens(noise):
    reader = Reader(Pieces(noise, [7] * 50))
    try:
        head = reader.head()
        if head is not None:
            parse_head(head)
    except (Malformed, Disconnected):
        pass


def test_requests_one_after_the_other_in_one_piece():
    one = b"GET /1 HTTP/1.1\r\nHost: a"
    two = b"GET /2 HTTP/1.1\r\nHost: a"
    reader = Reader(Pieces(one + b"\r\n\r\n" + two + b"\r\n\r\n", []))
    assert [one, two, None] == [reader.head(), reader.head(), reader.head()]


def test_an_empty_line_before_a_request_is_passed_over():
    reader = Reader(Pieces(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", []))
    assert b"GET / HTTP/1.1\r\nHost: a" == reader.head()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /",
        b"GET / HTTP/1",
        b"GET  / HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost : a",
        b"GET / HTTP/1.1\r\n folded",
        b"GET / HTTP/1.1\r\nno colon",
        b"GET / HTTP/1.1\r\nA: \x00",
        b"GET / HTTP/1.1\r\nA: b\nEvil: c",
        b"",
    ],
)
def test_heads_that_are_none(head):
    with pytest.raises(Malformed):
        parse_head(head)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        (b"Content-Length: 5\r\nContent-Length: 6", 400),
        (b"Content-Length: -1", 400),
        (b"Content-Length: +1", 400),
        (b"Content-Length: 1_0", 400),
        ("Content-Length: ٣".encode(), 400),
        (b"Content-Length: 99999999999999999999", 400),
        (b"Transfer-Encoding: gzip", 501),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: chunked, chunked", 501),
    ],
)
def test_lengths_that_contradict(fields, status):
    with pytest.raises(Malformed) as caught:
        body_of(Reader(Pieces(b"", [])), b"POST / HTTP/1.1\r\nHost: a\r\n" + fields)
    assert status == caught.value.status


@pytest.mark.parametrize(
    "data", [b"x\r\nabc\r\n0\r\n\r\n", b"-1\r\n", b"0x3\r\nabc\r\n", b"3\r\nabcX\r\n", b"\r\n", b"1" * 5000]
)
def test_chunks_that_are_none(data):
    body = body_of(Reader(Pieces(data + b"0\r\n\r\n", [])), HEAD)
    with pytest.raises(Malformed):
        body.read()


def test_a_body_that_ends_early():
    body = body_of(Reader(Pieces(b"5\r\nab", [])), HEAD)
    assert b"ab" == body.read(100)
    with pytest.raises(Disconnected):
        body.read(100)


def test_the_other_version_of_the_protocol():
    with pytest.raises(Malformed) as caught:
        parse_head(b"PRI * HTTP/2.0")
    assert 505 == caught.value.status


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 20])
def test_another_protocol_is_not_waited_for(data):
    with pytest.raises(Malformed):
        Reader(Pieces(data, [])).head()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"a": "\u00e9\U0001f600"}, '{"a":"\u00e9\U0001f600"}\n'),
        (os.fsdecode(b"\xffname"), '"\ufffdname"\n'),  # a file's name that is no UTF-8
        (json.loads(r'"\ud800x"'), '"\ufffdx"\n'),  # what somebody sent as half of a pair
    ],
)
def test_json_is_text_whatever_is_in_it(value, line):
    assert line == json_line(value).decode()
