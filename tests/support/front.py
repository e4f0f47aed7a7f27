"""A server on a port of this machine, for a handler of the test's own; a conftest imports it."""

from collections.abc import Callable, Iterator

import pytest

from real_engine.http import Request, Response, Server
from real_engine.http.listeners import TcpListener

Front = Callable[[Callable[[Request], Response | None]], str]


@pytest.fixture
def front() -> Iterator[Front]:
    """Serves a handler; returns its host."""
    servers: list[Server] = []

    def begin(handler: Callable[[Request], Response | None]) -> str:
        listener = TcpListener("127.0.0.1", 0)
        servers.append(Server(handler, [listener]))
        servers[-1].start()
        return f"127.0.0.1:{listener.port}"

    yield begin
    for server in servers:
        server.stop(1.0)
