"""Our registry and our client at the other end of what others made: skopeo, Docker's registry, dockerd. Both ways."""

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from real_engine.registry import media_types
from real_engine.registry.client import RegistryClient
from real_engine.registry.download import Download
from real_engine.registry.names import sha256

pytestmark = pytest.mark.peer

SKOPEO = shutil.which("skopeo")
DOCKER_REGISTRY = shutil.which("docker-registry")
needs_skopeo = pytest.mark.skipif(SKOPEO is None, reason="needs skopeo: make peers")
needs_docker_registry = pytest.mark.skipif(DOCKER_REGISTRY is None, reason="needs docker-registry: make peers")


def _layer(name: str, content: bytes) -> bytes:
    """A tar archive of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _write_layout(directory: Path, platforms: tuple[str, ...] = ("amd64",)) -> str:
    """An OCI layout with an image for each platform under the tag `1`; returns the digest of what the tag names."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        digest = sha256(content)
        (blobs / digest.hex).write_bytes(content)
        return {"mediaType": media_type, "digest": str(digest), "size": len(content)}

    described = []
    for platform in platforms:
        tars = [_layer("common", b"x" * 200_000), _layer("which", platform.encode())]
        config = {
            "architecture": platform,
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]},
            "history": [{"created_by": "a test"}] * len(tars),
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": put(json.dumps(config).encode(), media_types.OCI_CONFIG),
            "layers": [put(gzip.compress(tar, mtime=0), media_types.OCI_LAYER_GZIP) for tar in tars],
        }
        one = put(json.dumps(manifest).encode(), media_types.OCI_MANIFEST)
        described.append(one | {"platform": {"os": "linux", "architecture": platform}})
    if len(described) > 1:
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": described}
        described = [put(json.dumps(index).encode(), media_types.OCI_INDEX)]
    top = described[0] | {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return str(top["digest"])


def _skopeo(*arguments: str) -> str:
    done = subprocess.run([str(SKOPEO), *arguments], capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    return done.stdout


@contextmanager
def _docker_registry(directory: Path) -> Iterator[str]:
    """Docker's own registry; gives its host."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    directory.mkdir()
    path = directory / "config.yml"
    path.write_text(json.dumps(config))  # JSON is YAML too
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([str(DOCKER_REGISTRY), "serve", str(path)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "docker-registry does not listen"
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[str]:
    with _docker_registry(tmp_path / "docker-registry") as host:
        yield host


@needs_skopeo
def test_skopeo_copies_in_and_out(serving: Any, tmp_path: Path) -> None:
    digest = _write_layout(tmp_path / "layout")
    there = f"docker://{serving.host}/me/app:1"
    _skopeo("copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:1", there)
    assert digest == json.loads(_skopeo("inspect", "--tls-verify=false", there))["Digest"]
    _skopeo("copy", "-q", "--src-tls-verify=false", there, f"oci:{tmp_path}/back:1")
    assert digest == json.loads((tmp_path / "back/index.json").read_bytes())["manifests"][0]["digest"]
    _skopeo("copy", "-q", "--src-tls-verify=false", there, f"dir:{tmp_path}/dir")
    assert digest == str(sha256((tmp_path / "dir/manifest.json").read_bytes()))
    _skopeo("copy", "-q", "--src-tls-verify=false", there, f"docker-archive:{tmp_path}/archive.tar:me/app:1")
    _skopeo("copy", "-q", "--dest-tls-verify=false", f"docker-archive:{tmp_path}/archive.tar", there[:-1] + "2")
    assert ["1", "2"] == json.loads(_skopeo("list-tags", "--tls-verify=false", there[:-2]))["Tags"]
    _skopeo("delete", "--tls-verify=false", there)
    assert 404 == serving.client("HEAD", "/v2/me/app/manifests/1").status


@needs_skopeo
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_skopeo_copies_an_index(serving: Any, tmp_path: Path, form: str) -> None:
    digest = _write_layout(tmp_path / "layout", ("amd64", "arm64", "s390x"))
    there = f"docker://{serving.host}/me/app:1"
    _skopeo("copy", "-q", "--all", "--format", form, "--dest-tls-verify=false", f"oci:{tmp_path}/layout:1", there)
    found, index = RegistryClient(serving.host).manifest("me/app", "1")
    assert 3 == len(index.manifests)
    if form == "oci":
        assert digest == found
    else:
        assert media_types.DOCKER_LIST == index.media_type


@needs_skopeo
@needs_docker_registry
@pytest.mark.parametrize("towards_us", [True, False])
def test_skopeo_copies_between_docker_registry_and_ours(
    serving: Any, docker_registry: str, tmp_path: Path, towards_us: bool
) -> None:
    digest = _write_layout(tmp_path / "layout", ("amd64", "arm64"))
    here, there = (docker_registry, serving.host) if towards_us else (serving.host, docker_registry)
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    source = f"docker://{here}/me/app:1"
    _skopeo("copy", "-q", "--all", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:1", source)
    _skopeo("copy", "-q", "--all", *insecure, source, f"docker://{there}/you/app:1")
    assert digest == RegistryClient(there).manifest("you/app", "1")[0]


@needs_docker_registry
def test_our_client_with_docker_registry(docker_registry: str) -> None:
    client = RegistryClient(docker_registry)
    content = _layer("file", b"y" * 500_000)
    digest = str(sha256(content))
    assert not client.upload_blob("me/app", digest, len(content), lambda: io.BytesIO(content))
    assert client.has_blob("me/app", digest)
    assert client.upload_blob("you/app", digest, len(content), lambda: io.BytesIO(content), mount_from="me/app")
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    client.upload_blob("me/app", str(sha256(config)), len(config), lambda: io.BytesIO(config))
    fields = {
        "schemaVersion": 2,
        "mediaType": media_types.DOCKER_MANIFEST,
        "config": {"mediaType": media_types.DOCKER_CONFIG, "size": len(config), "digest": str(sha256(config))},
        "layers": [{"mediaType": media_types.DOCKER_LAYER_TAR, "size": len(content), "digest": digest}],
    }
    pushed = client.put_manifest("me/app", "1", json.dumps(fields).encode(), media_types.DOCKER_MANIFEST)
    found, manifest = client.manifest("me/app", "1")
    assert pushed == found
    assert ["1"] == client.tags("me/app")
    assert config == client.blob("me/app", manifest.config)  # type: ignore[arg-type]
    read = bytearray()
    buffer = memoryview(bytearray(1 << 16))
    with Download(client, "me/app", manifest.layers[0], 100_000) as source:
        while count := source.readinto(buffer):
            read += buffer[:count]
    assert content[100_000:] == bytes(read)
    client.delete_manifest("me/app", found)
    assert client.resolve("me/app", "1") is None


@needs_docker_registry
def test_statuses_and_codes_are_docker_registrys(serving: Any, docker_registry: str) -> None:
    """What a client may lean on: the same requests to both, and the same statuses, codes and headers."""
    theirs = type(serving.client)(int(docker_registry.rpartition(":")[2]))
    absent = "sha256:" + "0" * 64
    content = b"a blob"
    digest = str(sha256(content))
    seen: list[list[Any]] = [[], []]
    for client, notes in zip((serving.client, theirs), seen, strict=True):

        def note(
            method: str,
            path: str,
            body: bytes = b"",
            *headers: str,
            client: Any = client,
            notes: Any = notes,
            **fields: str,
        ) -> Any:
            answer = client(method, path, body, **fields)
            code = answer.code if answer.status >= 400 and answer.body.startswith(b'{"errors"') else ""
            notes.append((method, path.partition("?")[0], answer.status, code, *map(answer.headers.get, headers)))
            return answer

        note("GET", "/v2/", b"", "docker-distribution-api-version")
        location = client("POST", "/v2/me/app/blobs/uploads/").headers["location"]
        assert 201 == client("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", content).status
        identity = ("docker-content-digest", "content-length", "content-type", "etag")
        note("GET", f"/v2/me/app/blobs/{digest}", b"", *identity)
        note("HEAD", f"/v2/me/app/blobs/{digest}", b"", *identity)
        note("GET", f"/v2/me/app/blobs/{digest}", b"", "content-range", Range="bytes=1-3")
        note("GET", f"/v2/me/app/blobs/{absent}")
        note("GET", "/v2/me/app/manifests/none")
        note("GET", f"/v2/no/where/manifests/{absent}")
        note("GET", "/v2/no/where/tags/list")
        note("DELETE", f"/v2/me/app/manifests/{absent}")
        note("DELETE", f"/v2/me/app/blobs/{absent}")
        note("PUT", "/v2/me/app/manifests/1", b"{}", Content_Type=media_types.DOCKER_MANIFEST)
        blob = {"mediaType": media_types.DOCKER_CONFIG, "size": 3, "digest": absent}
        fields = {"schemaVersion": 2, "mediaType": media_types.DOCKER_MANIFEST, "config": blob, "layers": []}
        note("PUT", "/v2/me/app/manifests/1", json.dumps(fields).encode(), Content_Type=media_types.DOCKER_MANIFEST)
        fields["config"] = {"mediaType": media_types.DOCKER_CONFIG, "size": len(content), "digest": digest}
        manifest = json.dumps(fields).encode()
        note(
            "PUT", "/v2/me/app/manifests/1", manifest, "docker-content-digest", Content_Type=media_types.DOCKER_MANIFEST
        )
        note("GET", "/v2/me/app/manifests/1", b"", *identity, Accept=media_types.DOCKER_MANIFEST)
        note("POST", f"/v2/you/app/blobs/uploads/?mount={digest}&from=me/app", b"", "docker-content-digest")
        note("DELETE", f"/v2/you/app/blobs/{digest}")
        note("DELETE", f"/v2/me/app/manifests/{sha256(manifest)}")
        note("GET", "/v2/me/app/manifests/1")
    ours, others = seen
    assert others == ours


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="needs root on Linux")
def test_docker_pushes_to_us_and_pulls_back(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The docker command with dockerd: what it pushes to our registry, it pulls from there with the same digest."""
    from daemons import busybox_tar, dockers_daemon

    docker_command = shutil.which("docker")
    if docker_command is None:
        pytest.skip("needs the docker command: make peers")
    # The paths of its sockets must be short.
    with dockers_daemon(tmp_path_factory.mktemp("d")) as daemon:
        (tmp_path / "client").mkdir()
        # The registry is in dockerd's network namespace, where the loopback is its own.
        serve = [sys.executable, "-P", "-m", "classroom.cli", "registry", "serve"]
        options = ["--listen", "127.0.0.1:0", "--data-root", str(tmp_path / "registry")]
        inside = ["nsenter", "-t", str(daemon.process.pid), "-n"]
        registry = subprocess.Popen([*inside, *serve, *options], stderr=subprocess.PIPE, text=True)
        try:
            assert registry.stderr is not None
            host = registry.stderr.readline().rstrip().removeprefix("onggi registry: listening on http://")

            def docker(*arguments: str, given: bytes = b"") -> str:
                environment = {
                    "DOCKER_HOST": daemon.host,
                    "DOCKER_CONFIG": str(tmp_path / "client"),
                    "PATH": os.environ["PATH"],
                }
                done = subprocess.run(
                    [docker_command, *arguments], input=given, capture_output=True, timeout=100, env=environment
                )
                assert 0 == done.returncode, done.stderr
                return done.stdout.decode()

            image = docker("import", "-", f"{host}/me/app:1", given=busybox_tar(tmp_path)).strip()
            pushed = docker("push", f"{host}/me/app:1")
            assert "1: digest: sha256:" in pushed
            digest = pushed.rpartition("digest: ")[2].split()[0]
            docker("rmi", f"{host}/me/app:1")
            pulled = docker("pull", f"{host}/me/app:1")
            assert f"Digest: {digest}" in pulled
            assert f"Status: Downloaded newer image for {host}/me/app:1" in pulled
            assert image == docker("image", "inspect", "-f", "{{.Id}}", f"{host}/me/app:1").strip()
            docker("tag", image, f"{host}/you/app:1")
            assert "Mounted from me/app" in docker("push", f"{host}/you/app:1")
            assert "Layer already exists" in docker("push", f"{host}/you/app:1")
        finally:
            registry.terminate()
            assert 0 == registry.wait(20)
