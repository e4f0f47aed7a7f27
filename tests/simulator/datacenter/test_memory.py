"""Memory and density: the arithmetic, the limit that binds, and an account that never goes below zero."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.memory import MemoryAccount, density, footprint, marginal, proportional_set_size
from simulator.datacenter.platforms import Memory, PlatformProfile, Quantity
from simulator.errors import SimulatorError

MIB = 2**20


def quantity(value, low=None, high=None):
    return Quantity(value=value, low=value if low is None else low, high=high or value, kind="measured", source="test")


def memory(private, shared=0.0, kernel=0.0):
    return Memory(private_bytes=quantity(private), shared_bytes=quantity(shared), kernel_bytes=quantity(kernel))


def platform(private, shared=0.0, kernel=0.0, **changes):
    return PlatformProfile.from_toml("vm-kvm").model_copy(update={"memory": memory(private, shared, kernel), **changes})


def test_shared_pages_are_counted_once():
    assert footprint(memory(10, shared=100, kernel=5), 4) == 100 + 4 * 15
    assert footprint(memory(10, shared=100, kernel=5), 0) == 0
    assert marginal(memory(10, shared=100, kernel=5), application_bytes=7) == 22


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(1, 1000))
def test_proportional_set_sizes_add_up_to_all_but_the_kernels_memory(private, shared, count):
    of_each = proportional_set_size(memory(private, shared), count)
    assert footprint(memory(private, shared), count) == pytest.approx(count * of_each)


LIMITS = {
    "memory": ({}, {}, {}, 1000),
    "bridge ports": ({}, {"bridge_ports": 50}, {}, 50),
    "pids": ({"pid_max": 700, "reserved_pids": 300}, {"pids_per_instance": 4}, {}, 100),
    "cpu reservation": ({"cores": 3}, {}, {"cpu_reservation": 0.1}, 30),
    "pods per node": ({"pods_per_node": 110}, {}, {}, 110),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_tightest_limit_is_named(name):
    machine, changes, options, expected = LIMITS[name]
    spec = MachineSpec(memory_bytes=1010 * MIB, reserved_bytes=0, **machine)
    found = density(platform(MIB, shared=10 * MIB, **changes), spec, **options)
    assert (name, expected) == (found.limit, found.instances)
    assert found.limits[0].name == name
    assert [limit.instances for limit in found.limits] == sorted(limit.instances for limit in found.limits)
    assert "memory" in {limit.name for limit in found.limits}


def test_the_interval_of_memory_becomes_one_of_density():
    wide = Memory(private_bytes=quantity(2.0, 1.0, 4.0), shared_bytes=quantity(0), kernel_bytes=quantity(0))
    found = density(platform(1).model_copy(update={"memory": wide}), MachineSpec(memory_bytes=400, reserved_bytes=0))
    assert (100, 200, 400) == (found.low, found.instances, found.high)


def test_a_machine_too_small_for_the_shared_pages_takes_none():
    assert density(platform(1, shared=100), MachineSpec(memory_bytes=50, reserved_bytes=0)).instances == 0


def test_a_published_part_makes_the_density_published():
    assert density(PlatformProfile.from_toml("vm-kvm"), MachineSpec()).kind == "published"
    assert density(platform(MIB), MachineSpec()).kind == "measured"


@pytest.mark.parametrize("wrong", [{"application_bytes": -1}, {"cpu_reservation": 0}])
def test_impossible_demands_are_refused(wrong):
    with pytest.raises(SimulatorError, match="density"):
        density(platform(1), MachineSpec(), **wrong)


sizes = st.floats(1, 1e9)


@given(sizes, sizes, sizes, st.integers(1, 2**36), st.floats(1, 3))
def test_density_falls_with_what_an_instance_needs_and_grows_with_memory(private, shared, kernel, total, factor):
    spec = MachineSpec(memory_bytes=total, reserved_bytes=0)
    found = density(platform(private, shared, kernel), spec).instances
    assert density(platform(private * factor, shared, kernel), spec).instances <= found
    assert density(platform(private, shared * factor, kernel), spec).instances <= found
    assert density(platform(private, shared, kernel), spec, application_bytes=private).instances <= found
    larger = MachineSpec(memory_bytes=int(total * factor), reserved_bytes=0)
    assert density(platform(private, shared, kernel), larger).instances >= found


@given(sizes, sizes, sizes, st.integers(1, 2**34))
def test_as_many_as_density_says_fit_and_one_more_does_not(private, shared, kernel, total):
    profile = platform(private, shared, kernel)
    found = density(profile, MachineSpec(memory_bytes=total, reserved_bytes=0))
    if found.limit == "memory":
        assert found.instances == 0 or footprint(profile.memory, found.instances) <= total * (1 + 1e-9)
        assert footprint(profile.memory, found.instances + 1) >= total * (1 - 1e-9)


class Account(RuleBasedStateMachine):
    """Instances of two platforms come and go in any order."""

    def __init__(self):
        super().__init__()
        self.account = MemoryAccount(1000.0)
        self.platforms = {"a": platform(30.1, 100, 3, name="a"), "b": platform(200.7, 0, 0.3, name="b")}
        self.present = {}

    def expected(self):
        return sum(
            footprint(profile.memory, sum(where == name for where in self.present.values()))
            for name, profile in self.platforms.items()
        )

    @rule(name=st.sampled_from("ab"), number=st.integers(0, 40))
    def admit(self, name, number):
        profile = self.platforms[name]
        if number in self.present:
            with pytest.raises(SimulatorError, match="admitted already"):
                self.account.admit(number, profile)
        elif self.account.fits(profile):
            self.account.admit(number, profile)
            self.present[number] = name
        else:
            with pytest.raises(SimulatorError, match="another machine"):
                self.account.admit(number, profile)

    @precondition(lambda self: self.present)
    @rule(data=st.data())
    def release(self, data):
        number = data.draw(st.sampled_from(sorted(self.present)))
        self.account.release(number)
        del self.present[number]

    @rule()
    def release_a_stranger(self):
        with pytest.raises(SimulatorError, match="holds no memory"):
            self.account.release("stranger")

    @invariant()
    def it_holds_what_the_model_says(self):
        assert self.expected() == pytest.approx(self.account.used_bytes)
        assert 0 <= self.account.used_bytes <= self.account.capacity_bytes
        assert self.account.free_bytes == self.account.capacity_bytes - self.account.used_bytes


TestAccount = Account.TestCase
