"""Which points a design takes: properties of grids and Latin hypercubes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.experiments.design import Range, draw_points, read_axis


def points_of(design, points=None, seed=0, **axes):
    return draw_points({key: read_axis(values, key) for key, values in axes.items()}, design, points, seed)


def test_a_grid_is_every_combination_the_last_key_fastest():
    expected = ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"})

    assert expected == points_of("grid", a=[1, 2], b=["x", "y"])


def test_a_range_in_a_grid_is_cut_evenly_from_end_to_end():
    assert (0.0, 0.5, 1.0) == Range(low=0, high=1).levels(3, "a")
    assert (1, 2, 3, 4) == Range(low=1, high=4, integer=True).levels(None, "a")
    assert pytest.approx((1, 10, 100)) == Range(low=1, high=100, logarithmic=True).levels(3, "a")
    assert (1, 2) == Range(low=1, high=2, integer=True).levels(7, "a")


@settings(deadline=None)  # the first example loads SciPy
@given(st.integers(1, 40), st.integers(0, 99))
def test_a_latin_hypercube_takes_each_part_of_each_axis_once(points, seed):
    drawn = points_of("latin-hypercube", points, seed, a={"low": 0, "high": 1}, b={"low": -5, "high": 5})

    for key, low, width in (("a", 0.0, 1.0), ("b", -5.0, 10.0)):
        parts = sorted(math.floor((point[key] - low) / width * points) for point in drawn)
        assert list(range(points)) == parts


@settings(deadline=None)  # the first example loads SciPy
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_a_latin_hypercube_takes_each_name_and_whole_number_equally_often(high, each, seed, logarithmic):
    names = [f"name-{number}" for number in range(high)]
    axes = {"name": names, "count": {"low": 1, "high": high + 1, "integer": True, "logarithmic": logarithmic}}
    drawn = points_of("latin-hypercube", each * high * (high + 1), seed, **axes)

    assert {each * (high + 1)} == {sum(point["name"] == name for point in drawn) for name in names}
    assert set(range(1, high + 2)) >= {point["count"] for point in drawn}
    if not logarithmic:
        assert {each * high} == {sum(point["count"] == n for point in drawn) for n in range(1, high + 2)}


@settings(deadline=None)  # the first example loads SciPy
@given(st.integers(2, 50), st.integers(0, 99))
def test_a_logarithmic_range_has_as_many_points_below_its_geometric_mean_as_above(half, seed):
    drawn = points_of("latin-hypercube", 2 * half, seed, a={"low": 0.01, "high": 100.0, "logarithmic": True})

    assert half == sum(point["a"] < 1 for point in drawn)


def test_the_seed_decides_the_draw():
    axis = {"low": 0, "high": 1}

    assert points_of("latin-hypercube", 5, 1, a=axis) == points_of("latin-hypercube", 5, 1, a=axis)
    assert points_of("latin-hypercube", 5, 1, a=axis) != points_of("latin-hypercube", 5, 2, a=axis)


def test_numbers_of_numpy_become_plain():
    (point,) = points_of("grid", a=np.linspace(1.0, 1.0, 1))
    (other,) = points_of("grid", a=[np.int64(3)])

    assert (float, int) == (type(point["a"]), type(other["a"]))


@pytest.mark.parametrize(
    ("design", "points", "axes", "said"),
    [
        ("grid", None, {}, "over nothing"),
        ("grid", None, {"a": []}, "`a`: the list is empty"),
        ("grid", None, {"a": [1, 1]}, "listed twice"),
        ("grid", None, {"a": "12"}, "give a list"),
        ("grid", None, {"a": {"low": 1, "high": 2}}, "points"),
        ("grid", 1, {"a": {"low": 1, "high": 2}}, "2 or more"),
        ("grid", None, {"a": {"low": 3, "high": 2}}, "must be less"),
        ("grid", None, {"a": {"low": 1, "hihg": 2}}, "did you mean `high`"),
        ("grid", None, {"a": {"low": 1.5, "high": 2, "integer": True}}, "whole numbers"),
        ("grid", None, {"a": {"low": 0, "high": 2, "logarithmic": True}}, "above 0"),
        ("grid", None, {"a": {"low": 0, "high": 1e300, "integer": True}}, "more than"),
        ("grid", None, {"a": list(range(1000)), "b": list(range(1000))}, "1000000 points"),
        ("grid", 0, {"a": [1]}, "`points` 0"),
        ("latin-hypercube", None, {"a": [1, 2]}, "give `points`"),
        ("sobol", 4, {"a": [1, 2]}, "unknown design"),
    ],
)
def test_what_is_no_design_is_refused(design, points, axes, said):
    with pytest.raises(SimulatorError, match=said) as refused:
        points_of(design, points, **axes)
    assert "\n" not in str(refused.value)
