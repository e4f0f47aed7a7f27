"""Hours of lives within a window, and what they cost."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.costs import Consumption, CostSettings, cost, gb_hours, hours
from simulator.errors import SimulatorError

HOUR = 3600.0
lives = st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)).map(sorted), max_size=20)
moments = st.floats(0, 1e5)


def test_only_what_lies_within_the_window_counts():
    assert 1 + 2 + 0 + 0.5 == hours([(-HOUR, HOUR), (0, math.inf), (3 * HOUR, 4 * HOUR), (0, HOUR / 2)], 0, 2 * HOUR)
    assert hours([], 0, HOUR) == 0


def test_gigabytes_are_counted_while_they_are_held():
    assert 2 * 1 + 3 * 0.5 == gb_hours([(0, HOUR), (HOUR / 2, 9 * HOUR)], [2e9, 3e9], 0, HOUR)
    assert 1 == gb_hours([(0, HOUR), (0, HOUR)], 0.5e9, 0, HOUR)


def test_short_lives_are_billed_for_the_least_and_in_whole_steps():
    asked = [(0, 10), (0, 60), (0, 61), (5, 5)]
    assert (60 + 60 + 61) / HOUR == pytest.approx(hours(asked, 0, HOUR, settings=CostSettings(minimum_seconds=60)))
    assert 3 == hours(asked, 0, HOUR, settings=CostSettings(step_seconds=HOUR))
    # 0.1 + 0.2 is a little more than three tenths, and yet three steps.
    assert 0.3 / HOUR == pytest.approx(hours([(0, 0.1 + 0.2)], 0, HOUR, settings=CostSettings(step_seconds=0.1)))


def test_a_bill_has_a_part_for_each_price():
    used = Consumption(machine_hours=10, instance_hours=20, gb_hours=30, watt_hours=4000)
    prices = CostSettings(currency="EUR", per_machine_hour=1, per_instance_hour=0.1, per_gb_hour=0.01, per_kwh=0.25)
    bill = cost(used, prices)
    assert (10, 2, 0.3, 1, "EUR") == (bill.machines, bill.instances, bill.memory, bill.energy, bill.currency)
    assert 13.3 == pytest.approx(bill.total)
    assert cost(used, CostSettings()).total == 0


@given(lives, st.tuples(moments, moments, moments).map(sorted))
def test_hours_of_two_windows_side_by_side_add_up(asked, edges):
    begin, middle, end = edges
    whole = hours(asked, begin, end)
    assert whole == pytest.approx(hours(asked, begin, middle) + hours(asked, middle, end), abs=1e-9)
    assert 0 <= whole <= len(asked) * (end - begin) / HOUR * (1 + 1e-9)
    assert whole * 2 == pytest.approx(gb_hours(asked, 2e9, begin, end), abs=1e-9)


@given(lives, st.floats(0, 5000), st.sampled_from([0.0, 1.0, 60.0, HOUR]))
def test_a_bill_is_never_for_less_than_was_used(asked, minimum, step):
    billed = hours(asked, 0, 1e5, settings=CostSettings(minimum_seconds=minimum, step_seconds=step))
    used = hours(asked, 0, 1e5)
    assert billed >= used - 1e-6
    assert billed <= used + len(asked) * max(minimum, step) / HOUR + 1e-9


@pytest.mark.parametrize(
    "call",
    [
        lambda: hours([(2, 1)], 0, 1),
        lambda: hours([1, 2], 0, 1),
        lambda: gb_hours([(0, 1)], [1, 2], 0, 1),
        lambda: gb_hours([(0, 1)], [-1], 0, 1),
    ],
)
def test_impossible_histories_are_refused(call):
    with pytest.raises(SimulatorError, match=r"lives"):
        call()
