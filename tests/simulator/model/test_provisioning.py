"""Machines that are ordered, come, are emptied and go."""

import pytest

from simulator.errors import SimulatorError
from simulator.metrics import summarise

FIXED = {"kind": "fixed", "seconds": 100.0}
AT_ONCE = {"kind": "fixed", "seconds": 0.0}
MACHINES = {"count": 1, "spec": {"cores": 2}}
UP_AND_DOWN = {"kind": "schedule", "times": [[0, 2], [50, 6], [400, 2]], "sync_seconds": 1.0}


@pytest.fixture
def ran(make_scenario, make_profile, run_logged):
    def run(duration=600.0, **settings):
        scenario = make_scenario(
            duration_seconds=duration,
            machines=MACHINES,
            autoscaler=UP_AND_DOWN,
            machine_autoscaler={"max_machines": 10, "provision": FIXED, "decision": AT_ONCE, **settings},
        )
        return run_logged(scenario, make_profile(fixed_seconds=1.0))

    return run


def test_instances_without_room_get_machines_a_while_later(ran):
    run = ran()
    assert 3 == len(run.times("machine-added"))
    added = run.times("machine-added")[1:]
    # Asked for within a second after 50 s, seen within 10 s, and there 100 s after that.
    assert all(150.0 <= seconds <= 161.0 for seconds in added)
    assert [added[0] + 1.0] * 4 == [pytest.approx(seconds) for seconds in run.times("instance-ready")[2:]]
    (decision,) = run.record.machine_decisions
    assert (4, 1, 2) == (decision.pending, decision.machines, decision.add)


def test_machines_without_work_go_after_a_while_and_are_paid_until_then(ran):
    run = ran(1200.0, unneeded_seconds=200.0, delay_after_add_seconds=0.0)
    removed = run.times("machine-removed")
    assert 2 == len(removed)
    assert all(600.0 <= seconds <= 625.0 for seconds in removed)
    lives = run.record.machines
    assert (0.0, 2) == (lives[0][0], sum(until < 1200 for _, until in lives))
    hours = sum(min(until, 1200.0) - since for since, until in lives) / 3600
    assert hours == pytest.approx(summarise(run.record).metrics["machine_hours"])


def test_what_runs_on_a_machine_that_goes_moves(make_scenario, make_profile, run_logged):
    """Three instances spread over three machines of two places each: one machine too many."""
    scenario = make_scenario(
        duration_seconds=300.0,
        machines={"count": 3, "spec": {"cores": 2}},
        autoscaler={"kind": "fixed", "instances": 3},
        machine_autoscaler={"max_machines": 3, "unneeded_seconds": 50.0, "delay_after_add_seconds": 0.0,
                            "scale_down_utilisation": 0.6},
    )  # fmt: skip
    run = run_logged(scenario, make_profile(fixed_seconds=1.0))
    assert 1 == len(run.times("machine-removed"))
    assert 3 == sum(each.state == "ready" for each in run.record.instances)
    assert 4 == len(run.record.instances)
    assert 0 == run.record.counts.failed


def test_a_machine_that_never_comes_is_given_up_and_noted(ran):
    run = ran(failure_probability=1.0, max_provision_seconds=60.0, failure_backoff_seconds=1000.0)
    assert 2 == len(run.times("fault", what="a machine that was ordered never came"))
    assert 1 == len(run.record.machines)


def test_machines_of_nothing_are_refused(make_scenario, make_profile, run_logged):
    scenario = make_scenario(
        machines={"count": 1, "spec": {"cores": 2, "memory_bytes": 2**21, "reserved_bytes": 0}},
        machine_autoscaler={"max_machines": 10},
    )
    with pytest.raises(SimulatorError, match="not one instance fits on an empty machine"):
        run_logged(scenario, make_profile())


def test_platforms_wait_as_long_for_their_machines(make_scenario, make_profile, run_logged):
    """Common random numbers: the n-th order takes as long."""
    scenario = make_scenario(
        duration_seconds=600.0, machines=MACHINES, autoscaler=UP_AND_DOWN, machine_autoscaler={"max_machines": 10}
    )
    added = [run_logged(scenario, make_profile(fixed_seconds=each)).times("machine-added") for each in (0.1, 30.0)]
    assert added[0] == added[1]
    assert 3 == len(added[0])


def test_there_are_never_more_machines_than_the_most(make_scenario, make_profile, run_logged):
    """One that is lost comes back, so it counts."""
    scenario = make_scenario(
        duration_seconds=1500.0,
        machines={"count": 3, "spec": {"cores": 2}},
        autoscaler={"kind": "fixed", "instances": 6},
        machine_autoscaler={"max_machines": 3, "provision": FIXED},
        faults=[{"kind": "machine-loss", "mean_seconds_between": 300.0, "repair_seconds": 200.0}],
    )
    ran = run_logged(scenario, make_profile(fixed_seconds=1.0))
    assert len(ran.record.faults) > 3
    there = 0
    for kind in (event.kind for event in ran.events):
        there += (kind == "machine-added") - (kind == "machine-removed")
        assert there <= 3
