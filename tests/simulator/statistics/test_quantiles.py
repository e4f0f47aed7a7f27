import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.statistics.quantiles import RELATIVE_ACCURACY, Latencies


def taken(values, exact, chunk):
    latencies = Latencies(exact)
    for first in range(0, len(values), chunk):
        latencies.add(values[first : first + chunk])
    return latencies


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_few_values_have_exact_quantiles(values, fraction):
    assert np.quantile(values, fraction) == taken(values, 100, 7).quantile(fraction)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(100, 3000), st.floats(0, 1))
def test_many_values_have_quantiles_within_the_accuracy(seed, count, fraction):
    values = np.random.default_rng(seed).lognormal(-3, 2, count)
    values[:3] = 0.0
    latencies = taken(values, 50, 97)
    truth = np.quantile(values, fraction, method="lower"), np.quantile(values, fraction, method="higher")

    assert not latencies.is_exact
    assert truth[0] * (1 - RELATIVE_ACCURACY) <= latencies.quantile(fraction) + 1e-12
    assert latencies.quantile(fraction) <= truth[1] * (1 + RELATIVE_ACCURACY) + 1e-12
    assert values.mean() == pytest.approx(latencies.mean)


@pytest.mark.parametrize("exact", [10, 500, 10_000])
def test_merging_is_as_adding_and_chunks_make_no_difference(exact):
    values = np.random.default_rng(3).exponential(1.0, 2000)
    whole, merged = taken(values, exact, 2000), taken(values[:600], exact, 13)
    merged.merge(taken(values[600:], exact, 400))

    for fraction in (0.0, 0.1, 0.5, 0.99, 1.0):
        assert whole.quantile(fraction) == merged.quantile(fraction) == taken(values, exact, 17).quantile(fraction)
    assert (2000, whole.mean) == (merged.count, pytest.approx(merged.mean))


def test_what_is_no_latency_is_refused():
    with pytest.raises(SimulatorError, match="finite"):
        Latencies().add([1.0, np.nan])
    with pytest.raises(SimulatorError, match="at least 0"):
        Latencies().add([-1.0])
    with pytest.raises(SimulatorError, match="from 0 to 1"):
        Latencies().quantile(2.0)
    assert np.isnan(Latencies().quantile(0.5))
