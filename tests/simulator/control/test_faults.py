"""When faults come: by their mean, by the seed, and none disturbed by another."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simulator.control.faults import Fault, TimedFault, draw, draw_crash, draw_machine
from simulator.statistics.streams import RandomStreams

MACHINES = [f"machine-{number}" for number in range(4)]
ZONES = ["a", "b"]
LONG = 1e6

KINDS = {
    "instance-crash": {},
    "kernel-crash": {"repair_seconds": 60},
    "machine-loss": {"repair_seconds": 600},
    "slow-machine": {"speed_factor": 0.5, "duration_seconds": 120},
    "registry-outage": {"duration_seconds": 300},
    "zone-loss": {"repair_seconds": 900},
}


def fault(kind: str, **more: object) -> Fault:
    return TypeAdapter(Fault).validate_python({"kind": kind, **KINDS[kind], **more})


def drawn(faults: list[Fault], *, seed: int = 1, duration: float = LONG) -> tuple[TimedFault, ...]:
    return draw(faults, RandomStreams(seed), duration, machines=MACHINES, zones=ZONES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_comes_once_where_its_moment_is_given(kind):
    timed = drawn([fault(kind, at_seconds=100)])
    lasts = {"instance-crash": 0, "kernel-crash": 60, "machine-loss": 600, "slow-machine": 120}
    lasts |= {"registry-outage": 300, "zone-loss": 900}

    assert [(100, 100 + lasts[kind])] == [(each.seconds, each.ends_seconds) for each in timed]
    assert () == drawn([fault(kind, at_seconds=100)], duration=100)


@pytest.mark.parametrize(
    ("kind", "things"), [("kernel-crash", 4), ("machine-loss", 4), ("slow-machine", 4), ("registry-outage", 1),
                         ("zone-loss", 2)],
)  # fmt: skip
def test_faults_by_a_mean_come_as_often_as_it_says(kind, things):
    each = fault(kind, mean_seconds_between=2000)
    count = len(drawn([each]))

    # A renewal process: `things * t / (mean + repair)` on average, and a variance of `mean² / (mean + repair)³` a
    # second (Cox, Renewal Theory, 1962). Within 4 standard deviations.
    cycle = 2000 + each.lasts_seconds
    expected, deviation = things * LONG / cycle, math.sqrt(things * LONG * 2000**2 / cycle**3)
    assert expected - 4 * deviation <= count <= expected + 4 * deviation


def test_a_thing_that_is_down_does_not_fail_again():
    timed = drawn([fault("machine-loss", mean_seconds_between=100)])
    for name in MACHINES:
        mine = [each for each in timed if each.target == name]
        assert len(mine) > 100
        assert all(after.seconds >= before.ends_seconds for before, after in pairwise(mine))


def test_instances_live_as_long_as_the_mean_says_each_by_itself():
    crash = [fault("instance-crash", mean_seconds_between=500)]
    ages = np.array([draw_crash(crash, RandomStreams(1), number).age_seconds for number in range(2000)])

    # Exponential: mean and standard deviation are equal.
    assert 500 == pytest.approx(ages.mean(), abs=4 * 500 / math.sqrt(2000))
    assert 500 * math.log(2) == pytest.approx(np.median(ages), abs=4 * 500 / math.sqrt(2000))
    assert math.inf == draw_crash([fault("instance-crash", at_seconds=5)], RandomStreams(1), 0).age_seconds


def test_of_two_crashes_an_instance_meets_the_first():
    rare, often = fault("instance-crash", mean_seconds_between=5000), fault("instance-crash", mean_seconds_between=50)
    met = [draw_crash([rare, often], RandomStreams(1), number) for number in range(300)]

    assert {rare, often} == {each.fault for each in met}
    alone = [draw_crash([rare], RandomStreams(1), number).age_seconds for number in range(300)]
    assert all(each.age_seconds <= age for each, age in zip(met, alone, strict=True))


@given(st.sets(st.sampled_from(sorted(KINDS))), st.sampled_from(sorted(KINDS)), st.integers(0, 5))
def test_another_kind_disturbs_none(others, kind, seed):
    mine = fault(kind, mean_seconds_between=9e4)
    before = [fault(other, mean_seconds_between=3e5) for other in sorted(others - {kind})]
    among = drawn([*before, mine], seed=seed)

    assert drawn([mine], seed=seed) == tuple(each for each in among if each.fault is mine)
    crash = draw_crash([mine], RandomStreams(seed), 3)
    if kind == "instance-crash":
        assert crash == draw_crash([*before, mine], RandomStreams(seed), 3)


def test_the_seed_decides():
    faults = [fault(kind, mean_seconds_between=5e4) for kind in KINDS]

    assert drawn(faults, seed=7) == drawn(faults, seed=7)
    assert drawn(faults, seed=7) != drawn(faults, seed=8)
    assert list(drawn(faults)) == sorted(drawn(faults), key=lambda each: each.seconds)


def test_more_machines_do_not_move_the_faults_of_the_others():
    faults = [fault("machine-loss", mean_seconds_between=5e4)]
    few = draw(faults, RandomStreams(1), LONG, machines=MACHINES[:2])

    assert few == tuple(each for each in drawn(faults) if each.target in MACHINES[:2])


def test_a_machine_that_comes_later_fails_only_then():
    faults = [fault("machine-loss", mean_seconds_between=1000), fault("zone-loss", mean_seconds_between=1000)]
    later = draw_machine(faults, RandomStreams(1), 2e5, machine="machine-9", since=1e5)

    assert {"machine-9"} == {each.target for each in later}
    assert all(1e5 <= each.seconds < 2e5 for each in later)
    assert () == draw_machine([fault("machine-loss", at_seconds=5)], RandomStreams(1), 2e5, machine="m", since=0)


def test_a_fault_can_be_of_one_machine_only():
    named = fault("slow-machine", mean_seconds_between=1e4, machine="machine-2")
    once = fault("machine-loss", at_seconds=5, machine="machine-1")

    assert {"machine-2"} == {each.target for each in drawn([named])}
    assert ["machine-1"] == [each.target for each in drawn([once])]
    assert () == draw_machine([named], RandomStreams(1), LONG, machine="machine-9", since=0)


def test_where_no_target_is_named_every_one_can_be_met():
    once = fault("machine-loss", at_seconds=5)
    met = [drawn([once], seed=seed)[0].choose(MACHINES) for seed in range(60)]

    assert set(MACHINES) == set(met)
    assert drawn([once])[0].choose([]) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "machine-loss", "repair_seconds": 5}, "either"),
        ({"kind": "machine-loss", "repair_seconds": 5, "at_seconds": 1, "mean_seconds_between": 1}, "either"),
        ({"kind": "machine-loss", "at_seconds": 1}, "repair_seconds"),
        ({"kind": "slow-machine", "at_seconds": 1, "speed_factor": 1.0, "duration_seconds": 5}, "speed_factor"),
        ({"kind": "slow-machine", "at_seconds": 1, "speed_factor": 0, "duration_seconds": 5}, "speed_factor"),
        ({"kind": "registry-outage", "at_seconds": -1, "duration_seconds": 5}, "at_seconds"),
        ({"kind": "meteor", "at_seconds": 1}, "kind"),
    ],
)
def test_impossible_faults_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Fault).validate_python(wrong)
