"""The docker command pulls and pushes through our daemon as through Docker's, with our registry and with Debian's."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_command_line import CommandLine, Outcome, Step, normalised

from classroom.bench.engine.daemons import RunningDaemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line: make peers"),
]

ADDRESS = "localhost:5001"
NAME = f"{ADDRESS}/me/b"
_CONFIG = """version: 0.1
storage: {filesystem: {rootdirectory: %s}}
http: {addr: "127.0.0.1:5001"}
"""

STEPS = (
    "login -u me -p secret localhost:5001",
    "tag bb {name}:1",
    "push {name}:1",
    "push {name}:1",
    "push {name}:nosuch",
    "push localhost:5001/me/nosuch",
    "tag bb {name}:2",
    "push -q {name}:2",
    "rmi {name}:1 {name}:2",
    "pull {name}:nosuch",
    "pull localhost:5001/me/nosuch:1",
    "run --rm {name}:1 echo pulled by run",
    "pull {name}:1",
    "pull -q {name}:1",
    "pull -a {name}",
    "images --format {{{{.Repository}}}}:{{{{.Tag}}}} {name}",
    "create --pull always --name fresh {name}:1 true",
    "rm fresh",
    "rmi {name}:1 {name}:2",
    "pull {name}",
    "run --rm --pull never {name}:1 true",
)
_OF_THEIR_OWN = ("create", "rmi", "login")  # they print ids, or where the credentials are kept


@contextlib.contextmanager
def _registry(kind: str, daemon: RunningDaemon, directory: Path) -> Iterator[None]:
    """A registry in the daemon's own network."""
    directory.mkdir()
    if kind == "docker-registry":
        (directory / "config.yml").write_text(_CONFIG % (directory / "data"))
        command = ["docker-registry", "serve", str(directory / "config.yml")]
    else:
        command = [sys.executable, "-P", "-m", "classroom.cli", "registry", "serve", "--listen", "127.0.0.1:5001"]
        command += ["--data-root", str(directory / "data")]
    enter = ["nsenter", f"--net=/proc/{daemon.process.pid}/ns/net"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*enter, *command], stdout=log, stderr=log, env={**os.environ, "OTEL_SDK_DISABLED": "1"}
        )
    try:
        deadline = time.monotonic() + 20
        while b":5001" not in subprocess.run([*enter, "ss", "-tln"], capture_output=True, check=True).stdout:
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _compared(words: list[str], outcome: Outcome) -> object:
    if words[0] in _OF_THEIR_OWN:
        return outcome.status
    # Layers go on at once, so their lines come in any order, and some stages are shorter than a look at them.
    shown = [set(normalised(text).splitlines()) - {"SHORT: Waiting"} for text in (outcome.stdout, outcome.stderr)]
    return outcome.status, *shown


@pytest.mark.parametrize("kind", ["onggi", "docker-registry"])
def test_pulls_and_pushes(
    kind: str,
    onggi: CommandLine,
    dockerd: CommandLine,
    our_running: RunningDaemon,
    dockers_running: RunningDaemon,
    tmp_path: Path,
) -> None:
    if kind != "onggi" and shutil.which(kind) is None:
        pytest.skip(f"needs {kind}: make peers")
    lines = [line.format(name=NAME).split() for line in STEPS]
    found = []
    for docker, daemon in ((dockerd, dockers_running), (onggi, our_running)):
        with _registry(kind, daemon, tmp_path / daemon.name):
            found.append([docker.run(Step(tuple(words))) for words in lines])
    differences = [
        f"docker {' '.join(words)}\n  docker: {theirs}\n  onggi:  {ours}"
        for words, theirs, ours in zip(lines, *found, strict=True)
        if _compared(words, theirs) != _compared(words, ours)
    ]
    assert not differences, "\n".join(["", *differences])
