"""An engine of the tests' own, and a way to run a command in a container of it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from real_engine.container.engine import Engine
from real_engine.container.spec import ContainerSpec
from real_engine.images.busybox import Image, builtin_image
from real_engine.linux import cgroups

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onggi")


@pytest.fixture(scope="session")
def engine(data_root: Path) -> Iterator[Engine]:
    """An engine with parent cgroups of its own, so that other engines on this machine don't count as leftovers."""
    own = f"onggi-tests-{os.getpid()}"
    hierarchies = tuple(replace(each, parent=each.parent.with_name(own)) for each in cgroups.hierarchies())
    yield Engine(data_root, hierarchies)
    for hierarchy in hierarchies:
        cgroups.remove(hierarchy.parent)


@pytest.fixture(scope="session")
def image(data_root: Path) -> Image:
    return builtin_image(data_root)


@pytest.fixture
def leftovers(engine: Engine) -> Iterator[Callable[[], list[Path]]]:
    """What is left of containers: directories, and cgroups. A test that uses this fails if anything is, at its end."""

    def find() -> list[Path]:
        places = [engine.runs, *(hierarchy.parent for hierarchy in engine.host.hierarchies)]
        return [path for place in places for path in place.iterdir() if path.is_dir() and len(path.name) == 12]

    yield find
    assert [] == find()


@pytest.fixture
def run(engine: Engine, image: Image) -> Run:
    """Run a command (a string is a shell script) and return its status with all that it wrote."""

    def run_command(command: str | tuple[str, ...], on: Engine | None = None, **options: Any) -> tuple[int, str]:
        argv = ("sh", "-c", command) if isinstance(command, str) else command
        spec = ContainerSpec(options.pop("layers", image.layers), argv, **options)
        receive, send = os.pipe()
        try:
            with (on or engine).start(spec, stdout=send, stderr=send) as container:
                os.close(send)
                send = -1
                with os.fdopen(receive, "rb") as pipe:
                    receive = -1
                    output = pipe.read()
                return container.wait(timeout_seconds=20), output.decode()
        finally:
            for descriptor in (receive, send):
                if descriptor >= 0:
                    os.close(descriptor)

    return run_command
