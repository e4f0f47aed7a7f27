"""Registries and servers of tokens that fail or lie: Docker's words for it, and that the next pull succeeds."""

import gzip
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from real_engine.errors import EngineError
from real_engine.http import Request, Response
from real_engine.images.references import Reference
from real_engine.images.store import ImageStore
from real_engine.registry import media_types
from real_engine.registry.client import RegistryClient
from real_engine.registry.credentials import Credentials
from real_engine.registry.errors import RegistryError
from real_engine.registry.names import sha256
from real_engine.registry.origins import Origins
from real_engine.registry.pull import Pull
from real_engine.registry.retries import pause_before
from real_engine.registry.transport import Unreachable

Handler = Callable[[Request], Response | None]
CONTENT = os.urandom(400_000)
SECRET = Credentials("anna", "secret")


@pytest.fixture
def image(serving: Any) -> Any:
    """The registry, with an image `me/app:1` of one layer that holds `file`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(CONTENT)
        archive.addfile(entry, io.BytesIO(CONTENT))
    layer = gzip.compress(buffer.getvalue())
    diff_id = str(sha256(buffer.getvalue()))
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}})
    fields = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {
            "mediaType": media_types.OCI_CONFIG,
            "digest": serving.client.put_blob("me/app", config.encode()),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": media_types.OCI_LAYER_GZIP,
                "digest": serving.client.put_blob("me/app", layer),
                "size": len(layer),
            }
        ],
    }
    assert 201 == serving.client.put_manifest("me/app", "1", fields).status
    return serving


class Store:
    """An image store that pulls."""

    def __init__(self, root: Path) -> None:
        self.images = ImageStore(root)
        self.root = root
        self.lines: list[dict[str, Any]] = []

    def pull(self, host: str, credentials: Credentials = Credentials()) -> bytes:  # noqa: B008 -- it is frozen
        """Pull the image; returns what its file holds."""
        reference = Reference.parse(f"{host}/me/app:1")
        origins = Origins(self.root / "images/origins.json")
        [pulled] = Pull(self.images, origins, reference, credentials, emit=self.lines.append).run()
        return (pulled.image.layers[0] / "file").read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _is_layer(request: Request, response: Response) -> bool:
    return request.method == "GET" and "/blobs/" in request.path and int(response.headers["Content-Length"]) > 100_000


# --- servers that are overloaded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/v2/", "/manifests/", "/blobs/"])
@pytest.mark.parametrize(("status", "after"), [(503, "1"), (503, ""), (502, ""), (429, "1"), (429, "0")])
def test_who_is_overloaded_for_a_moment_is_asked_again_and_when_it_said(
    image: Any, front: Any, store: Store, where: str, status: int, after: str
) -> None:
    refused: list[float] = []

    def handle(request: Request) -> Response | None:
        if where in (request.path, "/" + request.path.split("/")[-2] + "/") and not refused:
            refused.append(time.monotonic())
            return Response(status, headers={"Retry-After": after} if after else {})
        if refused and len(refused) == 1:
            refused.append(time.monotonic())
        return image.registry(request)  # type: ignore[no-any-return]

    assert CONTENT == store.pull(front(handle))
    assert int(after or 0) <= refused[1] - refused[0] < 5


def test_a_date_to_ask_again_is_understood(image: Any, front: Any) -> None:
    from email.utils import formatdate

    dates = [formatdate(time.time() + 1.5, usegmt=True), formatdate(time.time() - 500, usegmt=True), "nonsense"]
    told = list(dates)

    def handle(request: Request) -> Response | None:
        if "/manifests/" in request.path and told:
            return Response(503, headers={"Retry-After": told.pop(0)})
        return image.registry(request)  # type: ignore[no-any-return]

    assert RegistryClient(front(handle)).manifest("me/app", "1")
    assert [] == told


@pytest.mark.parametrize(
    ("status", "after", "body", "message"),
    [
        (429, "", b"", "toomanyrequests: too many requests"),
        (429, "3600", b"", "toomanyrequests: too many requests"),
        (
            429,
            "",
            b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}',
            "toomanyrequests: You have reached your pull rate limit.",
        ),
        (503, "3600", b"", "received unexpected HTTP status: 503 Service Unavailable"),
    ],
)
def test_who_wants_to_be_left_alone_is_not_asked_again(
    image: Any, front: Any, store: Store, status: int, after: str, body: bytes, message: str
) -> None:
    asked: list[str] = []

    def handle(request: Request) -> Response | None:
        response = image.registry(request)
        if _is_layer(request, response):
            asked.append(request.path)
            response.body.close()
            return Response(status, body, {"Retry-After": after} if after else {})
        return response  # type: ignore[no-any-return]

    with pytest.raises(EngineError) as caught:
        store.pull(front(handle))
    assert message == str(caught.value)
    assert 1 == len(asked)
    assert [] == store.images.images()
    assert CONTENT == store.pull(front(image.registry))


def test_the_pause_is_the_longer_of_ours_and_theirs() -> None:
    error = RegistryError("TOOMANYREQUESTS", "x")
    assert 2.0 == pause_before(error, 2.0)
    error.retry_after_seconds = 7.0
    assert (7.0, 9.0, 2.0) == (pause_before(error, 2.0), pause_before(error, 9.0), pause_before(OSError(), 2.0))


# --- servers that break off or lie -----------------------------------------------------------------------------------


def test_a_layer_that_is_cut_again_and_again_comes_piece_by_piece(image: Any, front: Any, store: Store) -> None:
    ranges: list[str] = []

    def handle(request: Request) -> Response | None:
        response = image.registry(request)
        if not _is_layer(request, response):
            return response  # type: ignore[no-any-return]
        ranges.append(request.headers.get("Range"))

        def part() -> Iterator[bytes]:
            with response.body as file:
                yield file.read(60_000)
            raise ConnectionResetError

        return Response(response.status, part(), response.headers)

    host = front(handle)
    assert CONTENT == store.pull(host)
    begins = [int(one.removeprefix("bytes=").removesuffix("-")) for one in ranges[1:]]
    assert sorted(set(begins)) == begins, "never again from where it was"
    assert len(begins) >= 4
    assert {"Retrying in 1 second"} == {line["status"] for line in store.lines if "Retrying" in line["status"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Content-Range": "bytes 0-9/10"}, "the registry gave another range of"),
        ({}, "the registry gave another range of"),
    ],
)
def test_another_range_than_was_asked_for(
    image: Any, front: Any, store: Store, fields: dict[str, str], message: str
) -> None:
    cut: list[int] = []

    def handle(request: Request) -> Response | None:
        response = image.registry(request)
        if not _is_layer(request, response):
            return response  # type: ignore[no-any-return]
        with response.body as file:
            content = file.read()
        if not cut:
            cut.append(1)

            def part() -> Iterator[bytes]:
                yield content[:50_000]
                raise ConnectionResetError

            return Response(200, part(), response.headers)
        return Response(206, content, fields)

    with pytest.raises(EngineError, match=message):
        store.pull(front(handle))
    assert [] == store.images.images()
    assert CONTENT == store.pull(front(image.registry))


@pytest.mark.parametrize("length", ["1" * 5000, "-1", "99999999999999999999"])
def test_a_length_that_is_none_says_nothing(image: Any, front: Any, store: Store, length: str) -> None:
    def handle(request: Request) -> Response | None:
        response = image.registry(request)
        if _is_layer(request, response):
            with response.body as file:
                return Response(200, iter([file.read()]), {"Content-Length": length})
        return response  # type: ignore[no-any-return]

    began = time.monotonic()
    assert CONTENT == store.pull(front(handle))
    assert time.monotonic() - began < 10, "a connection that stays open is not waited for"


def test_a_manifest_that_is_too_large_is_not_read(image: Any, front: Any, store: Store) -> None:
    read: list[int] = []

    def handle(request: Request) -> Response | None:
        if "/manifests/" not in request.path:
            return image.registry(request)  # type: ignore[no-any-return]

        def endless() -> Iterator[bytes]:
            while sum(read) < 100 << 20:
                read.append(1 << 20)
                yield b" " * (1 << 20)

        if request.method == "HEAD":
            return Response(404)
        return Response(200, endless(), content_type=media_types.OCI_MANIFEST)

    with pytest.raises(EngineError, match="is longer than 4194304 bytes"):
        store.pull(front(handle))
    assert sum(read) < 60 << 20, "a little is always on its way"

    def told(request: Request) -> Response | None:
        return Response(200, b" " * (5 << 20), content_type=media_types.OCI_MANIFEST)

    with pytest.raises(EngineError, match="manifest invalid: larger than 4 MiB"):
        RegistryClient(front(told)).manifest("me/app", "1")


# --- where they send us ----------------------------------------------------------------------------------------------


def test_blobs_on_another_host_come_and_it_learns_no_secret(image: Any, front: Any, store: Store) -> None:
    seen: list[dict[str, str]] = []

    def elsewhere(request: Request) -> Response | None:
        seen.append({name.lower(): value for name, value in request.headers})
        if request.path == "/further":
            return image.registry.__class__(image.registry.storage)(_at(request, request.query.get("blob")))  # type: ignore[no-any-return]
        return Response(302, headers={"Location": f"/further?blob={request.path}"})

    other = front(elsewhere)

    def handle(request: Request) -> Response | None:
        if request.headers.get("Authorization") != SECRET.basic:
            return Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.method == "GET" and "/blobs/" in request.path:
            return Response(307, headers={"Location": f"http://{other}{request.path}"})
        return image.registry(request)  # type: ignore[no-any-return]

    assert CONTENT == store.pull(front(handle), SECRET)
    assert 4 == len(seen), "configuration and layer, each sent on once more"
    for fields in seen:
        assert not {"authorization", "cookie", "proxy-authorization"} & set(fields)
        assert "secret" not in str(fields)


def _at(request: Request, path: str) -> Request:
    request.path = path
    return request


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://[bad/x", "which is no address"),
        ("http://127.0.0.1:99999/x", "which is no address"),
        ("http://127.0.0.1:1/\x01", "which is no address"),
        ("http://127.0.0.1:1/a b", "which is no address"),
        ("http://127.0.0.1:1/caf\xe9", "which is no address"),
        ("http://a..b/x", "no such host"),
        (f"http://{'a' * 70}.invalid/x", "no such host"),
        ("file:///etc/passwd", "which can't be trusted"),
        ("ftp://127.0.0.1/x", "which can't be trusted"),
        ("", "stopped after 10 redirects"),
    ],
)
def test_redirects_to_nowhere(front: Any, location: str, message: str) -> None:
    def handle(request: Request) -> Response | None:
        return Response(200) if request.path == "/v2/" else Response(302, headers={"Location": location})

    with pytest.raises(EngineError, match=message):
        RegistryClient(front(handle)).manifest("me/app", "1")


def test_an_upload_is_not_sent_to_nowhere(front: Any) -> None:
    def handle(request: Request) -> Response | None:
        return Response(200) if request.path == "/v2/" else Response(202, headers={"Location": "http://[bad"})

    with pytest.raises(EngineError, match="which is no address"):
        RegistryClient(front(handle)).upload_blob("me/app", str(sha256(b"x")), 1, lambda: io.BytesIO(b"x"))


# --- servers of tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "did not include a token"),
        (b"<html>welcome</html>", "did not include a token"),
        (b"[]", "did not include a token"),
        (b"{}", "did not include a token"),
        (b'{"token":""}', "did not include a token"),
        (b'{"token":7}', "did not include a token"),
        (b'{"token":"a\\r\\nX-Evil: 1"}', "did not include a token"),
        (b'{"token":"caf\\u00e9"}', "did not include a token"),
        (b'{"token":"t","expires_in":NaN}', "did not include a token"),
        (b'{"token":"t","expires_in":1' + b"0" * 400 + b"}", "did not include a token"),
        (b'{"token":"t","expires_in":[]}', r"did not include a token|authentication required"),
        (b"[" * 100_000, "did not include a token"),
        (b"x" * (2 << 20), "did not include a token"),
        (b'{"token":"nobody takes it"}', "^unauthorized: authentication required$"),
    ],
)
def test_tokens_that_are_of_no_use(image: Any, front: Any, store: Store, body: bytes, message: str) -> None:
    asked: list[str] = []
    place: list[str] = []

    def handle(request: Request) -> Response | None:
        asked.append(request.path)
        if request.path == "/token":
            return Response(200, body)
        return Response(401, headers={"WWW-Authenticate": f'Bearer realm="http://{place[0]}/token",service="us"'})

    place.append(front(handle))
    with pytest.raises(EngineError, match=message):
        store.pull(place[0], SECRET)
    assert len(asked) < 10, "it is not asked again and again"
    assert CONTENT == store.pull(front(image.registry))


@pytest.mark.parametrize(
    ("realm", "message"),
    [
        ("", "no token can be had"),
        ("http://[bad", "no token can be had"),
        ("http://127.0.0.1:99999/", "no token can be had"),
        ("file:///etc/passwd", "no token can be had"),
        ("http://127.0.0.1:1/token", "connection refused"),
    ],
)
def test_servers_of_tokens_that_are_none(front: Any, realm: str, message: str) -> None:
    def handle(request: Request) -> Response | None:
        return Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    with pytest.raises(EngineError, match=message):
        RegistryClient(front(handle), SECRET).manifest("me/app", "1")


def test_what_is_no_address_is_told_and_not_asked_again() -> None:
    with pytest.raises(Unreachable, match="invalid URL") as caught:
        RegistryClient("127.0.0.1", base_url="http://[bad").ping()
    assert caught.value.lasting
