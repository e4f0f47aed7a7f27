"""Our log beside that of a real dockerd, for the same output."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.peer]

_OUTPUT = (
    "printf 'a\\tb<&>\"\\\\\\001\\177\\302\\205\\342\\200\\250 \\355\\240\\200 \\342\\202x\\r\\n';"
    "printf '\\377\\357\\277\\275\\n\\n';"
    "head -c 16384 /dev/zero | tr '\\0' x; echo; head -c 40000 /dev/urandom | tr -c 'a-z' y; echo; printf rest"
)


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def dockerd(dockers, monkeypatch):
    """Docker's own daemon, for the docker command."""
    if shutil.which("docker") is None:
        pytest.skip("no docker command line: make peers")
    monkeypatch.setenv("DOCKER_HOST", dockers.host)


@pytest.fixture
def peer_image(dockerd, image, tmp_path):
    """Our busybox as an image of dockerd's."""
    name = f"onggi-test-{os.getpid()}"
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", image.layers[0], "-cf", archive, "."], check=True)
    _docker("import", str(archive), name)
    yield name
    _docker("rmi", "--force", name)


def _entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_same_entries(supervised, peer_image, tmp_path):
    container = supervised.new_id()
    # Random, and yet the same for both.
    source = supervised.directory(container) / "random"
    source.write_bytes(bytes(97 + byte % 26 if byte > 20 else byte for byte in os.urandom(40_000)))
    script = _OUTPUT.replace("/dev/urandom", "/random")
    (supervised.directory(container) / "upper/random").write_bytes(source.read_bytes())
    supervised.start(container, script)
    supervised.end_of(container)
    name = f"onggi-test-{os.getpid()}"
    try:
        _docker("create", "--network", "none", "--name", name, peer_image, "sh", "-c", script)
        _docker("cp", str(source), f"{name}:/random")
        _docker("start", name)
        _docker("wait", name)
        theirs = Path(_docker("inspect", "--format", "{{.LogPath}}", name))
        ours = Path(supervised.log_options(container).path)
        expected = [(entry["log"], entry["stream"]) for entry in _entries(theirs)]
        assert expected == [(entry["log"], entry["stream"]) for entry in _entries(ours)]
        # Byte by byte, but for the times.
        strip = [line.split(b',"time":"')[0] for line in theirs.read_bytes().splitlines()]
        assert strip == [line.split(b',"time":"')[0] for line in ours.read_bytes().splitlines()]
    finally:
        _docker("rm", "--force", name)
