"""A registry of the tests' own, and a client that shows the very headers. Tests get both as fixtures."""

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from front import front

from real_engine.http import Server
from real_engine.http.listeners import TcpListener
from real_engine.registry import media_types
from real_engine.registry.names import sha256
from real_engine.registry.passwords import Passwords
from real_engine.registry.server import Registry
from real_engine.registry.storage import Storage

__all__ = ["front"]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["errors"][0]["code"])


class Client:
    """Speaks plain HTTP, so that a test sees the very headers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def put_blob(self, name: str, content: bytes) -> str:
        digest = str(sha256(content))
        answer = self("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", content)
        assert 201 == answer.status, answer
        return digest

    def put_manifest(self, name: str, reference: str, fields: dict[str, Any]) -> Answer:
        content = json.dumps(fields).encode()
        return self("PUT", f"/v2/{name}/manifests/{reference}", content, Content_Type=fields["mediaType"])

    def put_image(self, name: str, tag: str, layers: tuple[bytes, ...] = (b"layer",), **more: Any) -> str:
        fields = self.image(name, layers) | more
        answer = self.put_manifest(name, tag, fields)
        assert 201 == answer.status, answer
        return answer.headers["docker-content-digest"]

    def image(self, name: str, layers: tuple[bytes, ...] = (b"layer",)) -> dict[str, Any]:
        """A manifest whose blobs the registry has."""
        config = b'{"architecture":"amd64","os":"linux"}'
        return {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {
                "mediaType": media_types.OCI_CONFIG,
                "digest": self.put_blob(name, config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": media_types.OCI_LAYER,
                    "digest": self.put_blob(name, layer),
                    "size": len(layer),
                }
                for layer in layers
            ],
        }


class Serving:
    """A registry that is being served by this process."""

    def __init__(self, root: Path, passwords: Passwords | None = None, **options: Any) -> None:
        self.registry = Registry(Storage(root), passwords, **options)
        self.listener = TcpListener("127.0.0.1", 0)
        self.server = Server(self.registry, [self.listener])
        self.server.start()
        self.client = Client(self.listener.port)
        self.host = self.client.host

    def stop(self) -> None:
        self.server.stop(1.0)


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    """Serves a directory as a registry: `serve(root, passwords=None, read_only=False, ...)`."""
    served = []

    def begin(root: Path, passwords: Passwords | None = None, **options: Any) -> Serving:
        served.append(Serving(root, passwords, **options))
        return served[-1]

    yield begin
    for one in served:
        one.stop()


@pytest.fixture
def serving(tmp_path: Path, serve: Callable[..., Serving]) -> Serving:
    """An empty registry."""
    return serve(tmp_path / "registry")


@pytest.fixture
def client(serving: Serving) -> Client:
    """Speaks to the empty registry."""
    return serving.client


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits as long between attempts as one does for a real registry."""
    monkeypatch.setattr("real_engine.registry.client._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("real_engine.registry.download._FIRST_PAUSE_SECONDS", 0.001)
