"""Density with overcommitment, merging, balloons and growth: held against an account that is filled to the brim."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.memory import (
    BalloonSettings,
    GuestMemory,
    InstanceMemory,
    KsmSettings,
    MemoryAccount,
    MemorySettings,
    WorkingSet,
    density,
)
from simulator.datacenter.platforms import PlatformProfile, Quantity
from simulator.errors import SimulatorError

MIB = 2**20
BASE = PlatformProfile.from_toml("vm-kvm")


def platform(private_mib, *, shared_mib=0.0, **changes):
    def quantity(mib):
        return Quantity(value=mib * MIB, low=mib * MIB, high=mib * MIB, kind="simulated", source="test")

    memory = {"private_bytes": private_mib, "shared_bytes": shared_mib, "kernel_bytes": 0}
    memory = BASE.memory.model_copy(update={name: quantity(mib) for name, mib in memory.items()})
    return BASE.model_copy(update={"memory": memory, **changes})


def machine(mib, **changes):
    return MachineSpec(memory_bytes=int(mib * MIB), reserved_bytes=0, **changes)


def limits(found):
    return {limit.name: limit.instances for limit in found.limits}


def test_without_settings_memory_is_one_limit():
    assert {"memory", "pids"} == set(limits(density(platform(10), machine(1000))))
    plain = density(platform(10), machine(1000), instance=InstanceMemory(guest=GuestMemory(vmm_mib=3)))
    assert {"memory", "pids"} == set(limits(plain))


def test_what_is_promised_binds_until_it_is_overcommitted():
    """A guest of 100 MiB touches 20 of them."""
    vm = InstanceMemory(guest=GuestMemory(ram_mib=100))
    found = density(platform(20), machine(1000), instance=vm)
    assert ("promised memory", 10) == (found.limit, found.instances)
    assert found.limits[0].reason == "(1 x 1000 MiB - 0.00 MiB shared) / 100.00 MiB promised to each"
    found = density(platform(20), machine(1000), instance=vm, settings=MemorySettings(overcommit=8))
    assert ("memory", 50) == (found.limit, found.instances)
    assert 80 == limits(found)["promised memory"]


def test_merging_and_ballooning_help_only_where_more_is_promised_than_there_is():
    vm = InstanceMemory(guest=GuestMemory(page_cache_mib=20))
    saving = {"ksm": KsmSettings(mergeable_fraction=0.5), "balloon": BalloonSettings()}
    careful = density(platform(20), machine(1000), instance=vm, settings=MemorySettings(**saving))
    assert ("promised memory", 25) == (careful.limit, careful.instances)
    bold = density(platform(20), machine(1000), instance=vm, settings=MemorySettings(overcommit=10, **saving))
    # 20 MiB are left of each after the balloon; all but the first share half of them: 20 + 98 * 10 = 1000.
    assert ("memory", 99) == (bold.limit, bold.instances)
    assert "less 10.00 MiB merged with others" in bold.limits[0].reason


def test_a_machine_must_hold_what_its_instances_grow_to():
    grown = InstanceMemory(working_set=WorkingSet(mib_per_hour=1, growth_mib=30))
    found = density(platform(20), machine(1000), instance=grown)
    assert {"memory": 20, "promised memory": 50} == {
        name: limits(found)[name] for name in ("memory", "promised memory")
    }
    leak = InstanceMemory(working_set=WorkingSet(mib_per_hour=1))
    assert 50 == density(platform(20), machine(1000), instance=leak).instances


def test_an_images_files_count_once_for_containers_and_once_each_for_guests():
    image = {"image": "web", "image_bytes": 30.0 * MIB}
    assert 97 == density(platform(10), machine(1000), instance=InstanceMemory(**image)).instances
    guest = InstanceMemory(guest=GuestMemory(), **image)
    assert 25 == density(platform(10), machine(1000), instance=guest).instances


def test_a_bridge_has_1024_numbers_and_zero_is_reserved():
    found = density(platform(0.1, bridge_ports=1023), machine(10_000))
    assert "1023 ports on one Linux bridge: 1024 numbers, of which 0 is reserved" == found.limits[0].reason


def test_what_contradicts_itself_is_refused():
    with pytest.raises(SimulatorError, match=r"guest\.ram_mib"):
        density(platform(30), machine(1000), instance=InstanceMemory(guest=GuestMemory(ram_mib=20)))


@given(
    st.floats(1, 60), st.floats(0, 40), st.floats(0, 1), st.floats(0, 30), st.none() | st.floats(70, 150),
    st.sampled_from([1.0, 1.5, 4.0]), st.none() | st.builds(
        KsmSettings, mergeable_fraction=st.floats(0, 0.9), max_page_sharing=st.integers(2, 6)
    ),
    st.booleans(), st.floats(0, 20),
)  # fmt: skip
@settings(deadline=None)
def test_as_many_as_density_says_fit_into_an_account(private, shared, vmm, cache, ram, ratio, ksm, balloon, growth):
    """One by one, each given the time to be merged, to give back and to grow."""
    memory = MemorySettings(overcommit=ratio, ksm=ksm, balloon=BalloonSettings() if balloon else None)
    instance = InstanceMemory(
        guest=GuestMemory(vmm_mib=private * vmm, page_cache_mib=cache, ram_mib=ram),
        working_set=WorkingSet(mib_per_hour=3600, growth_mib=growth),
    )
    profile = platform(private, shared_mib=shared)
    found = density(profile, machine(500), settings=memory, instance=instance)
    account = MemoryAccount(500.0 * MIB, settings=memory)

    def fill(count):
        for number in range(count):
            account.admit(number, profile, instance=instance, now=1e4 * number)
        return account.use(1e4 * (count + 1))

    room = 500 * MIB * (1 + 1e-9)
    assert fill(found.instances) <= room
    if found.limit == "promised memory":
        assert account.free_bytes < account.needed(profile, instance=instance) * (1 + 1e-9)
    else:
        account = MemoryAccount(500.0 * MIB, settings=memory.model_copy(update={"overcommit": 1000.0}))
        assert fill(found.instances + 1) > 500 * MIB * (1 - 1e-9)


@given(st.floats(1, 50), st.floats(0, 0.9), st.floats(1, 3))
def test_more_merging_or_more_memory_never_means_fewer(private, fraction, factor):
    vm = InstanceMemory(guest=GuestMemory())

    def fits(part, mib):
        memory = MemorySettings(overcommit=1000, ksm=KsmSettings(mergeable_fraction=part))
        return density(platform(private), machine(mib), settings=memory, instance=vm).instances

    assert fits(fraction / factor, 1000) <= fits(fraction, 1000) <= fits(fraction, 1000 * factor)
    assert math.floor(1000 / private) <= fits(fraction, 1000)
