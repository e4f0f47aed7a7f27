"""Predictive scaling: ahead of a ramp, and the same as reacting where nothing changes."""

import math

import pytest
from pydantic import ValidationError

from simulator.control.autoscaler import Fleet, PodMetrics
from simulator.control.predictive import Predictive, PredictiveSettings


def pod(percent: int = 0, *, since: float = 0.0) -> PodMetrics:
    return PodMetrics(since, since, 10 * percent, 1000)


def fleet(pods, *, concurrency=0.0, rate=0.0, queued=0, rejected=0.0) -> Fleet:
    return Fleet(tuple(pods), concurrency, rate, queued, rejected)


DEMAND = 0.05
EACH = 0.7 / DEMAND
"""Requests a second that one instance of one core bears at 70 %."""


def predictive(horizon: float = 120.0, **settings: object) -> Predictive:
    tree = {"kind": "predictive", "max_instances": 1000, "horizon_seconds": horizon, "demand_seconds": DEMAND}
    return PredictiveSettings.model_validate({**tree, **settings}).build()


def wanted(policy: Predictive, rates: list[float]) -> list[int]:
    """What it wants as the rates come, one a look."""
    pods = [pod(50)]
    return [policy.decide(15.0 * look, pods, fleet(pods, rate=rate)).desired for look, rate in enumerate(rates, 1)]


def test_on_a_flat_load_it_is_the_same_as_reacting():
    rates = [200.0] * 50

    assert [math.ceil(200 / EACH)] * 50 == wanted(predictive(), rates)
    assert wanted(predictive(0.0), rates) == wanted(predictive(), rates)


def test_on_a_ramp_it_has_what_will_be_needed_when_that_is_ready():
    # 10 requests a second more in each look of 15 s; an instance takes 8 looks.
    rates = [10.0 * look for look in range(1, 101)]
    ahead, reacting = wanted(predictive(120.0), rates), wanted(predictive(0.0), rates)

    for look in range(40, 92):
        needed_then = math.ceil(rates[look + 8] / EACH)
        assert abs(needed_then - ahead[look]) <= 1
        assert needed_then - reacting[look] >= 5


def test_on_the_way_down_it_does_not_go_below_the_present():
    rates = [1000.0 - 10 * look for look in range(90)]
    falling = wanted(predictive(600.0, scale_down_delay_seconds=0), rates)

    assert all(rate / EACH - 2 <= number for rate, number in zip(rates, falling, strict=True))


@pytest.mark.parametrize("method", ["holt-winters", "seasonal-naive"])
def test_a_season_that_was_seen_is_prepared_for(method):
    def day(look: int) -> float:
        return 700.0 if look % 40 >= 30 else 70.0

    settings = {"method": method, "season_seconds": 600, "scale_down_delay_seconds": 0}
    seasonal = wanted(predictive(60.0, **settings), [day(look) for look in range(40 * 20)])

    # 4 looks before the crowd comes for the twentieth time, the room for it is ordered; 8 looks before, it is not.
    crowd, before = 40 * 19 + 30, math.ceil(70 / EACH)
    assert seasonal[crowd - 4] > 8 * before
    assert seasonal[crowd - 8] < 2 * before


def test_the_demand_is_measured_by_the_utilisation_law():
    policy = predictive(0.0, demand_seconds=None)
    pods = [pod(50)] * 4
    # 2 cores are busy with 20 requests a second: 0.1 s each. At 70 % that takes ceil(20 × 0.1 / 0.7).
    assert 3 == policy.decide(15.0, pods, fleet(pods, rate=20.0)).desired


def test_those_turned_away_or_waiting_do_not_make_the_demand_smaller():
    policy = predictive(0.0, demand_seconds=None)
    pods = [pod(100)] * 2
    # 2 cores are busy for 15 s. Of 60 a second, 30 are rejected and 150 of the others wait: 300 in 30 core-seconds.
    decision = policy.decide(15.0, pods, fleet(pods, rate=60.0, rejected=30.0, queued=150))

    assert math.ceil(60 * 0.1 / 0.7) == decision.desired


def test_before_anything_was_served_nothing_changes():
    pods = [pod(0)] * 2

    assert 2 == predictive(demand_seconds=None).decide(15.0, pods, fleet(pods)).desired


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "holt-winters"}, "season_seconds"),
        ({"season_seconds": 600}, "means nothing"),
        ({"method": "seasonal-naive", "season_seconds": 15}, "1 looks"),
        ({"horizon_seconds": -1}, "horizon_seconds"),
        ({"level_weight": 0}, "level_weight"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        predictive(**wrong)
