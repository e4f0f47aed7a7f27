"""A session leaves one whole set of files, whatever ends it."""

import json
import os
import sys

import pytest

from real_engine.errors import EngineError
from real_engine.measure.provenance import Provenance, cgroup_layout
from real_engine.measure.samples import Sample
from real_engine.measure.session import Trial, plan, run_session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the engine measures on Linux only")


def provenance() -> Provenance:
    return Provenance(
        host="here", command="onggi measure", seed=1, quick=True, runtimes={"python": "3"}, accelerators={}
    )


def trial(repetition: int) -> Trial:
    conditions = ("total",)
    return Trial(
        f"trial {repetition}",
        lambda: [Sample("startup", "container", "default", conditions, "wall", 0.5, "seconds", repetition)],
    )


def interrupted() -> list[Sample]:
    raise KeyboardInterrupt


def rows(path) -> int:
    return len((path / "startup.csv").read_text().splitlines()) - 1


def told(path) -> dict:
    return json.loads((path / "provenance.json").read_text())


def test_a_session_leaves_samples_and_provenance(tmp_path):
    outcome = run_session([trial(0), trial(1)], provenance(), tmp_path / "here")

    assert (True, 2) == (outcome.complete, outcome.trials_done)
    assert rows(tmp_path / "here") == 2
    assert told(tmp_path / "here")["complete"] is True
    assert [tmp_path / "here"] == list(tmp_path.iterdir())


def test_an_interrupted_session_keeps_what_was_measured(tmp_path):
    outcome = run_session([trial(0), Trial("ctrl-c", interrupted), trial(1)], provenance(), tmp_path / "here")

    assert outcome.complete is False
    assert rows(tmp_path / "here") == 1
    assert told(tmp_path / "here")["complete"] is False
    assert any(warning.startswith("interrupted") for warning in told(tmp_path / "here")["warnings"])


def test_an_interrupted_session_does_not_take_the_place_of_a_whole_one(tmp_path):
    run_session([trial(0), trial(1)], provenance(), tmp_path / "here")

    outcome = run_session([trial(0), Trial("ctrl-c", interrupted)], provenance(), tmp_path / "here")

    assert outcome.directory == tmp_path / "here.interrupted"
    assert rows(tmp_path / "here") == 2
    assert rows(tmp_path / "here.interrupted") == 1


def test_a_whole_session_takes_the_place_of_the_last(tmp_path):
    run_session([trial(0), trial(1)], provenance(), tmp_path / "here")
    run_session([trial(0)], provenance(), tmp_path / "here")

    assert rows(tmp_path / "here") == 1
    assert [tmp_path / "here"] == list(tmp_path.iterdir())


def test_ctrl_c_before_anything_was_measured_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_session([Trial("ctrl-c", interrupted)], provenance(), tmp_path / "here")

    assert list(tmp_path.iterdir()) == []


def test_a_destination_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(EngineError, match=r"file: .*--output"):
        run_session([trial(0)], provenance(), tmp_path / "file" / "here")


def test_a_failed_write_leaves_the_old_session_and_nothing_else(tmp_path, monkeypatch):
    run_session([trial(0), trial(1)], provenance(), tmp_path / "here")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left"):
        run_session([trial(0)], provenance(), tmp_path / "here")

    assert rows(tmp_path / "here") == 2
    assert [tmp_path / "here"] == list(tmp_path.iterdir())


class FakePlatform:
    variant = "default"

    def __init__(self, name: str) -> None:
        self.name = name


def test_the_order_of_trials_mixes_platforms_and_follows_the_seed(tmp_path):
    from real_engine.measure.session import QUICK

    platforms = [FakePlatform("process"), FakePlatform("container")]

    def labels(seed: int) -> list[str]:
        return [trial.label for trial in plan(platforms, ["startup"], QUICK, tmp_path, seed)]

    first = labels(1)
    assert first == labels(1)
    assert first != labels(2)
    assert sorted(first) == sorted(labels(2))
    assert first != sorted(first)
    assert first != sorted(first, reverse=True)


@pytest.mark.parametrize(
    ("kinds", "layout"), [("cgroup2", "v2"), ("cgroup", "v1"), ("cgroup cgroup cgroup2", "hybrid"), ("ext4", "none")]
)
def test_the_cgroup_layout_is_read_from_the_mounts(kinds, layout):
    mountinfo = "\n".join(f"30 23 0:26 / /mnt rw - {kind} none rw" for kind in kinds.split())

    assert layout == cgroup_layout(mountinfo)
