"""Messages come through whole, with their descriptors, however the stream is cut; and nonsense ends the connection."""

import os
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.supervisor.protocol import ProtocolError, Receiver, encode, receive_first, send_with_descriptors

_MESSAGES = st.lists(
    st.dictionaries(st.text(max_size=8).filter(lambda name: name != "descriptors"), st.text() | st.integers()),
    max_size=5,
)


class Cut:
    """A connection that gives what was put in, in pieces of the given lengths."""

    def __init__(self, data: bytes, lengths: list[int]) -> None:
        self._data, self._lengths = data, lengths

    @property
    def left(self) -> int:
        return len(self._data)

    def recvmsg(self, size: int, *_: int) -> tuple[bytes, list, int, None]:
        length = min(size, self._lengths.pop(0) if self._lengths else size)
        piece, self._data = self._data[:length], self._data[length:]
        return piece, [], 0, None


@settings(max_examples=60)
@given(_MESSAGES, st.lists(st.integers(1, 40)))
def test_any_cut(messages, lengths):
    connection = Cut(b"".join(encode(message) for message in messages), lengths)
    receiver = Receiver()
    received = []
    while connection.left:
        received += receiver.receive(connection)
    with pytest.raises(EOFError):
        receiver.receive(connection)
    assert [(message, []) for message in messages] == received


def test_descriptors_belong_to_their_message():
    ours, theirs = socket.socketpair()
    first, second = os.pipe2(os.O_CLOEXEC)
    with ours, theirs:
        ours.sendall(encode({"n": 1}))
        data = encode({"n": 2, "descriptors": 1})
        assert len(data) == send_with_descriptors(ours, data, (second,))
        ours.sendall(encode({"n": 3}))
        receiver = Receiver()
        received = []
        while len(received) < 3:
            received += receiver.receive(theirs)
    assert [0, 1, 0] == [len(descriptors) for _, descriptors in received]
    passed = received[1][1][0]
    assert not os.get_inheritable(passed)
    os.write(passed, b"through")
    assert b"through" == os.read(first, 100)
    for descriptor in (first, second, passed):
        os.close(descriptor)


def test_a_descriptor_without_a_message_is_closed():
    ours, theirs = socket.socketpair()
    receive, send = os.pipe2(os.O_CLOEXEC)
    with ours, theirs:
        send_with_descriptors(ours, b"\0\0", (send,))
        os.close(send)
        receiver = Receiver()
        assert [] == receiver.receive(theirs)
        receiver.close()
    assert b"" == os.read(receive, 1)  # nobody has the other end any more
    os.close(receive)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!I", 1 << 30),
        struct.pack("!I", 3) + b"no!",
        struct.pack("!I", 2) + b"[]",
        encode({"descriptors": 1}),
        encode({"descriptors": -1}),
        encode({"descriptors": "x"}),
    ],
    ids=["too long", "no JSON", "no object", "descriptor missing", "negative", "no number"],
)
def test_nonsense(data):
    with pytest.raises(ProtocolError):
        Receiver().receive(Cut(data, []))


def test_nothing_after_the_greeting_is_lost():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode({"hello": 1}) + encode({"event": "x"}))
        assert {"hello": 1} == receive_first(theirs)
        assert [({"event": "x"}, [])] == Receiver().receive(theirs)
        ours.close()
        with pytest.raises(EOFError):
            receive_first(theirs)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK", struct.pack("!I", 1) + b"x", struct.pack("!I", 1) + b"1"])
def test_no_greeting(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        with pytest.raises(ProtocolError):
            receive_first(theirs)


def test_too_long_to_send():
    with pytest.raises(ProtocolError, match="too long"):
        encode({"text": "x" * (17 << 20)})
