"""Start-up: phases in order, and what happens when many start at once."""

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.machine import Machine, MachineSpec
from simulator.datacenter.platforms import Phase, PlatformProfile, Startup
from simulator.datacenter.startup import predict_contention, start_up
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
