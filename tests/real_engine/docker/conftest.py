"""One daemon of ours and one of Docker's for all tests of the command line."""

from pathlib import Path

import pytest
from daemons import busybox_tar, dockers_daemon, our_daemon
from docker_command_line import CommandLine
from docker_sessions import CONTEXT, IMAGE


def _prepared(daemon, directory: Path) -> CommandLine:
    home = directory / "home"
    (home / "context").mkdir(parents=True)
    for name, text in CONTEXT.items():
        (home / "context" / name).write_text(text)
    docker = CommandLine(daemon.host, home)
    imported = docker("import", "-c", 'CMD ["sh"]', "-", IMAGE, given=busybox_tar(directory))
    assert imported.status == 0, imported.stderr
    return docker


@pytest.fixture(scope="session")
def onggi(tmp_path_factory: pytest.TempPathFactory):
    """The docker command on our daemon."""
    directory = tmp_path_factory.mktemp("ours")
    with our_daemon(directory) as daemon:
        yield _prepared(daemon, directory)


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory):
    """The docker command on Docker's daemon."""
    directory = tmp_path_factory.mktemp("docker")
    with dockers_daemon(directory) as daemon:
        yield _prepared(daemon, directory)
