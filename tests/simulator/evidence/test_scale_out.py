"""The published table of scaling: what the simulator's autoscalers and balancers make of it, and nothing else."""

import pytest

from simulator.errors import SimulatorError
from simulator.evidence.curves import summarise_curves
from simulator.evidence.literature import validate_literature
from simulator.evidence.published import read_published
from simulator.evidence.scale_out import mean_time_in_system, steps_of_hpa, validate_scale_out
from simulator.evidence.theory import supermarket_mean_sojourn


@pytest.fixture(scope="module")
def points():
    return validate_literature()


@pytest.fixture(scope="module")
def table(points):
    return [point for point in points if point.curve == 6]


def test_every_published_point_is_compared_once(table):
    published = read_published("scaling")
    assert [figure.value for figure in published] == [point.published for point in table]
    assert len(table) == len({(point.platform, point.condition) for point in table})


def test_all_curves_are_there_in_their_order_and_no_point_twice(points):
    numbers = [point.curve for point in points]
    assert {1, 2, 3, 4, 5, 6} == set(numbers)
    assert sorted(numbers) == numbers
    assert len(points) == len({(point.curve, point.platform, point.condition, point.unit) for point in points})


def test_an_hpa_climbs_as_its_rules_allow(table):
    """1, 5, 10, 20, 40, 80: at most twice as many or four more, every 15 s."""
    assert all(point.relative_error == 0 for point in table if point.platform == "hpa")
    climbed = steps_of_hpa(3, seed=9)
    assert [max(before * 2, before + 4) for before in climbed[:-1]] == climbed[1:]


def test_choices_are_worth_what_mitzenmacher_says(table):
    """200 servers stand for infinitely many, and a run is finite: the mean of M/M/1 at 0.9 is known to about 3 %."""
    for point in table:
        if point.platform.startswith("power-of-"):
            assert not point.fitted
            allowed = 0.1 if point.platform == "power-of-1" else 0.05
            assert abs(point.relative_error) < allowed
            load = float(point.condition.partition("=")[2])
            theory = supermarket_mean_sojourn(int(point.platform[-1]), load, 1.0)
            assert point.published == pytest.approx(theory, rel=1e-3)


def test_another_seed_gives_another_run_and_the_same_theory():
    first, second = (mean_time_in_system(2, 0.5, seed) for seed in (1, 2))
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


def test_what_the_machine_autoscaler_was_given_is_not_counted(table):
    delays = {point.condition: point for point in table if point.platform == "kubernetes"}
    given = [condition for condition, point in delays.items() if point.fitted]
    assert 3 == len(given)
    assert all("node" in condition for condition in given)
    whole = delays["from=load;to=pod on a new node"]
    assert not whole.fitted
    parts = [
        point.model for point in delays.values() if "load" not in point.condition and "removed" not in point.condition
    ]
    # An order is published as the longest, so the sum of the parts is more than the mean of the whole.
    assert max(parts) < whole.model < sum(parts) + delays["from=load;to=more pods wanted"].model
    (part,) = [part for part in summarise_curves(table) if part.platform == "kubernetes"]
    assert 2 == part.points


def test_an_unknown_delay_is_named(data_copy):
    path = data_copy / "published" / "scaling.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("from=load;to=more pods wanted", "from=load;to=coffee"), encoding="utf-8")
    with pytest.raises(SimulatorError, match="no delay from load to coffee"):
        validate_scale_out()
