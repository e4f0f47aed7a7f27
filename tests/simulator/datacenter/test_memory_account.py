"""One machine's memory over time: parts, merging, giving back, growth, and the exact end of it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from simulator.datacenter.memory import (
    BalloonSettings,
    Candidate,
    GuestMemory,
    InstanceMemory,
    KsmSettings,
    MemoryAccount,
    MemorySettings,
    WorkingSet,
    choose_victim,
    footprint,
)
from simulator.datacenter.platforms import PlatformProfile, Quantity
from simulator.errors import SimulatorError

MIB = 2**20
BASE = PlatformProfile.from_toml("vm-kvm")
GROWING = WorkingSet(mib_per_hour=3600)  # 1 MiB per second
PER_REQUEST = WorkingSet(mib_per_request=1)
KSM = KsmSettings(pages_to_scan=256, sleep_milliseconds=1000, cpu_microseconds_per_page=0, mergeable_fraction=0.5)
"""1 MiB per second, at no cost."""


def platform(private_mib, *, shared_mib=0.0, kernel_mib=0.0, name="vm"):
    def quantity(mib):
        return Quantity(value=mib * MIB, low=mib * MIB, high=mib * MIB, kind="simulated", source="test")

    memory = BASE.memory.model_copy(
        update={
            "private_bytes": quantity(private_mib),
            "shared_bytes": quantity(shared_mib),
            "kernel_bytes": quantity(kernel_mib),
        }
    )
    return BASE.model_copy(update={"memory": memory, "name": name})


def account(capacity_mib, **memory):
    return MemoryAccount(capacity_mib * MIB, "machine", settings=MemorySettings(**memory))


def guest(**changes):
    return InstanceMemory(guest=GuestMemory(**changes))


# Parts.


def test_an_images_files_are_there_once_for_containers_and_once_each_for_guests():
    image = {"image": "web", "image_bytes": 40.0 * MIB}
    containers, guests = account(1000), account(1000)
    for number in range(3):
        containers.admit(number, platform(2, shared_mib=5), instance=InstanceMemory(**image))
        guests.admit(number, platform(2, shared_mib=5), instance=InstanceMemory(guest=GuestMemory(), **image))
    assert (5 + 40 + 3 * 2) * MIB == containers.use()
    assert (5 + 3 * (40 + 2)) * MIB == guests.use()
    containers.admit("other", platform(2, shared_mib=5), instance=InstanceMemory(image="db", image_bytes=7.0 * MIB))
    assert (5 + 40 + 7 + 4 * 2) * MIB == containers.use()
    for number in range(3):
        containers.release(number)
    assert (5 + 7 + 2) * MIB == containers.use()


def test_the_parts_of_a_guest_are_told_apart():
    machine = account(1000)
    instance = guest(vmm_mib=10, kernel_mib=20, page_cache_mib=30, free_mib=4)
    machine.admit("vm", platform(35, kernel_mib=1), 7.0 * MIB, instance=instance)
    parts = machine.parts()
    assert [10, 20, 5, 34, 7, 1] == [
        size / MIB
        for size in (
            parts.vmm, parts.guest_kernel, parts.programs, parts.guest_cache, parts.application, parts.kernel_objects
        )
    ]  # fmt: skip
    assert parts.total == machine.use() == machine.used_bytes == 77 * MIB


@pytest.mark.parametrize(
    ("instance", "said"),
    [
        (guest(vmm_mib=30, kernel_mib=6), "private_bytes"),
        (guest(ram_mib=41), "guest.ram_mib"),
        (InstanceMemory(limit_bytes=41.0 * MIB), "memory limit"),
        (InstanceMemory(image_bytes=-1), "image_bytes"),
    ],
)
def test_what_contradicts_itself_is_refused(instance, said):
    with pytest.raises(SimulatorError, match=said):
        account(1000).admit("vm", platform(35), 7.0 * MIB, instance=instance)


def test_time_does_not_run_backwards_and_strangers_are_refused():
    machine = account(100)
    machine.admit("a", platform(1), now=10)
    with pytest.raises(SimulatorError, match="before"):
        machine.use(9)
    with pytest.raises(SimulatorError, match="holds no memory"):
        machine.requests("b", 1)
    with pytest.raises(SimulatorError, match="-1 requests"):
        machine.requests("a", -1)


# Overcommitment.


def test_a_guest_is_promised_more_than_it_touches():
    machine = account(1000, overcommit=2.0)
    for number in range(20):
        machine.admit(number, platform(30), instance=guest(vmm_mib=10, ram_mib=90))
    assert 20 * 100 * MIB == machine.used_bytes
    assert 20 * 30 * MIB == machine.use()
    assert not machine.fits(platform(30), instance=guest(vmm_mib=10, ram_mib=90))


# Merging.


def test_guests_are_merged_over_the_second_round():
    """Ten guests of 8 MiB are 80 s of looking at 1 MiB per second; half of each is the same in all."""
    machine = account(1000, ksm=KSM)
    for number in range(10):
        machine.admit(number, platform(8), instance=guest())
    assert 80 * MIB == machine.use(0) == machine.use(80)
    assert (80 - 18) * MIB == pytest.approx(machine.use(120))
    assert (80 - 36) * MIB == pytest.approx(machine.use(160)) == pytest.approx(machine.use(1e6))
    assert 36 * MIB == machine.merged_in_the_end()


def test_fewer_guests_are_gone_round_sooner_and_more_later():
    """A round is as long as what is offered: 16 MiB, then 8, then 24."""
    machine = account(1000, ksm=KSM)
    machine.admit("a", platform(8), instance=guest())
    machine.admit("b", platform(8), instance=guest())
    machine.release("b", now=16)
    machine.admit("c", platform(8), instance=guest(), now=24)  # a has been gone round twice
    machine.admit("d", platform(8), instance=guest(), now=24)
    assert 24 * MIB == pytest.approx(machine.use(24 + 24))
    assert (24 - 2 * 2) * MIB == pytest.approx(machine.use(24 + 36))
    assert (24 - 2 * 4) * MIB == pytest.approx(machine.use(24 + 48))


def test_the_kernels_defaults_take_three_quarters_of_an_hour_for_a_thousand_small_guests():
    """100 pages each 20 ms are 20 MB per second (ksm.rst); 27 GB twice are 2700 s of sleeping, and the looking."""
    machine = account(64 * 1024, ksm=KsmSettings())
    small = platform(27e6 / MIB)
    for number in range(1000):
        machine.admit(number, small, instance=guest())
    rate = 100 * 4096 / (0.020 + 100e-6)
    done = 2 * 27e9 / rate
    assert 44 * 60 < done < 46 * 60
    before, end = machine.use(done - 60), machine.use(done)
    assert end < before
    assert end == pytest.approx(machine.use(2 * done))
    # Four copies are kept of each page: one for every 256 guests.
    assert (1000 - 4) * 0.3 * 27e6 == pytest.approx(27e9 - end)


def test_merging_costs_the_processor_while_there_are_guests():
    ksm = KsmSettings(pages_to_scan=1000, sleep_milliseconds=20, cpu_microseconds_per_page=5)
    machine = account(1000, ksm=ksm)
    assert machine.merging_cores == 0
    machine.admit("container", platform(8), now=5)
    assert machine.merging_cores == 0
    machine.admit("vm", platform(8), instance=guest(), now=10)
    assert 0.2 == pytest.approx(machine.merging_cores)
    machine.release("vm", now=60)
    assert 10 == pytest.approx(machine.merging_cpu_seconds(100))


def test_the_machine_monitor_and_containers_are_never_merged():
    machine = account(1000, ksm=KSM)
    for number in range(4):
        machine.admit(("vm", number), platform(8), instance=guest(vmm_mib=6))
        machine.admit(("container", number), platform(8))
    assert 3 * 0.5 * 2 * MIB == pytest.approx(64 * MIB - machine.use(1e6))


def test_ksm_that_takes_no_time_is_refused():
    with pytest.raises(ValueError, match="sleep_milliseconds"):
        KsmSettings(sleep_milliseconds=0, cpu_microseconds_per_page=0)


# Giving back.


def test_a_balloon_gives_back_page_cache_and_free_pages_down_to_the_minimum():
    instance = guest(vmm_mib=10, page_cache_mib=20, free_mib=10)  # 20 + 30 MiB inside
    free = account(1000, balloon=BalloonSettings(mib_per_second=2))
    kept = account(1000, balloon=BalloonSettings(mib_per_second=2, minimum_mib=40))
    for machine in (free, kept):
        machine.admit("vm", platform(30), instance=instance, now=100)
        assert 60 * MIB == machine.use(100)
        assert 56 * MIB == pytest.approx(machine.use(102))
    assert 30 * MIB == pytest.approx(free.use(1e4))
    assert 50 * MIB == pytest.approx(kept.use(1e4))


def test_what_a_killed_program_had_stays_with_its_guest_until_it_gives_it_back():
    vm = InstanceMemory(guest=GuestMemory(ram_mib=60), working_set=GROWING)
    without, with_balloon = account(1000), account(1000, balloon=BalloonSettings(mib_per_second=4))
    container = account(1000)
    for machine in (without, with_balloon):
        machine.admit("vm", platform(20), instance=vm)
        machine.restart_program("vm", now=40)
    container.admit("vm", platform(20), instance=InstanceMemory(working_set=GROWING))
    container.restart_program("vm", now=40)
    assert 20 * MIB == pytest.approx(container.use(40))
    assert 60 * MIB == pytest.approx(without.use(40)) == pytest.approx(without.use(80))
    # 40 MiB shrink by 4 a second while the new program grows by 1: they meet after 8 s, at 8 MiB.
    assert 60 * MIB == pytest.approx(with_balloon.use(40))
    assert 28 * MIB == pytest.approx(with_balloon.use(48))
    assert 30 * MIB == pytest.approx(with_balloon.use(50))


# Growth, and the end of memory.


def test_the_moment_of_being_full_is_solved_for():
    machine = account(100)
    machine.admit("a", platform(30), instance=InstanceMemory(working_set=GROWING), now=5)
    assert 70 == pytest.approx(machine.seconds_until_full(5))
    machine.admit("b", platform(30), instance=InstanceMemory(working_set=GROWING), now=15)
    # 40 and 30 MiB by now, and two that grow.
    assert 15 == pytest.approx(machine.seconds_until_full(15))
    machine.release("a", now=20)
    assert 65 == pytest.approx(machine.seconds_until_full(20))


def test_the_kernel_kills_who_has_most():
    machine = account(100)
    machine.admit("small", platform(20), instance=InstanceMemory(working_set=GROWING))
    machine.admit("large", platform(50))
    event = machine.next_out_of_memory(0)
    assert ("machine", "large", 30) == (event.scope, event.instance, pytest.approx(event.seconds))
    assert "large has the most points of 2" in event.reason
    machine.release("large", now=event.seconds)
    event = machine.next_out_of_memory()
    assert ("small", 80) == (event.instance, pytest.approx(event.seconds))


def test_a_memory_limit_kills_in_the_container_and_a_guests_memory_in_the_guest():
    machine = account(1000)
    machine.admit("other", platform(500))
    machine.admit("container", platform(20), instance=InstanceMemory(working_set=GROWING, limit_bytes=50.0 * MIB))
    event = machine.next_out_of_memory(0)
    assert ("container", "container", 30) == (event.scope, event.instance, pytest.approx(event.seconds))
    machine.release("container")
    vm = InstanceMemory(working_set=GROWING, guest=GuestMemory(vmm_mib=10, page_cache_mib=20, ram_mib=60))
    machine.admit("vm", platform(20), instance=vm)
    event = machine.next_out_of_memory(0)
    assert ("guest", "vm", 50) == (event.scope, event.instance, pytest.approx(event.seconds))
    assert (500 + 70) * MIB == pytest.approx(machine.use(50)) == pytest.approx(machine.use(1000))
    machine.restart_program("vm", now=50)
    assert 100 == pytest.approx(machine.next_out_of_memory().seconds)


def test_requests_take_memory_and_give_it_back():
    machine = account(100)
    machine.admit("a", platform(90), instance=InstanceMemory(working_set=PER_REQUEST))
    assert machine.next_out_of_memory() is None
    machine.requests("a", 10, now=1)
    assert machine.next_out_of_memory() is None
    machine.requests("a", 11, now=2)
    assert 2 == machine.next_out_of_memory().seconds
    machine.requests("a", 0, now=3)
    assert 90 * MIB == machine.use()
    machine.release("a")
    assert machine.use() == 0


def test_what_stops_growing_in_time_never_fills_the_machine():
    machine = account(100)
    steady = WorkingSet(mib_per_hour=3600, growth_mib=69)
    machine.admit("a", platform(30), instance=InstanceMemory(working_set=steady))
    assert math.isinf(machine.seconds_until_full(0))
    assert machine.next_out_of_memory(0) is None
    assert 99 * MIB == pytest.approx(machine.use(1e5))


def test_merging_in_time_puts_off_the_end():
    """Two guests of 40 MiB share 20 after 160 s; the leak of a third fills what is left later than without."""
    moments = []
    for ksm in (None, KSM):
        machine = account(300, ksm=ksm)
        for number in range(2):
            machine.admit(number, platform(40), instance=guest())
        machine.admit("leak", platform(20), instance=InstanceMemory(working_set=GROWING))
        moments.append(machine.seconds_until_full(0))
    assert [200, 220] == pytest.approx(moments)


def test_a_leak_can_overtake_merging_that_is_under_way():
    """80 MiB of guests save half a MiB per second from 80 s on, less the first guest's part; the leak needs one."""
    machine = account(170, ksm=KSM)
    for number in range(2):
        machine.admit(number, platform(40), instance=guest())
    machine.admit("leak", platform(2), instance=InstanceMemory(working_set=GROWING))
    # 82 + 80 at 80 s, and from there on 1 - 20 / 80 a second.
    assert 80 + 8 / 0.75 == pytest.approx(machine.seconds_until_full(0))
    assert 8 / 0.75 - 5 == pytest.approx(machine.seconds_until_full(85))


def test_a_machine_whose_kills_are_obeyed_never_uses_more_than_it_has():
    """As a simulation does it: after each change ask for the next kill, and wake up then."""
    env = Environment()
    machine = account(400, ksm=KSM, overcommit=3.0)
    kills = []

    def watch():
        while (event := machine.next_out_of_memory(env.now)) is not None:
            yield env.timeout(event.seconds - env.now)
            kills.append(event)
            if event.scope == "machine":
                machine.release(event.instance, now=env.now)
            else:
                machine.restart_program(event.instance, now=env.now)
            assert machine.use(env.now) <= machine.capacity_bytes * (1 + 1e-9)
            if len(kills) == 12:
                return

    for number in range(4):
        growing = InstanceMemory(working_set=GROWING, limit_bytes=(60 + 10 * number) * MIB)
        machine.admit(("container", number), platform(20), instance=growing)
        vm = InstanceMemory(guest=GuestMemory(vmm_mib=5, ram_mib=80), working_set=GROWING)
        machine.admit(("vm", number), platform(25), instance=vm)
    env.process(watch())
    env.run()
    assert {"machine", "container", "guest"} == {event.scope for event in kills}
    assert [event.seconds for event in kills] == sorted(event.seconds for event in kills)


def test_the_points_are_the_kernels():
    """oom_badness: resident pages, page tables, and thousandths of all memory."""
    total = 1000 * 1000 * 4096.0
    assert 51200 + 100 == Candidate("a", 200.0 * MIB, 0).badness(total)
    assert 51200 + 100 + 1000 * 500 == Candidate("a", 200.0 * MIB, 500).badness(total)
    victim, why = choose_victim([Candidate("big", 900.0 * MIB, -1000), Candidate("b", 1.0, 0)], total)
    assert victim.instance == "b"
    equals = [Candidate("first", 5.0 * MIB, 0), Candidate("last", 5.0 * MIB, 0)]
    victim, why = choose_victim(equals, total)
    assert victim.instance == "last"
    assert "youngest" in why
    assert choose_victim([Candidate("a", 1.0, -1000)], total) == (None, "nobody may be killed: the kernel panics")


def test_adjusted_instances_are_killed_first_and_merged_pages_still_count():
    machine = account(1000, ksm=KSM)
    for number in range(2):
        machine.admit(number, platform(100), instance=guest())
    machine.admit("small", platform(5), instance=InstanceMemory(oom_score_adj=1000))
    assert "small" == machine.victim(1e6)[0]
    machine.release("small", now=1e6)
    machine.admit("container", platform(80))
    assert 1 == machine.victim(1e6)[0]  # 50 MiB of its 100 are another's, and count all the same


# Whatever happens.

sizes = st.floats(1, 50)
rates = st.sampled_from([0.0, 0.0, 36.0, 3600.0])


@st.composite
def machines(draw):
    """A machine with instances of many kinds, admitted and released at some moments; and the moment of the last."""
    machine = account(
        10_000,
        overcommit=draw(st.sampled_from([1.0, 4.0])),
        ksm=draw(st.sampled_from([None, KSM, KSM.model_copy(update={"max_page_sharing": 2})])),
        balloon=draw(st.sampled_from([None, BalloonSettings(mib_per_second=0.5, minimum_mib=10)])),
    )
    now = 0.0
    present = []
    for number in range(draw(st.integers(1, 12))):
        now += draw(st.floats(0, 200))
        if present and draw(st.booleans()) and draw(st.booleans()):
            machine.release(present.pop(draw(st.integers(0, len(present) - 1))), now=now)
            continue
        private = draw(sizes)
        growth = draw(st.none() | st.floats(0, 100))
        instance = InstanceMemory(
            working_set=WorkingSet(mib_per_hour=draw(rates), growth_mib=growth, mib_per_request=1),
            guest=draw(
                st.none()
                | st.builds(
                    GuestMemory,
                    vmm_mib=st.just(private / 4),
                    page_cache_mib=st.floats(0, 30),
                    free_mib=st.floats(0, 30),
                    ram_mib=st.none() | st.floats(60, 200),
                )
            ),
        )
        kind = draw(st.sampled_from(["a", "b"]))
        machine.admit(number, platform(private, shared_mib=3, name=kind), 5.0 * MIB, instance=instance, now=now)
        if draw(st.booleans()):
            machine.requests(number, draw(st.integers(0, 5)), now=now)
        present.append(number)
    return machine, present, now


@given(machines(), st.floats(0, 5000))
@settings(deadline=None)
def test_parts_add_up_none_is_negative_and_no_more_is_saved_than_can_be(made, later):
    machine, _, now = made
    parts = machine.parts(now + later)
    assert machine.use(now + later) == pytest.approx(parts.total, abs=1e-3)
    assert all(getattr(parts, name) >= 0 for name in parts.__dataclass_fields__)
    assert 0 <= parts.merged <= machine.merged_in_the_end() * (1 + 1e-12)
    inside = parts.programs + parts.guest_kernel + parts.guest_cache + parts.application
    assert parts.merged + parts.given_back <= inside
    assert parts.given_back <= parts.guest_cache * (1 + 1e-12)
    assert parts.total >= -1e-3


@given(machines(), st.floats(0, 5000), st.floats(1e-6, 1))
@settings(deadline=None)
def test_use_has_no_jumps_while_nothing_happens(made, later, step):
    machine, present, now = made
    # Nothing grows, gives back or is merged faster than this.
    fastest = len(present) * 1.5 * MIB + 2 * MIB
    before, after = machine.use(now + later), machine.use(now + later + step)
    assert abs(after - before) <= fastest * step + 1e-2


@given(machines(), st.floats(0, 3000))
@settings(deadline=None)
def test_whoever_goes_leaves_no_less_memory_and_the_victim_leaves_more(made, later):
    machine, present, now = made
    moment = now + later
    victim, _ = machine.victim(moment)
    if victim is None:
        assert not present
        return
    before = machine.use(moment)
    machine.release(victim, now=moment)
    assert machine.use() < before
    for name in [name for name in present if name != victim]:
        before = machine.use()
        machine.release(name)
        assert machine.use() <= before + 1e-3
    assert machine.use() == 0
    assert machine.used_bytes == 0


@given(machines(), st.floats(0.01, 1.5))
@settings(deadline=None)
def test_the_machine_is_not_full_before_it_is(made, part):
    """The moment is where use passes the capacity: less before, at it then, and never without one."""
    machine, _, now = made
    machine.capacity_bytes = machine.use(now) * part + MIB
    seconds = machine.seconds_until_full(now)
    moments = [now + min(seconds, 1e5) * step / 50 for step in range(50)]
    assert all(machine.use(moment) <= machine.capacity_bytes * (1 + 1e-9) for moment in moments[: 50 if seconds else 0])
    if math.isinf(seconds):
        assert machine.use(1e9) <= machine.capacity_bytes * (1 + 1e-9)
    elif seconds:
        assert machine.capacity_bytes == pytest.approx(machine.use(now + seconds), rel=1e-9)
        assert machine.use(now + seconds + 1e-3) > machine.capacity_bytes * (1 - 1e-9)
    else:
        assert machine.use(now) > machine.capacity_bytes


@given(st.lists(st.tuples(sizes, st.floats(0, 1), st.none() | st.floats(60, 200)), max_size=30))
def test_what_is_promised_once_and_does_not_grow_is_never_short(asked):
    machine = account(500, ksm=KSM, balloon=BalloonSettings())
    for number, (private, vmm, ram) in enumerate(asked):
        instance = guest(vmm_mib=private * vmm, page_cache_mib=20, ram_mib=ram)
        if machine.fits(platform(private), instance=instance):
            machine.admit(number, platform(private), instance=instance)
    assert machine.use(0) <= machine.used_bytes * (1 + 1e-9)
    assert machine.next_out_of_memory(0) is None


@given(st.integers(0, 40), sizes, st.floats(0, 50))
def test_without_settings_it_is_the_footprint_of_the_profile(count, private, shared):
    machine = account(10_000)
    for number in range(count):
        machine.admit(number, platform(private, shared_mib=shared), 5.0 * MIB)
    expected = footprint(platform(private, shared_mib=shared).memory, count, 5.0 * MIB)
    assert expected == pytest.approx(machine.use(123))
    assert expected == pytest.approx(machine.used_bytes)
