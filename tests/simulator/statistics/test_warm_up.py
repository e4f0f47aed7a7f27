import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.statistics.warm_up import mser5


def brute_force(series, batch=5):
    """The rule as White (1997) writes it, one truncation point after the other."""
    count = len(series) // batch
    means = np.array(series[: count * batch]).reshape(count, batch).mean(axis=1)
    errors = [means[cut:].var() / (count - cut) for cut in range(count - 5)]
    return batch * int(np.argmin(errors))


def test_a_start_that_is_far_off_is_deleted_and_hardly_more():
    random = np.random.default_rng(1)
    series = np.concatenate([np.full(100, 50.0), np.zeros(900)]) + random.normal(0, 1, 1000)
    found = mser5(series)

    assert 100 <= found.observations < 400
    assert found.trustworthy


def test_a_series_that_is_steady_from_the_beginning_keeps_nearly_all():
    random = np.random.default_rng(2)
    deleted = [mser5(random.exponential(1, 2000)).observations for _ in range(50)]

    assert np.median(deleted) < 200


def test_the_first_waits_of_a_queue_are_deleted_so_that_the_mean_is_less_biased():
    """M/M/1 at a load of 0.8 from an empty start, whose mean wait is 4 service times: 20 runs of 200 replications."""
    random = np.random.default_rng(3)
    waits = np.zeros((4000, 1000))
    for number in range(1, 1000):
        waits[:, number] = waits[:, number - 1] + random.exponential(1, 4000) - random.exponential(1 / 0.8, 4000)
        np.maximum(waits[:, number], 0, out=waits[:, number])
    found = [(mser5(run), run) for run in np.split(waits, 20)]
    trusted = [run[:, warm_up.observations :].mean() for warm_up, run in found if warm_up.trustworthy]

    assert len(trusted) > 10
    assert abs(4 - np.mean(trusted)) < abs(4 - waits.mean()) / 2


def test_a_series_that_still_drifts_at_its_end_is_not_trusted():
    found = mser5(np.arange(1000.0))

    assert not found.trustworthy
    assert "run longer" in found.reason


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(50, 300), st.floats(0, 100), st.floats(-1e6, 1e6))
def test_the_point_is_that_of_the_definition(seed, count, drift, level):
    series = level + np.random.default_rng(seed).normal(0, 1, count) + drift * np.exp(-np.arange(count) / 20)

    assert brute_force(series) == mser5(series).observations


@pytest.mark.parametrize(
    ("series", "batch", "complaint"),
    [(np.ones(49), 5, "at least 50"), (np.full(100, np.nan), 5, "not a finite"), (np.ones(100), 0, "at least 1")],
)
def test_what_has_no_warm_up_is_refused(series, batch, complaint):
    with pytest.raises(SimulatorError, match=complaint):
        mser5(series, batch)


def test_equal_values_need_no_warm_up():
    assert (0, True) == mser5(np.ones(100))[:2]
