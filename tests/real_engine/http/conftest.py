"""A server on a UNIX socket, and connections to it that speak raw bytes."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from real_engine.http.listeners import UnixListener
from real_engine.http.router import Router
from real_engine.http.server import Server


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name is short enough for a UNIX socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="onggi-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


class Talk:
    """A connection of a client, byte by byte."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(os.fspath(path))

    def send(self, data: bytes) -> "Talk":
        self.socket.sendall(data)
        return self

    def until(self, marker: bytes) -> bytes:
        """What comes, up to and with the marker."""
        data = b""
        while not data.endswith(marker):
            piece = self.socket.recv(1)
            assert piece, data
            data += piece
        return data

    def head(self) -> tuple[int, dict[str, str]]:
        """The head of the next answer."""
        lines = self.until(b"\r\n\r\n").decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), fields

    def answer(self) -> tuple[int, bytes]:
        """The next answer, whose length is told."""
        status, fields = self.head()
        return status, self.exactly(int(fields.get("Content-Length", "0")))

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            assert piece, data
            data += piece
        return data

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        data = b""
        while piece := self.socket.recv(65536):
            data += piece
        return data

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def serve(short_path: Path) -> Iterator[Callable[..., Callable[[], Talk]]]:
    """Serves handlers given as {"METHOD /path": handler}; returns what makes a connection."""
    servers: list[Server] = []
    talks: list[Talk] = []

    def start(handlers, **options) -> Callable[[], Talk]:
        if callable(handlers):
            handler = handlers
        else:
            handler = Router()
            for route, one in handlers.items():
                handler.add(*route.split(" ", 1), one)
        path = short_path / f"s{len(servers)}"
        server = Server(handler, [UnixListener(path)], **options)
        server.start()
        servers.append(server)

        def talk() -> Talk:
            talks.append(Talk(path))
            return talks[-1]

        talk.server = server  # type: ignore[attr-defined]
        talk.talks = talks  # type: ignore[attr-defined]
        return talk

    yield start
    for talk in talks:
        talk.close()
    for server in servers:
        server.stop(2.0)
