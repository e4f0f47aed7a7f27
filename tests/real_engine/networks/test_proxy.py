"""The userland proxy by itself: what one client or port does to the others."""

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from real_engine.networks.proxy import UserlandProxy


@pytest.fixture
def proxy() -> Iterator[UserlandProxy]:
    proxy = UserlandProxy()
    yield proxy
    proxy.close()


def echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(connection.recv(100))


def ask(listener: socket.socket) -> bytes:
    with socket.create_connection(listener.getsockname(), timeout=5.0) as client:
        client.sendall(b"hello")
        return client.recv(100)


def test_a_container_that_cannot_be_reached_takes_no_other_port_with_it(proxy: UserlandProxy) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lost,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        lost.bind(("127.0.0.1", 0))
        lost.setblocking(False)
        # The kernel refuses to connect to it, as to a container whose network has gone.
        proxy.serve(lost, ("255.255.255.255", 9))
        for _ in range(3):
            client.sendto(b"x", lost.getsockname())
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        proxy.serve(listener, server.getsockname())
        assert b"hello" == ask(listener)
        proxy.stop(lost)
        proxy.stop(listener)


def test_a_bug_at_one_connection_does_not_end_the_others(
    proxy: UserlandProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as bad,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as server,
        caplog.at_level(logging.ERROR, "onggi"),
    ):
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        proxy.serve(bad, ("127.0.0.1", -1))  # no port, which connect(2)'s caller finds out too late
        proxy.serve(listener, server.getsockname())
        with socket.create_connection(bad.getsockname(), timeout=5.0):
            assert b"hello" == ask(listener)
        proxy.stop(bad)
        proxy.stop(listener)
    assert "the userland proxy failed" in caplog.text
