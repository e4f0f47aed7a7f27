"""Instances, start-ups and neighbours on the same cores."""

import pytest

from simulator.errors import SimulatorError
from simulator.evidence.theory import ps_mean_sojourn
from simulator.metrics import summarise
from simulator.model import Model
from simulator.statistics.intervals import t_interval

ONE_CORE = {"count": 1, "spec": {"cores": 1}, "cores": "shared"}
ALWAYS_BUSY = {"kind": "closed", "users": 20, "think": {"kind": "deterministic", "mean_seconds": 0.001}}
WORK = {"demand": {"kind": "exponential", "mean_seconds": 0.1}, "queue_limit": 1000, "cpu_cores": 0.1}


def throughput(make_scenario, make_profile, **changes):
    """Requests a second of a service that always has some, in units of what one core gives."""
    scenario = make_scenario(
        duration_seconds=2000.0, arrivals=ALWAYS_BUSY, application={**WORK, **changes.pop("application", {})},
        **{"machines": ONE_CORE, **changes},
    )  # fmt: skip
    record = Model(scenario, make_profile(), seed=3).run()
    return record.counts.completed * 0.1 / 2000


def test_many_workers_on_one_core_are_processor_sharing(make_scenario, make_profile):
    """M/M/1-PS: its mean depends on the load alone."""
    scenario = make_scenario(
        duration_seconds=3000.0,
        warm_up_seconds=100.0,
        machines=ONE_CORE,
        application={**WORK, "workers": 500},
        arrivals={"kind": "poisson", "rate_per_second": 6.0},
    )
    means = [
        summarise(Model(scenario, make_profile(), seed=2, replication=number).run()).metrics["mean_seconds"]
        for number in range(12)
    ]
    interval = t_interval(means, confidence=0.99)
    assert interval.low <= ps_mean_sojourn(6.0, 0.1) <= interval.high


@pytest.mark.parametrize(
    ("neighbour", "share"),
    [
        ({"threads": 1}, 1 / 2),
        ({"threads": 8}, 1 / 2),  # weight is a group's, however many threads it has
        ({"threads": 8, "cpu_weight": 3.0}, 1 / 4),
        ({"threads": 8, "cpu_limit": 0.2}, 0.8),
        ({"threads": 8, "from_seconds": 500.0, "until_seconds": 1500.0}, 3 / 4),
    ],
)
def test_a_noisy_neighbour_takes_its_share_and_a_limit_holds_it(make_scenario, make_profile, neighbour, share):
    got = throughput(make_scenario, make_profile, machines={**ONE_CORE, "neighbours": [neighbour]})
    assert share == pytest.approx(got, rel=0.04)


def test_a_limit_of_its_own_holds_an_instance(make_scenario, make_profile):
    got = throughput(make_scenario, make_profile, application={"workers": 4, "cpu_limit": 0.3})
    assert 0.3 == pytest.approx(got, rel=0.04)


def test_two_instances_share_a_machine_evenly_and_two_machines_do_not_share(make_scenario, make_profile):
    two = {"autoscaler": {"kind": "fixed", "instances": 2}, "application": {**WORK, "workers": 4}}
    together = throughput(make_scenario, make_profile, **two)
    apart = throughput(make_scenario, make_profile, machines={**ONE_CORE, "count": 2}, **two)
    assert (1.0, 2.0) == (pytest.approx(together, rel=0.04), pytest.approx(apart, rel=0.04))


def test_a_slow_machine_serves_slower_while_it_is_slow(make_scenario, make_profile):
    slow = {"kind": "slow-machine", "at_seconds": 500.0, "duration_seconds": 1000.0, "speed_factor": 0.5}
    assert 3 / 4 == pytest.approx(throughput(make_scenario, make_profile, faults=[slow]), rel=0.04)


def test_start_ups_share_the_cores_with_requests_and_slow_both(make_scenario, make_profile, run_logged):
    """A start of 10 CPU seconds beside an instance that is always busy takes 20."""
    profile = make_profile(cpu_seconds=10.0)
    steps = {"kind": "schedule", "times": [[0, 1], [100, 2]]}
    scenario = make_scenario(
        duration_seconds=200.0,
        machines=ONE_CORE,
        application={**WORK, "workers": 1, "ready_seconds": 0.0},
        arrivals=ALWAYS_BUSY,
        autoscaler=steps,
    )
    shared = run_logged(scenario, profile)
    began, ended = shared.times("instance-starting", instance=1)[0], shared.times("instance-ready", instance=1)[0]
    assert 20.0 == pytest.approx(ended - began, rel=1e-6)
    alone = run_logged(scenario.model_copy(update={"machines": make_scenario().machines}), profile)
    began, ended = alone.times("instance-starting", instance=1)[0], alone.times("instance-ready", instance=1)[0]
    assert 10.0 == pytest.approx(ended - began, rel=1e-6)


@pytest.mark.parametrize("other", ["python"])
def test_planes_that_share_cores_give_the_same(make_scenario, make_profile, other):
    pytest.importorskip("numba")
    scenario = make_scenario(
        duration_seconds=300.0,
        machines={"count": 3, "spec": {"cores": 2}, "cores": "shared", "neighbours": [{"machine": "machine-1"}]},
        application={**WORK, "workers": 3, "cpu_limit": 1.5},
        arrivals={"kind": "steps", "steps": [[0, 8], [60, 40], [150, 8]]},
        autoscaler={"kind": "hpa", "max_instances": 12},
        faults=[
            {"kind": "instance-crash", "mean_seconds_between": 200.0},
            {"kind": "slow-machine", "at_seconds": 70.0, "duration_seconds": 60.0, "speed_factor": 0.5},
        ],
        client={"timeout_seconds": 2.0, "retries": 2},
    )
    profile = make_profile(cpu_seconds=2.0)
    results = [
        summarise(Model(scenario, profile, seed=9, data_plane=plane).run(), with_episode=True)
        for plane in ("numba", other)
    ]
    assert results[0] == results[1]


def test_what_needs_shared_cores_says_so(make_scenario, make_profile):
    with pytest.raises(SimulatorError, match="`processes` shares no cores"):
        Model(make_scenario(machines=ONE_CORE), make_profile(), seed=1, data_plane="processes")
    with pytest.raises(ValueError, match="`neighbours` share a machine's cores"):
        make_scenario(machines={"count": 1, "neighbours": [{}]})
    with pytest.raises(ValueError, match="slow-machine"):
        make_scenario(faults=[{"kind": "slow-machine", "at_seconds": 1, "duration_seconds": 1, "speed_factor": 0.5}])
    with pytest.raises(ValueError, match="there is no machine-7"):
        make_scenario(machines={**ONE_CORE, "neighbours": [{"machine": "machine-7"}]})
