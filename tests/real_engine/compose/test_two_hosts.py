"""Services across two daemons, in two network namespaces as two hosts: spread, balanced, and one host lost."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip, of iproute2"),
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs a static busybox"),
    pytest.mark.skipif(not (shutil.which("docker-init") or shutil.which("tini")), reason="needs an init: make peers"),
]

_SERVE = [sys.executable, "-m", "classroom.cli", "engine", "serve"]
_TEXT = """
services:
  web:
    image: box:1
    command: [sh, -c, 'hostname > /www/index.html; exec httpd -f -p 80 -h /www']
    ports: ["127.0.0.1:{port}:80"]
    init: true
    deploy: {{replicas: 4}}
"""


@dataclass
class Machine:
    """A network namespace, which the process `holder` keeps, with a daemon in it."""

    name: str
    holder: subprocess.Popen
    address: str
    directory: Path
    process: subprocess.Popen | None = None

    @property
    def socket(self) -> Path:
        return self.directory / f"{self.name}.sock"

    def start(self) -> None:
        log = self.directory / f"{self.name}.log"
        command = [*self.inside, *_SERVE]
        command += ["--data-root", str(self.directory / self.name), "-H", f"unix://{self.socket}"]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        deadline = time.monotonic() + 30
        while "listening on" not in log.read_text():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    @property
    def inside(self) -> list[str]:
        """What runs a command in its network namespace."""
        return ["nsenter", "--net", "--target", str(self.holder.pid)]

    def processes(self) -> list[int]:
        """Every process in its network namespace but the holder; the supervisor's end is that of its containers."""
        mine = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        found = []
        for entry in Path("/proc").glob("[0-9]*/ns/net"):
            with contextlib.suppress(OSError):  # it ended while we looked
                if os.readlink(entry) == mine:
                    found.append(int(entry.parts[2]))
        return [number for number in found if number != self.holder.pid]

    def lose(self) -> None:
        """As when the power is cut: everything of it ends at once."""
        for number in self.processes():
            with contextlib.suppress(ProcessLookupError):  # it was a child of one that has just been ended
                os.kill(number, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(20)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    directory = Path(tempfile.mkdtemp(prefix="two-"))
    tag = f"{os.getpid() % 10000:04d}"
    block = 16 + os.getpid() % 200
    made = []
    try:
        for index, name in enumerate("ab"):
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo ready; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            machine = Machine(name, holder, f"10.213.{block}.{index * 4 + 2}", directory)
            made.append(machine)
            assert holder.stdout is not None
            assert b"ready\n" == holder.stdout.readline()
            outside, inside = f"o{tag}{name}", f"i{tag}{name}"
            _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", str(holder.pid))
            _ip("address", "add", f"10.213.{block}.{index * 4 + 1}/30", "dev", outside)
            _ip("link", "set", outside, "up")
            for words in (
                ("address", "add", f"{machine.address}/30", "dev", inside),
                ("link", "set", inside, "up"),
                ("link", "set", "lo", "up"),
            ):
                subprocess.run([*machine.inside, "ip", *words], check=True, capture_output=True)
            machine.start()
            _import_image(machine)
        yield made
    finally:
        for machine in made:
            if machine.process is not None:
                machine.lose()
            machine.holder.communicate()  # the end of its input is its own
            subprocess.run(["ip", "link", "del", f"o{tag}{machine.name}"], capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


def _import_image(machine: Machine) -> None:
    """An image `box:1` of this machine's busybox."""
    import docker

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("bin", "www", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "httpd", "hostname"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    client = docker.APIClient(f"unix://{machine.socket}")
    client.import_image_from_data(data.getvalue(), repository="box", tag="1")
    client.close()


def _ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
        return answer.read().decode().strip()


def _answers(port: int, wanted: int, seconds: float) -> set[str]:
    """Who answers, once `wanted` different ones do."""
    deadline = time.monotonic() + seconds
    found: set[str] = set()
    while time.monotonic() < deadline:
        try:
            found = {_ask(port) for _ in range(3 * wanted)}
        except OSError:
            found = set()
        if len(found) == wanted:
            return found
        time.sleep(0.2)
    return found


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_replicas_are_spread_balanced_and_saved(machines: list[Machine], tmp_path: Path):
    port = _free_port()
    hosts = {machine.name: {"url": f"unix://{machine.socket}", "address": machine.address} for machine in machines}
    text = _TEXT.format(port=port) + "x-onggi: " + json.dumps({"hosts": hosts})
    (tmp_path / "compose.yaml").write_text(text)
    base = [sys.executable, "-m", "classroom.cli", "compose", "-f", str(tmp_path / "compose.yaml"), "-p", "two"]
    with (tmp_path / "errors").open("w") as errors:
        up = subprocess.Popen([*base, "up"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        assert 4 == len(_answers(port, 4, 60)), (tmp_path / "errors").read_text()
        listed = subprocess.run([*base, "ps", "--format", "json"], capture_output=True, text=True, timeout=60).stdout
        on = [json.loads(line)["Host"] for line in listed.splitlines()]
        assert (2, 2) == (on.count("a"), on.count("b"))
        machines[0].lose()
        survivors = _answers(port, 4, 60)
        assert 4 == len(survivors), (tmp_path / "errors").read_text()
        assert "host a is lost: its replicas are started on the others" in (tmp_path / "errors").read_text()
        machines[0].start()
        deadline = time.monotonic() + 60
        while "host a is back" not in (tmp_path / "errors").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert 4 == len(_answers(port, 4, 60))
        up.send_signal(signal.SIGINT)
        assert 130 == up.wait(60)
    finally:
        up.kill()
        up.wait()
    down = subprocess.run([*base, "down", "-t", "0"], capture_output=True, text=True, timeout=60)
    assert 0 == down.returncode, down.stderr
