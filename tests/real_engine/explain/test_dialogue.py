"""What passes between a client and a daemon is decoded however it is cut, and passed on unchanged."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.explain import redaction
from real_engine.explain.dialogue import Dialogue

CREATE = b'{"Image":"bb","Env":["DB_PASSWORD=hunter2","PATH=/bin"]}'
REQUESTS = (
    b"HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    b"POST /v1.43/containers/create HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: c2VjcmV0\r\nContent-Length: %d\r\n\r\n"
    % len(CREATE)
    + CREATE
    + b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\0cd\r\n3;x=y\r\nefg\r\n0\r\n\r\n"
    b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    b'HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n{"Id":"abc"}'
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{"stream":"one"}\r\n\r\n0\r\n\r\n'
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"
    b"\1\0\0\0\0\0\0\3hi\n\2\0\0\0\0\0\0\4oops"
)


def cut(data, places):
    marks = sorted({place % len(data) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(marks)]


def dialogue(extra=""):
    told = []
    numbers = itertools.count(1)
    return Dialogue(1, lambda: next(numbers), told.append, lambda: 0.5, extra), told


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=30), st.lists(st.integers(0, 10**6), max_size=30))
def test_it_is_told_the_same_however_it_is_cut(requests, answers):
    talk, told = dialogue()
    passed = b"".join(talk.client(piece) for piece in cut(REQUESTS, requests))
    for piece in cut(ANSWERS, answers):
        talk.server(piece)
    assert REQUESTS == passed
    assert ["/_ping", "/v1.43/containers/create", "/build", "/containers/x/attach"] == [
        each["target"] for each in told if each["kind"] == "request"
    ]
    assert [200, 201, 200, 101] == [each["status"] for each in told if each["kind"] == "response"]
    assert [(2, len(CREATE)), (3, 8)] == [(each["exchange"], each["bytes"]) for each in told if each["kind"] == "sent"]
    assert [("stdout", "hi\n"), ("stderr", "oops")] == [
        (each["stream"], each["text"]) for each in told if each["kind"] == "frame"
    ]


def test_no_secret_is_told():
    talk, told = dialogue("X-Onggi-Explain: 0123")
    passed = talk.client(REQUESTS)
    text = json.dumps(told)
    assert 4 == passed.count(b"X-Onggi-Explain: 0123\r\n")
    assert [] == [secret for secret in ("c2VjcmV0", "hunter2", "0123") if secret in text]
    assert "PATH=/bin" in text


def test_what_is_typed_is_counted_and_not_told():
    talk, told = dialogue()
    talk.client(REQUESTS)
    talk.server(ANSWERS)
    assert b"my password\n" == talk.client(b"my password\n")
    assert ("stdin", 12, None) == (told[-1]["stream"], told[-1]["bytes"], told[-1].get("text"))


def test_an_upgrade_that_is_refused_is_http_again():
    talk, told = dialogue()
    talk.client(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    talk.server(b'HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n{"message":"no"}'[:-1])
    talk.client(b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n")
    assert "/info" == told[-1]["target"]


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\0", b"GET /\r\n\r\n", b"A" * 100_000])
def test_what_is_not_http_passes_as_it_is(noise):
    talk, _ = dialogue("X: y")
    assert noise == talk.client(noise) + talk.client_ended()


def test_login_is_hidden_whole():
    body = b'{"username":"me","password":"x","serveraddress":"r"}'
    talk, told = dialogue()
    talk.client(b"POST /v1.43/auth HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert redaction.HIDDEN == told[-1]["text"]


def test_build_arguments_hide_their_secrets():
    shown = redaction.target("/build?t=a&buildargs=%7B%22API_TOKEN%22%3A%22abc%22%2C%22V%22%3A%221%22%7D")
    assert ("abc" in shown, "%22V%22" in shown) == (False, True)
