"""Start-up: phases in order, and what happens when many start at once."""

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.images import ImageLayer, ImageSpec, RegistrySettings
from simulator.datacenter.machine import Machine, MachineSpec
from simulator.datacenter.platforms import Phase, PlatformProfile, Startup
from simulator.datacenter.registry import Registry
from simulator.datacenter.startup import predict_contention, predict_sequence, start_up
from simulator.errors import SimulatorError

durations = st.floats(0, 2)
slices = st.sampled_from([0.0, 0.1, 10.0])
"""0 is for processor sharing."""


@st.composite
def phases(draw):
    cpu = draw(durations)
    return phase(cpu, draw(durations), draw(st.sampled_from([None, "rtnl", "mount"])), draw(st.floats(0, 1)) * cpu)


def phase(cpu=0.0, fixed=0.0, lock=None, parallel=0.0, name="phase"):
    return Phase(
        name=name,
        cpu_seconds=cpu,
        fixed_seconds=fixed,
        lock=lock,
        parallel_cpu_seconds=parallel,
        kind="measured",
        source="t",
    )


def profile(*steps):
    base = PlatformProfile.from_toml("vm-kvm")
    startup = Startup(total_seconds=base.startup.total_seconds, phases=steps)
    return base.model_copy(update={"startup": startup})


def test_phases_follow_each_other_and_are_observed():
    env = simpy.Environment()
    machine = Machine(env, MachineSpec(cores=1), "m0")
    steps = profile(phase(cpu=1, name="clone"), phase(fixed=2, name="wait"), phase(cpu=1, fixed=1, name="exec"))
    seen = []
    process = env.process(start_up(machine, steps, observe=lambda p, begin, end: seen.append((p.name, begin, end))))
    assert env.run(process) == 5
    assert seen == [("clone", 0, 1), ("wait", 1, 3), ("exec", 3, 5)]


def test_cpu_is_shared_and_fixed_delays_overlap():
    # Two on one core: 2 s of work each take 4; the delay of 3 passes for both at the same time.
    np.testing.assert_allclose(predict_contention(MachineSpec(cores=1), profile(phase(cpu=2, fixed=3)), 2), [7, 7])


def test_with_time_slices_the_phases_of_one_start_up_are_one_turn():
    # Shorter together than a slice: first come, first served, as if there were one phase.
    spec = MachineSpec(cores=1, time_slice_seconds=10)
    np.testing.assert_allclose(predict_contention(spec, profile(phase(cpu=1), phase(cpu=2)), 3), [3, 6, 9])
    # A delay between them gives up the core, so all first phases come first.
    np.testing.assert_allclose(predict_contention(spec, profile(phase(cpu=1, fixed=1), phase(cpu=2)), 3), [5, 7, 9])


def test_a_lock_makes_one_wait_for_the_other_even_where_a_core_is_free():
    np.testing.assert_allclose(
        predict_contention(MachineSpec(cores=8), profile(phase(cpu=1, lock="rtnl")), 3), [1, 2, 3]
    )


def test_a_second_thread_needs_a_second_core():
    two_threads = profile(phase(cpu=2, parallel=1))
    np.testing.assert_allclose(predict_contention(MachineSpec(cores=2), two_threads, 1), [2])
    np.testing.assert_allclose(predict_contention(MachineSpec(cores=1), two_threads, 1), [3])


def test_the_longer_of_two_threads_comes_first():
    with pytest.raises(ValueError, match="must not exceed"):
        phase(cpu=1, parallel=2)


@given(st.lists(phases(), min_size=1, max_size=4), st.integers(2, 6), st.integers(1, 4), slices)
def test_several_at_once_are_never_faster_than_one(steps, concurrency, cores, slice_seconds):
    spec = MachineSpec(cores=cores, time_slice_seconds=slice_seconds)
    (alone,) = predict_contention(spec, profile(*steps), 1)
    together = predict_contention(spec, profile(*steps), concurrency)
    assert (together >= alone * (1 - 1e-9)).all()
    # Nor do they take longer than one after another would.
    assert together.max() <= alone * concurrency * (1 + 1e-9)


@given(st.lists(phases(), min_size=1, max_size=4), st.integers(1, 6), slices)
def test_prediction_is_deterministic(steps, concurrency, slice_seconds):
    spec = MachineSpec(cores=2, speed_when_busy={"compute": (1.0, 0.8)}, time_slice_seconds=slice_seconds)
    first, second = (predict_contention(spec, profile(*steps), concurrency) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("slice_seconds", [0.0, 0.3])
@pytest.mark.parametrize("when", [0.5, 1.5, 2.5, 3.5])
def test_interrupted_at_any_point_it_leaves_no_work_and_no_lock_behind(when, slice_seconds):
    env = simpy.Environment()
    machine = Machine(env, MachineSpec(cores=1, time_slice_seconds=slice_seconds), "m0")
    steps = profile(phase(cpu=1), phase(cpu=1, lock="rtnl"), phase(fixed=1), phase(cpu=1, parallel=1))

    def impatient():
        try:
            yield from start_up(machine, steps)
        except simpy.Interrupt:
            return "stopped"

    process = env.process(impatient())

    def stop():
        yield env.timeout(when)
        process.interrupt()

    env.process(stop())
    assert env.run(process) == "stopped"
    assert machine.cores.active == 0
    assert machine.lock("rtnl").count == 0
    begin = env.now
    assert env.run(env.process(start_up(machine, steps))) == pytest.approx(5)
    assert env.now == pytest.approx(begin + 5)


def test_interrupted_while_it_waits_for_a_lock_it_leaves_the_queue():
    env = simpy.Environment()
    machine = Machine(env, MachineSpec(cores=4), "m0")
    steps = profile(phase(cpu=2, lock="rtnl"))

    def one():
        try:
            yield from start_up(machine, steps)
        except simpy.Interrupt:
            return None
        return env.now

    first, waiting, last = (env.process(one()) for _ in range(3))

    def stop():
        yield env.timeout(1)
        waiting.interrupt()

    env.process(stop())
    env.run()
    assert [2, None, 4] == [first.value, waiting.value, last.value]


def test_none_at_once_is_refused():
    with pytest.raises(SimulatorError, match="at least one"):
        predict_contention(MachineSpec(), profile(phase(cpu=1)), 0)


def test_each_start_works_longer_beside_those_that_run():
    growing = phase(cpu=1).model_copy(update={"cpu_seconds_per_running": 0.5, "cpu_seconds_per_running_squared": 0.25})
    np.testing.assert_allclose(predict_sequence(MachineSpec(), profile(growing), 4), [1, 1.75, 3, 4.75])
    with pytest.raises(SimulatorError, match="at least one"):
        predict_sequence(MachineSpec(), profile(growing), 0)


def test_a_slower_start_than_usual_is_slower_in_all_that_it_does():
    env = simpy.Environment()
    machine = Machine(env, MachineSpec(cores=2), "m0")
    steps = profile(phase(cpu=2, fixed=1, parallel=1))
    assert env.run(env.process(start_up(machine, steps, factor=1.5))) == pytest.approx(4.5)


IMAGE = ImageSpec(
    layers=(
        ImageLayer(name="base", compressed_mib=40, unpacked_mib=100),
        ImageLayer(name="app", compressed_mib=10, unpacked_mib=20),
    ),
    unpack_cpu_seconds_per_mib=0.01,
    read_fraction=0.5,
)
SPEC = MachineSpec(cores=4, link_mib_per_second=10, disk_mib_per_second=100, disk_operation_seconds=0.0)


@pytest.fixture
def cold():
    """An empty machine and a registry."""
    env = simpy.Environment()
    machine = Machine(env, SPEC, "m0")
    return machine, Registry(env, machine.network, RegistrySettings(bandwidth_mib_per_second=1000))


def warmly(cold, warmth, **more):
    machine, registry = cold
    steps = profile(phase(cpu=1))
    start = start_up(machine, steps, image=IMAGE, warmth=warmth, registry=registry, **more)
    return machine.env.run(machine.env.process(start))


def test_each_rung_of_the_ladder_saves_what_the_one_below_did(cold):
    seen = []
    took = warmly(cold, "cold", observe=lambda step, begin, end: seen.append((step.name, end - begin)))
    # The base: at first both layers come at 5 MiB/s each, so app is there at 2 s and base at 5 s, and is then unpacked
    # in 1 s of CPU beside 1 s of disk; app after it in 0.2 s. What was just written need not be read.
    assert [("download", 5.0), ("unpack", 1.2), ("read", 0.0), ("phase", 1.0)] == [
        (name, pytest.approx(seconds)) for name, seconds in seen
    ]
    assert took == pytest.approx(7.2)
    cold[0].page_cache.drop()
    assert warmly(cold, "disk-warm") == pytest.approx(1 + 0.5 * 120 / 100)
    assert warmly(cold, "memory-warm") == pytest.approx(1)
    # On the machine that has it, a cold start has nothing left to pull, and a disk-warm one nothing to read.
    assert warmly(cold, "cold") == pytest.approx(1)
    assert warmly(cold, "disk-warm") == pytest.approx(1)


@given(st.sampled_from(["container-dockerd", "microvm-firecracker", "vm-kvm"]), st.integers(1, 5))
def test_a_colder_start_is_never_faster(name, concurrency):
    def last(warmth):
        env = simpy.Environment()
        machine = Machine(env, SPEC, "m0")
        registry = Registry(env, machine.network)
        platform = PlatformProfile.from_toml(name)
        for _ in range(concurrency):
            env.process(start_up(machine, platform, image=IMAGE, warmth=warmth, registry=registry))
        env.run()
        return env.now

    assert last("memory-warm") <= last("disk-warm") <= last("cold")


def test_those_that_start_together_read_the_image_once():
    env = simpy.Environment()
    machine = Machine(env, SPEC, "m0")
    starts = [
        env.process(start_up(machine, profile(phase(fixed=1)), image=IMAGE, warmth="disk-warm")) for _ in range(3)
    ]
    env.run()
    assert [pytest.approx(1.6)] * 3 == [start.value for start in starts]
    assert machine.disk.busy_seconds == pytest.approx(0.6)


def test_many_small_reads_cost_more_than_few_large_ones():
    def took(operation_mib):
        env = simpy.Environment()
        machine = Machine(env, SPEC.model_copy(update={"disk_operation_seconds": 0.001}), "m0")
        image = IMAGE.model_copy(update={"read_operation_mib": operation_mib})
        return env.run(env.process(start_up(machine, profile(phase()), image=image, warmth="disk-warm")))

    assert took(1.0) == pytest.approx(0.6 + 60 * 0.001)
    assert took(0.1) == pytest.approx(0.6 + 600 * 0.001)


def test_the_platforms_own_files_are_read_once_and_not_where_they_are_in_memory():
    env = simpy.Environment()
    machine = Machine(env, SPEC, "m0")
    steps = profile(phase(cpu=1).model_copy(update={"read_mib": 50.0}))

    def start(warmth):
        return env.run(env.process(start_up(machine, steps, warmth=warmth)))

    assert [1.0, 1.5, 1.0] == pytest.approx([start("memory-warm"), start("disk-warm"), start("disk-warm")])


def test_a_snapshot_has_phases_of_its_own():
    env = simpy.Environment()
    machine = Machine(env, MachineSpec(), "m0")
    for name in ("microvm-firecracker", "unikernel"):
        platform = PlatformProfile.from_toml(name)
        took = env.run(env.process(start_up(machine, platform, warmth="snapshot")))
        assert platform.snapshot.total_seconds.value == pytest.approx(took)
    with pytest.raises(SimulatorError, match="container: its profile has no `snapshot`"):
        env.run(env.process(start_up(machine, PlatformProfile.from_toml("container"), warmth="snapshot")))


def test_a_cold_start_needs_an_image_and_a_registry(cold):
    machine, _ = cold
    for more, wanted in (({}, "image"), ({"image": IMAGE}, "registry")):
        with pytest.raises(SimulatorError, match=f"give `{wanted}`"):
            machine.env.run(machine.env.process(start_up(machine, profile(phase()), warmth="cold", **more)))


@given(st.floats(0, 8), st.sampled_from(["cold", "disk-warm"]))
def test_interrupted_with_an_image_it_leaves_nothing_behind_but_what_it_pulled(when, warmth):
    env = simpy.Environment()
    machine = Machine(env, SPEC.model_copy(update={"image_cache_mib": 130.0}), "m0")
    registry = Registry(env, machine.network)

    def impatient():
        try:
            yield from start_up(machine, profile(phase(cpu=1)), image=IMAGE, warmth=warmth, registry=registry)
        except simpy.Interrupt:
            return
        machine.images.release(IMAGE)

    process = env.process(impatient())

    def stop():
        yield env.timeout(when)
        if process.is_alive:
            process.interrupt()

    env.process(stop())
    env.run()
    assert (0, 0, 0) == (machine.cores.active, machine.disk.active, machine.network.active)
    # All of the room can be had by another image, so nothing is still in use.
    other = ImageSpec(layers=(ImageLayer(name="other", compressed_mib=1, unpacked_mib=130),))
    machine.images.put(other)
    assert machine.images.has(other)


def test_a_start_that_came_to_its_end_keeps_its_image():
    env = simpy.Environment()
    machine = Machine(env, SPEC.model_copy(update={"image_cache_mib": 130.0}), "m0")
    env.run(env.process(start_up(machine, profile(phase()), image=IMAGE, warmth="disk-warm")))
    other = ImageSpec(layers=(ImageLayer(name="other", compressed_mib=1, unpacked_mib=130),))
    with pytest.raises(SimulatorError, match="does not fit"):
        machine.images.put(other)
    machine.images.release(IMAGE)
    machine.images.put(other)
    assert not machine.images.has(IMAGE)
