"""A stream over TLS that says that it sends no more, and goes on reading; and the certificates of several daemons."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from real_engine.compose.host import Host
from real_engine.compose.tls_stream import TlsStream, hijack
from real_engine.errors import EngineError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, to make certificates")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One self-signed certificate of 127.0.0.1, as authority, server and client."""
    directory = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    shutil.copy(directory / "cert.pem", directory / "ca.pem")
    return directory


@pytest.fixture
def serving(certificates: Path) -> Iterator[Callable[[Callable[[ssl.SSLSocket], None]], int]]:
    """Starts a server that gives its one client to a function; returns the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    threads: list[threading.Thread] = []

    def serve(answer: Callable[[ssl.SSLSocket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(10)

        def run() -> None:
            with listener, listener.accept()[0] as wire, context.wrap_socket(wire, server_side=True) as client:
                client.settimeout(10)
                answer(client)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield serve
    for thread in threads:
        thread.join(15)


def _read_all(stream: TlsStream) -> bytes:
    data = b""
    while piece := stream.recv(1000):
        data += piece
    return data


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_what_comes_after_the_end_of_our_input_is_read(certificates: Path, serving, size: int):
    def answer(client: ssl.SSLSocket) -> None:
        client.sendall(b"before ")
        data = b""
        while piece := client.recv(1 << 16):
            data += piece
        client.sendall(data + b" after")

    port = serving(answer)
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    stream = TlsStream(socket.create_connection(("127.0.0.1", port), 10), context, "127.0.0.1")
    assert b"before " == stream.recv(7)
    stream.sendall(b"x" * size)
    stream.shutdown(socket.SHUT_WR)
    assert b"x" * size + b" after" == _read_all(stream)
    stream.close()


def test_what_has_come_already_is_not_lost_by_the_end_of_our_input(certificates: Path, serving):
    both = threading.Event()

    def answer(client: ssl.SSLSocket) -> None:
        client.sendall(b"a" * 20_000)  # more records than the reader has asked for
        both.set()
        assert b"" == client.recv(1)
        client.sendall(b"end")

    port = serving(answer)
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    stream = TlsStream(socket.create_connection(("127.0.0.1", port), 10), context, "127.0.0.1")
    assert both.wait(10)
    assert b"aaa" == stream.recv(3)
    stream.shutdown(socket.SHUT_WR)
    assert b"a" * 19_997 + b"end" == _read_all(stream)
    stream.close()


class _Client:
    """What `hijack` needs of the SDK's client."""

    def __init__(self, directory: Path, port: int) -> None:
        self.base_url, self.api_version = f"https://127.0.0.1:{port}", "1.43"
        self.verify, self.cert = str(directory / "ca.pem"), (str(directory / "cert.pem"), str(directory / "key.pem"))


def test_a_hijacked_request_and_its_refusal(certificates: Path, serving):
    heads: list[bytes] = []

    def accept(client: ssl.SSLSocket) -> None:
        heads.append(client.recv(4096))
        client.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nhello")

    def refuse(client: ssl.SSLSocket) -> None:
        client.recv(4096)
        client.sendall(b'HTTP/1.1 404 Not Found\r\nContent-Length: 31\r\n\r\n{"message":"No such exec: 12"}\n')

    stream = hijack(_Client(certificates, serving(accept)), "/exec/1/start", b"{}")
    assert b"hello" == _read_all(stream)
    stream.close()
    assert heads[0].startswith(b"POST /v1.43/exec/1/start HTTP/1.1\r\n")
    with pytest.raises(EngineError, match=r"^No such exec: 12$"):
        hijack(_Client(certificates, serving(refuse)), "/exec/12/start")


def test_each_daemon_of_a_fleet_is_asked_with_our_certificate(certificates: Path, serving, monkeypatch):
    def answer(client: ssl.SSLSocket) -> None:
        client.recv(4096)
        body = b'{"ApiVersion":"1.43"}'
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))

    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.certs.where())  # it must not replace the daemon's authority
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    host = Host(f"tcp://127.0.0.1:{serving(answer)}", "a")
    assert (1, 43) == host.api_version
    host.close()


def test_why_a_daemon_is_not_there_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    plain = Host("tcp://127.0.0.1:1", "a")
    assert not plain.alive()
    assert plain.trouble.endswith("is it running? (with TLS: set DOCKER_TLS_VERIFY=1)")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    without = Host("tcp://127.0.0.1:1", "a")
    assert not without.alive()
    assert f"cannot read {tmp_path}/ca.pem" in without.trouble
    broken = Host("tcp://127.0.0.1:port", "a")
    monkeypatch.delenv("DOCKER_TLS_VERIFY")
    assert not broken.alive()
    assert "`tcp://127.0.0.1:port` is no address of a daemon" in broken.trouble
