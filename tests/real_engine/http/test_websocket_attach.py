"""Attaching over a websocket: a served daemon, a client of another's making, and Docker's own daemon beside ours."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import busybox_tar
from engine_api import EngineApi
from served_engine import ServedEngine, served

websocket = pytest.importorskip("websocket", reason="needs the package websocket-client")
pytestmark = [pytest.mark.root]

ALL = "stream=1&stdin=1&stdout=1&stderr=1"
INPUT = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
BINARY, CLOSE, PING, PONG = (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_CLOSE, 9, 10)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    with served(tmp_path_factory.mktemp("websockets")) as engine:
        yield engine


@pytest.fixture(scope="module")
def api(engine: ServedEngine) -> EngineApi:
    return engine.api


def attach(api: EngineApi, identifier: str, query: str = ALL) -> Any:
    """A websocket of the client library on the daemon's socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(15)
    connection.connect(str(api.path))
    client = websocket.WebSocket()
    address = f"ws://localhost{api.version}/containers/{identifier}/attach/ws?{query}"
    client.connect(address, socket=connection)
    return client


def until(client: Any, wanted: int) -> bytes:
    """Binary messages until so many bytes have come."""
    found = b""
    while len(found) < wanted:
        code, data = client.recv_data()
        assert BINARY == code
        found += data
    return found


def to_the_end(client: Any) -> bytes:
    """All binary messages up to the close."""
    found = b""
    while True:
        code, frame = client.recv_data_frame(True)
        if code == CLOSE:
            assert b"\x03\xe8" == frame.data  # 1000, a normal end
            return found
        assert BINARY == code
        found += frame.data


def test_bytes_go_both_ways_unchanged_and_the_end_of_the_websocket_is_the_end_of_the_input(api: EngineApi) -> None:
    identifier = api.create("cat", **INPUT)
    client = attach(api, identifier)
    assert 204 == api.post(f"/containers/{identifier}/start").status
    data = bytes(range(256)) * 8000
    sending = threading.Thread(target=client.send_binary, args=(data,))
    sending.start()
    assert data == until(client, len(data))
    sending.join()
    client.send("text, 안녕")
    assert "text, 안녕".encode() == until(client, 12)
    client.close()
    assert 0 == api.wait(identifier)
    api.remove(identifier)


def test_much_output_and_a_close_after_it(api: EngineApi) -> None:
    identifier = api.create("sh", "-c", "head -c 3000000 /dev/urandom | tee /data; md5sum /data; exit 3")
    client = attach(api, identifier)
    api.post(f"/containers/{identifier}/start")
    found = to_the_end(client)
    digest = hashlib.md5(found[:3_000_000], usedforsecurity=False).hexdigest()
    assert f"{digest}  /data\n".encode() == found[3_000_000:]
    assert 3 == api.wait(identifier)
    api.remove(identifier)


def test_fragments_pings_and_empty_messages(api: EngineApi) -> None:
    identifier = api.create("cat", **INPUT)
    client = attach(api, identifier)
    api.post(f"/containers/{identifier}/start")
    client.send_frame(websocket.ABNF.create_frame(b"one ", BINARY, 0))
    client.ping(b"are you there")
    client.send_frame(websocket.ABNF.create_frame(b"", websocket.ABNF.OPCODE_CONT, 0))
    client.send_frame(websocket.ABNF.create_frame(b"message", websocket.ABNF.OPCODE_CONT, 1))
    code, frame = client.recv_data_frame(True)
    assert (PONG, b"are you there") == (code, frame.data)
    assert b"one message" == until(client, 11)
    client.send_binary(b"")
    client.pong(b"that nobody asked for")
    client.send_binary(b"still here")
    assert b"still here" == until(client, 10)
    client.close()
    api.remove(identifier)


def test_a_message_that_is_too_long_is_refused_with_its_code(api: EngineApi) -> None:
    identifier = api.create("cat", **INPUT)
    client = attach(api, identifier)
    api.post(f"/containers/{identifier}/start")
    head = b"\x82\xff" + (1 << 40).to_bytes(8) + b"mask"
    client.sock.sendall(head)
    code, frame = client.recv_data_frame(True)
    assert (CLOSE, 1009) == (code, int.from_bytes(frame.data[:2]))
    client.shutdown()
    api.remove(identifier)


def test_detach_keys_end_the_session_only(api: EngineApi) -> None:
    identifier = api.create("cat", Tty=True, **INPUT)
    client = attach(api, identifier, f"{ALL}&detachKeys=ctrl-a,x")
    api.post(f"/containers/{identifier}/start")
    client.send_binary(b"hi\n")
    assert b"hi\r\nhi\r\n" == until(client, 8)
    client.send_binary(b"\x01x")
    assert b"" == to_the_end(client)
    assert api.inspect(identifier)["State"]["Running"]
    api.remove(identifier)


def test_only_the_streams_that_are_asked_for(api: EngineApi) -> None:
    identifier = api.create("sh", "-c", "echo out; echo err >&2; read line; echo $line", **INPUT)
    one, other = attach(api, identifier, "stream=1&stderr=1"), attach(api, identifier, "stream=1&stdout=1&stdin=1")
    api.post(f"/containers/{identifier}/start")
    other.send_binary(b"in\n")
    assert (b"err\n", b"out\nin\n") == (to_the_end(one), to_the_end(other))
    api.remove(identifier)


def test_what_was_written_before_and_the_end_where_no_more_is_asked_for(api: EngineApi) -> None:
    identifier = api.create("sh", "-c", "echo before; echo aside >&2; read line; echo $line", **INPUT)
    assert 204 == api.post(f"/containers/{identifier}/start").status
    api.until(lambda: b"before" in api.logs(identifier, stdout=1) and b"aside" in api.logs(identifier, stderr=1))
    assert b"before\n" == to_the_end(attach(api, identifier, "logs=1&stdout=1"))
    assert b"" == to_the_end(attach(api, identifier, "stdin=1&stdout=1"))
    client = attach(api, identifier, f"{ALL}&logs=1")
    assert b"before\naside\n" == until(client, 13)
    client.send_binary(b"after\n")
    assert b"after\n" == to_the_end(client)
    api.remove(identifier)


def test_clients_that_vanish_leave_the_container_and_no_threads(engine: ServedEngine, api: EngineApi) -> None:
    identifier = api.run("sh", "-c", "while :; do echo line; sleep 0.01; done", OpenStdin=True)
    before = engine.threads()
    clients = [attach(api, identifier) for _ in range(20)]
    for client in clients:
        until(client, 5)
    for client in clients:
        client.sock.close()  # without a word
    api.until(lambda: engine.threads() <= before + 16)  # some wait for the next connection
    assert api.inspect(identifier)["State"]["Running"]
    assert "Traceback" not in engine.daemon.log
    api.remove(identifier)


def test_what_is_no_websocket_is_told_so(api: EngineApi) -> None:
    identifier = api.run("sleep", "100")
    answer = api.get(f"/containers/{identifier}/attach/ws", stream=1)
    assert (400, "not websocket protocol") == (answer.status, answer.message)
    missing = api.get("/containers/nosuch/attach/ws", stream=1)
    assert (404, "No such container: nosuch") == (missing.status, missing.message)
    api.remove(identifier)


@pytest.mark.peer
def test_the_same_bytes_come_from_dockers_daemon(api: EngineApi, dockers: Any, tmp_path: Path) -> None:
    theirs = EngineApi(dockers.socket, "/v1.41", image="ws")
    imported = theirs.post("/images/create", busybox_tar(tmp_path), fromSrc="-", repo="ws", changes='CMD ["sh"]')
    assert 200 == imported.status, imported.body
    data = os.urandom(70_000)

    def session(one: EngineApi) -> tuple[bytes, int, bytes, int]:
        identifier = one.create("sh", "-c", 'head -c 70000 | cat; read line; echo "$line"; exit 4', **INPUT)
        client = attach(one, identifier)
        one.post(f"/containers/{identifier}/start")
        client.send_binary(data)
        echoed = until(client, len(data))
        client.ping(b"ping")
        code = client.recv_data_frame(True)[0]
        client.send("text\n")
        last = until(client, 5)
        exit_code = one.wait(identifier)
        one.remove(identifier)
        return echoed, code, last, exit_code

    assert (data, PONG, b"text\n", 4) == session(theirs)
    assert session(theirs) == session(api)
