"""The cores, shared exactly or in turns: checked on cases done by hand, by invariants, and against theory."""

from itertools import pairwise

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.cores import SharedCores
from simulator.datacenter.time_slices import TimeSlicedCores
from simulator.errors import SimulatorError
from simulator.evidence.theory import mmc_mean_wait
from simulator.statistics.intervals import t_interval

arrivals = st.lists(
    st.tuples(st.floats(0, 10), st.floats(1e-6, 5), st.sampled_from(["compute", "fork"])), min_size=1, max_size=25
)
speeds = st.fixed_dictionaries({"fork": st.lists(st.floats(0.2, 1), min_size=1, max_size=4)})


slices = st.sampled_from([None, 0.1, 1.0, 100.0])
"""None is for processor sharing."""


def make(env, count, speed=None, slice_seconds=None):
    if slice_seconds is None:
        return SharedCores(env, count, speed)
    return TimeSlicedCores(env, count, slice_seconds, speed)


def run_jobs(jobs, cores=2, speed=None, slice_seconds=None):
    """Seconds that each job took, and the cores afterwards."""
    env = simpy.Environment()
    shared = make(env, cores, speed, slice_seconds)
    took = [0.0] * len(jobs)

    def one(index, at, seconds, work="compute"):
        yield env.timeout(at)
        took[index] = yield shared.submit(seconds, work)

    for index, job in enumerate(jobs):
        env.process(one(index, *job))
    env.run()
    return took, shared


@pytest.mark.parametrize("slice_seconds", [None, 0.25])
def test_a_job_alone_runs_at_the_speed_of_one_core(slice_seconds):
    assert run_jobs([(0, 3.0)], cores=8, slice_seconds=slice_seconds)[0] == pytest.approx([3.0])


def test_in_turns_the_first_are_done_while_the_last_still_wait():
    # Four jobs of 5 on two cores in slices of 4: two work 4, the other two 4, then each has 1 left.
    assert run_jobs([(0, 5.0)] * 4, slice_seconds=4)[0] == pytest.approx([9, 9, 10, 10])
    # Slices longer than the work: first come, first served.
    assert run_jobs([(0, 5.0)] * 4, slice_seconds=6)[0] == pytest.approx([5, 5, 10, 10])


def test_short_slices_come_to_processor_sharing():
    jobs = [(0, 1.0), (0.5, 2.0), (0.7, 2.0), (0.9, 0.3)]
    assert run_jobs(jobs, slice_seconds=1e-3)[0] == pytest.approx(run_jobs(jobs)[0], abs=0.01)


def test_a_turn_ends_only_when_somebody_waits():
    took, _ = run_jobs([(0, 5.0), (4.5, 1.0)], cores=1, slice_seconds=1)
    # The first has worked 4.5 in turns without an end; its turn that began at 0 is long over when the other comes.
    assert took == pytest.approx([6.0, 1.0])


@pytest.mark.parametrize(("pause", "expected"), [(0, 4.0), (1, 6.0)])
def test_a_thread_goes_on_with_its_turn_unless_it_sleeps(pause, expected):
    env = simpy.Environment()
    cores = make(env, 1, slice_seconds=10)

    def thread(end):
        first = cores.submit(2.0)
        yield first
        if pause:
            yield env.timeout(pause)
        yield cores.submit(2.0, after=first)
        end.append(env.now)

    ends = []
    env.process(thread(ends))
    env.process(thread(ends))
    env.run()
    assert expected == ends[0]
    assert cores.active == 0


def test_three_jobs_on_two_cores_share_them_until_the_shortest_ends():
    # All three at 2/3 of a core: the short one ends at 1.5; the others then have a core each, and 2 - 1 left.
    assert run_jobs([(0, 1.0), (0, 2.0), (0, 2.0)])[0] == pytest.approx([1.5, 2.5, 2.5])


def test_a_late_job_slows_the_first_from_then_on():
    # One core: the first has done 1 of 2 when the second comes; both halve; the first needs 2 more.
    assert run_jobs([(0, 2.0), (1, 2.0)], cores=1)[0] == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("slice_seconds", [None, 0.3, 7])
def test_busy_cores_slow_each_other_down_only_for_the_kind_of_work_that_says_so(slice_seconds):
    speed = {"fork": [1.0, 0.5]}
    assert run_jobs([(0, 1.0, "fork")], speed=speed, slice_seconds=slice_seconds)[0] == pytest.approx([1.0])
    # Both at half speed until the arithmetic is done at 1; then half a job is left, at full speed.
    both = [(0, 1.0, "fork"), (0, 1.0, "compute")]
    assert run_jobs(both, speed=speed, slice_seconds=slice_seconds)[0] == pytest.approx([1.5, 1.0])


def test_taking_turns_may_cost_more_than_sharing_cores():
    took, _ = run_jobs([(0, 1.0, "fork")] * 4, cores=2, speed={"fork": [1.0, 1.0, 1.0, 0.5]})
    assert took == pytest.approx([4.0] * 4)


def test_beyond_the_last_measured_point_the_speed_stays():
    took, _ = run_jobs([(0, 1.0, "fork")] * 4, cores=4, speed={"fork": [1.0, 0.5]})
    assert took == pytest.approx([2.0] * 4)


@pytest.mark.parametrize(("slice_seconds", "expected"), [(None, 2.5), (0.5, 2.5), (5, 2.0)])
def test_a_cancelled_job_leaves_its_share_to_the_others(slice_seconds, expected):
    env = simpy.Environment()
    cores = make(env, 1, slice_seconds=slice_seconds)
    stays, goes = cores.submit(2.0), cores.submit(2.0)

    def stop():
        yield env.timeout(1)
        cores.cancel(goes)

    env.process(stop())
    assert env.run(stays) == pytest.approx(expected)
    assert not goes.triggered
    assert cores.active == 0


def test_work_of_nothing_is_done_at_once():
    assert run_jobs([(0, 0.0)])[0] == [0.0]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("slice_seconds", [None, 1])
def test_impossible_work_is_refused(seconds, slice_seconds):
    with pytest.raises(SimulatorError, match="finite and not negative"):
        make(simpy.Environment(), 1, slice_seconds=slice_seconds).submit(seconds)


def test_impossible_cores_are_refused():
    with pytest.raises(SimulatorError, match="at least one"):
        make(simpy.Environment(), 0)
    with pytest.raises(SimulatorError, match="above 0"):
        make(simpy.Environment(), 1, slice_seconds=0)


@given(arrivals, st.integers(1, 4), speeds, slices)
def test_work_is_conserved_and_no_job_is_faster_than_a_core(jobs, count, speed, slice_seconds):
    took, cores = run_jobs(jobs, count, speed, slice_seconds)
    assert cores.work_done == pytest.approx(sum(seconds for _, seconds, _ in jobs))
    assert all(spent >= seconds * (1 - 1e-9) for spent, (_, seconds, _) in zip(took, jobs, strict=True))
    assert cores.active == 0


@given(arrivals, st.integers(1, 4), slices)
def test_without_slowdown_busy_cores_do_all_the_work_and_never_idle_while_there_is_more(jobs, count, slice_seconds):
    took, cores = run_jobs(jobs, count, slice_seconds=slice_seconds)
    assert cores.busy_core_seconds == pytest.approx(sum(seconds for _, seconds, _ in jobs))
    # The last cannot end before all work is done by all cores, nor after it is done one job at a time.
    ends = [at + spent for (at, _, _), spent in zip(jobs, took, strict=True)]
    begin = min(at for at, _, _ in jobs)
    assert max(ends) <= 10 + sum(seconds for _, seconds, _ in jobs) + 1e-6
    assert max(ends) - begin >= sum(seconds for _, seconds, _ in jobs) / count - 1e-6


@given(arrivals, st.integers(1, 4), speeds, slices)
def test_the_same_jobs_always_end_at_the_same_times(jobs, count, speed, slice_seconds):
    assert run_jobs(jobs, count, speed, slice_seconds)[0] == run_jobs(jobs, count, speed, slice_seconds)[0]


@given(st.lists(st.floats(1e-3, 5), min_size=2, max_size=20), st.integers(1, 4))
def test_of_jobs_that_begin_together_a_shorter_one_never_ends_later(seconds, count):
    took, _ = run_jobs([(0, work) for work in sorted(seconds)], count)
    assert all(first <= second + 1e-9 for first, second in pairwise(took))


@given(arrivals, st.data())
def test_virtual_time_agrees_with_stepping_through_every_change(jobs, data):
    count = data.draw(st.integers(1, 3))
    assert run_jobs(jobs, count)[0] == pytest.approx(by_small_changes(jobs, count), rel=1e-6, abs=1e-6)


def by_small_changes(jobs, count):
    """Processor sharing the slow and plain way: between two changes, take the same share off every job."""
    left = {index: seconds for index, (_, seconds, _) in enumerate(jobs)}
    now, took, present = 0.0, [0.0] * len(jobs), set()
    waiting = sorted(range(len(jobs)), key=lambda index: jobs[index][0])
    while present or waiting:
        rate = min(1.0, count / len(present)) if present else 0.0
        next_end = min((left[index] / rate for index in present), default=float("inf"))
        next_arrival = jobs[waiting[0]][0] - now if waiting else float("inf")
        step = min(next_end, next_arrival)
        for index in present:
            left[index] -= step * rate
        now += step
        if next_arrival <= next_end:
            present.add(waiting.pop(0))
        for index in [index for index in present if left[index] <= 1e-12]:
            present.remove(index)
            took[index] = now - jobs[index][0]
    return took


@pytest.mark.parametrize(("count", "utilisation", "slice_seconds"), [(1, 0.6, None), (4, 0.7, None), (2, 0.6, 0.5)])
def test_poisson_jobs_respond_as_theory_says(count, utilisation, slice_seconds):
    """Work without memory, shared or in turns: as many jobs as in M/M/c, so by Little's law the same mean response."""
    rate = utilisation * count
    replications = [
        mean_response(count, rate, slice_seconds, np.random.default_rng([count, seed])) for seed in range(16)
    ]
    estimate = t_interval(replications, confidence=0.999)
    assert estimate.low <= 1 + mmc_mean_wait(count, rate, mean_demand=1.0) <= estimate.high
    assert estimate.half_width < 0.15 * estimate.value  # else the interval would hold anything


def mean_response(count, rate, slice_seconds, random, jobs=2000, warm_up=500):
    at = np.cumsum(random.exponential(1 / rate, jobs))
    took, _ = run_jobs(
        [(a, s) for a, s in zip(at, random.exponential(1.0, jobs), strict=True)], count, None, slice_seconds
    )
    return float(np.mean(took[warm_up:]))
