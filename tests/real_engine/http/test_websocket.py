import contextlib
import os
import socket
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.http import websocket
from real_engine.http.messages import Response

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
MASK = b"\x01\x02\x03\x04"


def frame(opcode, data=b"", final=True, masked=True, length=None):
    length = len(data) if length is None else length
    head = bytes(((0x80 if final else 0) | opcode,))
    bit = 0x80 if masked else 0
    if length < 126:
        head += bytes((bit | length,))
    elif length < 65536:
        head += struct.pack("!BH", bit | 126, length)
    else:
        head += struct.pack("!BQ", bit | 127, length)
    return head + (MASK + websocket.unmask(data, MASK) if masked else data)


def echo(request):
    connection = websocket.accept(request, ("chat",))
    while (message := connection.receive()) is not None:
        connection.send(message)
    connection.close()


@pytest.fixture
def talk(serve):
    talk = serve({"GET /ws": echo})()
    talk.send(HANDSHAKE + b"\r\n")
    talk.head()
    return talk


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
def test_masks_are_their_own_inverse(data, mask):
    masked = websocket.unmask(data, mask)
    assert bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)) == masked
    assert data == websocket.unmask(masked, mask)


def test_the_handshake_of_the_specification(serve):
    talk = serve({"GET /ws": echo})()
    status, fields = talk.send(HANDSHAKE + b"Sec-WebSocket-Protocol: other, chat\r\n\r\n").head()
    assert (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "chat") == (
        status,
        fields["Sec-WebSocket-Accept"],
        fields["Sec-WebSocket-Protocol"],
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"Upgrade: tcp"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Version: 13", b"Version: 8"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"!!!"),
    ],
)
def test_handshakes_that_are_none(serve, old, new):
    def handler(request):
        try:
            return websocket.accept(request)
        except websocket.InvalidParameter as error:
            return Response.error(400, str(error))

    talk = serve({"GET /ws": handler})()
    assert 400 == talk.send(HANDSHAKE.replace(old, new) + b"\r\n").head()[0]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_messages_of_every_length(talk, length):
    data = os.urandom(length)
    sending = threading.Thread(target=talk.send, args=(frame(2, data),))
    sending.start()
    expected = frame(2, data, masked=False)
    assert expected == talk.exactly(len(expected))
    sending.join()


def test_fragments_with_a_ping_between_them(talk):
    talk.send(frame(1, b"ab", final=False) + frame(9, b"hi") + frame(0, b"cd", final=False) + frame(0, b"ef"))
    assert frame(10, b"hi", masked=False) == talk.exactly(4)
    assert frame(2, b"abcdef", masked=False) == talk.exactly(8)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(2, b"x", masked=False), 1002),
        (frame(3, b"x"), 1002),
        (frame(0, b"x"), 1002),
        (frame(2, b"a", final=False) + frame(2, b"b"), 1002),
        (frame(9, b"x" * 126), 1002),
        (frame(9, b"x", final=False), 1002),
        (b"\xc2\x80" + MASK, 1002),
        (frame(8, b"x"), 1002),
        (frame(8, struct.pack("!H", 1005)), 1002),
        (frame(1, b"\xff\xfe"), 1007),
        (frame(2, b"", length=1 << 40), 1009),
    ],
)
def test_violations_end_it_with_a_code(talk, data, code):
    talk.send(data)
    head = talk.exactly(4)
    assert (0x88, code) == (head[0], struct.unpack("!H", head[2:])[0])
    talk.socket.shutdown(socket.SHUT_WR)
    talk.rest()


def test_a_close_is_answered_once(talk):
    talk.send(frame(8, struct.pack("!H", 1000) + b"bye"))
    assert frame(8, struct.pack("!H", 1000), masked=False) == talk.rest()


def test_another_implementation_gets_along(serve, short_path):
    client = pytest.importorskip("websocket", reason="needs the package websocket-client")
    connect = serve({"GET /ws": echo})
    connection = client.WebSocket()
    connection.connect("ws://localhost/ws", socket=connect().socket, subprotocols=["chat"])
    connection.send("안녕")
    assert "안녕".encode() == connection.recv()
    connection.send_binary(b"\x00\xff" * 40_000)
    assert b"\x00\xff" * 40_000 == connection.recv()
    connection.ping("x")
    connection.close()


def test_relay_joins_a_stream(serve):
    ours, theirs = socket.socketpair()
    talk = serve({"GET /ws": lambda request: websocket.relay(websocket.accept(request), ours)})()
    talk.send(HANDSHAKE + b"\r\n").head()
    talk.send(frame(1, b"in"))
    assert b"in" == theirs.recv(10)
    theirs.sendall(b"out")
    assert frame(2, b"out", masked=False) == talk.exactly(5)
    theirs.close()  # the stream has ended: so does the websocket
    assert frame(8, struct.pack("!H", 1000), masked=False) == talk.exactly(4)


def test_relay_ends_the_stream_when_the_client_goes(serve):
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    talk = serve({"GET /ws": lambda request: websocket.relay(websocket.accept(request), ours)})()
    talk.send(HANDSHAKE + b"\r\n").head()
    talk.close()
    assert b"" == theirs.recv(10)
    theirs.close()


@pytest.mark.parametrize("last", [frame(3, b"x"), b""])
def test_a_client_that_takes_nothing_is_not_waited_for(serve, monkeypatch, last):
    """Neither when it breaks the rules meanwhile, nor when it goes."""
    monkeypatch.setattr(websocket, "_CLOSE_SECONDS", 0.2)
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    ended = threading.Event()

    def handler(request):
        websocket.relay(websocket.accept(request), ours)
        ended.set()

    talk = serve({"GET /ws": handler})()
    talk.send(HANDSHAKE + b"\r\n").head()

    def flood():
        with contextlib.suppress(OSError):  # reset, or broken
            while True:
                theirs.sendall(b"x" * 100_000)

    flooding = threading.Thread(target=flood)
    flooding.start()
    talk.send(frame(2, b"still there"))
    assert b"still there" == theirs.recv(100)
    if last:
        talk.send(last)
    else:
        talk.close()
    assert ended.wait(5)
    flooding.join(5)
    assert not flooding.is_alive()
    theirs.close()


def test_a_client_that_goes_on_sending_after_the_end_is_not_listened_to_for_ever(serve, monkeypatch):
    monkeypatch.setattr(websocket, "_CLOSE_SECONDS", 0.2)
    ended = threading.Event()

    def handler(request):
        websocket.accept(request).close()
        ended.set()

    talk = serve({"GET /ws": handler})()
    talk.send(HANDSHAKE + b"\r\n").head()
    began = time.monotonic()
    with contextlib.suppress(OSError):  # reset, or broken
        while time.monotonic() - began < 5:
            talk.send(frame(2, b"more" * 1000))
    assert time.monotonic() - began < 3
    assert ended.wait(1)
