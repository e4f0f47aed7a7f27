"""Keys by dotted path."""

import pytest

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.experiments.keys import check_key, known_keys, with_keys
from simulator.scenario import Scenario

STEPS = {"kind": "steps", "steps": [[0, 5], [60, 20]]}


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("arrivals.steps.1.1", 30.0, lambda scenario: scenario.arrivals.steps[1][1]),
        ("application.workers", 3, lambda scenario: scenario.application.workers),
        ("machines.spec.pods_per_node", 7, lambda scenario: scenario.machines.spec.pods_per_node),
        ("replications", 4, lambda scenario: scenario.replications),
        ("autoscaler.instances", 2, lambda scenario: scenario.autoscaler.instances),
    ],
)
def test_a_key_is_changed_and_no_other(make_scenario, key, value, found):
    scenario = make_scenario(arrivals=STEPS)
    changed = with_keys(scenario, {key: value}, "test")

    assert value == found(changed)
    assert value != found(scenario)
    assert with_keys(changed, {key: found(scenario)}, "test") == scenario


def test_a_whole_table_can_be_a_value(make_scenario):
    changed = with_keys(make_scenario(), {"autoscaler": {"kind": "hpa", "max_instances": 9}}, "test")

    assert ("hpa", 9) == (changed.autoscaler.kind, changed.autoscaler.max_instances)


def test_a_kind_can_be_changed_with_the_keys_that_only_it_has(make_scenario):
    changes = {"application.demand.kind": "lognormal", "application.demand.coefficient_of_variation": 2.0}
    changed = with_keys(make_scenario(), changes, "test")

    assert 2.0 == changed.application.demand.coefficient_of_variation


def test_a_quantity_of_a_platform_can_be_one_number(make_profile):
    factor = with_keys(make_profile(), {"overhead.cpu_factor": 1.5}, "test").overhead.cpu_factor

    assert (1.5, 1.5, 1.5, "simulated") == (factor.value, factor.low, factor.high, factor.kind)


@pytest.mark.parametrize("model", [Scenario, PlatformProfile])
def test_every_known_key_is_one(model):
    for key in known_keys(model):
        check_key(model, key, "test")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("application.wrokers", "`application.workers`"),
        ("rate_per_second", "`arrivals.rate_per_second`"),
        ("arivals.rate_per_second", "`arrivals.rate_per_second`"),
        ("application.workers.more", "did you mean"),
        ("arrivals.steps.first", "did you mean"),
        ("arrivals.steps.0.2", "did you mean"),
        ("", "unknown key"),
        ("qqqqqqqqqqqq", "onggi scenario schema"),
    ],
)
def test_a_key_that_there_is_not_is_answered_with_the_nearest(key, said):
    with pytest.raises(SimulatorError, match=f"^test: unknown key `{key}`") as refused:
        check_key(Scenario, key, "test")
    assert said in str(refused.value)


def test_a_place_beyond_the_list_is_refused(make_scenario):
    with pytest.raises(SimulatorError, match=r"no place 2 in a list of 2"):
        with_keys(make_scenario(arrivals=STEPS), {"arrivals.steps.2.1": 3}, "test")
    with pytest.raises(SimulatorError, match=r"`arrivals\.steps\.0\.1`.*not set"):
        with_keys(make_scenario(), {"arrivals.steps.0.1": 3}, "test")


def test_values_that_the_record_refuses_are_refused(make_scenario):
    with pytest.raises(SimulatorError, match=r"test: `application` needs 40 cores"):
        with_keys(make_scenario(), {"application.workers": 40}, "test")
