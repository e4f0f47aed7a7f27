"""Whether a service can keep up, against what queueing theory says of a load of 1."""

import pytest

from simulator.stability import load_of


def test_the_load_is_rate_times_demand_over_workers(make_scenario):
    load = load_of(make_scenario())

    assert pytest.approx(0.5) == load.offered_cores
    assert (1, 1.0, True) == (load.most_instances, load.most_cores, load.has_steady_state)
    assert "load 0.5 of what" in load.explain()


@pytest.mark.parametrize(("rate", "stable"), [(9.99, True), (10.0, False), (11.0, False)])
def test_from_a_load_of_one_on_there_is_no_steady_state(make_scenario, rate, stable):
    load = load_of(make_scenario(arrivals={"kind": "poisson", "rate_per_second": rate}))

    assert stable == load.has_steady_state
    assert stable == ("no steady state" not in load.explain())


def test_what_a_platform_costs_counts(make_scenario):
    scenario = make_scenario(arrivals={"kind": "poisson", "rate_per_second": 9.0})

    assert load_of(scenario).has_steady_state
    assert not load_of(scenario, cpu_factor=1.2).has_steady_state


def test_what_a_request_waits_for_with_its_worker_counts(make_scenario):
    assert pytest.approx(0.75) == load_of(make_scenario(), added_seconds=0.05).offered_cores
    assert not load_of(make_scenario(), added_seconds=0.1).has_steady_state


@pytest.mark.parametrize(
    ("autoscaler", "most"),
    [
        ({"kind": "fixed", "instances": 3}, 3),
        ({"kind": "hpa", "max_instances": 5}, 5),
        ({"kind": "hpa", "max_instances": 500}, 8),  # two machines of four cores
        ({"kind": "schedule", "times": [[0, 2], [60, 6]]}, 6),
    ],
)
def test_the_most_instances_are_what_is_asked_for_and_has_room(make_scenario, autoscaler, most):
    assert most == load_of(make_scenario(autoscaler=autoscaler)).most_instances


def test_a_peak_that_is_too_much_for_a_while_is_said(make_scenario):
    load = load_of(make_scenario(arrivals={"kind": "steps", "steps": [[0, 2], [100, 20]]}))

    assert load.has_steady_state
    assert pytest.approx(2.0) == load.peak_cores
    assert "at its peak" in load.explain()


def test_a_closed_loop_always_has_a_steady_state(make_scenario):
    think = {"kind": "exponential", "mean_seconds": 0.1}
    load = load_of(make_scenario(arrivals={"kind": "closed", "users": 100, "think": think}))

    assert load.has_steady_state
    assert "always" in load.explain()
