import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.statistics.batch_means import RunningBatches, batch_means
from simulator.statistics.intervals import t_interval


def dependent(random, count, correlation):
    """A stationary series of mean 0 and variance 1 whose neighbours have this correlation: AR(1)."""
    from scipy.signal import lfilter

    noise = random.normal(0, math.sqrt(1 - correlation**2), count)
    noise[0] = random.normal()
    return lfilter([1.0], [1.0, -correlation], noise)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_holds_the_mean_as_often_as_it_says(correlation):
    random = np.random.default_rng(1)
    runs = 400
    found = [batch_means(dependent(random, 8000, correlation), 0.9) for _ in range(runs)]
    held = sum(each.interval.low <= 0 <= each.interval.high for each in found) / runs

    assert abs(0.9 - held) < 4 * math.sqrt(0.9 * 0.1 / runs)
    assert sum(each.trustworthy for each in found) > 0.9 * runs


def test_dependence_makes_the_interval_wider_than_samples_taken_as_independent_would_say():
    series = dependent(np.random.default_rng(2), 20_000, 0.95)

    # The variance of the mean is (1 + r) / (1 - r) = 39 times that of independent samples.
    assert 4 < batch_means(series).interval.half_width / t_interval(series).half_width < 9


def test_a_run_that_is_too_short_for_its_memory_says_so():
    random = np.random.default_rng(3)
    found = [batch_means(dependent(random, 1000, 0.998)) for _ in range(50)]

    # The correlation reaches over 500 observations, half of the run.
    doubted = [each for each in found if not each.trustworthy]
    assert len(doubted) > 25
    assert "run longer" in doubted[0].reason
    assert all(each.batches == 10 and each.lag_one > 0 for each in doubted)


def test_batches_are_as_asked_and_the_beginning_is_left_out():
    series = np.concatenate([[1e6] * 3, np.tile([1.0, 3.0], 20)])
    found = batch_means(series, batches=10)

    assert (10, 4) == (found.batches, found.observations)
    assert (2.0, 2.0, 2.0) == found.interval


@pytest.mark.parametrize(
    ("series", "changes", "complaint"),
    [
        (np.ones(19), {}, "run longer"),
        (np.ones(100), {"batches": 3}, "at least 4"),
        ([1.0, math.inf] * 50, {}, "not a finite"),
    ],
)
def test_what_has_no_batch_means_is_refused(series, changes, complaint):
    with pytest.raises(SimulatorError, match=complaint):
        batch_means(series, **changes)


@settings(max_examples=60)
@given(st.integers(0, 1000), st.integers(0, 500), st.lists(st.integers(1, 60), min_size=1, max_size=10))
def test_running_batches_are_the_means_of_the_series_however_it_comes(seed, count, cuts):
    values = np.random.default_rng(seed).exponential(1, count)
    running = RunningBatches(8)
    place = 0
    while place < count:
        step = cuts[place % len(cuts)]
        running.add(values[place : place + step])
        place += step
    size = running.observations
    full = count // size

    assert full == len(running.means()) <= 8
    assert size == 1 or count > 8 * size / 2
    np.testing.assert_allclose(values[: full * size].reshape(full, size).mean(axis=1), running.means(), rtol=1e-12)


@pytest.mark.parametrize("most", [0, 7])
def test_an_odd_number_of_running_batches_cannot_be_joined(most):
    with pytest.raises(SimulatorError, match="even"):
        RunningBatches(most)


def test_running_batches_refuse_what_is_not_finite():
    with pytest.raises(SimulatorError, match="not a finite"):
        RunningBatches().add([1.0, math.nan])
