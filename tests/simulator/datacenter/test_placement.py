import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from simulator.datacenter.machine import Machine, MachineSpec
from simulator.datacenter.placement import Placer
from simulator.errors import SimulatorError

MIB = 2**20


def placer(profile, *, count=3, policy="spread", cpu_cores=1.0, application_bytes=0.0, **spec):
    spec = MachineSpec(**{"cores": 4, "memory_bytes": 1000 * MIB, "reserved_bytes": 0, **spec})
    environment = Environment()
    machines = [Machine(environment, spec, f"machine-{number}") for number in range(count)]
    return Placer(machines, profile, policy=policy, cpu_cores=cpu_cores, application_bytes=application_bytes)


def names(placing, count):
    return [placement.machine.name for placement in (placing.place(number) for number in range(count))]


def test_first_fit_fills_one_machine_after_the_other(make_profile):
    assert ["machine-0"] * 4 + ["machine-1"] * 2 == names(placer(make_profile(), policy="first-fit"), 6)


def test_spread_takes_the_emptiest(make_profile):
    assert [f"machine-{number}" for number in (0, 1, 2, 0, 1, 2)] == names(placer(make_profile()), 6)


@pytest.mark.parametrize(
    ("changes", "lack"),
    [
        ({"cpu_cores": 1.5}, "cores"),
        ({"application_bytes": 300 * MIB, "cpu_cores": 0.1}, "memory"),
        ({"cpu_cores": 0.1, "pids": 2}, "pids"),
        ({"cpu_cores": 0.1, "pods_per_node": 3}, "pods per node"),
        ({"cpu_cores": 0.1, "ports": 3}, "bridge ports"),
    ],
)
def test_where_no_machine_has_room_it_says_what_is_short(make_profile, changes, lack):
    profile = make_profile()
    if "ports" in changes:
        profile = profile.model_copy(update={"bridge_ports": changes.pop("ports")})
    if "pids" in changes:
        profile = profile.model_copy(update={"pids_per_instance": (4194304 - 300) // changes.pop("pids")})
    placing = placer(profile, count=2, **changes)
    placement = placing.place(0)
    number = 0
    while placement.machine is not None:
        number += 1
        placement = placing.place(number)

    assert number > 1
    assert f"none of 2 machines has room: 2 short of {lack}" == placement.reason


@given(st.lists(st.booleans(), max_size=60), st.sampled_from(["first-fit", "spread"]))
@settings(deadline=None)
def test_room_is_never_promised_twice_and_comes_back(make_profile, moves, policy):
    placing = placer(make_profile(), policy=policy)
    here: dict[int, str] = {}
    for number, comes in enumerate(moves):
        if comes:
            machine = placing.place(number).machine
            assert (machine is None) == (len(here) == 12)
            if machine is not None:
                here[number] = machine.name
        elif here:
            leaving = next(iter(here))
            placing.release(leaving)
            del here[leaving]
        assert all(list(here.values()).count(name) <= 4 for name in set(here.values()))


def test_an_unknown_policy_and_double_or_unknown_instances_are_refused(make_profile):
    with pytest.raises(SimulatorError, match="unknown"):
        placer(make_profile(), policy="best")
    placing = placer(make_profile())
    placing.place(1)
    with pytest.raises(SimulatorError, match="already"):
        placing.place(1)
    with pytest.raises(SimulatorError, match="no place"):
        placing.release(2)
