"""A sample plugin beside a data root, found through a directory of the test's own."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from real_engine.plugins.store import Plugins


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "sample_plugin", Path(__file__).parents[1] / "plugins/sample_plugin.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Where plugins listen: a short path, for a socket's has at most 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="plug-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def sample_plugin(sockets: Path, tmp_path: Path) -> Iterator:
    plugin = _module().SamplePlugin(sockets / "sample.sock", tmp_path / "content")
    yield plugin
    plugin.close()


@pytest.fixture
def make_plugin(sockets: Path, tmp_path: Path) -> Iterator:
    made = []

    def make(name: str, implements: tuple[str, ...]):
        made.append(_module().SamplePlugin(sockets / f"{name}.sock", tmp_path / name, implements))
        return made[-1]

    yield make
    for plugin in made:
        plugin.close()


@pytest.fixture
def plugins(tmp_path: Path, sockets: Path) -> Plugins:
    return Plugins(tmp_path / "root", (sockets,))
