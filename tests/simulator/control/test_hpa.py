"""The Horizontal Pod Autoscaler, one rule of its documentation at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.control.autoscaler import PodMetrics
from simulator.control.hpa import HorizontalPodAutoscaler, HpaSettings

OLD = 1000.0
"""A moment at which pods created at 0 have left their initialisation period."""


def hpa(**settings: object) -> HorizontalPodAutoscaler:
    return HpaSettings.model_validate({"kind": "hpa", "max_instances": 100, **settings}).build()


def ready(percent: int | None, *, since: float = 0.0) -> PodMetrics:
    return PodMetrics(since, since, None if percent is None else 10 * percent, 1000)


def unready(created: float = 0.0) -> PodMetrics:
    return PodMetrics(created, None, None, 1000)


def test_from_one_pod_the_ceiling_rises_as_the_policies_allow():
    autoscaler = hpa(target_utilisation_percent=1)
    counts = [1]
    for step in range(5):
        decision = autoscaler.decide(OLD + 15 * step, [ready(100)] * counts[-1])
        assert "limited" in decision.reason
        counts.append(decision.desired)

    assert [1, 5, 10, 20, 40, 80] == counts


def test_the_policies_count_what_was_added_within_the_period():
    autoscaler = hpa(target_utilisation_percent=1)

    assert 5 == autoscaler.decide(OLD, [ready(100)]).desired
    assert 5 == autoscaler.decide(OLD + 14.9, [ready(100)] * 5).desired
    assert 10 == autoscaler.decide(OLD + 15, [ready(100)] * 5).desired


@pytest.mark.parametrize(
    ("percents", "target", "wanted"),
    [
        ([80, 80], 80, 2),
        ([87, 87], 80, 2),  # 1.0875 is within the tolerance of 0.1
        ([90, 90], 80, 3),  # ceil(2 × 1.125)
        ([160, 40, 100], 50, 6),  # the mean counts
        ([73, 73], 80, 2),  # 0.9125, within the tolerance
        ([50], 80, 1),
        ([100, 101], 100, 2),  # 100.5 % is cut to 100 %
    ],
)
def test_desired_is_current_times_the_ratio_rounded_up(percents, target, wanted):
    decision = hpa(target_utilisation_percent=target).decide(OLD, [ready(percent) for percent in percents])

    assert wanted == decision.recommended


def test_unready_pods_count_as_idle_on_the_way_up():
    pods = [ready(160)] * 4 + [unready()] * 4

    # Alone, 4 × 2 = 8. With four idle ones: mean 80 %, ratio 1, no change.
    assert 8 == hpa().decide(OLD, pods).desired
    assert "unready" in hpa().decide(OLD, pods).reason
    assert 8 == hpa(target_utilisation_percent=80).decide(OLD, [ready(160)] * 4).recommended
    assert 12 == hpa().decide(OLD, [ready(240)] * 4 + [unready()] * 4).recommended


def test_idle_guesses_can_bring_a_rise_within_the_tolerance():
    pods = [ready(172)] * 4

    # Four pods ask for ceil(4 × 2.15) = 9. With four idle ones beside them the mean is 86 %: 1.075, close enough.
    assert 9 == hpa().decide(OLD, pods).recommended
    assert 8 == hpa().decide(OLD, pods + [unready()] * 4).recommended


def test_unready_pods_do_not_matter_on_the_way_down():
    assert 1 == hpa().decide(OLD, [ready(20)] * 4 + [unready()] * 4).recommended


def test_a_young_pod_counts_once_it_was_ready_for_a_whole_window():
    pods = [ready(160), ready(0, since=OLD)]

    # Not a whole window: idle, the mean is 80 %. Then its own 0 % counts, with the same mean.
    for later, sampled in ((14.0, 1), (15.0, 2)):
        assert f"over {sampled} pods" in hpa().decide(OLD + later, pods).reason


def test_an_old_pod_counts_even_if_it_has_just_become_ready():
    pods = [ready(160), PodMetrics(0.0, OLD - 1, 0, 1000)]

    assert "over 2 pods" in hpa().decide(OLD, pods).reason


def test_pods_without_a_sample_count_as_idle_up_and_as_busy_down():
    # Up: 160 % over one of two pods, mean 80 %.
    assert 2 == hpa().decide(OLD, [ready(160), ready(None)]).recommended
    # Down: 40 % and 100 %, mean 70 %, ceil(2 × 0.875) = 2, where one alone would ask for 1.
    assert 2 == hpa().decide(OLD, [ready(40), ready(None)]).recommended
    # Down: 0 % three times and 100 % once, mean 25 %, ceil(4 × 0.3125) = 2, where three alone would ask for none.
    assert 2 == hpa().decide(OLD, [ready(0)] * 3 + [ready(None)]).recommended


def test_no_change_where_the_guess_would_turn_the_direction():
    # 50 % of 80 % asks for fewer; with three at 100 % the ratio would ask for more.
    assert 4 == hpa(target_utilisation_percent=70).decide(OLD, [ready(50)] + [ready(None)] * 3).recommended


def test_without_any_sample_nothing_changes():
    decision = hpa().decide(0.0, [ready(None), unready()])

    assert (2, None) == (decision.desired, decision.utilisation_percent)
    assert "no metrics" in decision.reason


def test_it_goes_down_by_the_highest_recommendation_of_the_window():
    autoscaler = hpa(min_instances=1)
    desired = {}
    autoscaler.decide(OLD, [ready(80)] * 10)
    for seconds in range(15, 331, 15):
        # For two minutes the load asks for 5, and then for 2.
        percent = 40 if seconds <= 120 else 16
        desired[seconds] = autoscaler.decide(OLD + seconds, [ready(percent)] * 10).desired

    assert 10 == desired[285]
    assert 5 == desired[300]
    assert 5 == desired[330]


def test_it_never_goes_down_in_the_first_window():
    autoscaler = hpa()

    assert 10 == autoscaler.decide(0.0, [ready(80)] * 10).desired
    assert 10 == autoscaler.decide(285.0, [ready(1)] * 10).desired
    assert 1 == autoscaler.decide(600.0, [ready(1)] * 10).desired


def test_a_wanted_rise_can_be_stabilised_too():
    autoscaler = hpa(scale_up={"stabilization_seconds": 60})

    assert [2, 2, 2, 2, 4] == [autoscaler.decide(OLD + 15 * step, [ready(160)] * 2).desired for step in range(5)]


def test_the_down_policy_limits_too():
    autoscaler = hpa(scale_down={"percent": 50, "stabilization_seconds": 0})

    assert 5 == autoscaler.decide(OLD, [ready(1)] * 10).desired
    assert 5 == autoscaler.decide(OLD + 10, [ready(1)] * 5).desired
    assert 2 == autoscaler.decide(OLD + 15, [ready(1)] * 5).desired


@given(
    st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=30), min_size=1, max_size=15),
    st.integers(1, 5),
    st.integers(5, 40),
)
def test_it_stays_within_its_bounds_and_says_why(loads, least, most):
    autoscaler = hpa(min_instances=least, max_instances=most)
    count = least
    for step, load in enumerate(loads):
        pods = [ready(load[index % len(load)]) for index in range(count)]
        decision = autoscaler.decide(OLD + 15 * step, pods)

        assert count == decision.current
        assert least <= decision.desired <= max(most, 0)
        assert decision.desired <= max(2 * count, count + 4)
        assert decision.reason
        count = decision.desired


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_instances": 0},
        {"min_instances": 7, "max_instances": 6},
        {"target_utilisation_percent": 0},
        {"sync_seconds": 0},
        {"tolerance": 1},
        {"scale_down": {"percent": 101}},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        hpa(**wrong)


def test_a_young_pod_that_is_ready_and_has_no_sample_is_missing_and_not_unready():
    # On the way down it counts as busy: 40 % and 100 % are 70 %, and ceil(2 × 0.875) is 2. Left out, it would be 1.
    assert 2 == hpa().decide(OLD, [ready(40), ready(None, since=OLD - 1)]).recommended
