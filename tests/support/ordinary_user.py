"""A machine for an ordinary user's engine: its own mounts and network, with a far server, and the user itself.

The tests run as root, who makes mount and network namespaces with an /etc/subuid, /etc/subgid and /etc/passwd of their
own, and starts the engine in them as a user that the machine doesn't know.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from docker_command_line import CommandLine, Outcome

USER = 61_234
FIRST_SUBORDINATE = 700_000
FAR_ADDRESS = "203.0.113.5"
_FAR_SERVER = f"""
import http.server, socketserver

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'from afar')

socketserver.TCPServer.allow_reuse_address = True
server = socketserver.TCPServer(('{FAR_ADDRESS}', 8000), Handler)
print('ready', flush=True)
server.serve_forever()
"""
_LOOPBACK_SERVER = """
import socket

server = socket.create_server(('127.0.0.1', 0))
print(server.getsockname()[1], flush=True)
while True:
    with server.accept()[0] as connection:
        connection.sendall(b'from the loopback')
"""
_PREPARE = r"""
set -e
directory=$1 python=$2 closed=$3; shift 3
ip link set lo up
ip link add up0 type veth peer name up1; ip address add 192.0.2.10/24 dev up0; ip link set up0 up; ip link set up1 up
ip route add default via 192.0.2.1
ip address add 203.0.113.5/32 dev lo
if [ "$closed" ]; then
    mkdir "$directory/python"; mount --bind "$python" "$directory/python"
    mount -t tmpfs -o mode=755 tmpfs "$closed"; mkdir -p "$python"; mount --move "$directory/python" "$python"
fi
for file in subuid subgid passwd; do mount --bind "$directory/$file" "/etc/$file"; done
exec "$@"
"""


def _closed_ancestor(path: Path) -> str:
    """The highest directory above `path` that ordinary users may not enter; empty if they may enter all."""
    for above in reversed(path.parents):
        if not above.stat().st_mode & 0o001:
            return str(above)
    return ""


@dataclass
class Machine:
    """The namespaces in which engines of an ordinary user run; `pid` is a process in them."""

    directory: Path
    pid: int
    engines: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The engine's data root."""
        return self.directory / "root"

    @property
    def log(self) -> str:
        """What the engines have written."""
        return (self.directory / "log").read_text(errors="replace")

    def inside(self, *words: str, seconds: float = 30) -> Outcome:
        """Run a command there, as root."""
        command = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def serving_on_its_loopback(self) -> Iterator[int]:
        """A server on 127.0.0.1 of the machine, for the length of the block; gives its port."""
        command = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--"]
        server = subprocess.Popen([*command, sys.executable, "-S", "-c", _LOOPBACK_SERVER], stdout=subprocess.PIPE)
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()
            server.wait()
            server.stdout.close()

    def serve(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start an engine as the user; it is not yet ready."""
        command = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--"]
        command += ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "-i"]
        command += [f"HOME={self.directory}/home", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", sys.executable, "-P", "-m"]
        command += ["classroom.cli", "engine", "serve", "--data-root", str(self.root)]
        command += ["-H", f"unix://{self.directory}/onggi.sock", *options]
        with (self.directory / "log").open("ab") as log:
            engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        self.engines.append(engine)
        return engine

    def start(self, *options: str) -> CommandLine:
        """Start an engine, and wait until it listens."""
        before = self.log.count("listening on")
        engine = self.serve(*options)
        deadline = time.monotonic() + 60
        while self.log.count("listening on") == before:
            assert engine.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        home = self.directory / "docker"
        home.mkdir(exist_ok=True)
        return CommandLine(f"unix://{self.directory}/onggi.sock", home)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the engine that was started last; its exit status."""
        engine = self.engines[-1]
        engine.send_signal(number)
        return engine.wait(30)

    def processes(self) -> dict[int, str]:
        """All processes of the user's engine, and their command lines."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.directory) in words and "nsenter" not in words:
                    found[int(entry.name)] = words
        return found

    def pid_of(self, module: str) -> int:
        """The process that runs `module`: the first of its kind."""
        return min(pid for pid, words in self.processes().items() if module in words)

    def namespaces(self, pid: int) -> list[str]:
        """The user, mount and network namespace of a process."""
        return [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("user", "mnt", "net")]

    def children(self, pid: int) -> list[int]:
        """The processes that process `pid` has started itself, and that have not ended."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found.append(int(entry.name))
        return found

    def wait_until_nothing_runs(self) -> None:
        """Wait for the last process of the engine to end."""
        deadline = time.monotonic() + 20
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


@contextlib.contextmanager
def machine(directory: Path, *, subordinate: bool) -> Iterator[Machine]:
    """A machine, with or without subordinate ids for its user. What runs there ends with the block."""
    directory.chmod(0o755)
    (directory / "home").mkdir()
    for path in (directory, directory / "home"):
        os.chown(path, USER, USER)
    granted = f"{USER}:{FIRST_SUBORDINATE}:65536\n" if subordinate else ""
    for name in ("subuid", "subgid"):
        (directory / name).write_text(granted)
    known = Path("/etc/passwd").read_text()
    (directory / "passwd").write_text(f"{known}student:x:{USER}:{USER}::{directory}/home:/bin/sh\n")
    (directory / "log").touch()
    python = Path(sys.base_prefix).resolve()
    command = ["unshare", "--mount", "--propagation=slave", "--net", "sh", "-c", _PREPARE, "sh", str(directory)]
    command += [str(python), _closed_ancestor(python), sys.executable, "-S", "-c", _FAR_SERVER]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stderr is not None
    made = Machine(directory, first.pid)
    try:
        if first.stdout.readline() != b"ready\n":
            pytest.fail(f"the machine can't be made: {first.stderr.read().decode()}")
        yield made
    finally:
        for engine in made.engines:
            if engine.poll() is None:
                engine.kill()
                engine.wait()
        for pid in made.processes():
            with contextlib.suppress(ProcessLookupError):
                if pid != first.pid:
                    os.kill(pid, signal.SIGKILL)
        first.kill()
        first.wait()
        first.stdout.close()
        first.stderr.close()


def wait_for_the_end_of(pids: list[int]) -> None:
    """Wait until none of these processes runs any more."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def why_not() -> str:
    """Why no ordinary user can have a user namespace here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root, who becomes the user"
    if shutil.which("setpriv") is None:
        return "there is no setpriv (package util-linux)"
    command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "unshare", "--user", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"ordinary users may make no user namespace here: {done.stderr.strip()}" if done.returncode else ""
