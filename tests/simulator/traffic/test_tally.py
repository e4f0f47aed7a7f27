import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.traffic.plane import COMPLETED, REJECTED, TIMED_OUT
from simulator.traffic.tally import Tally


def tallied(arrived, seconds, state, cuts, **options):
    tally = Tally(duration_seconds=50.0, warm_up_seconds=5.0, objective_seconds=0.2, **options)
    for part in zip(*(np.split(column, cuts) for column in (arrived, seconds, state)), strict=True):
        tally.record(*part)
    tally.close()
    return tally


def requests(seed, count):
    random = np.random.default_rng(seed)
    arrived = np.sort(random.random(count) * 50.0)
    state = random.choice([COMPLETED, COMPLETED, COMPLETED, REJECTED, TIMED_OUT], count).astype(np.int8)
    return arrived, random.exponential(0.1, count), state


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 40_000), st.lists(st.integers(0, 40_000), max_size=5))
def test_the_sums_do_not_depend_on_how_requests_are_handed_over(seed, count, cuts):
    given_requests = requests(seed, count)
    whole, cut = tallied(*given_requests, []), tallied(*given_requests, sorted(min(place, count) for place in cuts))

    assert whole.states.tolist() == cut.states.tolist()
    assert whole.broken == cut.broken
    assert whole.arrived_in.tolist() == cut.arrived_in.tolist()
    assert whole.broken_in.tolist() == cut.broken_in.tolist()
    # To the last bit.
    assert np.array_equal(whole.answer_means, cut.answer_means, equal_nan=True)
    assert np.array_equal([whole.latencies.mean], [cut.latencies.mean], equal_nan=True)


@pytest.mark.parametrize("origin", [0.0, 12.25])
def test_each_request_is_in_the_bin_in_which_it_arrived(origin):
    arrived, seconds, state = requests(1, 30_000)
    tally = tallied(arrived, seconds, state, [], origin_seconds=origin, path_seconds=0.01)
    answered = state == COMPLETED
    broken = ~answered | (seconds + 0.01 > 0.2)

    assert np.histogram(arrived, tally.edges)[0].tolist() == tally.arrived_in.tolist()
    assert np.histogram(arrived[broken], tally.edges)[0].tolist() == tally.broken_in.tolist()
    assert origin in tally.edges
    assert int((arrived >= 5.0).sum()) == tally.counted == int(tally.states.sum())
    assert int((broken & (arrived >= 5.0)).sum()) == tally.broken


def test_each_period_knows_the_tail_of_its_own_answers():
    arrived, seconds, state = requests(2, 150_000)
    tally = tallied(arrived, seconds, state, [])
    answered = state == COMPLETED

    assert not tally.answers_in[0].is_exact, "a sketch is what is tested here"
    for period, answers in enumerate(tally.answers_in):
        begin, end = tally.period_edges[period : period + 2]
        inside = seconds[answered & (arrived >= begin) & (arrived < end)]
        assert len(inside) == answers.count
        # Between two values far out in the tail `np.quantile` interpolates; a sketch names one of them.
        low, high = (np.quantile(inside, 0.99, method=method) for method in ("lower", "higher"))
        assert low * 0.995 <= answers.quantile(0.99) <= high * 1.005
