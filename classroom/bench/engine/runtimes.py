"""The programs beneath an engine, alone: `crun run` and `runc run` of a bundle, with no daemon and no network."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.linux import cgroups
from real_engine.linux.processes import CLONE_NEWNS, setns

RUNTIMES = ("crun", "runc")


def make_bundle(directory: Path, root: Path) -> Path:
    """An OCI bundle that runs `true` in the root file system `root`, confined as the runtimes' own default says.

    Raises:
        EngineError: there is no runtime here to write its default configuration.
    """
    directory.mkdir(exist_ok=True)
    writer = next((name for name in RUNTIMES if shutil.which(name)), None)
    if writer is None:
        raise EngineError("neither crun nor runc is on this machine: make peers")
    done = subprocess.run([writer, "spec"], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{writer} spec: {done.stderr.strip()}")
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["root"] = {"path": str(root), "readonly": True}
    path.write_text(json.dumps(config))
    return directory


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime that works here. `view` is a mount namespace whose /sys/fs/cgroup is v2 alone, or -1."""

    name: str
    bundle: Path
    view: int = -1
    options: tuple[str, ...] = ()

    def sample(self) -> float:
        """The seconds that one run takes.

        Raises:
            EngineError: it failed.
        """
        name = f"onggi-bench-{os.urandom(4).hex()}"
        command = [self.name, *self.options, "run", "--bundle", str(self.bundle), name]
        enter = None if self.view < 0 else partial(setns, self.view, CLONE_NEWNS)
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=enter)
        seconds = time.perf_counter() - begin
        if done.returncode:
            mounted = Path("/sys/fs/cgroup")
            cgroups.destroy([*mounted.glob(name), *mounted.glob(f"*/{name}")])  # one that fails may leave them
            raise EngineError(f"{self.name} run: {done.stderr.strip() or done.returncode}")
        return seconds


@contextlib.contextmanager
def usable(bundle: Path) -> Iterator[tuple[list[Runtime], list[str], list[str]]]:
    """The runtimes that run the bundle, why others are left out, and what to know of those that run.

    crun refuses a machine of hybrid cgroups. There it gets a view of the v2 hierarchy alone, and where it may not raise
    the limit of locked memory either, which it wants for its filter of devices, it runs without cgroups.
    """
    found: list[Runtime] = []
    missing: list[str] = []
    remarks: list[str] = []
    with _unified_view() as view:
        for name in RUNTIMES:
            if shutil.which(name) is None:
                missing.append(name)
                continue
            reason = ""
            ways = [Runtime(name, bundle), Runtime(name, bundle, view)]
            if name == "crun":
                ways.append(Runtime(name, bundle, view, ("--cgroup-manager=disabled",)))
            for one in ways:
                try:
                    one.sample()
                except EngineError as error:
                    reason = str(error)
                else:
                    found.append(one)
                    if one.options:
                        remarks.append(f"{name} runs without cgroups here, and so does less ({reason})")
                    break
            else:
                missing.append(f"{name} ({reason})")
        yield found, missing, remarks


@contextlib.contextmanager
def _unified_view() -> Iterator[int]:
    """A mount namespace in which /sys/fs/cgroup is the v2 hierarchy."""
    script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo ready && exec cat"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        if holder.stdout is None or holder.stdin is None or holder.stdout.readline() != b"ready\n":
            raise EngineError("no mount namespace could be made for the runtimes")
        view = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            holder.stdin.close()  # the namespace stays for as long as the descriptor does
            yield view
        finally:
            os.close(view)
