"""The API's calls that speak to registries, against our own registry and servers that play one."""

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
import time

import pytest

from real_engine.http import Response
from real_engine.http.listeners import TcpListener
from real_engine.images.references import Reference
from real_engine.registry.client import RegistryClient
from real_engine.registry.passwords import Passwords, hash_password
from real_engine.registry.server import Registry
from real_engine.registry.storage import Storage

NOBODY = {"X-Registry-Auth": base64.urlsafe_b64encode(b"{}").decode()}


def _auth(name, password):
    text = json.dumps({"username": name, "password": password})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


@pytest.fixture
def registry(tmp_path):
    return Registry(Storage(tmp_path / "registry"))


@pytest.fixture
def host(registry, front):
    return front(registry)


@pytest.fixture
def silent():
    """A port of this machine at which nobody listens."""
    listener = TcpListener("127.0.0.1", 0)
    listener.close()
    return listener.port


def _tar(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _fill(host, name, content=b"content", tag="1"):
    """Put an image into a registry; returns the manifest's digest and the image's id."""
    client = RegistryClient(host)
    tar = _tar(content)
    layer = gzip.compress(tar, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"a": "b"}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
        }
    ).encode()
    digests = []
    for blob in (config, layer):
        digests.append(f"sha256:{hashlib.sha256(blob).hexdigest()}")
        client.upload_blob(name, digests[-1], len(blob), lambda blob=blob: io.BytesIO(blob))
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(config),
            "digest": digests[0],
        },
        "layers": [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(layer), "digest": digests[1]}
        ],
    }
    return client.put_manifest(name, tag, json.dumps(manifest).encode(), kind), digests[0]


def test_pull(api, daemon, host):
    digest, image = _fill(host, "me/app")
    began = time.time_ns()
    answer = api.post("/images/create", fromImage=f"{host}/me/app", tag="1")
    assert (200, "application/json") == (answer.status, answer.headers["Content-Type"])
    assert all(line.endswith(b"\r\n") for line in answer.body.splitlines(keepends=True))
    told = answer.lines()
    assert {"status": "Pulling from me/app", "id": "1"} == told[0]
    assert [f"Digest: {digest}", f"Status: Downloaded newer image for {host}/me/app:1"] == [
        line["status"] for line in told[-2:]
    ]
    assert image == daemon.images.resolve(f"{host}/me/app:1").id
    again = api.post("/images/create", fromImage=f"{host}/me/app:1")
    assert f"Status: Image is up to date for {host}/me/app:1" == again.lines()[-1]["status"]
    by_digest = api.post("/images/create", fromImage=f"{host}/me/app", tag=digest)
    assert {"status": "Pulling from me/app", "id": f"{host}/me/app@{digest}"} == by_digest.lines()[0]
    every = api.post("/images/create", fromImage=f"{host}/me/app")
    assert f"Status: Image is up to date for {host}/me/app" == every.lines()[-1]["status"]
    with daemon.events.subscribe(since=began) as subscription:
        happened = [event for event in subscription.take() if event.action == "pull"]
    assert f"{host}/me/app:1" == happened[0].actor_id
    assert {"name": f"{host}/me/app", "a": "b"} == happened[0].attributes


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        (
            {"fromImage": "{host}/me/app", "tag": "2"},
            404,
            "manifest for {host}/me/app:2 not found: manifest unknown: manifest unknown",
        ),
        (
            {"fromImage": "{host}/me/no"},
            404,
            "repository {host}/me/no not found: name unknown: repository name not known to registry",
        ),
        ({"fromImage": "{host}/me/app", "tag": "+/"}, 400, "invalid tag format"),
        (
            {"fromImage": "{host}/me/app", "tag": "1", "platform": "a/b/c/d"},
            400,
            '"a/b/c/d": cannot parse platform specifier: invalid argument',
        ),
        (
            {"fromImage": "127.0.0.1:{silent}/x", "tag": "1"},
            500,
            'Get "http://127.0.0.1:{silent}/v2/": dial tcp 127.0.0.1:{silent}: connect: connection refused',
        ),
    ],
)
def test_what_cannot_be_pulled(api, host, silent, query, status, message):
    _fill(host, "me/app")
    values = {name: text.format(host=host, silent=silent) for name, text in query.items()}
    answer = api.post("/images/create", **values)
    assert (status, message.format(host=host, silent=silent)) == (answer.status, answer.message)
    assert [] == api.daemon.images.images()


def test_password(api, tmp_path, registry, front):
    users = tmp_path / "users"
    users.write_text(f"anna:{hash_password('x', cost=4)}\n")
    _fill(front(registry), "me/app")
    host = front(Registry(registry.storage, Passwords(users)))
    path = f"/images/create?fromImage={host}/me/app&tag=1"
    refused = api.request("POST", path)
    message = f'Head "http://{host}/v2/me/app/manifests/1": no basic auth credentials'
    assert (500, message) == (refused.status, refused.message)
    refused = api.request("POST", path, headers=_auth("anna", "y"))
    assert (500, "unauthorized: authentication required") == (refused.status, refused.message)
    assert 200 == api.request("POST", path, headers=_auth("anna", "x")).status
    push = f"/images/{host}/me/app/push?tag=1"
    told = api.request("POST", push, headers=NOBODY).lines()
    assert "no basic auth credentials" == told[-1]["error"]
    assert "Tag" in api.request("POST", push, headers=_auth("anna", "x")).lines()[-1]["aux"]
    login = {"username": "anna", "password": "x", "serveraddress": host}
    assert {"IdentityToken": "", "Status": "Login Succeeded"} == api.post("/auth", login).json()
    refused = api.post("/auth", login | {"password": "y"})
    message = f"login attempt to http://{host}/v2/ failed with status: 401 Unauthorized"
    assert (500, message) == (refused.status, refused.message)


def test_push(api, daemon, host):
    digest, image = _fill(host, "me/app")
    api.post("/images/create", fromImage=f"{host}/me/app", tag="1")
    daemon.images.tag(daemon.images.resolve(image), Reference.parse(f"{host}/you/app:2"))
    answer = api.request("POST", f"/images/{host}/you/app/push?tag=2", headers=NOBODY)
    told = answer.lines()
    assert {"status": f"The push refers to repository [{host}/you/app]"} == told[0]
    assert "Mounted from me/app" in [line.get("status") for line in told]
    assert digest == told[-1]["aux"]["Digest"]
    assert digest == RegistryClient(host).manifest("you/app", "2")[0]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("localhost:{silent}/x", "An image does not exist locally with the tag: localhost:{silent}/x"),
        (
            "127.0.0.1:{silent}/app",
            'Get "http://127.0.0.1:{silent}/v2/": dial tcp 127.0.0.1:{silent}: connect: connection refused',
        ),
    ],
)
def test_what_cannot_be_pushed(api, daemon, host, silent, name, error):
    _, image = _fill(host, "me/app")
    api.post("/images/create", fromImage=f"{host}/me/app", tag="1")
    daemon.images.tag(daemon.images.resolve(image), Reference.parse(f"127.0.0.1:{silent}/app:1"))
    answer = api.request("POST", f"/images/{name.format(silent=silent)}/push?tag=1", headers=NOBODY)
    assert 200 == answer.status
    first, last = answer.lines()[0], answer.lines()[-1]
    assert first["status"].startswith("The push refers to repository [")
    expected = error.format(silent=silent)
    assert {"errorDetail": {"message": expected}, "error": expected} == last


def test_push_without_the_header(api):
    answer = api.post("/images/app/push")
    assert (400, "Bad parameters and missing X-Registry-Auth: EOF") == (answer.status, answer.message)


def test_wrong_layer_is_told_in_a_line_and_leaves_nothing(api, daemon, registry, front):
    def handle(request):
        response = registry(request)
        if request.method == "GET" and "/blobs/" in request.path and hasattr(response.body, "read"):
            content = response.body.read()
            response.body.close()
            response.body = content if content.startswith(b"{") else content[:-9] + bytes(9)
        return response

    host = front(handle)
    _fill(host, "me/app", os.urandom(50_000))
    answer = api.post("/images/create", fromImage=f"{host}/me/app", tag="1")
    assert 200 == answer.status
    assert answer.lines()[-1]["error"].startswith("filesystem layer verification failed for digest sha256:")
    assert [] == daemon.images.images()
    assert [] == list(daemon.images.layers.diff_ids())
    assert [] == list(daemon.images.blobs.digests())


def test_client_that_goes_away_breaks_it_off(api, daemon, registry, front):
    stalled, ended = threading.Event(), threading.Event()
    cut = []

    def handle(request):
        response = registry(request)
        if request.method == "GET" and "/blobs/" in request.path and int(response.headers["Content-Length"]) > 10_000:
            cut.append(request.headers.get("Range"))
            if len(cut) == 1:
                file = response.body

                def part():
                    yield file.read(20_000)
                    stalled.set()
                    ended.wait(10)

                return Response(response.status, part(), response.headers)
        return response

    host = front(handle)
    _fill(host, "me/app", os.urandom(50_000))
    with api.raw(f"POST /v1.43/images/create?fromImage={host}/me/app&tag=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()):
        assert stalled.wait(10)
    deadline = time.monotonic() + 5
    while any(thread.name.startswith(("pull", "layer")) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the pull goes on though nobody waits for it"
        time.sleep(0.02)
    ended.set()
    assert [] == daemon.images.images()
    assert 200 == api.post("/images/create", fromImage=f"{host}/me/app", tag="1").status
    assert "bytes=20000-" == cut[1], "what had come was kept"


def test_distribution_inspect(api, host, check, silent):
    digest, _ = _fill(host, "me/app")
    answer = api.get(f"/distribution/{host}/me/app:1/json")
    check("GET", "/distribution/{name}/json", 200, answer.json())
    assert digest == answer.json()["Descriptor"]["digest"]
    assert [{"architecture": "amd64", "os": "linux"}] == answer.json()["Platforms"]
    assert digest == api.get(f"/distribution/{host}/me/app@{digest}/json").json()["Descriptor"]["digest"]
    missing = api.get(f"/distribution/{host}/me/app:2/json")
    assert (404, "manifest unknown: manifest unknown") == (missing.status, missing.message)
    assert 500 == api.get(f"/distribution/127.0.0.1:{silent}/me/app/json").status


def test_search(api, front, check):
    found = [
        {"name": name, "description": name, "star_count": stars, "is_official": official, "is_automated": False}
        for name, stars, official in (("one", 1, False), ("two", 20, True))
    ]

    def handle(request):
        return Response.json({"results": found}) if request.path == "/v1/search" else Response(200)

    host = front(handle)
    answer = api.get("/images/search", term=f"{host}/o")
    check("GET", "/images/search", 200, answer.json())
    assert found == answer.json()
    assert found[1:] == api.get("/images/search", term=f"{host}/o", filters={"is-official": ["true"]}).json()
    assert found[1:] == api.get("/images/search", term=f"{host}/o", filters={"stars": ["5"]}).json()
    for query, message in (
        ({"limit": "101"}, "Limit 101 is outside the range of [1, 100]"),
        ({"filters": {"x": ["y"]}}, "invalid filter 'x'"),
        ({"filters": {"stars": ["many"]}}, "invalid filter 'stars=[many]'"),
    ):
        answer = api.get("/images/search", term=f"{host}/o", **query)
        assert (400, message) == (answer.status, answer.message)


def test_search_where_there_is_none(api, host):
    answer = api.get("/images/search", term=f"{host}/o")
    assert (500, "Unexpected status code 404") == (answer.status, answer.message)
