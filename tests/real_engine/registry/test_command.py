"""`onggi registry` as a process: its ready line, its end, and what it refuses."""

import io
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from classroom.cli import main

COMMAND = [sys.executable, "-P", "-m", "classroom.cli", "registry"]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    arguments = ["serve", "--listen", "127.0.0.1:0", "--data-root", str(tmp_path / "root")]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("onggi registry: listening on http://127.0.0.1:"), line
    yield process, line.rsplit(" ", 1)[1].strip()
    if process.poll() is None:
        process.kill()
    process.wait()


def test_serves_until_it_is_told_to_end(started: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    process, address = started
    with urllib.request.urlopen(f"{address}/v2/", timeout=10) as answer:
        assert 200 == answer.status
    root = tmp_path / "root"
    assert 0o700 == root.stat().st_mode & 0o777
    second = subprocess.run(
        [*COMMAND, "serve", "--listen", "127.0.0.1:0", "--data-root", str(root)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (2, f"onggi: another registry serves {root}\n") == (second.returncode, second.stderr)
    port = address.rpartition(":")[2]
    third = subprocess.run(
        [*COMMAND, "serve", "--listen", f"127.0.0.1:{port}", "--data-root", str(tmp_path / "other")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert 2 == third.returncode
    assert 1 == third.stderr.count("\n")
    assert "Address already in use" in third.stderr
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(10)
    assert process.stderr is not None
    assert "" == process.stderr.read()


def test_a_signal_that_another_thread_gets_ends_it_too(started: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = started
    threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
    os.kill(max(threads), signal.SIGTERM)  # the kernel asks the thread that was named first
    assert 0 == process.wait(10)


def test_killed_it_begins_again(started: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    process, _ = started
    process.kill()
    process.wait(10)
    assert 0 == main(["registry", "gc", "--data-root", str(tmp_path / "root"), "--grace", "0"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "nonsense"], "is no address to listen on"),
        (["--listen", "127.0.0.1:99999"], "is no address to listen on"),
        (["--listen", "0.0.0.0:0", "--htpasswd", "x"], "passwords would cross the network in the clear"),
        (["--tls-cert", "x"], "--tls-cert and --tls-key belong together"),
        (["--tls-cert", "/none", "--tls-key", "/none"], "/none"),
        (["--htpasswd", "/none"], "cannot read the passwords in /none"),
        (["--listen", "192.0.2.1:0"], "cannot listen on"),
    ],
)
def test_what_it_refuses(arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["registry", "serve", "--data-root", str(tmp_path / "root"), *arguments])
    printed = capsys.readouterr().err.splitlines()
    assert reason in printed[-1]
    assert all(line.startswith(("onggi: ", "onggi registry: warning")) for line in printed)


def test_data_root_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert 2 == main(["registry", "serve", "--data-root", str(tmp_path / "file/root")])
    assert "cannot keep a registry in" in capsys.readouterr().err


def test_garbage_where_there_is_no_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["registry", "gc", "--data-root", str(tmp_path)])
    assert "there is no registry in" in capsys.readouterr().err
    assert [] == os.listdir(tmp_path)


def test_line_for_the_file_of_passwords(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from real_engine.registry.passwords import Passwords

    monkeypatch.setattr("sys.stdin", io.StringIO("pass word\n"))
    assert 0 == main(["registry", "htpasswd", "anna"])
    users = tmp_path / "users"
    users.write_text(capsys.readouterr().out)
    assert "anna" == Passwords(users).check("Basic YW5uYTpwYXNzIHdvcmQ=")
    assert 2 == main(["registry", "htpasswd", "an:na"])
