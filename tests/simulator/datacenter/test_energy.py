"""Power between idle and full, and energy as the sum of what was drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.energy import PowerModel, watt_hours, watt_hours_of_work
from simulator.errors import SimulatorError
from simulator.records import validate_record

parts = st.floats(0, 1)
lengths = st.floats(0, 1e5)
segments = st.lists(st.tuples(lengths, parts), min_size=1, max_size=20)


@st.composite
def powers(draw, *, straight=False):
    idle = draw(st.floats(0, 500))
    return PowerModel(
        idle_watts=idle,
        full_watts=idle + draw(st.floats(0, 500)),
        bend=1.0 if straight else draw(st.floats(1, 2)),
        facility_factor=draw(st.floats(1, 2)),
    )


def edges(given_lengths):
    return np.concatenate([[0.0], np.cumsum(given_lengths)])


def test_power_is_a_straight_line_between_idle_and_full():
    assert [100, 125, 200] == list(PowerModel().watts([0, 0.25, 1]))
    assert [150, 300] == list(PowerModel(facility_factor=1.5).watts([0, 1]))


def test_the_bent_form_is_the_published_one():
    """Fan, Weber, Barroso: idle + (full - idle) (2 u - u^r), r = 1.4."""
    drawn = PowerModel(idle_watts=60, full_watts=160, bend=1.4).watts([0, 0.5, 1])
    assert [60, 60 + 100 * (1 - 0.5**1.4), 160] == pytest.approx(list(drawn))


def test_an_hour_half_busy_and_an_hour_idle():
    assert 150 + 100 == pytest.approx(watt_hours(PowerModel(), [0, 3600, 7200], [0.5, 0.0]))
    assert watt_hours(PowerModel(), [5], []) == 0


@given(powers(), segments)
def test_energy_lies_between_idle_and_full_and_cutting_a_segment_changes_nothing(power, asked):
    long, busy = (np.array(column) for column in zip(*asked, strict=True))
    whole = watt_hours(power, edges(long), busy)
    seconds = long.sum()
    low, high = (power.facility_factor * watts * seconds / 3600 for watts in (power.idle_watts, power.full_watts))
    assert low * (1 - 1e-9) - 1e-9 <= whole <= high * (1 + 1e-9) + 1e-9
    cut = watt_hours(power, edges(np.repeat(long / 2, 2)), np.repeat(busy, 2))
    assert whole == pytest.approx(cut)


@given(powers(), parts, parts)
def test_more_work_never_draws_less(power, one, other):
    low, high = sorted((one, other))
    drawn = power.watts([low, high])
    assert drawn[0] <= drawn[1] + 1e-9


@given(powers(straight=True), segments, st.integers(1, 64))
def test_totals_tell_what_the_history_tells(power, asked, cores):
    long, busy = (np.array(column) for column in zip(*asked, strict=True))
    expected = watt_hours(power, edges(long), busy)
    assert expected == pytest.approx(watt_hours_of_work(power, long.sum(), cores * (long @ busy), cores))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: PowerModel().watts([1.5]), "between 0 and 1"),
        (lambda: watt_hours(PowerModel(), [0, 1], [0.5, 0.5]), "2 utilisations for 2 edges"),
        (lambda: watt_hours(PowerModel(), [1, 0], [0.5]), "order of time"),
        (lambda: watt_hours_of_work(PowerModel(), 10, 50, 4), "impossible"),
        (lambda: watt_hours_of_work(PowerModel(bend=1.4), 10, 5, 4), "power.bend"),
        (lambda: validate_record(PowerModel, {"idle_watts": 300}, "power"), "must not exceed `full_watts` 200"),
    ],
)
def test_impossible_input_is_refused(call, said):
    with pytest.raises(SimulatorError, match=said):
        call()
