"""`tools/debian-packages` with stand-ins for the programs that it asks, so that nothing is installed here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "debian-packages"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a POSIX shell and its tools")


class Machine:
    """A machine as the script sees it: which packages it has, who runs the script, and what apt-get does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        self.calls.touch()
        self.policy = directory / "policy-rc.d"
        self.environment = {"PATH": str(directory), "POLICY_RC_D": str(self.policy)}
        for tool in ("cat", "chmod", "grep", "head", "id", "ls", "mktemp", "rm", "sed", "sh", "tail"):
            path = shutil.which(tool)
            assert path is not None
            (directory / tool).symlink_to(path)
        self.program("uname", "echo x86_64")

    def program(self, name: str, script: str) -> None:
        path = self.directory / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def debian(self, *, user: int = 0, installed: tuple[str, ...] = (), apt_get: str = "exit 0") -> None:
        self.program("id", f"echo {user}")
        self.program(
            "dpkg-query",
            f'for last; do :; done\ncase " {" ".join(installed)} " in *" $last "*) echo installed ;; *) exit 1 ;; esac',
        )
        self.program("apt-get", f'echo "$*" >>{self.calls}\n{apt_get}')

    def run(self, purpose: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([SCRIPT, purpose], capture_output=True, text=True, env=self.environment)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_is_asked_for_that_is_there(machine: Machine) -> None:
    machine.debian(installed=("busybox-static",))
    done = machine.run("run")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert "" == machine.calls.read_text()


def test_what_is_missing_is_installed_and_told(machine: Machine) -> None:
    machine.debian()
    done = machine.run("run")
    assert 0 == done.returncode
    assert "debian-packages: installing busybox-static\n" == done.stderr
    (call,) = machine.calls.read_text().splitlines()
    assert "--no-install-recommends busybox-static" in call


def test_lists_are_fetched_only_when_an_installation_fails_without(machine: Machine) -> None:
    fetched = machine.directory / "fetched"
    machine.debian(apt_get=f'case "$*" in *update*) : >{fetched} ;; *) [ -e {fetched} ] ;; esac')
    assert 0 == machine.run("run").returncode
    kinds = ["update" if "update" in call else "install" for call in machine.calls.read_text().splitlines()]
    assert ["install", "update", "install"] == kinds


def test_a_failure_is_one_line_with_its_reason_and_not_fatal(machine: Machine) -> None:
    machine.debian(apt_get='echo "E: no network" >&2; exit 100')
    done = machine.run("run")
    assert 0 == done.returncode
    assert "could not install busybox-static: E: no network" in done.stderr.splitlines()[-1]


def test_who_is_not_root_is_told_what_to_install(machine: Machine) -> None:
    machine.debian(user=1000)
    done = machine.run("test")
    assert 0 == done.returncode
    assert "" == machine.calls.read_text()
    (line,) = done.stderr.splitlines()
    for package in ("busybox-static", "qemu-system-x86", "iproute2", "procps"):
        assert package in line


def test_on_another_architecture_no_qemu_is_asked_for(machine: Machine) -> None:
    machine.debian()
    machine.program("uname", "echo aarch64")
    done = machine.run("test")
    assert 0 == done.returncode
    assert "amd64" in done.stderr
    assert "qemu" not in machine.calls.read_text()


def test_without_apt_get_the_names_are_told(machine: Machine) -> None:
    done = machine.run("run")
    assert 0 == done.returncode
    assert "busybox-static" in done.stderr


def test_an_unknown_purpose_is_a_usage_error(machine: Machine) -> None:
    done = machine.run("fun")
    assert 2 == done.returncode
    assert "usage" in done.stderr


def test_it_leaves_no_temporary_directory(machine: Machine, tmp_path: Path) -> None:
    machine.debian()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {"PATH": str(machine.directory), "TMPDIR": str(temporary)}
    subprocess.run([SCRIPT, "run"], env=environment, check=True, capture_output=True)
    assert [] == os.listdir(temporary)


def test_no_service_of_a_peer_is_started(machine: Machine) -> None:
    machine.debian(apt_get=f"sh {machine.policy}; echo may start: $? >>{machine.calls}")
    done = machine.run("peers")
    assert 0 == done.returncode
    assert "docker.io" in machine.calls.read_text()
    assert "may start: 101" in machine.calls.read_text()
    assert not machine.policy.exists()
