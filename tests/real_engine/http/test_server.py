import io
import os
import select
import threading
import time

import pytest

from real_engine.errors import InvalidParameter
from real_engine.http.messages import Response

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


def ok(request):
    return Response(200, b"OK", content_type="text/plain")


def echo(request):
    return Response(200, request.body.read(), content_type="application/octet-stream")


def test_a_connection_is_kept_and_requests_may_be_sent_ahead(serve):
    talk = serve({"GET /a": ok, "POST /echo": echo})()
    talk.send(GET % b"a" + b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + GET % b"a")
    assert [(200, b"OK"), (200, b"abc"), (200, b"OK")] == [talk.answer() for _ in range(3)]


def test_a_request_in_single_bytes(serve):
    talk = serve({"POST /echo": echo})()
    for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
        talk.send(bytes((byte,)))
    assert (200, b"abc") == talk.answer()


@pytest.mark.parametrize(
    "request_", [b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"GET /a HTTP/1.0\r\n\r\n"]
)
def test_a_connection_ends_when_the_client_wants_it(serve, request_):
    talk = serve({"GET /a": ok})()
    status, fields = talk.send(request_).head()
    assert (200, "close") == (status, fields["Connection"])
    assert b"OK" == talk.rest()


def test_an_old_client_keeps_its_connection_if_it_asks(serve):
    talk = serve({"GET /a": ok})()
    for _ in range(2):
        assert (200, b"OK") == talk.send(b"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").answer()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"GET /a HTTP/1.1\r\nA: " + b"x" * 70000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70000, 431),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)
def test_what_is_no_request_gets_a_word_and_the_end(serve, data, status):
    talk = serve({"GET /a": ok})()
    got, body = talk.send(data).answer()
    assert status == got
    assert body.startswith(b'{"message":"')
    assert b"" == talk.rest()


def test_absolute_targets_and_escapes(serve):
    seen = []
    talk = serve(lambda request: seen.append((request.path, request.query.get("q"))))()
    talk.send(b"GET http://host/a%20b?q=%2F HTTP/1.1\r\nHost: x\r\n\r\n").answer()
    assert [("/a b", "/")] == seen


def test_a_stream_is_flushed_item_by_item(serve):
    go = threading.Event()

    def items():
        yield b"first"
        yield b""
        go.wait(10)
        yield b"second"

    talk = serve({"GET /s": lambda request: Response(200, items())})()
    status, fields = talk.send(GET % b"s").head()
    assert (200, "chunked", False) == (status, fields["Transfer-Encoding"], "Content-Length" in fields)
    assert b"5\r\nfirst\r\n" == talk.exactly(10)
    go.set()
    assert b"6\r\nsecond\r\n0\r\n\r\n" == talk.exactly(16)
    assert (200, "chunked") == (talk.send(GET % b"s").head()[0], fields["Transfer-Encoding"])


def test_the_head_goes_before_the_first_item(serve):
    go = threading.Event()

    def items():
        go.wait(10)
        yield b"x"

    talk = serve({"GET /s": lambda request: Response(200, items())})()
    assert 200 == talk.send(GET % b"s").head()[0]
    go.set()
    assert b"1\r\nx\r\n0\r\n\r\n" == talk.exactly(11)


def test_a_stream_is_closed_when_the_client_goes(serve):
    closed = threading.Event()

    def handler(request):
        def items():
            try:
                yield b"x"
                while request.poll(None, 5.0) != "gone":
                    yield b"y"
            finally:
                closed.set()

        return Response(200, items())

    talk = serve({"GET /s": handler})()
    talk.send(GET % b"s").head()
    talk.close()
    assert closed.wait(5)


def test_a_stream_to_a_client_that_has_gone_is_closed_though_nobody_watches(serve):
    closed = threading.Event()

    def items():
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    talk = serve({"GET /s": lambda request: Response(200, items())})()
    talk.send(GET % b"s").head()
    talk.close()
    assert closed.wait(5)


def test_a_stream_that_fails_ends_without_its_last_chunk(serve, caplog):
    def items():
        yield b"x"
        raise RuntimeError("the disk is gone")

    talk = serve({"GET /s": lambda request: Response(200, items())})()
    talk.send(GET % b"s").head()
    assert b"1\r\nx\r\n" == talk.rest()
    assert "the disk is gone" in caplog.text


def test_an_old_client_gets_a_stream_to_the_end_of_the_connection(serve):
    talk = serve({"GET /s": lambda request: Response(200, iter([b"a", b"b"]))})()
    status, fields = talk.send(b"GET /s HTTP/1.0\r\n\r\n").head()
    assert (200, False) == (status, "Transfer-Encoding" in fields)
    assert b"ab" == talk.rest()


def test_head_has_the_fields_and_no_body(serve, tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    answers = {
        "HEAD /a": lambda request: Response(200, b"OK"),
        "HEAD /f": lambda request: Response(200, (tmp_path / "f").open("rb")),
        "HEAD /n": lambda request: Response(200, headers={"Content-Length": "77"}),
        "GET /a": ok,
    }
    talk = serve(answers)()
    for path, length in (("a", "2"), ("f", "5"), ("n", "77")):
        assert length == talk.send(f"HEAD /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).head()[1]["Content-Length"]
    assert (200, b"OK") == talk.send(GET % b"a").answer()


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(serve, status):
    talk = serve({"GET /a": lambda request: Response(status)})()
    got, fields = talk.send(GET % b"a").head()
    assert (status, False, False) == (got, "Content-Length" in fields, "Content-Type" in fields)
    assert status == talk.send(GET % b"a").head()[0]


def test_a_file_is_sent_from_where_it_stands(serve, tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "f").write_bytes(data)

    def part(request):
        file = (tmp_path / "f").open("rb")
        file.seek(1000)
        return Response(206, file, {"Content-Length": "2000"})

    def whole(request):
        return Response(200, (tmp_path / "f").open("rb"))

    talk = serve(
        {"GET /part": part, "GET /whole": whole, "GET /memory": lambda request: Response(200, io.BytesIO(b"m"))}
    )()
    assert (206, data[1000:3000]) == talk.send(GET % b"part").answer()
    assert (200, data) == talk.send(GET % b"whole").answer()
    assert "chunked" == talk.send(GET % b"memory").head()[1]["Transfer-Encoding"]
    assert b"1\r\nm\r\n0\r\n\r\n" == talk.exactly(11)


def test_a_body_is_asked_for_only_when_it_is_read(serve):
    talk = serve({"POST /echo": echo, "POST /no": lambda request: Response.error(409, "no")})()
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    talk.send(head % b"echo")
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == talk.until(b"\r\n\r\n")
    assert (200, b"abc") == talk.send(b"abc").answer()
    status, fields = talk.send(head % b"no").head()
    assert (409, "close") == (status, fields["Connection"])


def test_a_body_that_nobody_read_does_not_become_the_next_request(serve):
    talk = serve({"POST /a": ok, "GET /a": ok})()
    evil = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
    talk.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(evil) + evil + GET % b"a")
    assert [(200, b"OK"), (200, b"OK")] == [talk.answer(), talk.answer()]


def test_a_malformed_body_is_the_clients_fault(serve):
    talk = serve({"POST /echo": echo})()
    talk.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    status, body = talk.answer()
    assert (400, b"invalid byte in chunk length") == (status, body[12:-3])
    assert b"" == talk.rest()


def test_a_fault_of_ours_is_told_in_a_line_and_logged_with_its_stack(serve, caplog):
    talk = serve({"GET /a": lambda request: 1 / 0, "GET /b": ok})()
    assert (500, b'{"message":"ZeroDivisionError: division by zero"}\n') == talk.send(GET % b"a").answer()
    assert "Traceback" in caplog.text
    assert (200, b"OK") == talk.send(GET % b"b").answer()


def test_fields_can_not_be_smuggled_into_an_answer(serve):
    talk = serve({"GET /a": lambda request: Response(200, headers={"X-Name": "a\r\nEvil: 1"})})()
    assert "Evil" not in talk.send(GET % b"a").head()[1]


def hijack(request):
    with request.hijack() as raw:
        raw.socket.sendall(b"[" + raw.buffered)
        while data := raw.socket.recv(100):
            raw.socket.sendall(data)
        raw.socket.sendall(b"]")  # the client's side has ended, ours has not


def test_a_connection_becomes_raw_and_its_halves_end_one_after_the_other(serve):
    talk = serve({"POST /attach": hijack})()
    talk.send(b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    head = talk.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n")
    assert b"Connection: Upgrade\r\nUpgrade: tcp\r\n" in head
    talk.send(b"more")
    talk.socket.shutdown(1)
    assert b"[more]" == talk.rest()


def test_what_came_with_the_request_is_handed_over(serve):
    talk = serve({"POST /attach": hijack})()
    talk.send(
        b"POST /attach HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}early"
    )
    talk.head()
    talk.socket.shutdown(1)
    assert b"[early]" == talk.rest()


def test_without_an_upgrade_it_is_200(serve):
    talk = serve({"POST /attach": hijack})()
    status, fields = talk.send(b"POST /attach HTTP/1.1\r\nHost: x\r\n\r\n").head()
    assert (200, "application/vnd.docker.raw-stream") == (status, fields["Content-Type"])
    assert not {"Content-Length", "Transfer-Encoding", "Upgrade"} & set(fields)
    talk.socket.shutdown(1)
    assert b"[]" == talk.rest()


def test_the_raw_socket_is_a_blocking_one(serve):
    modes = []

    def handler(request):
        with request.hijack() as raw:
            modes.append((os.get_blocking(raw.fileno()), raw.socket.gettimeout(), raw.encrypted))

    talk = serve({"POST /attach": handler}, idle_seconds=5.0)()
    talk.send(b"POST /attach HTTP/1.1\r\nHost: x\r\n\r\n").head()
    assert b"" == talk.rest()
    assert [(True, None, False)] == modes


def test_a_descriptor_and_the_client_are_watched_together(serve):
    reading, writing = os.pipe()
    results = []

    def handler(request):
        results.append(request.poll(reading, 0.01))
        os.write(writing, b"x")
        results.append(request.poll(reading, 5.0))
        results.append(request.client_gone())
        results.append(request.poll(None, 5.0))

    talk = serve({"GET /a": handler})()
    talk.send(GET % b"a")
    while len(results) < 3:
        time.sleep(0.01)
    talk.close()
    while len(results) < 4:
        time.sleep(0.01)
    os.close(reading)
    os.close(writing)
    assert ["timeout", "ready", False, "gone"] == results


def test_requests_sent_ahead_are_not_taken_for_a_client_that_has_gone(serve):
    talk = serve({"GET /a": lambda request: Response(200, str(request.client_gone(0.05)).encode())})()
    talk.send(GET % b"a" + GET % b"a")
    assert [(200, b"False"), (200, b"False")] == [talk.answer(), talk.answer()]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"{x", "application/json", "invalid JSON: invalid character 'x' looking for beginning of object key string"),
        (b"", "application/json", "invalid JSON: got EOF while reading request body"),
        (b"{}x", "application/json", "unexpected content after JSON"),
        (b'{"a":', "application/json", "invalid JSON: unexpected EOF"),
        (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b"[" * 100_000, "application/json", "invalid JSON: exceeded max depth"),
        (b"x" * 2000, "application/json", "the request's body is longer than the 1000 bytes that are taken here"),
        (b'"\xff"', "application/json", "invalid JSON: "),
    ],
)
def test_json_that_is_none(serve, body, kind, message):
    limit = 1000 if body[:1] == b"x" else 1 << 20

    def handler(request):
        with pytest.raises(InvalidParameter) as caught:
            request.json(limit, required=True)
        return Response.error(400, str(caught.value))

    talk = serve({"POST /a": handler})()
    head = f"POST /a HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    status, got = talk.send(head.encode() + body).answer()
    assert 400 == status
    assert message.encode() in got


def test_json_a_thousand_levels_deep_fits_on_a_threads_stack(serve):
    def handler(request):
        value = request.json()
        depth = 0
        while value:
            value, depth = value[0], depth + 1
        return Response.json(depth)

    body = b"[" * 900 + b"]" * 900
    head = (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 1800\r\n\r\n"
    )
    assert (200, b"899\n") == serve({"POST /a": handler})().send(head + body).answer()


def test_no_body_is_no_json(serve):
    talk = serve({"POST /a": lambda request: Response.json(request.json())})()
    assert (200, b"null\n") == talk.send(b"POST /a HTTP/1.1\r\nHost: x\r\n\r\n").answer()


def test_a_stream_whose_handler_fails_is_closed(serve):
    def handler(request):
        request.hijack()
        raise {"/engine": InvalidParameter("x"), "/gone": ConnectionResetError("x"), "/bug": KeyError("x")}[
            request.path
        ]

    connect = serve(handler)
    for path in (b"engine", b"gone", b"bug"):
        talk = connect()
        talk.send(b"POST /" + path + b" HTTP/1.1\r\nHost: x\r\n\r\n").head()
        assert b"" == talk.rest()


def test_a_head_must_come_in_time(serve, monkeypatch):
    monkeypatch.setattr("real_engine.http.server._HEAD_SECONDS", 0.2)
    talk = serve({"GET /a": ok})()
    began = time.monotonic()
    talk.socket.settimeout(0.05)
    talk.send(b"GET /a HTTP/1.1\r\n")
    with pytest.raises((ConnectionError, StopIteration)):  # noqa: PT012 -- it ends at one of many calls
        while True:
            talk.send(b"A")
            try:
                if not talk.socket.recv(10):
                    raise StopIteration
            except TimeoutError:
                continue
    assert time.monotonic() - began < 5


def test_a_silent_connection_is_closed(serve):
    talk = serve({"GET /a": ok}, idle_seconds=0.2)()
    assert (200, b"OK") == talk.send(GET % b"a").answer()
    assert b"" == talk.rest()


def test_stopping_lets_requests_end_and_takes_no_more(serve):
    begun = threading.Event()

    def slow(request):
        begun.set()
        time.sleep(0.3)
        return Response(200, b"done")

    connect = serve({"GET /slow": slow, "GET /a": ok})
    busy, idle = connect(), connect()
    assert (200, b"OK") == idle.send(GET % b"a").answer()
    busy.send(GET % b"slow")
    assert begun.wait(5)
    stopping = threading.Thread(target=connect.server.stop, args=(5.0,))
    stopping.start()
    status, fields = busy.head()
    assert (200, "close", b"done") == (status, fields["Connection"], busy.rest())
    assert b"" == idle.rest()
    stopping.join(5)
    assert not stopping.is_alive()
    with pytest.raises(OSError):  # noqa: PT011 -- refused, or the socket isn't there
        connect()


def test_stopping_ends_streams_that_watch_their_client_and_they_end_whole(serve):
    def handler(request):
        def items():
            yield b"x"
            while request.poll(None, None) != "gone":
                pass

        return Response(200, items())

    connect = serve({"GET /s": handler})
    talk = connect()
    talk.send(GET % b"s").head()
    assert b"1\r\nx\r\n" == talk.exactly(6)
    assert connect.server.stop(5.0)
    assert b"0\r\n\r\n" == talk.rest()


def test_what_does_not_end_is_cut_off(serve):
    release = threading.Event()
    begun = threading.Event()

    def stuck(request):
        begun.set()
        release.wait(10)
        return Response(200, b"late")

    connect = serve({"GET /a": stuck})
    talk = connect().send(GET % b"a")
    assert begun.wait(5)
    assert not connect.server.stop(0.1)
    assert b"" == talk.rest()
    release.set()


def test_a_hundred_connections_at_once(serve):
    connect = serve({"GET /a": ok})
    talks = [connect() for _ in range(100)]
    for talk in talks:
        talk.send(GET % b"a")
    assert {(200, b"OK")} == {talk.answer() for talk in talks}


def test_large_bodies_both_ways(serve):
    data = os.urandom(3 << 20)
    talk = serve({"POST /echo": echo})()
    sending = threading.Thread(
        target=talk.send, args=(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data,)
    )
    sending.start()
    assert (200, data) == talk.answer()
    sending.join()


def test_a_request_costs_little(serve):
    """A kept connection answers within 0.3 ms, a new one within 1 ms: the best of some rounds, since others run too."""
    connect = serve({"GET /a": ok})
    talk = connect()
    kept, fresh = [], []
    for _ in range(200):
        began = time.perf_counter()
        talk.socket.sendall(GET % b"a")
        talk.socket.recv(1000)
        kept.append(time.perf_counter() - began)
    for _ in range(50):
        began = time.perf_counter()
        other = connect()
        other.socket.sendall(GET % b"a")
        other.socket.recv(1000)
        fresh.append(time.perf_counter() - began)
        other.close()
    assert (True, True) == (sorted(kept)[20] < 0.3e-3, sorted(fresh)[5] < 1e-3)


def test_a_client_that_closes_in_the_middle_leaves_no_thread(serve):
    connect = serve({"POST /echo": echo})
    for data in (b"", b"POST", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"):
        talk = connect()
        talk.send(data)
        talk.close()
    deadline = time.monotonic() + 5
    while connect.server.connections and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    assert 0 == connect.server.connections
