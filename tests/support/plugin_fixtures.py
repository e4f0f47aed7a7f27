"""A sample plugin beside a data root, found through a directory of the test's own; a conftest imports what it wants."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sample_plugin import SamplePlugin

from real_engine.plugins.store import Plugins


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Where plugins listen: a short path, for a socket's has at most 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="plug-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def sample_plugin(sockets: Path, tmp_path: Path) -> Iterator[SamplePlugin]:
    """A plugin named `sample`."""
    plugin = SamplePlugin(sockets / "sample.sock", tmp_path / "content")
    yield plugin
    plugin.close()


@pytest.fixture
def make_plugin(sockets: Path, tmp_path: Path) -> Iterator[Callable[[str, tuple[str, ...]], SamplePlugin]]:
    """Makes a plugin of a name that implements certain protocols."""
    made = []

    def make(name: str, implements: tuple[str, ...]) -> SamplePlugin:
        made.append(SamplePlugin(sockets / f"{name}.sock", tmp_path / name, implements))
        return made[-1]

    yield make
    for plugin in made:
        plugin.close()


@pytest.fixture
def plugins(tmp_path: Path, sockets: Path) -> Plugins:
    """The plugins of a data root."""
    return Plugins(tmp_path / "root", (sockets,))
