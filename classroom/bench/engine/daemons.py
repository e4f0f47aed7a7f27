"""Daemons to race, or to test: ours and Docker's own, everything of them beneath one directory, ended by their pids."""

import contextlib
import http.client
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.linux.mounts import MNT_DETACH, umount2
from real_engine.supervisor.client import SupervisorClient

_READY_SECONDS = 60
_END_SECONDS = 30


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon that answers at `host`. `mark` is a path that stands in the command lines of all its processes."""

    name: str
    host: str
    directory: Path
    mark: str
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        """Its UNIX socket."""
        return Path(self.host.removeprefix("unix://"))

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.directory / "log").read_text(errors="replace")

    def processes(self) -> list[int]:
        """The daemon itself and what holds its containers, but not the containers."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it ended while we looked
                if self.mark.encode() in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found


@contextlib.contextmanager
def onggi(directory: Path, *options: str, before: Sequence[str] = ()) -> Iterator[RunningDaemon]:
    """Our daemon. When the block ends, so does its supervisor, and with that all its containers.

    `before` are words to put before the command, to run it in a namespace, say.

    Raises:
        EngineError: it does not start.
    """
    directory.mkdir(exist_ok=True, parents=True)
    host, root = f"unix://{directory}/onggi.sock", directory / "root"
    command = [*before, sys.executable, "-P", "-m", "classroom.cli", "engine", "serve"]
    command += ["--data-root", str(root), "-H", host, *options]
    try:
        with _running("onggi", command, host, directory, str(root)) as daemon:
            yield daemon
    finally:
        end_supervisor(root)


@contextlib.contextmanager
def dockerd(directory: Path, before: Sequence[str] = ()) -> Iterator[RunningDaemon]:
    """Docker's own daemon, with a containerd of its own.

    Raises:
        EngineError: it is not installed, or does not start.
    """
    if shutil.which("dockerd") is None:
        raise EngineError("there is no dockerd on this machine: make peers")
    directory.mkdir(exist_ok=True, parents=True)
    host = f"unix://{directory}/docker.sock"
    command = [*before, "dockerd", "--host", host, "--data-root", str(directory / "root")]
    command += ["--exec-root", str(directory / "exec"), "--pidfile", str(directory / "pid")]
    try:
        with _running("dockerd", command, host, directory, str(directory)) as daemon:
            yield daemon
    finally:
        for sandbox in (directory / "exec" / "netns").glob("*"):  # it leaves that of host networking mounted
            with contextlib.suppress(OSError):  # this one is a file by now
                umount2(str(sandbox), MNT_DETACH)


def end_supervisor(root: Path) -> None:
    """End the supervisor of a data root in order, and with it the containers that its daemon has left running."""
    if not _supervisors(root):
        return
    try:
        client = SupervisorClient.connect_or_start(root, lambda event: None)
        client.shutdown()
        client.close()
    except EngineError:
        pass  # it is ending by itself, or hangs: the next lines see to that
    deadline = time.monotonic() + _END_SECONDS
    while _supervisors(root):
        if time.monotonic() > deadline:
            for pid in _supervisors(root):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _supervisors(root: Path) -> list[int]:
    """The processes that are a supervisor of the data root, and not just a dead one that nobody has reaped."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            words = entry.read_bytes().split(b"\0")  # empty of the dead
            if b"real_engine.supervisor" in words and str(root).encode() in words:
                found.append(int(entry.parent.name))
    return found


def tar_of(layer: Path) -> bytes:
    """A directory as a tar archive, for `docker import`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(layer.rglob("*")):
            tar.add(path, path.relative_to(layer), recursive=False)
    return buffer.getvalue()


@contextlib.contextmanager
def _running(name: str, command: Sequence[str], host: str, directory: Path, mark: str) -> Iterator[RunningDaemon]:
    """The command, from when it answers a ping until the block ends."""
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    daemon = RunningDaemon(name, host, directory, mark, process)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not answers(daemon.socket):
            if process.poll() is not None or time.monotonic() > deadline:
                last = daemon.log.strip().splitlines()[-1:] or ["without a word"]
                raise EngineError(f"{name} did not start: {last[0]}")
            time.sleep(0.05)
        yield daemon
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_SECONDS)


def answers(path: Path) -> bool:
    """Whether a daemon answers a ping at that socket."""
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(5)
        connection.sock.connect(str(path))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
