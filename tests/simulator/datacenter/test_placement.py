"""Which machine an instance gets, and why; held against a placer that looks at every machine each time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from simulator.datacenter.machine import Machine, MachineSpec
from simulator.datacenter.memory import GuestMemory, InstanceMemory, MemoryAccount, MemorySettings
from simulator.datacenter.placement import POLICIES, Placer
from simulator.errors import SimulatorError

MIB = 2**20


def machine(name, *, zone="here", environment=None, **spec):
    spec = MachineSpec(**{"cores": 4, "memory_bytes": 1000 * MIB, "reserved_bytes": 0, **spec})
    return Machine(environment or Environment(), spec, name, zone=zone)


def placer(profile, *, count=3, policy="spread", cpu_cores=1.0, application_bytes=0.0, machines=None, **spec):
    if machines is None:
        machines = [machine(f"machine-{number}", **spec) for number in range(count)]
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


@given(st.lists(st.booleans(), max_size=60), st.sampled_from(sorted(POLICIES)))
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


def test_best_fit_fills_the_fullest_and_worst_fit_the_emptiest(make_profile):
    sizes = {"large": 8, "small": 2, "middle": 4}
    expected = {
        "best-fit": ["small", "small", "middle", "middle"],
        "worst-fit": ["large", "large", "large", "large"],
        "first-fit": ["large", "large", "large", "large"],
    }
    for policy, chosen in expected.items():
        machines = [machine(name, cores=cores) for name, cores in sizes.items()]
        assert chosen == names(placer(make_profile(), policy=policy, machines=machines), 4)


def test_spread_is_worst_fit(make_profile):
    assert names(placer(make_profile()), 12) == names(placer(make_profile(), policy="worst-fit"), 12)


def test_zone_spread_fills_the_emptiest_zone_first_however_many_machines_it_has(make_profile):
    machines = [machine("a-0", zone="a"), machine("a-1", zone="a"), machine("a-2", zone="a"), machine("b-0", zone="b")]
    placing = placer(make_profile(), policy="zone-spread", machines=machines)
    assert ["a-0", "b-0", "a-1", "b-0", "a-2", "b-0", "a-0", "b-0"] == names(placing, 8)
    # Zone b is full: zone a takes what comes, instead of leaving it without a place.
    placement = placing.place(8)
    assert "a-1" == placement.machine.name
    assert "zone-spread: a has 4 instances, the fewest with room; 3 free cores, 3 machines had room" == placement.reason


def test_a_machine_that_failed_or_is_slow_is_passed_over_with_its_reason(make_profile):
    machines = [machine(f"machine-{number}") for number in range(3)]
    placing = placer(make_profile(), policy="first-fit", machines=machines)
    placing.cordon(machines[0], "failed")
    placing.cordon(machines[1], "slow")
    assert ["machine-2"] * 4 == names(placing, 4)
    assert "none of 3 machines has room: 1 failed, 1 short of cores, 1 slow" == placing.place(4).reason
    placing.uncordon(machines[1])
    assert machines[1] is placing.place(4).machine
    with pytest.raises(SimulatorError, match="say why"):
        placing.cordon(machines[1], "")


def test_a_machine_goes_with_its_instances_and_another_comes(make_profile):
    machines = [machine(f"machine-{number}") for number in range(2)]
    placing = placer(make_profile(), policy="first-fit", machines=machines)
    names(placing, 6)
    assert (0, 1, 2, 3) == placing.remove_machine(machines[0])
    assert 0 == machines[0].memory.used_bytes
    assert (4, 5) == placing.instances_on(machines[1])
    assert ["machine-1", "machine-1"] == [placing.place(number).machine.name for number in (0, 1)]
    assert placing.place(2).machine is None
    new = machine("machine-2")
    placing.add_machine(new)
    assert new is placing.place(2).machine
    assert (machines[1], new) == placing.machines
    for stranger in (machines[0], machine("machine-1")):
        with pytest.raises(SimulatorError, match="not one of the machines"):
            placing.remove_machine(stranger)
    with pytest.raises(SimulatorError, match="already"):
        placing.add_machine(machine("machine-2"))
    placing.remove_machine(machines[1])
    placing.remove_machine(new)
    assert "there is no machine" == placing.place(9).reason


def test_what_others_take_is_seen_after_a_look(make_profile):
    alone = machine("machine-0")
    placing = placer(make_profile(private_bytes=600.0 * MIB), machines=[alone])
    alone.memory.admit("another's", make_profile(private_bytes=500.0 * MIB))
    placing.refresh(alone)
    assert "none of 1 machines has room: 1 short of memory" == placing.place(0).reason
    alone.memory.release("another's")
    placing.refresh(alone)
    assert alone is placing.place(0).machine


def test_what_is_reserved_is_of_cores_or_of_memory_whichever_is_more(make_profile):
    host = machine("host")
    for application_bytes, expected in ((0, 0.25), (499 * MIB, 0.5)):
        placing = placer(make_profile(), machines=[host], application_bytes=application_bytes)
        assert 0 == placing.reserved_on(host)
        placing.place(0)
        assert expected == placing.reserved_on(host)
        placing.release(0)


def test_overcommitted_machines_take_more_guests_than_they_have_memory_for(make_profile):
    fitting = {}
    for ratio in (1.0, 2.0):
        host = machine("host", cores=64)
        host.memory = MemoryAccount(host.spec.usable_bytes, "host", settings=MemorySettings(overcommit=ratio))
        instance = InstanceMemory(guest=GuestMemory(ram_mib=100))
        placing = Placer([host], make_profile(), policy="spread", cpu_cores=0.1, application_bytes=0, instance=instance)
        fitting[ratio] = placing.room_on(host)
        assert fitting[ratio] == sum(placing.place(number).machine is host for number in range(30))
    assert {1.0: 10, 2.0: 20} == fitting


@st.composite
def rooms(draw):
    """Machines of several sizes in some zones."""
    return [
        {
            "cores": draw(st.integers(1, 6)),
            "memory_bytes": draw(st.integers(1, 8)) * 64 * MIB,
            "pods_per_node": draw(st.none() | st.integers(1, 4)),
            "zone": draw(st.sampled_from("abc")),
        }
        for _ in range(draw(st.integers(1, 6)))
    ]


class Plain:
    """A placer that looks at every machine for every instance."""

    def __init__(self, machines, policy, each):
        self.free = {host.name: [host.spec.cores, host.spec.memory_bytes, 0] for host in machines}
        self.machines, self.policy, self.each = machines, policy, each
        self.zones = {host.zone: 0 for host in machines}
        self.closed = set()

    def choose(self):
        fitting = [
            host
            for host in self.machines
            if host.name not in self.closed
            and self.free[host.name][0] >= 1
            and self.free[host.name][1] >= self.each
            and (host.spec.pods_per_node is None or self.free[host.name][2] < host.spec.pods_per_node)
        ]
        if self.policy == "zone-spread" and fitting:
            zone = min({host.zone for host in fitting}, key=lambda zone: (self.zones[zone], zone))
            fitting = [host for host in fitting if host.zone == zone]
        keys = {
            "first-fit": lambda host: 0,
            "best-fit": lambda host: self.free[host.name][:2],
        }
        worst = lambda host: [-free for free in self.free[host.name][:2]]  # noqa: E731
        return min(fitting, key=keys.get(self.policy, worst), default=None)

    def take(self, host, sign):
        free = self.free[host.name]
        free[0] -= sign
        free[1] -= sign * self.each
        free[2] += sign
        self.zones[host.zone] += sign


@given(
    rooms(),
    st.sampled_from(sorted(POLICIES)),
    st.lists(st.sampled_from(["come", "come", "come", "go", "cordon", "uncordon", "lose"]), max_size=60),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_it_chooses_as_one_that_looks_at_every_machine(make_profile, room, policy, moves, random):
    machines = [machine(f"machine-{number}", **spec) for number, spec in enumerate(room)]
    placing = placer(make_profile(private_bytes=64.0 * MIB), policy=policy, machines=machines)
    plain = Plain(machines, policy, 64 * MIB)
    here = {}
    for number, move in enumerate(moves):
        if move == "come":
            expected, placement = plain.choose(), placing.place(number)
            assert expected is placement.machine
            assert placement.reason.startswith("none of" if expected is None else policy)
            if expected is not None:
                plain.take(expected, 1)
                here[number] = expected
        elif move == "go" and here:
            leaving = random.choice(sorted(here))
            placing.release(leaving)
            plain.take(here.pop(leaving), -1)
        elif move in ("cordon", "uncordon"):
            host = random.choice(plain.machines)
            if move == "cordon":
                placing.cordon(host)
                plain.closed.add(host.name)
            else:
                placing.uncordon(host)
                plain.closed.discard(host.name)
        elif move == "lose" and len(plain.machines) > 1:
            host = random.choice(plain.machines)
            gone = placing.remove_machine(host)
            assert sorted(each for each, where in here.items() if where is host) == sorted(gone)
            for each in gone:
                plain.take(here.pop(each), -1)
            plain.machines.remove(host)
        for host in plain.machines:
            assert sum(where is host for where in here.values()) == len(placing.instances_on(host))


@given(st.integers(1, 12), st.floats(0.1, 3), st.floats(0, 200), st.floats(0, 300), st.none() | st.integers(1, 9))
@settings(deadline=None)
def test_as_many_fit_as_it_says_have_room(make_profile, cores, each, private_mib, shared_mib, pods):
    profile = make_profile(private_bytes=private_mib * MIB)
    shared = profile.memory.shared_bytes.model_copy(update={"value": shared_mib * MIB})
    profile = profile.model_copy(update={"memory": profile.memory.model_copy(update={"shared_bytes": shared})})
    host = machine("host", cores=cores, pods_per_node=pods, pid_max=400)
    placing = placer(profile, machines=[host], cpu_cores=each)
    room = placing.room_on(host)
    for number in range(room):
        assert room - number == placing.room_on(host)
        assert placing.place(number).machine is host
    assert 0 == placing.room_on(host)
    assert placing.place(-1).machine is None
