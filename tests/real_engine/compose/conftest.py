"""Projects of the test's own, daemons in memory, and real ones."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from daemons import busybox_tar, dockers_daemon, our_daemon

from real_engine.compose.project import Project, load_project


def _fake_host_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_host", Path(__file__).with_name("fake_host.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_FakeHost = _fake_host_module().FakeHost


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    """Writes a compose file and loads it; the environment is empty but for what is given."""

    def load(text: str, *more: str, environment: dict[str, str] | None = None, **options) -> Project:
        files = []
        for index, one in enumerate((text, *more)):
            path = tmp_path / (f"compose-{index}.yaml" if index else "compose.yaml")
            path.write_text(one)
            files.append(path)
        return load_project(files, name=options.pop("name", "p"), environment=environment or {}, **options)

    return load


@pytest.fixture
def fake_host() -> Callable:
    """Makes daemons in memory."""
    return _FakeHost


def _with_busybox(host: str, directory: Path) -> str:
    """Import the image `bb` there."""
    import docker

    client = docker.APIClient(host)
    client.import_image_from_data(busybox_tar(directory), repository="bb", tag="latest", changes='CMD ["sh"]')
    client.close()
    return host


@pytest.fixture(scope="session")
def onggi_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our daemon, with the image `bb`."""
    directory = tmp_path_factory.mktemp("ours")
    with our_daemon(directory) as daemon:
        yield _with_busybox(daemon.host, directory)


@pytest.fixture(scope="session")
def dockerd_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Docker's daemon, with the image `bb`."""
    directory = tmp_path_factory.mktemp("docker")
    with dockers_daemon(directory) as daemon:
        yield _with_busybox(daemon.host, directory)


@dataclass
class Compose:
    """Runs `onggi compose` for the project `name` of the file `compose.yaml` in `directory`."""

    url: str
    name: str
    directory: Path

    @property
    def base(self) -> list[str]:
        command = [sys.executable, "-m", "classroom.cli", "compose", "-H", self.url, "-p", self.name]
        return [*command, "-f", str(self.directory / "compose.yaml")]

    def __call__(self, *arguments: str, text: str | None = None, given: str = "") -> subprocess.CompletedProcess[str]:
        if text is not None:
            (self.directory / "compose.yaml").write_text(text)
        return subprocess.run([*self.base, *arguments], input=given, capture_output=True, text=True, timeout=120)


@pytest.fixture(params=["onggi", pytest.param("dockerd", marks=pytest.mark.peer)])
def compose(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Compose]:
    """On ours and on Docker's daemon; what the test brings up is taken down afterwards."""
    url = request.getfixturevalue(f"{request.param}_url")
    found = Compose(url, f"test-{os.urandom(4).hex()}", tmp_path)
    yield found
    done = found("down", "-v", "-t", "0", "--remove-orphans", "--rmi", "local")
    assert 0 == done.returncode, done.stderr
