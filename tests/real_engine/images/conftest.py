"""Stores to test with, archives to fill them, and Docker's own daemon to compare them with."""

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daemons import dockers_daemon

from real_engine.images import tar_writer
from real_engine.images.store import Image, ImageStore
from real_engine.images.tar_reader import DIRECTORY, Entry


def make_tar(files: dict[str, bytes | None]) -> bytes:
    """A plain tar: names with their contents, directories with None."""
    parts = []
    for name, data in files.items():
        entry = Entry(name, DIRECTORY, mode=0o755) if data is None else Entry(name, size=len(data))
        entry.uid, entry.gid = os.geteuid(), os.getegid()
        parts += [tar_writer.header(entry), data or b"", tar_writer.padding(len(data or b""))]
    return b"".join([*parts, tar_writer.END])


@pytest.fixture(name="make_tar")
def make_tar_fixture() -> Callable[[dict[str, bytes | None]], bytes]:
    return make_tar


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """An empty store beneath `tmp_path`/data."""
    root = tmp_path / "data"
    root.mkdir()
    return ImageStore(root)


@pytest.fixture
def make_image(store: ImageStore) -> Callable[..., Image]:
    """Makes an image in `store` of layers, each of them files; `parent` is an image to make it upon."""

    def make(
        *layers: dict[str, bytes | None],
        parent: Image | None = None,
        created: str = "2024-01-02T03:04:05Z",
        **config: Any,
    ) -> Image:
        made = [store.layers.apply(io.BytesIO(make_tar(files))).diff_id for files in layers]
        below = list(parent.diff_ids) if parent is not None else []
        history = list(parent.config["history"]) if parent is not None else []
        history += [{"created": created, "created_by": f"layer {number}"} for number in range(len(layers))]
        if not layers:
            history.append({"created": created, "created_by": "CMD", "empty_layer": True})
        value = {
            "architecture": "amd64",
            "config": config or None,
            "created": created,
            "history": history,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [*below, *made]},
        }
        return store.create(value, parent=parent.id if parent is not None else "")

    return make


@dataclass(frozen=True)
class Peer:
    """Docker's own daemon, by the docker command."""

    host: str

    def __call__(self, *arguments: str, given: bytes | None = None) -> str:
        """What the command writes; it must succeed."""
        done = subprocess.run(
            ["docker", "-H", self.host, *arguments], input=given, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def inspect(self, *arguments: str) -> Any:
        """`docker inspect` of one object."""
        return json.loads(self("inspect", *arguments))[0]


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Docker's daemon; skips where it is not installed."""
    with dockers_daemon(tmp_path_factory.mktemp("dockerd")) as daemon:
        yield Peer(daemon.host)
