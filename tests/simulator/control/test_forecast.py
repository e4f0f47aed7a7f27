"""Forecasts against figures whose future is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.control.forecast import HoltWinters, LinearTrend, SeasonalNaive

METHODS = {
    "trend": lambda: LinearTrend(0.5, 0.3),
    "holt-winters": lambda: HoltWinters(0.3, 0.1, 0.3, 24),
    "seasonal-naive": lambda: SeasonalNaive(24),
}


@pytest.mark.parametrize("name", METHODS)
@given(value=st.floats(0, 1e6), steps=st.floats(0, 100))
def test_what_is_always_the_same_is_expected_to_stay_so(name, value, steps):
    forecast = METHODS[name]()
    for _ in range(60):
        forecast.learn(value)

    assert value == pytest.approx(forecast.ahead(steps))


@pytest.mark.parametrize("name", METHODS)
def test_before_the_first_value_nothing_is_expected(name):
    assert 0.0 == METHODS[name]().ahead(3)


@given(st.floats(0, 100), st.floats(0.01, 10), st.floats(0, 40))
def test_a_trend_finds_a_straight_line(begin, slope, steps):
    forecast = LinearTrend(0.5, 0.3)
    for step in range(300):
        forecast.learn(begin + slope * step)

    assert begin + slope * (299 + steps) == pytest.approx(forecast.ahead(steps), rel=1e-6)


def test_a_trend_finds_a_line_without_looking_at_what_comes():
    forecast, told = LinearTrend(0.5, 0.3), LinearTrend(0.5, 0.3)
    for step in range(50):
        forecast.learn(float(step))
        told.learn(float(step))
    expected = forecast.ahead(10)
    told.learn(1e6)

    assert expected != told.ahead(10)
    assert expected == forecast.ahead(10)


def test_a_falling_line_ends_at_nothing():
    forecast = LinearTrend(0.5, 0.3)
    for step in range(100):
        forecast.learn(100.0 - step)

    assert 0.0 == forecast.ahead(1000)


def wave(step: int) -> float:
    return 100 + 50 * math.sin(2 * math.pi * step / 24)


@pytest.mark.parametrize("steps", [1, 5, 12, 23, 24, 30])
def test_a_season_comes_again_exactly_where_it_is_remembered(steps):
    forecast = SeasonalNaive(24)
    for step in range(100):
        forecast.learn(wave(step))

    assert wave(99 + steps) == pytest.approx(forecast.ahead(steps))


@pytest.mark.parametrize("steps", [1, 6, 12, 18])
def test_holt_winters_learns_a_season_that_a_trend_misses(steps):
    seasonal, straight = HoltWinters(0.1, 0.05, 0.3, 24), LinearTrend(0.1, 0.05)
    for step in range(24 * 60):
        seasonal.learn(wave(step))
        straight.learn(wave(step))
    truth = wave(24 * 60 - 1 + steps)

    assert abs(truth - seasonal.ahead(steps)) < 2.0
    assert abs(truth - seasonal.ahead(steps)) < abs(truth - straight.ahead(steps))
