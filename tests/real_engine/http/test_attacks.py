"""What a client can send to do harm: each gets one answer or the end, and nothing is left of it."""

import contextlib
import logging
import socket
import threading
import time

import pytest

from real_engine.errors import InvalidParameter
from real_engine.http.listeners import TcpListener
from real_engine.http.messages import Response
from real_engine.http.server import Server

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def ok(request):
    return Response(200, b"OK")


def echo(request):
    return Response(200, request.body.read())


@pytest.fixture
def connect(serve, caplog):
    """Connects to a server; at the end, nothing may stand in the log, and no connection be left."""
    caplog.set_level(logging.INFO)
    connect = serve({"GET /a": ok, "POST /echo": echo, "POST /unread": ok})
    yield connect
    wait_for(lambda: connect.server.connections == 0, close=connect)
    assert [] == caplog.records


def wait_for(met, seconds=10.0, close=None):
    """Until it is so; the connections of the test are closed before."""
    if close is not None:
        for talk in close.talks:
            talk.close()
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it has not come about in time"
        time.sleep(0.01)


def waits_for_more(talk):
    """Whether the server neither answers nor ends the connection."""
    talk.socket.settimeout(0.1)
    try:
        return talk.socket.recv(1) is None
    except TimeoutError:
        return True
    finally:
        talk.socket.settimeout(10)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: -1", 400),
        (b"Content-Length: +1", 400),
        (b"Content-Length: 0x1", 400),
        (b"Content-Length: 1 1", 400),
        (b"Content-Length: 1, 1", 400),
        (b"Content-Length:", 400),
        (b"Content-Length: \xa01", 400),
        (b"Content-Length: 99999999999999999999", 400),
        (b"Content-Length: 3\r\nContent-Length: 4", 400),
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
        (b"Content-Length: 3\r\nTransfer-Encoding:", 400),
        (b"Transfer-Encoding:", 501),
        (b"Transfer-Encoding: identity", 501),
        (b"Transfer-Encoding: chunked, chunked", 501),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 501),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: \xa0chunked", 501),
        (b"Transfer-Encoding: chunked\x85", 501),
        (b"Transfer-Encoding: \x0bchunked", 400),
        (b"Transfer-Encoding : chunked", 400),
        (b"Transfer-Encoding:\r\n chunked", 400),
        (b"Transfer-Encoding\x00: chunked", 400),
        (b"X: y\nContent-Length: 3", 400),
        (b"X: y\rContent-Length: 3", 400),
        (b"Host: y", 400),
        (b"Expect: the-unexpected", 417),
    ],
)
def test_a_body_of_two_meanings_is_refused_and_what_follows_is_no_request(connect, head, status):
    talk = connect()
    assert status == talk.send(POST + head + b"\r\n\r\n0\r\n\r\n" + GET).answer()[0]
    assert b"" == talk.rest()


def test_chunks_are_only_since_http_1_1(connect):
    talk = connect()
    talk.send(b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET)
    assert 400 == talk.answer()[0]
    assert b"" == talk.rest()


@pytest.mark.parametrize(
    "body",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3;x\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r\n0\n\r\n",
        b"3\r\nabc\r\n0\r\nTrailer: x\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"3_0\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
        (b"1;" + b"x" * 4000 + b"\r\nx\r\n") * 10,
        b"0\r\n" + b"A: b\r\n" * 300,
        b"0\r\nA: " + b"b" * 5000,
    ],
)
def test_chunks_of_two_meanings_or_with_more_around_than_in_them(connect, body):
    talk = connect()
    status, message = talk.send(CHUNKED + body + GET).answer()
    assert (400, b'{"message":"') == (status, message[:12])
    assert b"" == talk.rest()


def test_extensions_and_trailers_change_nothing(connect):
    talk = connect()
    talk.send(CHUNKED + b'3 ;a="b"\r\nabc\r\n0;x\r\nContent-Length: 99\r\nHost: evil\r\n\r\n' + GET)
    assert [(200, b"abc"), (200, b"OK")] == [talk.answer(), talk.answer()]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /a\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\n", 400),
        (b"\r\n" * 1000, 400),
        (b"\n" * 1000, 400),
        (b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
        (b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http%3A//x/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a% HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000, 431),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 1_000_000, 431),
        (b"GET /" + b"a" * 1_000_000, 431),
    ],
)
def test_heads_that_are_none_are_answered_at_once(connect, line, status):
    talk = connect()
    sending = threading.Thread(target=_send_what_is_taken, args=(talk, line))
    sending.start()
    assert status == talk.answer()[0]
    sending.join(10)
    assert not sending.is_alive()


def _send_what_is_taken(talk, data):
    with contextlib.suppress(ConnectionError):  # it has heard enough
        talk.send(data)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://x/a/b?c=d", "/a/b", "d"),
        (b"HTTPS://x/a", "/a", ""),
        (b"http://x", "/", ""),
        (b"http://x?c=/d", "/", "/d"),
        (b"/a%2Fb?c=%2f", "/a/b", "/"),
        (b"/a%2520", "/a%20", ""),
        (b"/%EC%95%88?c=%EC%95%88", "/안", "안"),
        ("/안?c=안".encode(), "/안", "안"),
        (b"/..%2f..%2fetc", "/../../etc", ""),
        (b"//x/a", "//x/a", ""),
        (b"*", "/", ""),
    ],
)
def test_targets_are_read_once_and_in_the_right_order(serve, target, path, query):
    seen = []
    talk = serve(lambda request: seen.append((request.path, request.query.get("c"))))()
    assert 200 == talk.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n").answer()[0]
    assert [(path, query)] == seen


def test_no_name_in_a_query_has_a_nul(serve):
    def handler(request):
        with pytest.raises(InvalidParameter, match="NUL"):
            request.query.get("path")

    assert 200 == serve(handler)().send(b"GET /a?path=/etc%00/x HTTP/1.1\r\nHost: x\r\n\r\n").answer()[0]


def test_an_old_client_may_send_requests_ahead_only_if_it_keeps_its_connection(connect):
    talk = connect()
    talk.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 3 + b"GET /a HTTP/1.0\r\n\r\n" + GET)
    assert [(200, b"OK")] * 4 == [talk.answer() for _ in range(4)]
    assert b"" == talk.rest()


def test_what_waits_for_a_word_and_is_refused_can_not_follow_as_a_request(connect):
    talk = connect()
    talk.send(b"POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(GET))
    status, fields = talk.head()
    assert (200, "close") == (status, fields["Connection"])
    _send_what_is_taken(talk, GET)
    assert b"OK" == talk.rest()


@pytest.fixture
def over_tcp(caplog):
    """Serves a handler at a port: there, and not at a UNIX socket, a close can take an answer back."""
    servers = []

    def begin(handler, **options):
        listener = TcpListener("127.0.0.1", 0)
        servers.append(Server(handler, [listener], **options))
        servers[-1].start()
        return servers[-1], lambda: socket.create_connection(("127.0.0.1", listener.port), 10)

    yield begin
    for server in servers:
        server.stop(2.0)
    assert [] == caplog.records


def test_who_still_sends_a_body_that_nobody_wants_hears_the_answer(over_tcp):
    _, connect = over_tcp(lambda request: Response.error(413, "too much"))
    for _ in range(5):
        with connect() as client:
            client.sendall(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n" + b"x" * (1 << 20))
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_many_idle_connections_leave_room_for_one_that_asks(over_tcp):
    server, connect = over_tcp(ok, most_connections=8)
    idle = [connect() for _ in range(40)]
    for number, client in enumerate(idle):
        client.sendall(GET if number % 2 else b"GET /a HTTP")  # half of them in the middle of a head
    with connect() as client:
        began = time.monotonic()
        client.sendall(GET)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 5
    assert server.connections < 40
    for client in idle:
        client.close()
    wait_for(lambda: server.connections == 0)


def test_a_request_that_is_under_way_does_not_make_room(over_tcp):
    go = threading.Event()

    def slow(request):
        go.wait(10)
        return Response(200, b"done")

    _, connect = over_tcp(lambda request: slow(request) if request.path == "/slow" else ok(request), most_connections=4)
    busy = connect()
    busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.1)
    idle = [connect() for _ in range(10)]
    with connect() as client:
        client.sendall(GET)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    go.set()
    assert busy.recv(1000).endswith(b"done")
    for client in (busy, *idle):
        client.close()


def test_bursts_leave_no_threads(over_tcp):
    server, connect = over_tcp(ok)
    before = threading.active_count()
    for _ in range(3):
        clients = [connect() for _ in range(60)]
        for client in clients:
            client.sendall(GET[:-1])
        for client in clients:
            client.close()
        wait_for(lambda: server.connections == 0)
    assert threading.active_count() - before <= 20


@pytest.mark.parametrize("body", [b"x" * 8_000_000, "items", "file"])
def test_a_client_that_goes_in_the_middle_of_its_answer(over_tcp, tmp_path, body):
    (tmp_path / "big").write_bytes(b"x" * 8_000_000)
    closed = threading.Event()

    def items():
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    def handler(request):
        if body == "items":
            return Response(200, items())
        return Response(200, (tmp_path / "big").open("rb") if body == "file" else body)

    server, connect = over_tcp(handler)
    with connect() as client:
        client.sendall(GET)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: server.connections == 0)
    assert closed.is_set() == (body == "items")


@pytest.mark.parametrize("way", ["body", "answer", "file"])
def test_a_client_that_stands_still_is_dropped_where_that_is_wanted(over_tcp, tmp_path, way):
    (tmp_path / "big").write_bytes(b"x" * 50_000_000)

    def handler(request):
        request.limit_stalls(0.2)
        request.body.read()
        return Response(200, (tmp_path / "big").open("rb") if way == "file" else iter([b"x" * 1_000_000] * 50))

    server, connect = over_tcp(handler)
    with connect() as client:
        client.sendall(CHUNKED + b"3\r\na" if way == "body" else GET)
        wait_for(lambda: server.connections == 1)
        wait_for(lambda: server.connections == 0)


def test_a_client_that_is_only_slow_is_not_dropped(over_tcp):
    def handler(request):
        request.limit_stalls(0.3)
        return Response(200, request.body.read())

    _, connect = over_tcp(handler)
    with connect() as client:
        client.sendall(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
        for byte in b"abcdef":
            time.sleep(0.1)
            client.sendall(bytes((byte,)))
        assert client.recv(1000).endswith(b"abcdef")


def test_half_a_request_is_waited_for(connect):
    talk = connect()
    assert waits_for_more(talk.send(GET[:-2]))
    assert (200, b"OK") == talk.send(GET[-2:]).answer()
