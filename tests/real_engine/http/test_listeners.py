import contextlib
import grp
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from real_engine.errors import Conflict, EngineError, InvalidParameter
from real_engine.http.listeners import TcpListener, UnixListener
from real_engine.http.messages import Response
from real_engine.http.server import Server
from real_engine.http.tls import mutual_context


def test_a_unix_socket_is_for_its_owner_and_one_group(short_path):
    group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getgid())
    listener = UnixListener(short_path / "deep/er/s", group.gr_name)
    status = os.stat(short_path / "deep/er/s")
    assert (0o660, group.gr_gid, True) == (stat.S_IMODE(status.st_mode), status.st_gid, stat.S_ISSOCK(status.st_mode))
    listener.close()
    assert not (short_path / "deep/er/s").exists()


def test_what_a_killed_server_left_is_replaced(short_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(short_path / "s"))
    left.close()
    listener = UnixListener(short_path / "s")
    accepted = []
    thread = threading.Thread(target=lambda: accepted.append(listener.accept()))
    thread.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short_path / "s"))
        thread.join(5)
        _, peer = listener.secure(accepted[0])
    accepted[0].close()
    listener.close()
    assert (os.getpid(), os.geteuid()) == (peer.pid, peer.uid)


def test_a_server_that_lives_is_left_alone(short_path):
    first = UnixListener(short_path / "s")
    with pytest.raises(Conflict, match="another server answers there"):
        UnixListener(short_path / "s")
    assert (short_path / "s").exists()
    first.close()


def test_another_servers_socket_is_not_removed(short_path):
    first = UnixListener(short_path / "s")
    (short_path / "s").unlink()
    second = UnixListener(short_path / "s")
    first.close()
    assert (short_path / "s").exists()
    second.close()


def test_a_file_is_not_replaced(short_path):
    (short_path / "s").write_text("precious")
    with pytest.raises(Conflict, match="no socket"):
        UnixListener(short_path / "s")
    assert "precious" == (short_path / "s").read_text()


def test_places_that_are_none(short_path):
    with pytest.raises(InvalidParameter, match="at most 107 bytes, and this has"):
        UnixListener(short_path / ("x" * 120))
    with pytest.raises(InvalidParameter, match="no group `no-such-group`"):
        UnixListener(short_path / "s", "no-such-group")
    (short_path / "file").touch()
    with pytest.raises(EngineError, match="cannot listen on unix://"):
        UnixListener(short_path / "file/s")


def test_a_port_that_is_taken():
    first = TcpListener("127.0.0.1", 0)
    with pytest.raises(Conflict, match=rf"cannot listen on tcp://127\.0\.0\.1:{first.port}: Address already in use"):
        TcpListener("127.0.0.1", first.port)
    with pytest.raises(EngineError, match="cannot listen on tcp://192\\.0\\.2\\.1:"):
        TcpListener("192.0.2.1", 0)
    first.close()


def test_closing_wakes_who_waits():
    listener = TcpListener("127.0.0.1", 0)
    errors = []

    def wait():
        try:
            listener.accept()
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    listener.close()
    thread.join(5)
    assert (False, 1) == (thread.is_alive(), len(errors))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """An authority, a server's and a client's certificate by it, and a client's by another."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make certificates")
    directory = tmp_path_factory.mktemp("certificates")

    def run(*arguments):
        subprocess.run([openssl, *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        run("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        (directory / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"),
            *("-CAcreateserial", "-days", "2", "-out", f"{name}.pem", "-extfile", f"{name}.ext"),
        )
    return directory


@pytest.fixture
def secured(certificates):
    """A server with TLS on both sides; gives its port, and what it saw."""
    peers = []

    def handler(request):
        if request.path == "/attach":
            with request.hijack() as raw:
                raw.socket.sendall(b"[")
                while data := raw.socket.recv(100):
                    raw.socket.sendall(data)
        peers.append(request.peer.certificate)
        return Response(200, b"x" * 100_000) if request.hijacked is None else None

    context = mutual_context(*(certificates / name for name in ("ca.pem", "server.pem", "server.key")))
    listener = TcpListener("127.0.0.1", 0, context)
    server = Server(handler, [listener])
    server.start()
    yield listener.port, peers
    server.stop(2.0)


def client(certificates, port, name, **versions):
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    for attribute, value in versions.items():
        setattr(context, attribute, value)
    if name:
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="127.0.0.1")


def ask(connection, path=b"/"):
    with connection:
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := connection.recv(65536):
            data += piece
    return data


def test_a_client_with_a_certificate_is_let_in(certificates, secured):
    port, peers = secured
    assert 100_000 == len(ask(client(certificates, port, "client")).partition(b"\r\n\r\n")[2])
    assert ["client"] == peers


@pytest.mark.parametrize("name", [None, "stranger"])
def test_one_without_is_not(certificates, secured, name):
    port, peers = secured
    try:
        data = ask(client(certificates, port, name))
    except (ssl.SSLError, ConnectionError):  # TLS 1.3: the client learns it when it reads
        data = b""
    assert b"" == data
    assert [] == peers


def test_an_old_protocol_is_refused(certificates, secured):
    port, peers = secured
    with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning, match="TLSv1"):
        ask(
            client(
                certificates,
                port,
                "client",
                minimum_version=ssl.TLSVersion.TLSv1,
                maximum_version=ssl.TLSVersion.TLSv1_1,
            )
        )
    assert [] == peers


def test_plain_http_to_a_secured_port_is_not_answered(secured):
    port, peers = secured
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            data = plain.recv(1000)
        except ConnectionError:
            data = b""
    assert (False, []) == (data.startswith(b"HTTP/"), peers)


@pytest.mark.parametrize("beginning", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_a_handshake_that_stalls_is_ended(certificates, secured, beginning, monkeypatch, caplog):
    monkeypatch.setattr("real_engine.http.listeners._HANDSHAKE_SECONDS", 0.3)
    port, peers = secured
    stalled = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(20)]
    for connection in stalled:
        connection.sendall(beginning)
    ask(client(certificates, port, "client"))  # the others are in nobody's way
    for connection in stalled:
        with connection, contextlib.suppress(ConnectionResetError):  # the end too
            assert b"" == connection.recv(100)
    assert ["client"] == peers
    assert [] == caplog.records


def test_a_secured_client_that_stands_still_is_dropped(certificates):
    ended = []

    def handler(request):
        request.limit_stalls(0.2)
        try:
            request.body.read()
        finally:
            ended.append(request.path)

    context = mutual_context(*(certificates / name for name in ("ca.pem", "server.pem", "server.key")))
    listener = TcpListener("127.0.0.1", 0, context)
    server = Server(handler, [listener])
    server.start()
    with client(certificates, listener.port, "client") as connection:
        connection.sendall(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
        with contextlib.suppress(OSError):
            assert b"" == connection.recv(100)
    assert ["/a"] == ended
    server.stop(2.0)


def test_a_secured_connection_can_become_raw(certificates, secured):
    port, _ = secured
    with client(certificates, port, "client") as connection:
        connection.sendall(b"GET /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        data = b""
        while not data.endswith(b"["):
            data += connection.recv(1000)
        connection.sendall(b"hello")
        assert b"hello" == connection.recv(100)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("ca.pem", "server.pem", "client.key"), "--tlscert or --tlskey"),
        (("missing.pem", "server.pem", "server.key"), "--tlscacert: cannot read"),
        (("server.key", "server.pem", "server.key"), "--tlscacert"),
        (("ca.pem", "missing.pem", "server.key"), "cannot read"),
    ],
)
def test_certificates_that_can_not_be_used(certificates, files, message):
    with pytest.raises(EngineError, match=message):
        mutual_context(*(certificates / name for name in files))
