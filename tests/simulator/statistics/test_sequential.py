import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.statistics.intervals import t_interval
from simulator.statistics.sequential import StoppingRule


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0])
def test_it_stops_when_the_interval_is_narrow_enough_and_not_before(spread):
    rule = StoppingRule("p99_seconds", 0.05, most=5000)
    random = np.random.default_rng(1)
    samples: list[float] = []
    enough, more, _ = rule.decide(samples)
    while not enough:
        assert more >= 1
        if len(samples) >= rule.least:
            assert t_interval(samples).half_width > 0.05 / 1.05 * np.mean(samples)
        samples += random.normal(2.0, 2.0 * spread, more).tolist()
        enough, more, _ = rule.decide(samples)

    assert t_interval(samples).half_width <= 0.05 / 1.05 * np.mean(samples)
    assert len(samples) >= rule.least


@given(
    wanted=st.floats(0.01, 0.9),
    samples=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=30),
    part=st.floats(-1, 1),
)
def test_where_it_stops_the_relative_error_holds_for_any_true_mean_in_the_interval(wanted, samples, part):
    enough, _, _ = StoppingRule("p99_seconds", wanted, least=2).decide(samples)
    interval = t_interval(samples)
    truth = interval.value + part * interval.half_width

    assert not enough or abs(interval.value - truth) <= wanted * abs(truth) * (1 + 1e-9)


def test_it_gives_up_at_the_most_and_says_so():
    enough, more, reason = StoppingRule("p99_seconds", 0.01, least=2, most=4).decide([1.0, 2.0, 3.0, 4.0])
    assert (True, 0) == (enough, more)
    assert "the most allowed" in reason


@pytest.mark.parametrize("changes", [{"relative_half_width": 0}, {"confidence": 1}, {"least": 1}, {"most": 3}])
def test_what_cannot_be_is_refused(changes):
    with pytest.raises(SimulatorError):
        StoppingRule(**{"metric": "p99_seconds", "relative_half_width": 0.1, **changes})
