"""One daemon of ours and one of Docker's for all tests of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import busybox_tar, dockers_daemon, our_daemon
from docker_command_line import CommandLine
from docker_sessions import BESIDE, CONTEXT, IMAGE

from classroom.bench.engine.daemons import RunningDaemon


def _prepared(daemon, directory: Path) -> CommandLine:
    home = directory / "home"
    (home / "context").mkdir(parents=True)
    for name, text in CONTEXT.items():
        (home / "context" / name).write_text(text)
    for name, text in BESIDE.items():
        (home / name).write_text(text)
    docker = CommandLine(daemon.host, home)
    imported = docker("import", "-c", 'CMD ["sh"]', "-", IMAGE, given=busybox_tar(directory))
    assert imported.status == 0, imported.stderr
    return docker


@pytest.fixture(scope="session")
def our_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Our daemon."""
    with our_daemon(tmp_path_factory.mktemp("ours")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def dockers_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Docker's daemon."""
    with dockers_daemon(tmp_path_factory.mktemp("docker")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def onggi(our_running: RunningDaemon) -> CommandLine:
    """The docker command on our daemon."""
    return _prepared(our_running, our_running.directory)


@pytest.fixture(scope="session")
def dockerd(dockers_running: RunningDaemon) -> CommandLine:
    """The docker command on Docker's daemon."""
    return _prepared(dockers_running, dockers_running.directory)
