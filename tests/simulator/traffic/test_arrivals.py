import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.stats import chi2, kstest

from simulator.traffic.arrivals import CHUNK, Arrivals, PiecewiseLinearRate

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


MORE = [
    {
        "kind": "mmpp",
        "states": [{"rate_per_second": 100, "mean_seconds": 2}, {"rate_per_second": 5, "mean_seconds": 8}],
    },
]


@pytest.mark.parametrize("tree", [*KINDS, *MORE], ids=lambda tree: tree["kind"])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_times_do_not_depend_on_the_chunks(tree, chunk):
    arrivals = parse(tree)
    chunks = list(arrivals.stream(np.random.default_rng(1), 60.0, chunk))

    assert all(0 < len(part) <= chunk for part in chunks)
    np.testing.assert_array_equal(arrivals.draw(np.random.default_rng(1), 60.0), np.concatenate(chunks))


def test_bursts_are_as_many_and_as_uneven_as_the_mmpp_cookbook_says():
    bursts = parse(MORE[0])
    counts = np.concatenate(
        [
            np.histogram(bursts.draw(np.random.default_rng(seed), 4000.0), np.arange(100.0, 4000.0, 5.0))[0]
            for seed in range(12)
        ]
    )

    assert counts.mean() == pytest.approx(5 * bursts.mean_rate, rel=0.05)
    assert counts.var() / counts.mean() == pytest.approx(bursts.index_of_dispersion(5.0), rel=0.08)


def test_a_trace_is_played_as_it_is_written(tmp_path):
    single, binned = tmp_path / "single.csv", tmp_path / "binned.csv"
    single.write_text("# made by hand\nseconds\n1\n2.5\n2.5\n4\n")
    binned.write_text("seconds,count\n0,100\n10,0\n20,50\n")
    random = np.random.default_rng(1)

    assert [0.5, 1.25, 1.25, 2.0] == parse({"kind": "trace", "path": str(single), "scale": 2}).draw(
        random, 9.0
    ).tolist()
    played = parse({"kind": "trace", "path": str(binned)})
    times = played.draw(random, 100.0)
    assert [100, 0, 50, 0] == np.histogram(times, [0, 10, 20, 30, 100])[0].tolist()
    assert 125 == played.expected(25.0)
    assert [10.0, 0.0, 5.0] == played.rate(np.array([5.0, 15.0, 25.0])).tolist()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seconds\n3\n1\n", "trace.csv:3: out of order"),
        ("seconds\n", "no arrivals"),
        ("when\n1\n", "columns must be"),
        ("seconds\n-1\n", "trace.csv:2: '-1' is not"),
        ("# by hand\n\nseconds\n3\n# late\n1\n", "trace.csv:6: out of order"),
        ("seconds,count\n0,0\n1,0\n", "no arrivals"),
        ("seconds,count\n0,1e15\n", "more than 1e"),
        ("seconds\n" + "1" * 5000, "longer than"),
        ("seconds,count\n0,1\n0,2\n", "stands twice"),
    ],
)
def test_a_trace_that_cannot_be_played_is_refused_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ValidationError, match=complaint):
        parse({"kind": "trace", "path": str(path)})


def test_a_bin_of_any_size_is_spread_evenly_a_chunk_at_a_time(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("seconds,count\n0,300000\n10,200000\n")
    chunks = list(parse({"kind": "trace", "path": str(path)}).stream(np.random.default_rng(1), 15.0))
    times = np.concatenate(chunks)

    assert max(len(part) for part in chunks) <= CHUNK
    assert (np.diff(times) >= 0).all()
    assert 300_000 == np.searchsorted(times, 10.0)
    assert kstest(times[:300_000] / 10, "uniform").pvalue > 0.001
    # Half of the second bin, give or take four standard deviations.
    assert abs(len(times) - 400_000) < 4 * np.sqrt(50_000)


def test_a_closed_loop_needs_users():
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        parse({"kind": "closed", "users": 0, "think": {"kind": "exponential", "mean_seconds": 1}})


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
