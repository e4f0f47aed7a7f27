"""A daemon inside the test, a daemon as a process of its own, a client for both, and the description of the API."""

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from front import front

from real_engine.daemon.app import Daemon
from real_engine.daemon.config import DaemonConfig
from real_engine.http.listeners import UnixListener
from real_engine.http.server import Server

__all__ = ["front"]


def _load_description() -> Any:
    path = Path(__file__).with_name("api_description.py")
    spec = importlib.util.spec_from_file_location("api_description", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_api_description = _load_description()


@dataclass(frozen=True)
class Answer:
    """What a daemon answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The body as JSON lines."""
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def message(self) -> str:
        """The message of an error."""
        return str(self.json()["message"])


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


@dataclass
class Api:
    """A client of a daemon. `daemon` is the object itself where it lives in this process."""

    socket_path: Path
    daemon: Daemon | None = None
    version: str = "/v1.43"
    timeout: float = 30.0

    @property
    def host(self) -> str:
        """What `docker -H` takes."""
        return f"unix://{self.socket_path}"

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Ask; `body` is bytes, or anything else to be sent as JSON."""
        fields = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        connection = UnixConnection(self.socket_path, self.timeout)
        try:
            connection.request(method, self.version + path, body, fields)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Answer:
        """GET, with a query: a dictionary or list among its values is sent as JSON (filters)."""
        return self.request("GET", path + _query(query))

    def post(self, path: str, body: Any = None, **query: Any) -> Answer:
        """POST."""
        return self.request("POST", path + _query(query), body)

    def delete(self, path: str, **query: Any) -> Answer:
        """DELETE."""
        return self.request("DELETE", path + _query(query))

    def raw(self, data: bytes) -> socket.socket:
        """A connection on which `data` has been sent."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.timeout)
        connection.connect(os.fspath(self.socket_path))
        connection.sendall(data)
        return connection


def _query(values: dict[str, Any]) -> str:
    parts = []
    for name, value in values.items():
        text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
        parts.append(f"{quote(name)}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name is short enough for a UNIX socket in it, and for a data root."""
    directory = Path(tempfile.mkdtemp(prefix="onggi-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Daemon]:
    """A daemon whose services are made when they are asked for; it has no supervisor until something needs one."""
    daemon = Daemon(DaemonConfig(short_path / "root"))
    yield daemon
    daemon.stop()


@pytest.fixture
def api(daemon: Daemon, short_path: Path) -> Iterator[Api]:
    """A client of `daemon`, over a real socket."""
    path = short_path / "api.sock"
    server = Server(daemon, [UnixListener(path)])
    server.start()
    yield Api(path, daemon)
    server.stop(2.0)


@dataclass
class ServedDaemon:
    """`onggi engine serve` as a process."""

    api: Api
    data_root: Path
    process: subprocess.Popen[str]
    log: Path
    arguments: list[str] = field(default_factory=list)

    def end(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Send a signal and wait; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


@pytest.fixture
def serve(short_path: Path) -> Iterator[Callable[..., ServedDaemon]]:
    """Starts `onggi engine serve` with more arguments, waits until it is ready, and ends it after the test."""
    started: list[ServedDaemon] = []

    def start(*arguments: str, data_root: Path | None = None) -> ServedDaemon:
        root = data_root or short_path / "root"
        path = short_path / f"serve-{len(started)}.sock"
        log = short_path / f"serve-{len(started)}.log"
        command = [sys.executable, "-m", "classroom.cli", "engine", "serve", "--data-root", str(root)]
        command += ["-H", f"unix://{path}", *arguments]
        with log.open("w") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True)
        served = ServedDaemon(Api(path), root, process, log, command)
        started.append(served)
        deadline = time.monotonic() + 20
        while "listening on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        return served

    yield start
    for served in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            served.end()
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait()


@pytest.fixture(scope="session")
def description() -> Any:
    """Docker's description of the API."""
    if not _api_description.DESCRIPTION.exists():
        pytest.skip(f"Docker's description of the API is not there: {_api_description.DESCRIPTION}")
    return _api_description.description()


@pytest.fixture
def check(description: Any) -> Callable[..., None]:
    """Holds an answer against Docker's description: `check("GET", "/info", 200, payload)`."""
    checked: Callable[..., None] = description.check
    return checked


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(directory)], check=True, timeout=10)
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True, timeout=10)
