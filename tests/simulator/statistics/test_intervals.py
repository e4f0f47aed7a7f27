"""Intervals: known values, coverage as often as promised, and the same interval for the same samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.statistics.intervals import bootstrap_median, coefficient_of_variation, paired_t_interval, t_interval

samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


def test_a_t_interval_worked_out_by_hand():
    # Mean 3, standard deviation sqrt(2.5), five samples: 3 +- 2.7764 * sqrt(2.5 / 5).
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - 1.96324, 3 + 1.96324), rel=1e-5)


def test_one_sample_says_nothing_of_the_spread():
    assert t_interval([3.0]) == (3.0, -math.inf, math.inf)
    assert bootstrap_median([3.0]) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_a_t_interval_holds_the_mean_as_often_as_it_says(confidence):
    random = np.random.default_rng(1)
    runs = 1000
    held = sum(
        low <= 5 <= high for _, low, high in (t_interval(random.normal(5, 2, 4), confidence) for _ in range(runs))
    )
    assert abs(held / runs - confidence) < 4 * math.sqrt(confidence * (1 - confidence) / runs)


def test_a_bootstrap_interval_holds_the_median_about_as_often_as_it_says():
    random = np.random.default_rng(2)
    runs = 150
    held = sum(
        low <= math.log(2) <= high
        for _, low, high in (bootstrap_median(random.exponential(1, 40)) for _ in range(runs))
    )
    assert 0.88 <= held / runs <= 1  # the percentile bootstrap of a median covers a little less than 95 %


def test_pairs_show_a_difference_that_their_own_spread_hides():
    random = np.random.default_rng(3)
    common = random.normal(100, 30, 20)
    first, second = common + random.normal(1, 0.5, 20), common
    assert paired_t_interval(first, second).low > 0
    alone, other = t_interval(first), t_interval(second)
    assert alone.low < other.high


@given(samples)
def test_the_estimate_lies_in_its_interval_and_intervals_are_deterministic(values):
    for interval in (t_interval, bootstrap_median):
        value, low, high = interval(values)
        assert low <= value <= high
        assert (value, low, high) == interval(values)


@given(samples, st.floats(0.5, 0.9))
def test_more_confidence_needs_a_wider_interval(values, confidence):
    assert t_interval(values, confidence).half_width <= t_interval(values, (1 + confidence) / 2).half_width


def test_spread_is_relative_to_the_mean():
    assert coefficient_of_variation([9, 11]) == pytest.approx(math.sqrt(2) / 10)
    assert coefficient_of_variation([7]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_interval([]), "at least one"),
        (lambda: bootstrap_median([1.0, math.nan]), "not a finite number"),
        (lambda: paired_t_interval([1, 2], [1, 2, 3]), "2 against 3"),
        (lambda: t_interval([1, 2], confidence=95), "between 0 and 1"),
    ],
)
def test_what_has_no_interval_is_refused(call, message):
    with pytest.raises(SimulatorError, match=message):
        call()
