import tracemalloc

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


@given(
    st.lists(st.floats(1e-9, 1e9), min_size=20, max_size=200),
    st.sampled_from([0.001, 0.01, 0.2]),
    st.integers(1, 200),
    st.floats(0, 1),
)
def test_few_buckets_stay_accurate_as_far_down_as_they_reach(values, accuracy, buckets, fraction):
    latencies = Latencies(10, accuracy, buckets)
    for first in range(0, len(values), 7):
        latencies.add(values[first : first + 7])
    low, high = (np.quantile(values, fraction, method=method) for method in ("lower", "higher"))
    gamma = (1 + accuracy) / (1 - accuracy)

    found = latencies.quantile(fraction)
    assert found <= max(high * (1 + accuracy), max(values) * gamma ** (2 - buckets)) * (1 + 1e-9)
    assert low * (1 - accuracy) <= found * (1 + 1e-9)


@pytest.mark.parametrize("buckets", [1, 30, 400])
def test_few_buckets_do_not_depend_on_the_order(buckets):
    values = np.random.default_rng(5).lognormal(0, 4, 3000)
    in_order, backwards, merged = (Latencies(10, 0.01, buckets) for _ in range(3))
    in_order.add(values)
    for value in values[::-1].reshape(-1, 3):
        backwards.add(value)
    for part in values.reshape(4, -1):
        other = Latencies(10, 0.01, buckets)
        other.add(part)
        merged.merge(other)

    for fraction in (0.0, 0.2, 0.5, 0.9, 0.999, 1.0):
        assert in_order.quantile(fraction) == backwards.quantile(fraction) == merged.quantile(fraction)


def test_a_sketch_holds_no_more_for_a_hundred_times_the_values():
    def held_bytes(turns):
        random = np.random.default_rng(1)
        tracemalloc.start()
        latencies = Latencies(1000, 0.005, 512)
        for _ in range(turns):
            latencies.add(random.lognormal(0, 3, 1000))
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert 1000 * turns == latencies.count
        return held

    held_bytes(2)  # imports, once
    assert held_bytes(200) <= held_bytes(2) + 1024


def test_sketches_of_two_kinds_do_not_mix():
    with pytest.raises(SimulatorError, match="same accuracy"):
        Latencies(10, 0.01).merge(Latencies(10, 0.02))
    for settings_of_none in ({"accuracy": 0.0}, {"accuracy": 1.0}, {"buckets": 0}):
        with pytest.raises(SimulatorError, match="give"):
            Latencies(**settings_of_none)


def test_what_is_no_latency_is_refused():
    with pytest.raises(SimulatorError, match="finite"):
        Latencies().add([1.0, np.nan])
    with pytest.raises(SimulatorError, match="at least 0"):
        Latencies().add([-1.0])
    with pytest.raises(SimulatorError, match="from 0 to 1"):
        Latencies().quantile(2.0)
    assert np.isnan(Latencies().quantile(0.5))
