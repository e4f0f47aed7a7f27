"""Step scaling, by the size of the breach."""

import pytest
from pydantic import ValidationError

from simulator.control.autoscaler import Fleet, PodMetrics
from simulator.control.step import Adjustment, StepScaling, StepSettings


def pod(percent: int = 0, *, since: float = 0.0) -> PodMetrics:
    return PodMetrics(since, since, 10 * percent, 1000)


def fleet(pods, *, concurrency=0.0, rate=0.0, queued=0, rejected=0.0) -> Fleet:
    return Fleet(tuple(pods), concurrency, rate, queued, rejected)


STEPS = {
    "scale_out": [{"at": 60, "percent": 10}, {"at": 70, "percent": 30}],
    "scale_in": [{"at": 40, "percent": 10}, {"at": 30, "percent": 30}],
}


def step(**settings: object) -> StepScaling:
    tree = {"kind": "step", "max_instances": 100, "instance_warmup_seconds": 0, **STEPS, **settings}
    return StepSettings.model_validate(tree).build()


@pytest.mark.parametrize(
    ("percent", "desired"), [(50, 10), (59, 10), (60, 11), (69, 11), (70, 13), (99, 13), (40, 9), (31, 9), (30, 7)]
)
def test_the_further_the_larger(percent, desired):
    assert desired == step().decide(60.0, [pod(percent)] * 10).desired


@pytest.mark.parametrize(("capacity", "count"), [(10, 1), (4, 1), (19, 1), (20, 2), (27, 2)])
def test_a_part_of_an_instance_is_cut_but_never_to_none(capacity, count):
    assert count == Adjustment(at=60, percent=10).count(capacity)


def test_within_the_cooldown_only_a_higher_step_adds_and_only_the_difference():
    policy = step()
    assert 11 == policy.decide(60.0, [pod(65)] * 10).desired
    assert 11 == policy.decide(120.0, [pod(65)] * 11).desired
    # 30 % of the 10 there were, of which one is there already.
    assert 13 == policy.decide(180.0, [pod(75)] * 11).desired
    assert 13 == policy.decide(479.0, [pod(75)] * 13).desired
    # The cooldown is over: 30 % of 13, cut.
    assert 16 == policy.decide(480.0, [pod(75)] * 13).desired


def test_none_is_removed_in_the_cooldown():
    policy = step()
    policy.decide(60.0, [pod(65)] * 10)
    held = policy.decide(359.0, [pod(10)] * 11)

    assert 11 == held.desired
    assert "cooldown" in held.reason
    assert 8 == policy.decide(360.0, [pod(10)] * 11).desired


def test_after_a_removal_one_may_be_added_at_once():
    policy = step()
    assert 7 == policy.decide(60.0, [pod(10)] * 10).desired

    assert 9 == policy.decide(120.0, [pod(90)] * 7).desired


def test_so_many_samples_in_a_row_are_needed():
    policy = step(samples=3)

    assert [10, 10, 11] == [policy.decide(60.0 * look, [pod(65)] * 10).desired for look in range(1, 4)]


def test_steps_can_go_by_requests_and_by_instances():
    policy = step(metric="requests-per-instance", scale_out=[{"at": 20, "instances": 5}], scale_in=[])
    pods = [pod(0)] * 2

    assert 7 == policy.decide(60.0, pods, fleet(pods, rate=40.0)).desired


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale_out": []},
        {"scale_out": [{"at": 60}]},
        {"scale_out": [{"at": 60, "instances": 1, "percent": 10}]},
        {"scale_out": [{"at": 60, "instances": 1}, {"at": 60, "instances": 2}]},
        {"scale_in": [{"at": 60, "instances": 1}]},
    ],
)
def test_steps_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ValidationError):
        step(**wrong)
