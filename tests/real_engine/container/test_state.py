"""The directory of a container: locked while its engine lives, and found when it is gone."""

import os
import subprocess
import sys

import pytest

from real_engine.container.state import StateDirectory, prepare_root, stale


@pytest.fixture
def containers(tmp_path):
    return prepare_root(tmp_path / "root")


def test_it_is_made_and_removed(containers):
    state = StateDirectory(containers / "one")
    state.remove()  # before it is made, nothing happens
    umask = os.umask(0o077)
    try:
        state.make()
    finally:
        os.umask(umask)
    assert 0o755 == state.upper.stat().st_mode & 0o777
    assert state.work.is_dir()
    assert state.mountpoint.is_dir()
    state.remove()
    state.remove()
    assert [] == list(containers.iterdir())


def test_an_id_cannot_be_taken_twice(containers):
    first = StateDirectory(containers / "one")
    first.make()
    second = StateDirectory(containers / "one")
    with pytest.raises(FileExistsError):
        second.make()
    second.remove()
    assert first.upper.is_dir()
    first.remove()


def test_only_those_whose_engine_has_gone_are_stale(containers):
    alive = StateDirectory(containers / "alive")
    alive.make()
    script = (
        "import os, sys; from pathlib import Path; from real_engine.container.state import StateDirectory;"
        "StateDirectory(Path(sys.argv[1])).make(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(containers / "dead")], check=True)
    found = list(stale(containers))
    assert ["dead"] == [state.id for state in found]
    assert [] == list(stale(containers))  # it is ours now
    for state in found:
        state.remove()
    assert ["alive"] == [path.name for path in containers.iterdir()]
    alive.remove()


def test_a_directory_half_made_is_stale_too(containers):
    (containers / "half").mkdir()
    for state in stale(containers):
        state.remove()
    assert [] == list(containers.iterdir())
