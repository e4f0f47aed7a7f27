import json
import stat

import pytest

from real_engine.http.messages import Response
from real_engine.http.trace import TraceFile, is_secret


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def traced(serve, tmp_path):
    """Serves with a trace; gives what makes connections, and the file."""
    file = TraceFile(tmp_path / "trace.jsonl")

    def start(handlers, **options):
        return serve(handlers, trace=file, **options)

    start.path = tmp_path / "trace.jsonl"
    return start


def finish(connect):
    connect.server.stop(5.0)


def test_an_exchange_is_written_down(traced):
    def handler(request):
        return Response.json({"got": request.json()}, 201, {"X-A": "b"})

    connect = traced({"POST /a": handler})
    talk = connect()
    head = b"POST /a?x=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n"
    assert 201 == talk.send(head + b'{"a":1}').answer()[0]
    finish(connect)
    (record,) = records(traced.path)
    assert ("POST", "/a?x=1", 201, '{"a":1}', '{"got":{"a":1}}\n', False) == (
        record["method"],
        record["target"],
        record["status"],
        record["request_body"],
        record["response_body"],
        record["hijacked"],
    )
    assert ["X-A", "b"] in record["response_headers"]
    assert (7, 16) == (record["request_bytes"], record["response_bytes"])
    assert 0 < record["head_seconds"] <= record["total_seconds"] < 5
    assert record["pid"] > 0
    assert 0o600 == stat.S_IMODE(traced.path.stat().st_mode)


def test_streams_and_raw_connections_too(traced):
    def attach(request):
        request.hijack().close()

    connect = traced({"GET /s": lambda request: Response(200, iter([b"ab", b"cd"])), "POST /attach": attach})
    talk = connect()
    talk.send(b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n").until(b"0\r\n\r\n")
    talk.send(b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").rest()
    finish(connect)
    stream, raw = records(traced.path)
    assert ("abcd", 4, 200, False) == (
        stream["response_body"],
        stream["response_bytes"],
        stream["status"],
        stream["hijacked"],
    )
    assert (101, True) == (raw["status"], raw["hijacked"])


def test_bodies_are_kept_up_to_a_bound_and_bytes_in_base64(traced):
    connect = traced({"POST /a": lambda request: Response(200, request.body.read())}, trace_body_bytes=4)
    data = b"\xff\xfe" * 10
    connect().send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + data).answer()
    finish(connect)
    (record,) = records(traced.path)
    assert ({"base64": "//7//g=="}, 20, 20) == (
        record["response_body"],
        record["request_bytes"],
        record["response_bytes"],
    )


def test_no_secret_is_written(traced):
    def handler(request):
        request.body.read()
        return Response.json({"IdentityToken": "hunter2"})

    connect = traced({"POST /v1.43/auth": handler, "POST /images/create": handler})
    talk = connect()
    secret = b'{"password":"hunter2"}'
    for path, field in (
        (b"/v1.43/auth", b"A: b"),
        (b"/images/create", b"X-Registry-Auth: hunter2\r\nauthorization: hunter2"),
    ):
        talk.send(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + field + b"\r\nContent-Length: 22\r\n\r\n" + secret)
        talk.answer()
    finish(connect)
    auth, create = records(traced.path)
    assert ("(hidden)", "(hidden)", 22) == (auth["request_body"], auth["response_body"], auth["request_bytes"])
    assert "hunter2" not in json.dumps(auth) + json.dumps(create["request_headers"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/auth", True),
        ("/v1.43/auth", True),
        ("/v1.43/secrets/create", True),
        ("/version", False),
        ("/v1.43/containers/json", False),
        ("/volumes", False),
    ],
)
def test_which_bodies_are_secret(path, expected):
    assert expected is is_secret(path)


def test_a_trace_that_fails_does_not_fail_the_request(serve, caplog):
    def broken(exchange):
        raise OSError("no room")

    talk = serve({"GET /a": lambda request: Response(200, b"OK")}, trace=broken)()
    assert (200, b"OK") == talk.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").answer()
    assert (200, b"OK") == talk.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").answer()
    assert "no room" in caplog.text


def test_no_secret_of_a_build_or_an_environment_is_written(traced):
    connect = traced(
        {
            "POST /build": lambda request: Response.json(request.json()),
            "POST /x": lambda request: Response(200, request.body.read()),
        }
    )
    talk = connect()
    arguments = "%7B%22TOKEN%22%3A%22s3cret%22%2C%22PLAIN%22%3A%22shown%22%7D"  # {"TOKEN":"s3cret","PLAIN":"shown"}
    body = b'{"Env":["DB_PASSWORD=s3cret","HOME=/shown"],"Labels":{"api_key":"s3cret"}}'
    head = f"POST /build?buildargs={arguments} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    assert 200 == talk.send(head.encode() + body).answer()[0]
    cut = b'{"Env":["A_SECRET=s3cret with spaces","B=shown"],"Token" : "s3cret", "rest": "'
    talk = connect()
    talk.send(f"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {len(cut)}\r\n\r\n".encode() + cut).answer()
    finish(connect)
    written = traced.path.read_text()
    assert "s3cret" not in written
    assert 5 == written.count("shown")
