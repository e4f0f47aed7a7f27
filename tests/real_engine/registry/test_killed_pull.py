"""A daemon that is killed in the middle of a pull: what it leaves, and the pull after it."""

import contextlib
import http.client
import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import tar_of
from daemons import our_daemon
from engine_api import EngineApi
from slow_registry import PORT, SlowRegistry, slow_registry

from real_engine.images.references import Reference
from real_engine.images.store import ImageStore
from real_engine.registry.origins import Origins
from real_engine.registry.push import Push, references_to_push

pytestmark = [pytest.mark.root]

NAME = "me/app"
# A layer each. They come by three, and one of those is whole long before the others.
FILES = {f"file{size}": os.urandom(size) for size in (300_000, 1_500_000, 1_600_000, 1_700_000)}


@pytest.fixture
def diff_ids(tmp_path: Path, serve: Callable[..., Any]) -> list[str]:
    """The layers of an image that the registry in `tmp_path/registry` has."""
    serving = serve(tmp_path / "registry")
    images = ImageStore(tmp_path / "source")
    layers = [images.layers.apply(io.BytesIO(tar_of(*file))) for file in FILES.items()]
    ids = [layer.diff_id for layer in layers]
    fields = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}}
    reference = Reference.parse(f"{serving.host}/{NAME}:1")
    images.tag(images.create(fields), reference)
    Push(images, Origins(tmp_path / "origins.json"), references_to_push(images, reference)).run()
    serving.stop()
    return ids


def _sizes(directory: Path) -> dict[str, int]:
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_size
    return found


def _pull(api: EngineApi, registry: SlowRegistry) -> list[Any]:
    answer = api.post("/images/create", b"", fromImage=f"{registry.host}/{NAME}", tag="1")
    assert 200 == answer.status, answer.body
    return answer.lines()


def _pull_until_killed(daemon: Any, registry: SlowRegistry, met: Callable[[], bool]) -> None:
    """Kill the daemon as soon as that is so."""

    def run() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            _pull(EngineApi(daemon.socket), registry)

    pulling = threading.Thread(target=run)
    pulling.start()
    deadline = time.monotonic() + 20
    while not met():
        assert pulling.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait(10)
    pulling.join(10)


@pytest.mark.parametrize("moment", ["the first bytes", "the middle", "after a layer"])
def test_the_next_pull_goes_on_and_nothing_half_is_taken_for_whole(
    tmp_path: Path, diff_ids: list[str], moment: str
) -> None:
    root = tmp_path / "daemon" / "root"
    partial, layers = root / "images" / "partial", root / "layers"
    names = {diff_id.removeprefix("sha256:") for diff_id in diff_ids}

    def met() -> bool:
        came = sum(_sizes(partial).values())
        whole = names & set(_sizes(layers))
        return {"the first bytes": came > 0, "the middle": came > 1_000_000, "after a layer": bool(whole)}[moment]

    with slow_registry(tmp_path / "registry", tmp_path) as registry:
        assert PORT == int(registry.host.rpartition(":")[2])
        with our_daemon(tmp_path / "daemon", before=registry.namespace) as daemon:
            _pull_until_killed(daemon, registry, met)
        kept, first = _sizes(partial), len(registry.asked())
        assert kept, "what has come is kept"
        with our_daemon(tmp_path / "daemon", before=registry.namespace) as daemon:
            api = EngineApi(daemon.socket, timeout=60)
            assert [] == api.get("/images/json", all=1).json()
            # Half layers are gone. So are whole ones: nothing of them was flushed, and no image vouches for them.
            assert {"init"} >= set(_sizes(layers))
            assert {} == _sizes(root / "images" / "blobs" / "sha256")
            assert [] == os.listdir(root / "tmp")
            registry.be_quick()
            lines = _pull(api, registry)
            assert "errorDetail" not in lines[-1], lines[-1]
            assert f"Status: Downloaded newer image for {registry.host}/{NAME}:1" == lines[-1]["status"]
            begun = [asked.removeprefix("bytes=").removesuffix("-") for asked in registry.asked()[first:]]
            offsets = {int(offset) for offset in begun if offset != "all"}
            assert offsets, "only the rest was asked for"
            assert set(kept.values()) >= offsets
            assert {} == _sizes(partial)
            created = api.post("/containers/create", {"Image": f"{registry.host}/{NAME}:1", "Cmd": ["x"]}).json()
            for name, content in FILES.items():
                archive = api.get(f"/containers/{created['Id']}/archive", path=f"/{name}").body
                with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                    member = tar.extractfile(name)
                    assert member is not None
                    assert content == member.read()
            assert "Traceback" not in daemon.log


def test_a_killed_daemons_half_layer_that_the_disk_has_changed_begins_anew(tmp_path: Path, diff_ids: list[str]) -> None:
    partial = tmp_path / "daemon" / "root" / "images" / "partial"
    with slow_registry(tmp_path / "registry", tmp_path) as registry:
        with our_daemon(tmp_path / "daemon", before=registry.namespace) as daemon:
            _pull_until_killed(daemon, registry, lambda: sum(_sizes(partial).values()) > 500_000)
        spoilt = max(partial.iterdir(), key=lambda path: path.stat().st_size)
        with spoilt.open("r+b") as file:
            file.seek(1000)
            file.write(b"spoilt")
        registry.be_quick()
        with our_daemon(tmp_path / "daemon", before=registry.namespace) as daemon:
            api = EngineApi(daemon.socket, timeout=60)
            refused = _pull(api, registry)[-1]
            assert f"filesystem layer verification failed for digest sha256:{spoilt.name}" == refused["error"]
            assert "Downloaded newer image" in _pull(api, registry)[-1]["status"]
            assert {f"sha256:{name}" for name in os.listdir(tmp_path / "daemon/root/layers")} >= set(diff_ids)
