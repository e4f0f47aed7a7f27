import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.statistics.order_statistics import quantile_interval, replicated_quantile


@pytest.mark.parametrize(("fraction", "count"), [(0.5, 30), (0.9, 200), (0.99, 1000)])
def test_the_interval_holds_the_quantile_at_least_as_often_as_it_says(fraction, count):
    random = np.random.default_rng(1)
    runs, truth = 1000, -math.log(1 - fraction)
    found = [quantile_interval(random.exponential(1, count), fraction, 0.9) for _ in range(runs)]
    held = sum(low <= truth <= high for _, low, high in found) / runs

    # Ranks are whole numbers, so the coverage is a little above what is asked.
    assert held > 0.9 - 4 * math.sqrt(0.9 * 0.1 / runs)
    assert held < 0.98


def test_the_median_of_ten_lies_between_the_second_and_the_ninth():
    # The chance of at most 1 of 10 below the median is 11 / 1024, of at most 2 already 56 / 1024.
    assert (5.5, 2.0, 9.0) == quantile_interval(np.arange(1, 11), 0.5)


@pytest.mark.parametrize(("count", "finite"), [(367, False), (368, True)])
def test_a_p99_of_few_samples_has_no_upper_limit(count, finite):
    # 0.99^n falls below 2.5 % at n = 368.
    assert finite == math.isfinite(quantile_interval(np.arange(count), 0.99).high)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.001, 0.999))
def test_the_estimate_lies_in_its_interval_whose_limits_are_samples(values, fraction):
    value, low, high = quantile_interval(values, fraction)

    assert low <= value <= high
    assert {low, high} <= {*values, value, -math.inf, math.inf}


def test_over_replications_each_counts_once_whatever_its_samples():
    found = replicated_quantile([[1.0] * 1000, [2.0] * 10, [3.0]], 0.99)

    # Mean 2, standard deviation 1, three replications: 2 +- 4.3027 / sqrt(3).
    assert found == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: quantile_interval([], 0.5), "no samples"),
        (lambda: quantile_interval([1.0], 1.0), "between 0 and 1"),
        (lambda: quantile_interval([1.0], 0.5, 95), "such as 0.95"),
        (lambda: replicated_quantile([], 0.5), "no samples"),
        (lambda: replicated_quantile([[1.0], []], 0.5), "no samples"),
    ],
)
def test_what_has_no_quantile_is_refused(call, complaint):
    with pytest.raises(SimulatorError, match=complaint):
        call()
