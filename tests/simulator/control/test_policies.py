"""What holds for every autoscaler that a scenario can ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simulator.control.autoscaler import Autoscaler, Fleet, PodMetrics
from simulator.control.policies import Autoscalers


def pod(percent: int = 0, *, since: float = 0.0) -> PodMetrics:
    return PodMetrics(since, since, 10 * percent, 1000)


def starting(created: float = 0.0) -> PodMetrics:
    return PodMetrics(created, None, None, 1000)


def fleet(pods, *, concurrency=0.0, rate=0.0, queued=0, rejected=0.0) -> Fleet:
    return Fleet(tuple(pods), concurrency, rate, queued, rejected)


SETTINGS = {
    "fixed": {"instances": 3},
    "hpa": {"max_instances": 12},
    "target-tracking": {"max_instances": 12, "target": 60},
    "step": {"max_instances": 12, "scale_out": [{"at": 60, "percent": 50}], "scale_in": [{"at": 20, "instances": 1}]},
    "schedule": {"times": [[0, 2], [60, 9]]},
    "kpa": {"max_instances": 12, "target": 4},
    "predictive": {"max_instances": 12, "horizon_seconds": 60},
}


def build(kind: str, **more: object) -> Autoscaler:
    return TypeAdapter(Autoscalers).validate_python({"kind": kind, **SETTINGS[kind], **more}).build()


@pytest.mark.parametrize("kind", SETTINGS)
@given(looks=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 500), st.integers(0, 50)), min_size=1, max_size=40))
def test_every_policy_stays_within_its_bounds_and_says_why(kind, looks):
    autoscaler = build(kind)
    current, now = autoscaler.initial_instances, 0.0
    for percent, load, queued in looks:
        now += autoscaler.sync_seconds or 15.0
        pods = [pod(percent) if number % 3 else starting(now) for number in range(current)]
        decision = autoscaler.decide(now, pods, fleet(pods, concurrency=load, rate=load, queued=queued))

        assert (now, current) == (decision.seconds, decision.current)
        assert (0 if kind == "kpa" else 1) <= decision.desired <= 12
        assert decision.reason
        current = decision.desired


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_same_sights_give_the_same_decisions(kind):
    def decisions() -> list[object]:
        autoscaler = build(kind)
        pods = [pod(90)] * 3
        return [autoscaler.decide(30.0 * step, pods, fleet(pods, concurrency=9, rate=9)) for step in range(1, 30)]

    assert decisions() == decisions()


@pytest.mark.parametrize("kind", ["kpa", "predictive"])
def test_without_figures_of_requests_nothing_changes(kind):
    decision = build(kind).decide(15.0, [pod(100)] * 2)

    assert 2 == decision.desired
    assert "no figures" in decision.reason


def test_only_a_policy_that_may_want_none_is_woken_by_a_request():
    assert ["kpa"] == [kind for kind in SETTINGS if build(kind).wakes_on_arrival]


@pytest.mark.parametrize("kind", ["hpa", "target-tracking", "step", "kpa", "predictive"])
def test_bounds_in_the_wrong_order_are_refused(kind):
    with pytest.raises(ValidationError, match="must not exceed"):
        build(kind, min_instances=13)
