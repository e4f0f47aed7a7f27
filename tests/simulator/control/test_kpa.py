"""Knative's autoscaler: its two windows, its panic and its sleep."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.control.kpa import KnativePodAutoscaler, KpaSettings


def pod(percent: int = 0, *, since: float = 0.0) -> PodMetrics:
    return PodMetrics(since, since, 10 * percent, 1000)


def starting(created: float = 0.0) -> PodMetrics:
    return PodMetrics(created, None, None, 1000)


def fleet(pods, *, concurrency=0.0, rate=0.0, queued=0, rejected=0.0) -> Fleet:
    return Fleet(tuple(pods), concurrency, rate, queued, rejected)


def kpa(**settings: object) -> KnativePodAutoscaler:
    """One that aims for 10 requests at once in each instance, unless told otherwise."""
    tree = {"kind": "kpa", "max_instances": 1000, "target": 10, "target_utilisation_percent": 100, **settings}
    return KpaSettings.model_validate(tree).build()


class Watched:
    """An autoscaler on a clock, whose instances are ready as soon as it asks for them."""

    def __init__(self, policy: KnativePodAutoscaler, count: int = 1) -> None:
        self.policy, self.count, self.now = policy, count, 0.0

    def see(self, seconds: float, concurrency: float, *, ready: int | None = None) -> list[Decision]:
        """So many requests inside for so long."""
        decisions = []
        for _ in range(round(seconds / 2)):
            self.now += 2.0
            ready_now = self.count if ready is None else min(ready, self.count)
            pods = [pod()] * ready_now + [starting()] * (self.count - ready_now)
            decisions.append(self.policy.decide(self.now, pods, fleet(pods, concurrency=concurrency)))
            self.count = decisions[-1].desired
        return decisions


def test_it_wants_the_mean_of_the_stable_window_over_the_target():
    assert [4] == [decision.desired for decision in Watched(kpa(), 4).see(120, 35.0)[-1:]]


def test_by_default_it_aims_for_70_of_100_requests():
    settings = KpaSettings(kind="kpa", max_instances=10)

    assert (70.0, 6.0) == (settings.aimed_target, settings.panic_window_seconds)
    assert (1, 2.0) == (settings.build().initial_instances, settings.build().sync_seconds)
    assert 140.0 == KpaSettings(kind="kpa", max_instances=10, metric="requests-per-second").aimed_target


def test_panic_begins_where_the_short_window_wants_twice_what_is_ready():
    # After 2 s of 40 at once the mean of 6 s is 26.7, which wants 3. After 4 s it is 33.3, which wants 4.
    watched = Watched(kpa(), 2)
    watched.see(120, 20.0)

    assert ["stable", "panic"] == [decision.mode for decision in watched.see(4, 40.0, ready=2)]
    # The mean of 60 s, of which 4 were like that, would have wanted 3.
    assert 4 == watched.count


def test_just_below_the_threshold_there_is_no_panic():
    watched = Watched(kpa(), 2)
    watched.see(120, 20.0)

    # Wants 3, which is 150 % of what is ready.
    assert {"stable"} == {decision.mode for decision in watched.see(60, 30.0, ready=2)}


def test_panic_holds_for_a_stable_window_after_the_last_reason_and_never_goes_down():
    watched = Watched(kpa(), 2)
    watched.see(120, 20.0)
    height = watched.see(6, 80.0, ready=2)[-1]
    last_reason = watched.now
    calm = watched.see(80, 5.0)

    assert ("panic", 8) == (height.mode, height.desired)
    for decision in calm:
        if decision.seconds <= last_reason + 60:
            assert ("panic", 8) == (decision.mode, decision.desired)
        else:
            assert "stable" == decision.mode
            assert decision.desired < 8


def test_after_panic_it_halves_at_most_in_each_tick():
    watched = Watched(kpa(), 2)
    watched.see(120, 20.0)
    watched.see(6, 80.0)
    down = [decision.desired for decision in watched.see(80, 1.0) if decision.mode == "stable"]

    assert [4, 2, 1] == down[:3]


def test_the_rate_limits_the_way_up():
    watched = Watched(kpa(max_scale_up_rate=2, panic_threshold_percent=1000), 1)
    watched.see(120, 5.0)

    assert 2 == watched.see(60, 70.0, ready=1)[-1].desired


def test_more_than_one_at_the_beginning_are_kept_until_a_window_has_been_seen():
    decisions = Watched(kpa(), 6).see(70, 1.0)

    assert {6} == {decision.desired for decision in decisions if decision.seconds <= 62}
    assert decisions[-1].desired < 6


def test_the_last_goes_after_a_silent_window_and_the_grace_period():
    watched = Watched(kpa(target_burst_capacity=0))
    watched.see(100, 5.0)
    silent_since = watched.now
    silence = watched.see(120, 0.0)
    zero = next(decision for decision in silence if decision.desired == 0)

    # The window is silent at its end, and the activator then takes 30 s to be in the path everywhere.
    assert 90.0 == zero.seconds - silent_since
    assert "grace" in zero.reason


def test_where_the_activator_is_in_the_path_already_the_grace_period_is_over():
    # The default burst of 200 is more than one instance can bear, so requests pass the activator all the time.
    watched = Watched(kpa())
    assert watched.see(100, 5.0)[-1].excess_burst < 0
    silent_since = watched.now
    zero = next(decision for decision in watched.see(120, 0.0) if decision.desired == 0)

    assert 60.0 == zero.seconds - silent_since


def test_a_request_in_the_grace_period_keeps_the_last():
    watched = Watched(kpa(target_burst_capacity=0))
    watched.see(100, 5.0)
    watched.see(70, 0.0)
    decisions = watched.see(2, 1.0) + watched.see(60, 0.0)

    assert {1} == {decision.desired for decision in decisions}


def test_a_request_that_finds_none_wakes_it():
    watched = Watched(kpa())
    watched.see(100, 5.0)
    watched.see(120, 0.0)
    assert 0 == watched.count

    # The model asks at once; no time has passed in which the mean could rise.
    woken = watched.policy.decide(watched.now, [], fleet([], concurrency=0.0, queued=1))
    assert 1 == woken.desired
    assert 1 <= watched.policy.decide(watched.now + 2.0, [starting()], fleet([starting()], concurrency=1.0)).desired


def test_a_crowd_that_finds_none_brings_as_many_as_it_needs():
    watched = Watched(kpa())
    watched.see(200, 0.0)
    assert 0 == watched.count

    watched.see(6, 100.0, ready=0)
    assert 10 == watched.count


@pytest.mark.parametrize("settings", [{"scale_to_zero": False}, {"min_instances": 1}])
def test_it_can_be_kept_awake(settings):
    assert 1 == Watched(kpa(**settings)).see(300, 0.0)[-1].desired


def test_a_delay_follows_the_highest_number_wanted_within_it():
    watched = Watched(kpa(scale_down_delay_seconds=100), 4)
    watched.see(120, 40.0)
    down = watched.see(200, 10.0)

    fell = next(decision.seconds for decision in down if decision.desired < 4)
    wanted = next(decision.seconds for decision in down if decision.recommended < 4)
    assert 98 <= fell - wanted <= 100


@pytest.mark.parametrize(("capacity", "excess"), [(0, 0), (-1, -1), (15, 20 - 15 - 4), (200, 20 - 200 - 4)])
def test_the_spare_capacity_says_whether_requests_wait_at_the_activator(capacity, excess):
    assert excess == Watched(kpa(target_burst_capacity=capacity), 2).see(2, 4.0)[-1].excess_burst


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0, 3000)), min_size=1, max_size=20), st.integers(0, 30))
def test_in_panic_it_never_goes_down(loads, ready):
    watched = Watched(kpa())
    decisions = [decision for ticks, load in loads for decision in watched.see(2 * ticks, load, ready=ready)]

    for before, after in pairwise(decisions):
        if after.mode == "panic":
            assert before.desired <= after.desired


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_instances": 1001},
        {"initial_scale": 1001},
        {"target_utilisation_percent": 101},
        {"max_scale_down_rate": 1},
        {"tick_seconds": 7},
        {"target_burst_capacity": -2},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        kpa(**wrong)
