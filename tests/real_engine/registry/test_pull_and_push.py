"""Images from a store to a registry and into another store; and what is left when that goes wrong."""

import errno
import gzip
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import tar_of

from real_engine.errors import EngineError, NotFound
from real_engine.http import Request, Response, Server
from real_engine.http.listeners import TcpListener
from real_engine.images.references import Reference
from real_engine.images.store import ImageStore
from real_engine.registry import media_types
from real_engine.registry.origins import Origins
from real_engine.registry.pull import Pull
from real_engine.registry.push import Push, references_to_push
from real_engine.registry.transport import Cancelled

Lines = list[dict[str, Any]]
BIG = os.urandom(700_000)


class Machine:
    """An image store with a client of registries."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.root = root
        self.images = ImageStore(root)
        self.origins = Origins(root / "images/origins.json")

    def make(self, name: str, *files: tuple[str, bytes], **config: Any) -> Any:
        """An image with a layer for each file."""
        layers = [self.images.layers.apply(io.BytesIO(tar_of(*file))) for file in files]
        fields = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        return self.images.tag(self.images.create(fields | config), Reference.parse(name))

    def push(self, name: str, lines: Lines | None = None) -> Any:
        references = references_to_push(self.images, Reference.parse(name))
        emit = lines.append if lines is not None else lambda line: None
        return Push(self.images, self.origins, references, emit=emit).run()

    def pull(self, name: str, lines: Lines | None = None, **options: Any) -> Any:
        return self.begin(name, lines, **options).run()

    def begin(self, name: str, lines: Lines | None = None, **options: Any) -> Pull:
        emit = lines.append if lines is not None else lambda line: None
        return Pull(self.images, self.origins, Reference.parse(name), emit=emit, **options)

    def left(self) -> list[str]:
        """What there is of layers, blobs and images, but not of what may be gone on from."""
        places = (self.root / "layers", self.root / "images/blobs/sha256")
        return [path.name for place in places if place.exists() for path in place.iterdir()]


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "there")


@pytest.fixture
def front(serving: Any) -> Iterator[Callable[[Callable[[Request], Response | None]], str]]:
    servers = []

    def begin(handler: Callable[[Request], Response | None]) -> str:
        listener = TcpListener("127.0.0.1", 0)
        servers.append(Server(handler, [listener]))
        servers[-1].start()
        return f"127.0.0.1:{listener.port}"

    yield begin
    for server in servers:
        server.stop(1.0)


def statuses(lines: Lines, identity: str) -> list[str]:
    """What was told of one thing, without repetitions."""
    return list(dict.fromkeys(line["status"] for line in lines if line.get("id") == identity))


def test_there_and_back(serving: Any, here: Machine, there: Machine) -> None:
    name = f"{serving.host}/me/app:1"
    image = here.make(name, ("one", b"1"), ("two", BIG))
    told: Lines = []
    [pushed] = here.push(name, told)
    short = [diff_id.removeprefix("sha256:")[:12] for diff_id in image.diff_ids]
    assert ["Preparing", "Pushing", "Pushed"] == statuses(told, short[1])
    assert {"status": f"1: digest: {pushed.digest} size: {pushed.size}"} == told[-2]
    assert {"Tag": "1", "Digest": pushed.digest, "Size": pushed.size} == told[-1]["aux"]
    told.clear()
    [pulled] = there.pull(name, told)
    assert (image.id, pushed.digest, True) == (pulled.image.id, pulled.digest, True)
    assert (name,) == pulled.image.repo_tags
    assert (f"{serving.host}/me/app@{pushed.digest}",) == pulled.image.repo_digests
    assert [b"1", BIG] == [
        (layer / file).read_bytes() for layer, file in zip(pulled.image.layers, ("one", "two"), strict=True)
    ]
    manifest = serving.client("GET", "/v2/me/app/manifests/1").json
    assert media_types.DOCKER_MANIFEST == manifest["mediaType"]
    identity = manifest["layers"][1]["digest"].removeprefix("sha256:")[:12]
    expected = [
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
    ]
    assert expected == statuses(told, identity)
    assert {"status": "Pulling from me/app", "id": "1"} == told[0]
    assert {"status": f"Digest: {pushed.digest}"} == told[-2]
    assert {"status": f"Status: Downloaded newer image for {name}"} == told[-1]


def test_pulled_again_it_is_up_to_date(serving: Any, here: Machine, there: Machine) -> None:
    name = f"{serving.host}/me/app:1"
    here.make(name, ("one", b"1"))
    here.push(name)
    there.pull(name)
    told: Lines = []
    assert [False] == [one.changed for one in there.pull(name, told)]
    assert ["Pulling from me/app", f"Status: Image is up to date for {name}"] == [told[0]["status"], told[-1]["status"]]
    assert 3 == len(told), "neither a layer nor a manifest was asked for"


def test_pull_by_digest_and_of_all_tags(serving: Any, here: Machine, there: Machine) -> None:
    repository = f"{serving.host}/me/app"
    for tag in ("a", "b"):
        here.make(f"{repository}:{tag}", ("tag", tag.encode()), ("shared", BIG))
    here.push(f"{repository}:a")
    here.push(repository)  # all of them
    told: Lines = []
    pulled = there.pull(repository, told, all_tags=True)
    assert ["a", "b"] == [one.reference.tag for one in pulled]
    assert f"Status: Downloaded newer image for {repository}" == told[-1]["status"]
    assert 1 == sum(line["status"] == "Already exists" for line in told), "the shared layer came once"
    digest = pulled[0].digest
    [by_digest] = there.pull(f"{repository}@{digest}", told)
    assert pulled[0].image.id == by_digest.image.id
    assert f"Status: Image is up to date for {repository}@{digest}" == told[-1]["status"]


def test_what_was_pulled_is_pushed_with_its_digest(serving: Any, here: Machine, there: Machine, tmp_path: Path) -> None:
    """An OCI manifest with its own form and annotations comes back byte for byte."""
    tar = tar_of("file", b"content")
    layer = gzip.compress(tar, mtime=7)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    content = json.dumps(config).encode()
    fields = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {
            "mediaType": media_types.OCI_CONFIG,
            "digest": serving.client.put_blob("me/app", content),
            "size": len(content),
        },
        "layers": [
            {
                "mediaType": media_types.OCI_LAYER_GZIP,
                "digest": serving.client.put_blob("me/app", layer),
                "size": len(layer),
            }
        ],
        "annotations": {"made.by": "hand"},
    }
    digest = serving.client.put_manifest("me/app", "1", fields).headers["docker-content-digest"]
    [pulled] = here.pull(f"{serving.host}/me/app:1")
    name = f"{serving.host}/you/app:1"
    here.images.tag(pulled.image, Reference.parse(name))
    told: Lines = []
    assert digest == here.push(name, told)[0].digest
    assert any(line["status"] == "Mounted from me/app" for line in told if "status" in line)
    told.clear()
    here.push(name, told)
    assert any(line["status"] == "Layer already exists" for line in told if "status" in line)


def test_zstd(serving: Any, here: Machine) -> None:
    zstandard = pytest.importorskip("zstandard")
    tar = tar_of("file", BIG)
    layer = zstandard.compress(tar)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    content = json.dumps(config).encode()
    fields = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {
            "mediaType": media_types.OCI_CONFIG,
            "digest": serving.client.put_blob("me/app", content),
            "size": len(content),
        },
        "layers": [
            {
                "mediaType": media_types.OCI_LAYER_ZSTD,
                "digest": serving.client.put_blob("me/app", layer),
                "size": len(layer),
            }
        ],
    }
    serving.client.put_manifest("me/app", "1", fields)
    [pulled] = here.pull(f"{serving.host}/me/app:1")
    assert BIG == (pulled.image.layers[0] / "file").read_bytes()


def test_index_gives_the_image_for_the_platform(serving: Any, here: Machine, there: Machine) -> None:
    described = []
    for architecture in ("amd64", "arm64"):
        name = f"{serving.host}/me/app:{architecture}"
        here.make(name, ("which", architecture.encode()), architecture=architecture)
        [pushed] = here.push(name)
        described.append(
            {
                "mediaType": media_types.DOCKER_MANIFEST,
                "digest": pushed.digest,
                "size": pushed.size,
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = {"schemaVersion": 2, "mediaType": media_types.DOCKER_LIST, "manifests": described}
    digest = serving.client.put_manifest("me/app", "1", index).headers["docker-content-digest"]
    name = f"{serving.host}/me/app:1"
    for platform in ("linux/arm64", "linux/amd64", "linux/arm64/v8"):
        [pulled] = there.pull(name, platform=platform)
        assert platform.split("/")[1] == pulled.image.architecture
        assert digest == pulled.digest, "it is the index that the name means"
    with pytest.raises(EngineError, match=r"^no matching manifest for linux/s390x in the manifest list entries$"):
        there.pull(name, platform="linux/s390x")


def test_mirror_is_asked_first(serving: Any, here: Machine, there: Machine) -> None:
    here.make(f"{serving.host}/library/app:1", ("one", b"1"))
    here.push(f"{serving.host}/library/app:1")
    listener = TcpListener("127.0.0.1", 0)
    listener.close()
    mirrors = (f"http://127.0.0.1:{listener.port}", f"http://{serving.host}/")
    [pulled] = there.pull("app:1", mirrors=mirrors)
    assert ("app:1",) == pulled.image.repo_tags


# What goes wrong


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("me/app:2", "manifest for {0}/me/app:2 not found: manifest unknown: manifest unknown"),
        ("me/none", "manifest for {0}/me/none:latest not found: manifest unknown: manifest unknown"),
        (
            "me/app@sha256:" + "0" * 64,
            "manifest for {0}/me/app@sha256:" + "0" * 64 + " not found: manifest unknown: manifest unknown",
        ),
    ],
)
def test_what_is_not_there(serving: Any, here: Machine, there: Machine, what: str, message: str) -> None:
    here.make(f"{serving.host}/me/app:1", ("one", b"1"))
    here.push(f"{serving.host}/me/app:1")
    with pytest.raises(NotFound) as caught:
        there.pull(f"{serving.host}/{what}")
    assert message.format(serving.host) == str(caught.value)


def test_repository_without_tags(serving: Any, there: Machine) -> None:
    with pytest.raises(NotFound) as caught:
        there.pull(f"{serving.host}/me/none", all_tags=True)
    expected = f"repository {serving.host}/me/none not found: name unknown: repository name not known to registry"
    assert expected == str(caught.value)


def test_image_that_is_not_here_is_not_pushed(here: Machine) -> None:
    with pytest.raises(EngineError, match=r"^An image does not exist locally with the tag: localhost:1/me/app$"):
        here.push("localhost:1/me/app:1")


def test_tag_that_is_not_here_is_not_pushed(here: Machine) -> None:
    here.make("localhost:1/me/app:2", ("file", b"content"))
    with pytest.raises(EngineError, match=r"^tag does not exist: localhost:1/me/app:1$"):
        here.push("localhost:1/me/app:1")


def _blobs_replaced(registry: Any, replace: Callable[[bytes], bytes]) -> Callable[[Request], Response | None]:
    """The registry, with other bytes for each large blob."""

    def handle(request: Request) -> Response | None:
        response: Response = registry(request)
        if request.method == "GET" and "/blobs/" in request.path and hasattr(response.body, "read"):
            content = response.body.read()
            response.body.close()  # type: ignore[union-attr]
            if len(content) > 100_000:
                content = replace(content)
            headers = {name: value for name, value in response.headers.items() if name != "Content-Length"}
            return Response(response.status, content, headers, response.content_type)
        return response

    return handle


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            "^filesystem layer verification failed for digest sha256:",
        ),
        (
            lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
            "^filesystem layer verification failed for digest sha256:",
        ),
        (lambda content: content[:-1], "its manifest says"),
        (lambda content: content + b"x", "its manifest says"),
        (lambda content: gzip.compress(b"no tar at all" * 100_000), "its manifest says"),
    ],
)
def test_blob_that_is_not_what_it_should_be(
    serving: Any, here: Machine, there: Machine, front: Any, replace: Callable[[bytes], bytes], message: str
) -> None:
    here.make(f"{serving.host}/me/app:1", ("one", BIG))
    here.push(f"{serving.host}/me/app:1")
    host = front(_blobs_replaced(serving.registry, replace))
    with pytest.raises(EngineError, match=message):
        there.pull(f"{host}/me/app:1")
    assert [] == there.images.images()
    assert [] == [name for name in there.left() if not name.startswith(".")]
    # Nothing of it is in the way of the right bytes.
    host = front(serving.registry)
    there.pull(f"{host}/me/app:1")
    assert BIG == (there.images.resolve(f"{host}/me/app:1").layers[0] / "one").read_bytes()


def test_configuration_that_lies_about_a_layer(serving: Any, there: Machine) -> None:
    layer = gzip.compress(tar_of("file", b"content"))
    for diff_ids, message in (
        (["sha256:" + "0" * 64], "layer has diff id"),
        ([], "layers from manifest don't match image configuration"),
        (["../../etc"], "no digest"),
    ):
        content = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": diff_ids}}).encode()
        fields = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {
                "mediaType": media_types.OCI_CONFIG,
                "digest": serving.client.put_blob("me/app", content),
                "size": len(content),
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
        with pytest.raises(EngineError, match=message):
            there.pull(f"{serving.host}/me/app:1")
        assert [] == there.images.images()
        assert [] == [name for name in there.left() if not name.startswith(".")]


def test_artifact_and_foreign_layer_are_no_images(serving: Any, there: Machine) -> None:
    fields = serving.client.image("me/app")
    fields["config"]["mediaType"] = "application/vnd.example.thing+json"
    serving.client.put_manifest("me/app", "1", fields)
    with pytest.raises(EngineError, match=r"unsupported media type application/vnd.example.thing"):
        there.pull(f"{serving.host}/me/app:1")
    fields = serving.client.image("me/app")
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    fields["layers"][0] |= {"mediaType": foreign, "urls": ["http://169.254.169.254/"]}
    serving.client.put_manifest("me/app", "2", fields)
    with pytest.raises(EngineError, match="is not kept in registries"):
        there.pull(f"{serving.host}/me/app:2")


def test_cancelled_pull_is_gone_on_from(serving: Any, here: Machine, there: Machine, front: Any) -> None:
    here.make(f"{serving.host}/me/app:1", ("one", BIG))
    here.push(f"{serving.host}/me/app:1")
    ranges: list[str] = []
    stalled, ended = threading.Event(), threading.Event()

    def handle(request: Request) -> Response | None:
        response: Response = serving.registry(request)
        if request.method != "GET" or "/blobs/" not in request.path:
            return response
        file: Any = response.body
        if int(response.headers["Content-Length"]) < 100_000:
            return response
        ranges.append(request.headers.get("Range"))
        if len(ranges) > 1:
            return response

        def part() -> Iterator[bytes]:
            yield file.read(300_000)
            stalled.set()
            ended.wait(10)

        return Response(response.status, part(), response.headers)

    host = front(handle)
    pull = there.begin(f"{host}/me/app:1")
    caught: list[BaseException] = []

    def run() -> None:
        try:
            pull.run()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert stalled.wait(10)
    time.sleep(0.1)
    pull.cancel()
    thread.join(5)
    ended.set()
    assert not thread.is_alive()
    assert [Cancelled] == [type(error) for error in caught]
    assert [] == there.images.images()
    assert [] == [name for name in there.left() if not name.startswith(".")]
    there.pull(f"{host}/me/app:1")
    first = int(ranges[1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < first <= 300_000, "only the rest was asked for"
    assert BIG == (there.images.resolve(f"{host}/me/app:1").layers[0] / "one").read_bytes()


def test_cut_connection_is_told_and_gone_on_from(serving: Any, here: Machine, there: Machine, front: Any) -> None:
    here.make(f"{serving.host}/me/app:1", ("one", BIG))
    here.push(f"{serving.host}/me/app:1")
    cuts = [2]

    def handle(request: Request) -> Response | None:
        response: Response = serving.registry(request)
        if request.method == "GET" and "/blobs/" in request.path and cuts[0]:
            cuts[0] -= 1
            file: Any = response.body

            def part() -> Iterator[bytes]:
                yield file.read(200)
                raise ConnectionResetError

            return Response(response.status, part(), response.headers)
        return response

    told: Lines = []
    host = front(handle)
    there.pull(f"{host}/me/app:1", told)
    assert 1 == sum(line["status"] == "Retrying in 1 second" for line in told), "the configuration was cut once too"
    assert BIG == (there.images.resolve(f"{host}/me/app:1").layers[0] / "one").read_bytes()


def test_full_disk(serving: Any, here: Machine, there: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    here.make(f"{serving.host}/me/app:1", ("one", BIG))
    here.push(f"{serving.host}/me/app:1")
    write = there.images.blobs.writer("sha256:" + "0" * 64).__class__.write

    def fail(self: Any, data: bytes) -> int:
        if self.offset > 200_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    monkeypatch.setattr("real_engine.images.blobs.BlobWriter.write", fail)
    with pytest.raises(OSError, match="No space left on device"):
        there.pull(f"{serving.host}/me/app:1")
    assert [] == there.images.images()
    assert [] == [name for name in there.left() if not name.startswith(".")]
    monkeypatch.undo()
    assert there.pull(f"{serving.host}/me/app:1")


def test_two_pull_the_same_at_once(serving: Any, here: Machine, there: Machine) -> None:
    name = f"{serving.host}/me/app:1"
    here.make(name, *[(f"file{number}", os.urandom(100_000)) for number in range(5)])
    here.push(name)
    images: list[str] = []
    threads = [threading.Thread(target=lambda: images.append(there.pull(name)[0].image.id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 4 == len(images)
    assert 1 == len(set(images))
    assert 1 == len(there.images.images())


def test_progress_as_docker_draws_it() -> None:
    from real_engine.registry.progress import bar, human_size, update

    assert ["0B", "999B", "1kB", "4.194MB", "1.5GB"] == [human_size(size) for size in (0, 999, 1000, 4_194_304, 1.5e9)]
    assert "[=========================>                         ]      50B/100B" == bar(50, 100)
    assert f"[{'=' * 50}>]     200B" == bar(200, 100)
    assert "   2.5kB" == bar(2500, 0)
    assert {"status": "Waiting", "progressDetail": {}, "id": "x"} == update("x", "Waiting")
