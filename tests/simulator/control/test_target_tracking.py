"""Target tracking: quick to add, slow to remove."""

import pytest

from simulator.control.autoscaler import Fleet, PodMetrics
from simulator.control.target_tracking import TargetTracking, TargetTrackingSettings


def pod(percent: int = 0, *, since: float = 0.0) -> PodMetrics:
    return PodMetrics(since, since, 10 * percent, 1000)


def starting(created: float = 0.0) -> PodMetrics:
    return PodMetrics(created, None, None, 1000)


def fleet(pods, *, concurrency=0.0, rate=0.0, queued=0, rejected=0.0) -> Fleet:
    return Fleet(tuple(pods), concurrency, rate, queued, rejected)


def tracking(**settings: object) -> TargetTracking:
    return TargetTrackingSettings.model_validate(
        {"kind": "target-tracking", "max_instances": 100, "target": 50, **settings}
    ).build()


def test_three_samples_above_the_target_add_what_brings_it_there():
    policy = tracking()
    desired = [policy.decide(60.0 * minute, [pod(90)] * 4).desired for minute in range(1, 4)]

    # ceil(4 × 90 / 50)
    assert [4, 4, 8] == desired


def test_one_sample_at_the_target_breaks_the_row():
    policy = tracking()
    desired = [policy.decide(60.0 * minute, [pod(use)] * 4).desired for minute, use in enumerate([90, 90, 50, 90, 90])]

    assert [4] * 5 == desired


def test_instances_that_are_not_warm_count_as_help_that_is_coming():
    policy = tracking(scale_out_samples=1)
    assert 8 == policy.decide(60.0, [pod(90)] * 4).desired

    young = [pod(90)] * 4 + [pod(10, since=100.0)] * 4
    again = policy.decide(120.0, young)
    assert 8 == again.desired
    assert "not warm" in again.reason
    # The old ones alone ask for ceil(4 × 150 / 50) = 12: more than what is coming.
    assert 12 == policy.decide(180.0, [pod(150)] * 4 + [pod(10, since=100.0)] * 4).desired
    # Once warm, the young ones count as well: the mean is 80 %.
    assert 13 == policy.decide(420.0, [pod(150)] * 4 + [pod(10, since=100.0)] * 4).recommended


def test_fifteen_samples_well_below_the_target_remove():
    policy = tracking()
    desired = [policy.decide(60.0 * minute, [pod(20)] * 10).desired for minute in range(1, 16)]

    assert [10] * 14 + [4] == desired


@pytest.mark.parametrize(("percent", "desired"), [(46, 10), (44, 9)])
def test_a_little_below_the_target_is_close_enough(percent, desired):
    policy = tracking(scale_in_samples=1)

    assert desired == policy.decide(60.0, [pod(percent)] * 10).desired


def test_none_is_removed_in_the_cooldown_but_one_may_be_added():
    policy = tracking(scale_out_samples=1, scale_in_samples=1, instance_warmup_seconds=0)
    assert 8 == policy.decide(60.0, [pod(90)] * 4).desired

    assert 8 == policy.decide(120.0, [pod(10)] * 8).desired
    assert 8 == policy.decide(359.0, [pod(10)] * 8).desired
    assert 2 == policy.decide(360.0, [pod(10)] * 8).desired
    assert 4 == policy.decide(361.0, [pod(90)] * 2).desired


def test_none_is_removed_while_one_is_on_its_way():
    policy = tracking(scale_in_samples=1)
    decision = policy.decide(60.0, [pod(10)] * 4 + [starting()])

    assert 5 == decision.desired
    assert "not warm" in decision.reason


def test_it_can_follow_the_requests_of_each_instance():
    policy = tracking(metric="requests-per-instance", target=10, scale_out_samples=1)
    pods = [pod(0)] * 4
    decision = policy.decide(60.0, pods, fleet(pods, rate=95.0))

    assert 10 == decision.desired
    assert decision.utilisation_percent is None


def test_a_missing_sample_breaks_the_row_and_moves_nothing():
    policy = tracking(scale_out_samples=2)
    policy.decide(60.0, [pod(90)] * 4)

    assert 4 == policy.decide(120.0, [starting()] * 4).desired
    assert 4 == policy.decide(180.0, [pod(90)] * 4).desired
    assert 8 == policy.decide(240.0, [pod(90)] * 4).desired
