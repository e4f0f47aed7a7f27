"""Containers outlive the daemon: the next one knows all of them, with their ends and logs whole."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemons import busybox_tar, our_daemon
from docker_command_line import CommandLine

from classroom.bench.engine.daemons import RunningDaemon

pytestmark = [pytest.mark.root]


class Machine:
    """A data root on which one daemon after the other runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.docker = CommandLine(f"unix://{directory}/daemon/onggi.sock", directory)

    def daemon(self):
        return our_daemon(self.directory / "daemon")

    def until(self, wanted: str, *words: str) -> None:
        deadline = time.monotonic() + 15
        while wanted not in (outcome := self.docker(*words)).stdout:
            assert time.monotonic() < deadline, outcome
            time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def _processes_of(daemon: RunningDaemon) -> set[int]:
    return set(daemon.processes())


def _attached(machine: Machine, name: str) -> socket.socket:
    """A connection that has become the standard streams of a container."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(machine.docker.host.removeprefix("unix://"))
    connection.sendall(
        f"POST /v1.43/containers/{name}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return connection


def _dead(pid: int) -> bool:
    """Whether a process is no more; its parent was killed too, and an init may reap what it inherits late."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in ("Z", "X")


def _kill(daemon: RunningDaemon) -> None:
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()


def _end(daemon: RunningDaemon) -> None:
    daemon.process.terminate()
    daemon.process.wait(20)


@pytest.mark.parametrize("end", [_kill, _end], ids=["killed", "ended"])
def test_running_containers_and_ends_that_nobody_saw(machine: Machine, end: Callable[[RunningDaemon], None]) -> None:
    # The context manager ends the supervisor too, so the second daemon is started inside of the first one's block.
    with machine.daemon() as first:
        docker = machine.docker
        docker("import", "-", "bb", given=busybox_tar(machine.directory))
        loop = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"
        assert 0 == docker("run", "-d", "--name", "runs", "bb", "sh", "-c", loop).status
        assert 0 == docker("run", "-d", "--name", "ends", "bb", "sh", "-c", "echo last words; sleep 1; exit 7").status
        assert 0 == docker("run", "-d", "--name", "again", "--restart", "always", "bb", "sleep", "1").status
        assert 0 == docker("run", "-d", "--rm", "--name", "goes", "bb", "sleep", "1").status
        talk = ("sh", "-c", "while read a; do echo got $a; done")
        assert 0 == docker("run", "-d", "-i", "--name", "talks", "bb", *talk).status
        attached = _attached(machine, "talks")
        machine.until("Up", "ps", "--filter", "ancestor=bb", "--filter", "status=running")
        pid = docker("inspect", "-f", "{{.State.Pid}}", "runs").stdout
        address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "runs").stdout
        end(first)
        time.sleep(1.5)
        # The connection belongs to the supervisor, so it works while no daemon is there.
        attached.sendall(b"through\n")
        assert b"got through\n" == attached.recv(100)[8:]
        with machine.daemon():
            assert pid == docker("inspect", "-f", "{{.State.Pid}}", "runs").stdout
            assert address == docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "runs").stdout
            assert "7 exited\n" == docker("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "ends").stdout
            assert "last words\n" == docker("logs", "ends").stdout
            machine.until("running", "inspect", "-f", "{{.State.Status}}", "again")
            assert "" == docker("ps", "-aq", "--filter", "name=goes").stdout
            numbers = [int(line) for line in docker("logs", "runs").stdout.split()]
            assert list(range(len(numbers))) == numbers
            assert len(numbers) > 20
            assert 0 == docker("exec", "runs", "true").status
            assert 0 == docker("stop", "-t", "0", "runs").status
            assert "137\n" == docker("wait", "runs").stdout


def test_a_killed_supervisor_takes_its_containers_along_and_the_daemon_tells(machine: Machine) -> None:
    with machine.daemon() as daemon:
        docker = machine.docker
        docker("import", "-", "bb", given=busybox_tar(machine.directory))
        assert 0 == docker("run", "-d", "--name", "runs", "bb", "sleep", "100").status
        assert 0 == docker("run", "-d", "--name", "back", "--restart", "always", "bb", "sleep", "100").status
        pid = int(docker("inspect", "-f", "{{.State.Pid}}", "runs").stdout)
        (supervisor,) = _processes_of(daemon) - {daemon.process.pid}
        os.kill(supervisor, signal.SIGKILL)
        machine.until("137 exited", "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "runs")
        machine.until("running", "inspect", "-f", "{{.State.Status}}", "back")
        assert _dead(pid)
        assert 0 == docker("start", "runs").status
        assert 0 == docker("rm", "-f", "runs", "back").status


def test_a_paused_container_ends_with_a_killed_supervisor_too(machine: Machine) -> None:
    with machine.daemon() as daemon:
        docker = machine.docker
        docker("import", "-", "bb", given=busybox_tar(machine.directory))
        assert 0 == docker("run", "-d", "--name", "froze", "bb", "sleep", "100").status
        pid = int(docker("inspect", "-f", "{{.State.Pid}}", "froze").stdout)
        assert 0 == docker("pause", "froze").status
        (supervisor,) = _processes_of(daemon) - {daemon.process.pid}
        os.kill(supervisor, signal.SIGKILL)
        machine.until("137 exited", "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "froze")
        deadline = time.monotonic() + 10
        while not _dead(pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_only_one_daemon_has_a_data_root(machine: Machine) -> None:
    with machine.daemon():
        root = machine.directory / "daemon" / "root"
        command = [
            "onggi",
            "engine",
            "serve",
            "--data-root",
            str(root),
            "-H",
            f"unix://{machine.directory}/second.sock",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "classroom.cli", *command[1:]],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert 2 == done.returncode
        assert str(root) in done.stderr
        assert 1 == len(done.stderr.strip().splitlines())
