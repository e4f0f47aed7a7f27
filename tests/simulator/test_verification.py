"""The simulator against queueing theory, as a person runs it: the figures of `simulator.run`, within their interval.

An interval of 99.9 % that the theory must lie in, and that must be narrow, or it would say nothing.
"""

import pytest

import simulator
from simulator.evidence.theory import (
    erlang_b,
    mdc_mean_wait,
    mg1_mean_wait,
    mmc_mean_wait,
    mmck,
    supermarket_mean_sojourn,
)
from simulator.statistics.intervals import t_interval

DEMAND = 0.1
REPLICATIONS = 16
REQUESTS = 30_000
"""In each replication, warm-up included."""
UNBOUNDED = 1_000_000


def interval_of(metric, make_scenario, make_profile, *, seconds, rate, demand, instances=1, seed=7, **more):
    """The 99.9 % interval of a metric, over replications of so many seconds after a tenth of warm-up."""
    workers = more.pop("workers", 1)
    scenario = make_scenario(
        duration_seconds=float(seconds),
        warm_up_seconds=seconds / 10,
        machines={"count": instances, "spec": {"cores": workers}},
        application={
            "demand": {"mean_seconds": DEMAND, **demand},
            "workers": workers,
            "queue_limit": more.pop("queue_limit", UNBOUNDED),
        },
        arrivals={"kind": "poisson", "rate_per_second": rate},
        autoscaler={"kind": "fixed", "instances": instances},
        **more,
    )
    result = simulator.run(scenario, platform=make_profile(), seed=seed, replications=REPLICATIONS)
    return t_interval([replication.metrics[metric] for replication in result.replications], 0.999)


def assert_holds(theory, interval, narrow):
    assert interval.low <= theory <= interval.high
    assert interval.half_width < narrow * theory, "an interval that holds everything says nothing"


@pytest.mark.parametrize(("workers", "load"), [(1, 0.6), (3, 0.8), (10, 0.8)])
def test_mmc_answers_in_the_time_of_erlang_c(make_scenario, make_profile, workers, load):
    rate = load * workers / DEMAND
    interval = interval_of(
        "mean_seconds", make_scenario, make_profile,
        seconds=REQUESTS / rate, rate=rate, demand={"kind": "exponential"}, workers=workers,
    )  # fmt: skip

    assert_holds(DEMAND + mmc_mean_wait(workers, rate, DEMAND), interval, 0.08)


@pytest.mark.parametrize(("workers", "load"), [(1, 0.8), (4, 2.0), (10, 12.0)])
def test_a_loss_system_turns_away_what_erlang_b_says(make_scenario, make_profile, workers, load):
    interval = interval_of(
        "rejected_fraction", make_scenario, make_profile,
        seconds=REQUESTS * DEMAND / load, rate=load / DEMAND, demand={"kind": "exponential"},
        workers=workers, queue_limit=0,
    )  # fmt: skip

    assert_holds(erlang_b(workers, load), interval, 0.08)


@pytest.mark.parametrize(("kind", "more"), [("deterministic", {}), ("lognormal", {"coefficient_of_variation": 2.0})])
def test_what_a_loss_system_turns_away_does_not_depend_on_how_demands_vary(make_scenario, make_profile, kind, more):
    interval = interval_of(
        "rejected_fraction", make_scenario, make_profile,
        seconds=REQUESTS * DEMAND / 4, rate=4 / DEMAND, demand={"kind": kind, **more}, workers=5, queue_limit=0,
    )  # fmt: skip

    assert_holds(erlang_b(5, 4.0), interval, 0.08)


@pytest.mark.parametrize("load", [1.5, 2.5])
def test_a_queue_of_bounded_length_blocks_and_waits_as_mmck(make_scenario, make_profile, load):
    theory = mmck(2, 5, load / DEMAND, DEMAND)
    asked = {"seconds": REQUESTS * DEMAND / load, "rate": load / DEMAND, "demand": {"kind": "exponential"}}
    limits = {"workers": 2, "queue_limit": 3}

    blocked = interval_of("rejected_fraction", make_scenario, make_profile, **asked, **limits)
    assert_holds(theory.blocked, blocked, 0.1)
    answered = interval_of("mean_seconds", make_scenario, make_profile, **asked, **limits)
    assert_holds(theory.mean_wait + DEMAND, answered, 0.05)


@pytest.mark.parametrize("coefficient", [0.5, 1.5])
def test_mg1_answers_in_the_time_of_pollaczek_and_khinchine(make_scenario, make_profile, coefficient):
    interval = interval_of(
        "mean_seconds", make_scenario, make_profile,
        seconds=REQUESTS / 6, rate=6.0, demand={"kind": "lognormal", "coefficient_of_variation": coefficient},
    )  # fmt: skip

    assert_holds(DEMAND + mg1_mean_wait(6.0, DEMAND, coefficient), interval, 0.08)


@pytest.mark.parametrize(("workers", "load"), [(1, 0.8), (2, 0.8), (5, 0.9)])
def test_mdc_answers_in_the_time_of_crommelin(make_scenario, make_profile, workers, load):
    rate = load * workers / DEMAND
    interval = interval_of(
        "mean_seconds", make_scenario, make_profile,
        seconds=REQUESTS / rate, rate=rate, demand={"kind": "deterministic"}, workers=workers,
    )  # fmt: skip

    assert_holds(DEMAND + mdc_mean_wait(workers, rate, DEMAND), interval, 0.08)


def test_one_random_choice_splits_a_stream_into_queues_of_their_own(make_scenario, make_profile):
    interval = interval_of(
        "mean_seconds", make_scenario, make_profile,
        seconds=REQUESTS / 48, rate=48.0, demand={"kind": "exponential"}, instances=8, balancer="random",
    )  # fmt: skip

    assert_holds(supermarket_mean_sojourn(1, 6.0, DEMAND), interval, 0.08)
