"""Debian's docker-compose drives our daemon as it drives Docker's: up, scale, logs, exec, down."""

import shutil
from pathlib import Path

import pytest
from docker_command_line import CommandLine, Outcome, normalised

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose: make peers"),
]

_FILE = """version: "2.4"
services:
  db:
    build: {context: ., args: {WORD: built}}
    volumes: ["vd:/data"]
  web:
    image: bb
    command: sh -c "echo web has started; exec sleep 300"
    environment: {GREETING: hello}
    depends_on: [db]
    labels: {tier: front}
volumes:
  vd: {}
"""
_DOCKERFILE = """FROM bb
ARG WORD
RUN echo $WORD > /word
CMD ["sh", "-c", "cp /word /data/word; exec sleep 300"]
"""


def _project(docker: CommandLine, directory: Path) -> CommandLine:
    (directory / "compose.yml").write_text(_FILE)
    (directory / "Dockerfile").write_text(_DOCKERFILE)
    arguments = ("--project-name", "comp", "--file", str(directory / "compose.yml"), "--no-ansi")
    # It calls the docker command for `build` and `exec`, which finds the daemon by the same variable.
    return CommandLine(docker.host, docker.home, "docker-compose", arguments, {"COMPOSE_DOCKER_CLI_BUILD": "1"})


STEPS = (
    (("config", "--services"), "all"),
    (("up", "-d"), "status"),
    (("ps", "--services", "--filter", "status=running"), "lines"),
    (("exec", "-T", "web", "sh", "-c", "echo $GREETING"), "all"),
    (("exec", "-T", "db", "cat", "/data/word"), "all"),
    (("exec", "-T", "web", "ping", "-c1", "-W2", "-q", "db"), "status"),
    (("logs", "--no-color", "web"), "all"),
    (("up", "-d", "--scale", "web=3"), "status"),
    (("ps", "-q", "web"), "count"),
    (("up", "-d"), "status"),
    (("ps", "-q", "web"), "count"),
    (("stop", "-t", "0", "web"), "status"),
    (("rm", "-f", "web"), "status"),
    (("ps", "-q"), "count"),
    (("down", "-v", "-t", "0"), "status"),
    (("ps", "-q"), "count"),
)


def _compared(kind: str, outcome: Outcome) -> object:
    if kind == "status":
        return outcome.status
    if kind == "count":
        return outcome.status, len(outcome.stdout.split())
    lines = normalised(outcome.stdout).splitlines()
    return outcome.status, sorted(lines) if kind == "lines" else lines


def test_a_project_goes_as_with_docker(onggi: CommandLine, dockerd: CommandLine, tmp_path: Path) -> None:
    found = {}
    for name, docker in (("docker", dockerd), ("onggi", onggi)):
        directory = tmp_path / name
        directory.mkdir()
        compose = _project(docker, directory)
        found[name] = [compose(*words, seconds=180) for words, _ in STEPS]
    differences = [
        f"docker-compose {' '.join(words)}\n  docker: {theirs}\n  onggi:  {ours}"
        for (words, kind), theirs, ours in zip(STEPS, found["docker"], found["onggi"], strict=True)
        if _compared(kind, theirs) != _compared(kind, ours)
    ]
    assert not differences, "\n".join(["", *differences])


def test_in_the_foreground_until_ctrl_c_as_with_docker(
    onggi: CommandLine, dockerd: CommandLine, tmp_path: Path
) -> None:
    found = {}
    for name, docker in (("docker", dockerd), ("onggi", onggi)):
        directory = tmp_path / name
        directory.mkdir()
        compose = _project(docker, directory)
        shown = compose.at_terminal("up", "-t", "0", typed=[("web has started", "\x03")], seconds=120)
        running = docker("ps", "-q", "--filter", "label=com.docker.compose.project=comp").stdout
        compose("down", "-v", seconds=60)
        found[name] = (shown.status, "Gracefully stopping" in shown.stdout, running)
    assert (True, "") == found["docker"][1:]
    assert found["docker"] == found["onggi"]


def test_nothing_of_a_project_is_left(onggi: CommandLine, tmp_path: Path) -> None:
    compose = _project(onggi, tmp_path)
    assert 0 == compose("up", "-d", seconds=180).status
    assert 0 == compose("down", "-v", "-t", "0", "--rmi", "local", seconds=180).status
    for words in (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"), ("images", "-q")):
        left = onggi(*words, "--filter", "label=com.docker.compose.project=comp").stdout
        assert "" == left, words
