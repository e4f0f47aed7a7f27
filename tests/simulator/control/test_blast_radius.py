"""What a fault takes, by how the platform isolates, and how long it is felt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from simulator.control.blast_radius import Endangered, blast_radius, instances_recovered, objective_recovered
from simulator.control.faults import Fault, TimedFault
from simulator.errors import SimulatorError

MACHINES = {"m0": "a", "m1": "a", "m2": "b"}
INSTANCES = [
    Endangered(number, machine, zone, number != 4, 10 + number)
    for number, (machine, zone) in enumerate([("m0", "a"), ("m1", "a"), ("m0", "a"), ("m2", "b"), ("m0", "a")])
]
"""Three on m0, of which the last is not ready; one on m1 and one on m2."""

MORE = {"slow-machine": {"speed_factor": 0.5, "duration_seconds": 9}, "registry-outage": {"duration_seconds": 9}}


def timed(kind: str, target: str = "", choice: float = 0.0) -> TimedFault:
    more = MORE.get(kind, {"repair_seconds": 9})
    fault = TypeAdapter(Fault).validate_python({"kind": kind, "at_seconds": 100, **more})
    return TimedFault(100, 109, fault, target, choice)


def test_a_kernel_takes_every_container_of_its_machine():
    blast = blast_radius(timed("kernel-crash", "m0"), INSTANCES, MACHINES, shares_host_kernel=True)

    assert (0, 2, 4) == blast.lost
    assert (10 + 12 + 14, 4, 2, 0.5) == (blast.requests, blast.ready_before, blast.ready_lost, blast.fraction)
    assert "share its kernel" in blast.reason


@pytest.mark.parametrize(("choice", "lost"), [(0.0, 0), (0.34, 2), (0.99, 4)])
def test_a_kernel_of_its_own_takes_one_virtual_machine(choice, lost):
    blast = blast_radius(timed("kernel-crash", "m0", choice), INSTANCES, MACHINES, shares_host_kernel=False)

    assert (lost,) == blast.lost
    assert 10 + lost == blast.requests


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize(
    ("kind", "target", "lost", "slowed"),
    [
        ("instance-crash", "", (3,), ()),
        ("machine-loss", "m0", (0, 2, 4), ()),
        ("slow-machine", "m0", (), (0, 2, 4)),
        ("registry-outage", "", (), ()),
        ("zone-loss", "a", (0, 1, 2, 4), ()),
        ("zone-loss", "b", (3,), ()),
    ],
)
def test_all_else_takes_as_much_on_every_platform(kind, target, lost, slowed, shares):
    blast = blast_radius(timed(kind, target, 0.99), INSTANCES, MACHINES, shares_host_kernel=shares)

    assert (lost, slowed) == (blast.lost, blast.slowed)
    assert sum(10 + number for number in lost) == blast.requests


def test_a_machine_without_instances_and_one_that_is_not_up_cost_nothing():
    empty = blast_radius(timed("machine-loss", "m3"), INSTANCES, {**MACHINES, "m3": "b"}, shares_host_kernel=True)
    assert ("m3", ()) == (empty.target, empty.lost)
    gone = blast_radius(timed("machine-loss", "m9"), INSTANCES, MACHINES, shares_host_kernel=True)
    assert ("", ()) == (gone.target, gone.lost)
    assert "m9 is not up" in gone.reason
    assert 0.0 == blast_radius(timed("instance-crash"), [], {}, shares_host_kernel=True).fraction


@given(
    st.sampled_from(["instance-crash", "kernel-crash", "machine-loss", "slow-machine", "registry-outage", "zone-loss"]),
    st.floats(0, 1, exclude_max=True),
    st.lists(st.tuples(st.sampled_from(sorted(MACHINES)), st.booleans(), st.integers(0, 9)), max_size=12),
)
def test_isolation_never_makes_a_fault_larger(kind, choice, contents):
    instances = [
        Endangered(number, machine, MACHINES[machine], ready, requests if ready else 0)
        for number, (machine, ready, requests) in enumerate(contents)
    ]
    shared = blast_radius(timed(kind, "", choice), instances, MACHINES, shares_host_kernel=True)
    apart = blast_radius(timed(kind, "", choice), instances, MACHINES, shares_host_kernel=False)

    assert set(apart.lost) <= set(shared.lost)
    assert apart.requests <= shared.requests <= sum(each.requests for each in instances)
    assert shared.ready_lost <= shared.ready_before
    assert not set(shared.lost) & set(shared.slowed)


TIMELINE = [(0, 4), (100, 2), (130, 3), (150, 4), (170, 3), (190, 4)]


def test_it_is_over_when_as_many_are_ready_as_before():
    recovery = instances_recovered(100, 4, TIMELINE)

    assert 50 == recovery.seconds
    assert "down to 2" in recovery.reason


def test_where_fewer_are_wanted_meanwhile_that_is_enough():
    assert 30 == instances_recovered(100, 4, TIMELINE, wanted=3).seconds
    assert 50 == instances_recovered(100, 4, TIMELINE, wanted=9).seconds


def test_it_can_be_felt_not_at_all_or_to_the_end():
    assert 0.0 == instances_recovered(100, 2, TIMELINE).seconds
    never = instances_recovered(100, 5, TIMELINE)
    assert never.seconds is None
    assert "not 5 ready" in never.reason


def test_the_objective_holds_again_with_the_first_window_in_which_it_does():
    windows = [(90, False), (100, True), (110, True), (120, False), (130, False), (140, True), (150, False)]

    assert 40 == objective_recovered(100, windows).seconds
    assert 0.0 == objective_recovered(100, windows[:3]).seconds
    assert objective_recovered(100, windows[:5]).seconds is None


def test_a_timeline_out_of_order_is_refused():
    with pytest.raises(SimulatorError, match="order"):
        instances_recovered(0, 1, [(5, 1), (4, 1)])
