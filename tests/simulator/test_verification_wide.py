"""The rest of the model against queueing theory: sharing, choices among many, closed loops, and laws that always hold.

As in `test_verification.py`: the figures of `simulator.run`, within an interval that is narrow.
"""

import pytest

import simulator
from simulator.evidence.theory import (
    bounded_pareto_coefficient_of_variation,
    bounded_pareto_moment,
    closed_loop,
    interactive_response_time,
    mean_value_analysis,
    mg1_mean_wait,
    mmck,
    ps_mean_sojourn,
    shared_cores_mean_sojourn,
    supermarket_mean_sojourn,
)
from simulator.statistics.intervals import t_interval

DEMAND = 0.1
REPLICATIONS = 16
REQUESTS = 24_000
"""In each replication, warm-up included."""
UNBOUNDED = 1_000_000

VARIED = [
    {"kind": "deterministic", "mean_seconds": DEMAND},
    {"kind": "exponential", "mean_seconds": DEMAND},
    {"kind": "lognormal", "mean_seconds": DEMAND, "coefficient_of_variation": 2.0},
]
"""Demands of one mean that vary not at all, as usual, and much."""


def replications_of(make_scenario, make_profile, *, seconds, arrivals, application, instances=1, **more):
    workers = application.get("workers", 1)
    scenario = make_scenario(
        duration_seconds=float(seconds),
        warm_up_seconds=seconds / 10,
        machines={"count": instances, "spec": {"cores": workers}},
        application={"queue_limit": UNBOUNDED, **application},
        arrivals=arrivals,
        autoscaler={"kind": "fixed", "instances": instances},
        **more,
    )
    return simulator.run(scenario, platform=make_profile(), seed=11, replications=REPLICATIONS).replications


def poisson(rate):
    return {"kind": "poisson", "rate_per_second": rate}


def interval_of(metric, replications):
    return t_interval([replication.metrics[metric] for replication in replications], 0.999)


def assert_holds(theory, interval, narrow):
    assert interval.low <= theory <= interval.high
    assert interval.half_width < narrow * theory, "an interval that holds everything says nothing"


@pytest.mark.parametrize("demand", VARIED, ids=lambda demand: demand["kind"])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_sharing_one_core_takes_as_long_however_demands_vary(make_scenario, make_profile, demand, load):
    rate = load / DEMAND
    found = replications_of(
        make_scenario, make_profile, seconds=REQUESTS / rate, arrivals=poisson(rate),
        application={"demand": demand, "discipline": "sharing"},
    )  # fmt: skip

    assert_holds(ps_mean_sojourn(rate, DEMAND), interval_of("mean_seconds", found), 0.1)


@pytest.mark.parametrize("demand", VARIED, ids=lambda demand: demand["kind"])
def test_sharing_several_cores_takes_as_long_however_demands_vary(make_scenario, make_profile, demand):
    rate = 0.8 * 4 / DEMAND
    found = replications_of(
        make_scenario, make_profile, seconds=REQUESTS / rate, arrivals=poisson(rate),
        application={"demand": demand, "discipline": "sharing", "workers": 4},
    )  # fmt: skip

    assert_holds(shared_cores_mean_sojourn(4, rate, DEMAND), interval_of("mean_seconds", found), 0.08)


def test_sharing_with_a_bounded_number_inside_blocks_as_mmck(make_scenario, make_profile):
    # The number inside is the same chain as with a queue, and does not depend on how demands vary.
    rate = 1.2 / DEMAND
    found = replications_of(
        make_scenario, make_profile, seconds=REQUESTS / rate, arrivals=poisson(rate),
        application={"demand": VARIED[2], "discipline": "sharing", "queue_limit": 4},
    )  # fmt: skip
    theory = mmck(1, 5, rate, DEMAND)

    assert_holds(theory.blocked, interval_of("rejected_fraction", found), 0.1)
    assert_holds(theory.mean_wait + DEMAND, interval_of("mean_seconds", found), 0.08)


@pytest.mark.parametrize("choices", [1, 2, 3])
def test_the_least_loaded_of_a_few_is_the_supermarket_model(make_scenario, make_profile, choices):
    servers, load = 200, 0.8
    rate = load / DEMAND * servers
    found = replications_of(
        make_scenario, make_profile, seconds=80_000 / rate, arrivals=poisson(rate),
        application={"demand": VARIED[1]}, instances=servers,
        balancer={"kind": "power-of-choices", "choices": choices},
    )  # fmt: skip
    low, high = interval_of("mean_seconds", found)[1:]
    theory = supermarket_mean_sojourn(choices, load / DEMAND, DEMAND)

    # The theory is for infinitely many servers; with n of them it is off by a few n-ths.
    allowed = 2 / servers
    assert low * (1 - allowed) <= theory <= high * (1 + allowed)
    assert high - low < 0.08 * theory


@pytest.mark.parametrize(("users", "workers"), [(5, 1), (20, 1), (30, 4)])
def test_a_closed_loop_is_the_machine_repair_model(make_scenario, make_profile, users, workers):
    theory = closed_loop(users, 1.0, workers, DEMAND)
    seconds = REQUESTS / theory.throughput
    found = replications_of(
        make_scenario, make_profile, seconds=seconds,
        arrivals={"kind": "closed", "users": users, "think": {"kind": "exponential", "mean_seconds": 1.0}},
        application={"demand": VARIED[1], "workers": workers},
    )  # fmt: skip

    assert_holds(theory.response, interval_of("mean_seconds", found), 0.08)
    rates = t_interval([replication.completed / seconds for replication in found], 0.999)
    assert_holds(theory.throughput, rates, 0.02)
    if workers == 1:
        assert mean_value_analysis(users, 1.0, [DEMAND]) == pytest.approx(theory)


@pytest.mark.parametrize("think", VARIED, ids=lambda think: think["kind"])
def test_how_thinking_varies_does_not_matter_where_work_is_shared(make_scenario, make_profile, think):
    theory = closed_loop(12, 1.0, 2, DEMAND)
    thinking = {**think, "mean_seconds": 1.0}
    found = replications_of(
        make_scenario, make_profile, seconds=REQUESTS / theory.throughput,
        arrivals={"kind": "closed", "users": 12, "think": thinking},
        application={"demand": VARIED[2], "workers": 2, "discipline": "sharing"},
    )  # fmt: skip

    assert_holds(theory.response, interval_of("mean_seconds", found), 0.08)


@pytest.mark.parametrize("balancer", ["random", "round-robin", "least-connections", "join-idle-queue"])
def test_the_interactive_law_holds_for_any_service(make_scenario, make_profile, balancer):
    seconds, users = 4000.0, 40
    found = replications_of(
        make_scenario, make_profile, seconds=seconds, instances=3, balancer=balancer,
        arrivals={"kind": "closed", "users": users, "think": {"kind": "lognormal", "mean_seconds": 1.0}},
        application={"demand": VARIED[2]},
    )  # fmt: skip
    for replication in found:
        # A law and no approximation: what is left is the edge, a request or so of each user, and the warm-up.
        law = interactive_response_time(users, replication.completed / seconds, 1.0)
        assert law == pytest.approx(replication.metrics["mean_seconds"], rel=0.1)
    differences = [
        interactive_response_time(users, each.completed / seconds, 1.0) - each.metrics["mean_seconds"] for each in found
    ]
    assert abs(t_interval(differences, 0.999).value) < 0.02


def test_a_heavy_tail_waits_as_its_second_moment_says(make_scenario, make_profile):
    shape, minimum, maximum = 1.5, 0.03, 3.0
    mean = bounded_pareto_moment(shape, minimum, maximum)
    variation = bounded_pareto_coefficient_of_variation(shape, minimum, maximum)
    rate = 0.5 / mean
    demand = {"kind": "bounded-pareto", "shape": shape, "minimum_seconds": minimum, "maximum_seconds": maximum}
    found = replications_of(
        make_scenario, make_profile, seconds=REQUESTS / rate, arrivals=poisson(rate), application={"demand": demand}
    )

    assert_holds(mean + mg1_mean_wait(rate, mean, variation), interval_of("mean_seconds", found), 0.1)
