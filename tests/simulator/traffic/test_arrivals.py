import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.stats import chi2, kstest

from simulator.traffic.arrivals import Arrivals, PiecewiseLinearRate

parse = TypeAdapter(Arrivals).validate_python

KINDS = [
    {"kind": "poisson", "rate_per_second": 20.0},
    {"kind": "steps", "steps": [[0, 20], [100, 80], [150, 0], [170, 5]]},
    {"kind": "flash-crowd", "base_rate": 5, "peak_rate": 60, "start_seconds": 50, "ramp_seconds": 20,
     "hold_seconds": 60, "fall_seconds": 50},
    {"kind": "diurnal", "mean_rate": 30, "amplitude": 0.8, "period_seconds": 130, "peak_seconds": 20},
]  # fmt: skip
DURATION = 250.0


@pytest.mark.parametrize("tree", KINDS, ids=lambda tree: tree["kind"])
def test_counts_follow_the_rate(tree):
    """Counts in disjoint intervals are independent Poisson numbers whose means are the integral of the rate."""
    arrivals = parse(tree)
    edges = np.linspace(0, DURATION, 51)
    fine = (np.arange(50 * 200) + 0.5) * DURATION / (50 * 200)
    expected = arrivals.rate(fine).reshape(50, 200).mean(axis=1) * DURATION / 50
    random = np.random.default_rng(5)
    counts = sum(np.histogram(arrivals.draw(random, DURATION), edges)[0] for _ in range(20))

    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = float(((counts - 20 * expected)[possible] ** 2 / (20 * expected[possible])).sum())
    assert 0.001 < chi2.cdf(statistic, possible.sum()) < 0.999


@pytest.mark.parametrize("tree", KINDS, ids=lambda tree: tree["kind"])
def test_the_expected_number_is_the_integral_of_the_rate(tree):
    arrivals = parse(tree)
    fine = (np.arange(500_000) + 0.5) * DURATION / 500_000

    assert arrivals.rate(fine).mean() * DURATION == pytest.approx(arrivals.expected(DURATION), rel=1e-5)


@pytest.mark.parametrize("tree", KINDS, ids=lambda tree: tree["kind"])
def test_arrivals_are_sorted_and_within_the_duration(tree):
    times = parse(tree).draw(np.random.default_rng(1), DURATION)

    assert (np.diff(times) >= 0).all()
    assert 0 <= times[0]
    assert times[-1] <= DURATION


def test_gaps_of_a_poisson_process_are_exponential():
    times = parse(KINDS[0]).draw(np.random.default_rng(2), 1000.0)

    assert kstest(np.diff(times), "expon", args=(0, 1 / 20)).pvalue > 0.001


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@example([(0.0, 1.0), (5e-324, 50.0)], 0)
@settings(max_examples=60, deadline=None)
def test_any_piecewise_linear_rate_draws_sorted_times_where_it_is_positive(knots, seed):
    curve = PiecewiseLinearRate(sorted(knots, key=lambda knot: knot[0]))
    times = curve.draw(np.random.default_rng(seed), 120.0)

    assert (np.diff(times) >= 0).all()
    assert ((times >= 0) & (times <= 120.0)).all()
    assert (curve.at(np.linspace(0, 120, 500)) >= 0).all()
    assert curve.expected(120.0) >= 0


@pytest.mark.parametrize(
    ("tree", "surge"),
    [*zip(KINDS, (None, 100.0, 50.0, None), strict=True), ({"kind": "steps", "steps": [[0, 9], [5, 3]]}, None)],
)
def test_the_surge_is_where_the_load_rises_most(tree, surge):
    assert surge == parse(tree).surge_seconds


@pytest.mark.parametrize(
    "tree",
    [
        {"kind": "poisson", "rate_per_second": 0},
        {"kind": "poisson", "rate_per_second": float("inf")},
        {"kind": "steps", "steps": []},
        {"kind": "steps", "steps": [[1, 5]]},
        {"kind": "steps", "steps": [[0, 5], [9, 5], [9, 6]]},
        {"kind": "steps", "steps": [[0, 0]]},
        {"kind": "steps", "steps": [[0, -5]]},
        {**KINDS[2], "peak_rate": 5},
        {**KINDS[3], "amplitude": 1.5},
        {"kind": "trickle"},
    ],
)
def test_impossible_arrivals_are_refused(tree):
    with pytest.raises(ValidationError):
        parse(tree)
