"""The balancer: turns, health, half-closed connections."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from real_engine.compose.balancer import Backend, Balancer, Frontend
from real_engine.errors import Conflict


class _Server(socketserver.ThreadingTCPServer):
    """Reads until the client has ended, and then answers with its name and what it read."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, name: bytes, port: int = 0) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(name + b":" + self.rfile.read())

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def backend(self) -> Backend:
        return Backend("127.0.0.1", self.server_address[1])

    def close(self) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture
def servers() -> Iterator[list[_Server]]:
    found = [_Server(b"a"), _Server(b"b")]
    yield found
    for server in found:
        server.close()


FRONT = Frontend("127.0.0.1", 0)


def _ask(balancer: Balancer, data: bytes = b"x") -> bytes:
    with socket.create_connection(("127.0.0.1", balancer.port(FRONT)), 5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_turns_and_half_closed_connections(servers):
    with Balancer() as balancer:
        balancer.serve({FRONT: [server.backend for server in servers]})
        answers = [_ask(balancer) for _ in range(4)]
        assert [b"a:x", b"a:x", b"b:x", b"b:x"] == sorted(answers)
        assert answers[0] != answers[1]
        large = b"y" * 3_000_000
        assert large == _ask(balancer, large)[2:]


def test_a_replica_that_is_away_is_left_out_and_taken_in_again(servers):
    with Balancer() as balancer:
        balancer.serve({FRONT: [server.backend for server in servers]})
        port = servers[1].server_address[1]
        servers[1].close()
        assert {b"a:x"} == {_ask(balancer) for _ in range(4)}
        assert [servers[0].backend] == balancer.healthy(FRONT)
        servers[1] = _Server(b"b", port)
        deadline = time.monotonic() + 8
        while len(balancer.healthy(FRONT)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert {b"a:x", b"b:x"} == {_ask(balancer) for _ in range(4)}


def test_nobody_behind_is_a_reset(servers):
    with Balancer() as balancer:
        balancer.serve({FRONT: []})
        with pytest.raises(OSError, match=r"reset|not connected"):
            _ask(balancer)


def test_backends_change_while_connections_go_on(servers):
    with Balancer() as balancer:
        balancer.serve({FRONT: [servers[0].backend]})
        with socket.create_connection(("127.0.0.1", balancer.port(FRONT)), 5) as connection:
            connection.sendall(b"begin ")
            time.sleep(0.1)
            balancer.serve({FRONT: [servers[1].backend]})
            assert b"b:x" == _ask(balancer)
            connection.sendall(b"end")
            connection.shutdown(socket.SHUT_WR)
            assert b"a:begin end" == connection.makefile("rb").read()


def test_a_port_that_is_taken():
    with socket.socket() as taken, Balancer() as balancer:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Conflict, match="the balancer cannot listen on 127"):
            balancer.serve({Frontend("127.0.0.1", taken.getsockname()[1]): []})


def test_nothing_listens_afterwards(servers):
    with Balancer() as balancer:
        balancer.serve({FRONT: [servers[0].backend]})
        port = balancer.port(FRONT)
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
        pytest.fail("it still listens")
