"""Docker's SDK for Python drives our daemon as it drives Docker's."""

import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_command_line import CommandLine

docker = pytest.importorskip("docker")

pytestmark = [pytest.mark.root]


@pytest.fixture(params=["onggi", pytest.param("dockerd", marks=pytest.mark.peer)])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The SDK on our daemon, and on Docker's own: what is expected must hold of both."""
    command: CommandLine = request.getfixturevalue(request.param)
    sdk = docker.DockerClient(base_url=command.host, timeout=60)
    yield sdk
    sdk.close()


@pytest.fixture
def name() -> str:
    return f"sdk-{uuid.uuid4().hex[:8]}"


def test_version_and_ping(client: Any) -> None:
    assert client.ping()
    assert "linux" == client.version()["Os"]
    assert client.info()["Containers"] >= 0


def test_run_gives_the_output(client: Any) -> None:
    assert b"hello\n" == client.containers.run("bb", ["echo", "hello"], remove=True)


def test_a_failing_program_raises_with_its_errors(client: Any) -> None:
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("bb", ["sh", "-c", "echo why >&2; exit 4"], remove=True)
    assert 4 == failed.value.exit_status
    assert b"why" in failed.value.stderr


def test_an_image_that_is_not_there(client: Any) -> None:
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nope")


def test_a_container_from_its_start_to_its_end(client: Any, name: str) -> None:
    container = client.containers.run("bb", ["sleep", "100"], name=name, detach=True, labels={"a": "b"})
    try:
        assert "running" == client.containers.get(name).status
        assert [name] == [one.name for one in client.containers.list(filters={"label": "a=b", "name": name})]
        assert (0, b"in it\n") == tuple(container.exec_run(["echo", "in it"]))
        assert 3 == container.exec_run(["sh", "-c", "exit 3"]).exit_code
        out, err = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True).output
        assert (b"o\n", b"e\n") == (out, err)
        stats = container.stats(stream=False)
        assert stats["cpu_stats"]["cpu_usage"]["total_usage"] >= stats["precpu_stats"]["cpu_usage"]["total_usage"]
        assert any("sleep" in " ".join(row) for row in container.top()["Processes"])
        container.pause()
        container.unpause()
        container.rename(f"{name}-2")
        container.stop(timeout=0)
        assert 137 == container.wait()["StatusCode"]
    finally:
        container.remove(force=True, v=False)


def test_files_in_and_out(client: Any, name: str) -> None:
    container = client.containers.create("bb", ["true"], name=name)
    try:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo("greeting")
            entry.size = 5
            tar.addfile(entry, io.BytesIO(b"hello"))
        assert container.put_archive("/root", packed.getvalue())
        pieces, status = container.get_archive("/root/greeting")
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
            assert b"hello" == tar.extractfile("greeting").read()
        assert ("greeting", 5) == (status["name"], status["size"])
        assert {"Path": "/root/greeting", "Kind": 1} in container.diff()
    finally:
        container.remove()


def test_logs_are_followed_to_the_end(client: Any, name: str) -> None:
    container = client.containers.run(
        "bb", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"], name=name, detach=True
    )
    try:
        assert b"1\n2\n3\n" == b"".join(container.logs(stream=True, follow=True))
        assert b"3\n" == container.logs(tail=1)
    finally:
        container.remove(force=True)


def test_an_interactive_session_over_a_socket(client: Any, name: str) -> None:
    container = client.containers.create("bb", ["cat"], name=name, stdin_open=True)
    try:
        attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        raw = attached._sock
        raw.sendall(b"typed\n")
        raw.settimeout(10)
        assert b"typed\n" == raw.recv(100)[8:]
        container.kill()
        container.wait()
        attached.close()
    finally:
        container.remove(force=True)


def test_a_build_from_a_context(client: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM bb\nCOPY f /f\nRUN cat /f\n")
    (tmp_path / "f").write_text("content\n")
    image, lines = client.images.build(path=str(tmp_path), tag=f"{name}:1", rm=True)
    try:
        assert any("content" in line.get("stream", "") for line in lines)
        assert b"content\n" == client.containers.run(f"{name}:1", ["cat", "/f"], remove=True)
        assert f"{name}:1" in image.tags
    finally:
        client.images.remove(f"{name}:1", force=True)


def test_networks_and_volumes(client: Any, name: str) -> None:
    network, volume = client.networks.create(name), client.volumes.create(name)
    try:
        container = client.containers.run(
            "bb", ["sleep", "100"], detach=True, network=name, volumes={name: {"bind": "/data", "mode": "rw"}}
        )
        try:
            network.reload()
            assert [container.id] == [one.id for one in network.containers]
            assert 0 == container.exec_run(["sh", "-c", "echo x > /data/x"]).exit_code
            network.disconnect(container)
            network.connect(container, aliases=["other"])
        finally:
            container.remove(force=True)
        assert b"x\n" == client.containers.run("bb", ["cat", "/data/x"], remove=True, volumes=[f"{name}:/data"])
    finally:
        network.remove()
        volume.remove()


def test_events_are_heard(client: Any, name: str) -> None:
    heard = client.events(decode=True, filters={"container": name})
    client.containers.run("bb", ["true"], name=name, remove=True)
    actions = []
    for event in heard:
        actions.append(event["Action"])
        if event["Action"] == "destroy":
            break
    heard.close()
    assert ["create", "start", "die", "destroy"] == [one for one in actions if one != "attach"]


def test_saved_images_are_loaded_again(client: Any, name: str) -> None:
    image = client.images.get("bb")
    image.tag(name, "1")
    saved = b"".join(client.images.get(f"{name}:1").save(named=f"{name}:1"))
    client.images.remove(f"{name}:1")
    loaded = client.images.load(saved)
    assert [image.id] == [one.id for one in loaded]
    client.images.remove(f"{name}:1")
