"""`onggi engine run`: standard streams straight through, and docker's exit statuses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from classroom.cli import main

ONGGI = [sys.executable, "-m", "classroom.cli", "engine", "run"]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("onggi-command"))


@pytest.fixture
def onggi(root):
    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [*ONGGI, "--root", root, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]

    return run


@pytest.mark.root
def test_streams_go_straight_through(onggi):
    result = onggi("busybox", "sh", "-c", "cat; echo wrong >&2; exit 5", input="through\n")
    assert ("through\n", "wrong\n", 5) == (result.stdout, result.stderr, result.returncode)


@pytest.mark.root
def test_options_after_the_image_are_the_commands(onggi):
    assert "--explain -m 64m\n" == onggi("busybox", "echo", "--explain", "-m", "64m").stdout


@pytest.mark.root
@pytest.mark.parametrize(("command", "status"), [("no-such-command", 127), ("/etc/passwd", 126)])
def test_status_of_what_cannot_run(onggi, command, status):
    result = onggi("busybox", command)
    assert (status, 1) == (result.returncode, len(result.stderr.splitlines()))
    assert command in result.stderr


@pytest.mark.root
def test_a_failure_of_the_engine_is_125(onggi):
    result = onggi("-u", "ghost", "busybox", "true")
    assert (125, 1) == (result.returncode, len(result.stderr.splitlines()))
    assert "unable to find user ghost" in result.stderr


@pytest.mark.root
def test_options_reach_the_container(onggi):
    limit = "cat /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    script = f"hostname; pwd; id -u; echo $A $B; touch /x 2>&1; {limit}"
    options = (
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--hostname",
        "box",
        "-e",
        "A=1",
        "-e",
        "B",
        "-w",
        "/tmp",
    )
    rest = (
        "-u",
        "nobody",
        "--read-only",
        "--tmpfs",
        "/run",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "seccomp=unconfined",
    )
    result = onggi(*options, *rest, "busybox", "sh", "-c", script, env={**os.environ, "B": "2"})
    assert [
        "box",
        "/tmp",
        "65534",
        "1 2",
        "touch: /x: Read-only file system",
        str(64 << 20),
    ] == result.stdout.splitlines()


@pytest.mark.root
def test_explain_shows_each_call_in_order_and_what_the_phases_took(onggi):
    result = onggi("--explain", "busybox", "echo", "hello")
    assert ("hello\n", 0) == (result.stdout, result.returncode)
    places = [
        result.stderr.index(call) for call in ("clone3(", "overlay", "pivot_root", "capset", "seccomp(", "execve(")
    ]
    assert sorted(places) == places
    totals = result.stderr[result.stderr.index("\nphase ") :].split("\n")
    phases = [int(line.split()[1]) for line in totals[2:9]]
    whole = int(next(line for line in totals if line.startswith("from the request")).split()[-2])
    assert abs(whole - sum(phases)) <= 7  # rounded to microseconds each


@pytest.mark.root
def test_a_dry_run_makes_nothing(onggi, root):
    result = onggi("--dry-run", "busybox", "touch", "/never")
    assert ("", 0) == (result.stdout, result.returncode)
    assert "execve(touch /never)" in result.stderr
    assert [] == os.listdir(Path(root) / "runs")


@pytest.mark.root
def test_signals_are_passed_on_and_insisting_kills(root):
    script = "trap 'echo caught' TERM; echo ready; while true; do sleep 0.02; done"
    command = [*ONGGI, "--root", root, "busybox", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert "caught\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)  # which process 1 doesn't handle, and so ignores
        process.send_signal(signal.SIGTERM)
        assert 137 == process.wait(timeout=20)
    assert [] == os.listdir(Path(root) / "runs")


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "1k", "busybox"), "6m or more"),
        (("--cpus", "-1", "busybox"), "0.01 or more"),
        (("--security-opt", "apparmor=x", "busybox"), "unknown security option"),
        (("--security-opt", "seccomp=/no/such", "busybox"), "cannot read the seccomp profile /no/such"),
        (("--cap-add", "EVERYTHING", "busybox"), "unknown capability"),
        (("--network", "host", "nginx"), "no image `nginx`"),
    ],
)
def test_bad_input_ends_in_one_line(onggi, arguments, message):
    result = onggi(*arguments)
    assert (2, 1) == (result.returncode, len(result.stderr.splitlines()))
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("size", ["", "64x", "m", "x64", "1e999"])
def test_no_amount_of_memory(size, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["engine", "run", "--memory", size, "busybox"])
    assert 2 == raised.value.code
    assert "no amount of memory" in capsys.readouterr().err


def test_elsewhere_than_on_linux_one_kind_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 2 == main(["engine", "run", "busybox", "true"])
    assert [
        "onggi: containers need a Linux kernel; `onggi compare` and `onggi run` work here"
    ] == capsys.readouterr().err.splitlines()
