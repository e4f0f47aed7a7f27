"""One daemon of ours, with a busybox image, for all tests of a module; and what must not be left behind by it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemons import busybox_tar, our_daemon
from engine_api import EngineApi

from classroom.bench.engine.daemons import RunningDaemon

IMAGE = "bb"


@dataclass
class ServedEngine:
    """A daemon and its client."""

    daemon: RunningDaemon
    api: EngineApi

    @property
    def root(self) -> Path:
        """Its data root."""
        return self.daemon.directory / "root"

    @property
    def pid(self) -> int:
        """The daemon's own process: `unshare` and `sh` execute what they were given."""
        return self.daemon.process.pid

    def threads(self) -> int:
        """How many threads the daemon has now."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def in_its_network(self, *command: str) -> str:
        """The output of a command in the network namespace of the daemon."""
        entered = ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]
        done = subprocess.run(entered, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def left(self) -> dict[str, Any]:
        """What containers, and work that was broken off, could leave behind."""
        mounts = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        names = [line.split()[1].partition("@")[0] for line in self.in_its_network("ip", "-o", "link").splitlines()]
        return {
            "containers": _names(self.root / "containers"),
            "tmp": _names(self.root / "tmp"),
            "builds": _names(self.root / "builds"),
            "partial layers": [name for name in _names(self.root / "layers") if name.startswith(".")],
            "partial blobs": _partial_blobs(self.root),
            "mounts": [line for line in mounts if str(self.root) in line],
            "veths": [name for name in names if name.startswith(("veth", "on")) and not name.startswith("onggi0")],
            "cgroups": self.cgroups(),
        }

    def cgroups(self) -> list[str]:
        """The cgroups of its containers: they have names of 64 hexadecimal digits, and hold or held its processes."""
        known = set(_names(self.root / "containers"))
        found = []
        for directory, names, _ in os.walk("/sys/fs/cgroup"):
            for name in names:
                if name in known:
                    found.append(f"{directory}/{name}")
        return found


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.exists() else []


def _partial_blobs(root: Path) -> list[str]:
    blobs = root / "images" / "blobs" / "sha256"
    return [name for name in _names(blobs) if len(name) != 64] + _names(root / "images" / "partial")


@contextlib.contextmanager
def served(directory: Path, *options: str, **more: Any) -> Iterator[ServedEngine]:
    """A daemon that has the image `bb`; it and its containers are ended with the block."""
    with our_daemon(directory, *options, **more) as daemon:
        api = EngineApi(daemon.socket, image=IMAGE)
        imported = api.post("/images/create", busybox_tar(directory), fromSrc="-", repo=IMAGE, changes='CMD ["sh"]')
        assert imported.status == 200, imported.body
        assert "errorDetail" not in imported.body.decode(), imported.body
        yield ServedEngine(daemon, api)
