"""Workers that start at one moment, and are held until all are done."""

import os
import time

import pytest

from real_engine.measure.cohort import Cohort

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the engine measures on Linux only")


def test_each_worker_is_given_the_same_moment_of_release():
    with Cohort(4, lambda released_at: released_at) as cohort:
        before = time.monotonic()
        moments = cohort.release()

    assert len(set(moments)) == 1
    assert before <= moments[0] <= time.monotonic()


def test_workers_wait_for_the_release():
    with Cohort(3, lambda released_at: time.monotonic() - released_at) as cohort:
        time.sleep(0.2)
        waits = cohort.release()

    assert all(0 <= wait < 0.2 for wait in waits)


def test_workers_prepare_before_they_wait_at_the_gate():
    prepared: list[float] = []

    with Cohort(
        2, lambda released_at: prepared[0] < released_at, prepare=lambda: prepared.append(time.monotonic())
    ) as cohort:
        assert cohort.release() == [True, True]


def test_a_worker_that_cannot_prepare_is_told(capfd):
    def prepare() -> None:
        raise OSError("no image")

    with pytest.raises(OSError, match="a worker of the measurement ended"):
        Cohort(1, lambda released_at: 0.0, prepare=prepare)

    assert "OSError: no image" in capfd.readouterr().err


def test_nothing_is_stopped_before_all_are_ready(tmp_path):
    def job(released_at: float) -> float:
        slow = not (tmp_path / "claimed").exists()
        (tmp_path / "claimed").touch()
        time.sleep(0.3 if slow else 0)
        return float((tmp_path / "stopped").exists())

    with Cohort(2, job, finish=lambda: (tmp_path / "stopped").touch()) as cohort:
        stopped_before_ready = cohort.release()

    assert stopped_before_ready == [0, 0]
    assert (tmp_path / "stopped").exists()


def test_an_error_in_a_worker_reaches_the_caller_and_all_workers_are_reaped(new_children):
    def job(released_at: float) -> float:
        raise FileNotFoundError("no such image")

    with pytest.raises(FileNotFoundError, match="no such image"), Cohort(3, job) as cohort:
        cohort.release()

    assert set() == new_children()


def test_a_cohort_that_is_given_up_runs_no_job(tmp_path):
    def job(released_at: float) -> float:
        (tmp_path / "ran").touch()
        return 0.0

    with Cohort(2, job):
        pass

    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_stopped_is_told(capfd):
    def finish() -> None:
        raise OSError("busy")

    with (
        pytest.raises(OSError, match="1 of the measurement's workers"),
        Cohort(1, lambda moment: 0.0, finish=finish) as cohort,
    ):
        cohort.release()

    assert "OSError: busy" in capfd.readouterr().err
