"""What a run is judged by, on runs made by hand."""

import numpy as np
import pytest

from simulator.datacenter.instance import Instance, State
from simulator.metrics import RECOVERY_WINDOW_SECONDS, summarise
from simulator.model import RunRecord, new_tally
from simulator.traffic.plane import COMPLETED, FAILED, REJECTED, TIMED_OUT, Counts


def life(number, *steps):
    instance = Instance(number, steps[0])
    for state, seconds in zip((State.STARTING, State.READY, State.DRAINING, State.STOPPED), steps, strict=False):
        instance.enter(state, seconds)
    return instance


def record(scenario, arrivals, latency, state, instances=()):
    tally = new_tally(scenario)
    state = np.array(state, dtype=np.int8)
    tally.record(np.array(arrivals, dtype=float), np.nan_to_num(np.array(latency, dtype=float)), state)
    tally.close()
    completed, rejected, failed, timed_out = (
        int((state == outcome).sum()) for outcome in (COMPLETED, REJECTED, FAILED, TIMED_OUT)
    )
    counts = Counts(len(state), completed, rejected, failed, timed_out, 0, 0, 0)
    return RunRecord(scenario, "free", 0, counts, 1, tally, tuple(instances), ())


def test_late_rejected_and_lost_break_the_promise_and_the_warm_up_does_not_count(make_scenario):
    scenario = make_scenario(duration_seconds=100.0, warm_up_seconds=10.0)
    nan = np.nan
    state = [COMPLETED, COMPLETED, COMPLETED, REJECTED, FAILED]
    summary = summarise(record(scenario, [5, 10, 20, 30, 40], [9, 0.5, 0.6, nan, nan], state))

    assert 0.75 == summary.metrics["slo_violation_fraction"]
    assert 0.25 == summary.metrics["rejected_fraction"]
    assert 0.55 == pytest.approx(summary.metrics["p50_seconds"])
    assert (5, 3, 1, 1) == (summary.arrivals, summary.completed, summary.rejected, summary.failed)


def test_instances_are_paid_for_from_start_up_until_they_have_stopped(make_scenario):
    scenario = make_scenario(duration_seconds=100.0, warm_up_seconds=10.0)
    lives = [life(0, 0.0, 0.0), life(1, 20.0, 25.0, 40.0, 50.0), life(2, 50.0, 55.0), Instance(3, 60.0)]
    metrics = summarise(record(scenario, [], [], [], lives)).metrics

    assert (90 + 30 + 50) / 90 == pytest.approx(metrics["mean_instances"])
    assert 170 / 90 == metrics["mean_instances"]
    assert 2 == metrics["peak_instances"]
    assert 5 == metrics["scale_out_seconds"]
    assert "p99_seconds" not in metrics


@pytest.mark.parametrize(("bad_until", "recovery", "unrecovered"), [(0, 0.0, 0.0), (120, 20.0, 0.0), (200, 100.0, 1.0)])
def test_recovery_is_when_the_objective_is_kept_again_for_a_window(make_scenario, bad_until, recovery, unrecovered):
    scenario = make_scenario(
        duration_seconds=200.0, arrivals={"kind": "steps", "steps": [[0, 1], [100, 10]]}, slo={"latency_seconds": 0.5}
    )
    arrivals = np.arange(0.0, 200.0, 0.1) + 0.05
    latency = np.where((arrivals >= 100) & (arrivals < bad_until), 2.0, 0.1)
    # Half of what the objective allows to be late always is.
    latency[::200] = 2.0
    metrics = summarise(record(scenario, arrivals, latency, [COMPLETED] * len(arrivals))).metrics

    assert (recovery, unrecovered) == (metrics["recovery_seconds"], metrics["unrecovered_fraction"])


def test_a_surge_too_late_to_recover_from_is_not_judged(make_scenario):
    late = 200.0 - RECOVERY_WINDOW_SECONDS + 1
    scenario = make_scenario(duration_seconds=200.0, arrivals={"kind": "steps", "steps": [[0, 1], [late, 10]]})

    assert "recovery_seconds" not in summarise(record(scenario, [1.0], [0.1], [COMPLETED])).metrics


def test_the_run_over_time_counts_every_request_and_instance_once(make_scenario):
    scenario = make_scenario(duration_seconds=100.0)
    lives = [life(0, 0.0, 0.0), life(1, 20.0, 25.0, 40.0, 50.0), Instance(2, 50.0)]
    lives[2].why_pending = "no room"
    episode = summarise(
        record(scenario, [0.5, 0.6, 99.9], [0.1, 0.9, 0.1], [COMPLETED] * 3, lives), with_episode=True
    ).episode

    assert 3 == pytest.approx(sum(episode.offered_rate) * 100.0 / len(episode.seconds))
    assert (0.5, None, 0.0) == (episode.violation_fraction[0], episode.p99_seconds[1], episode.violation_fraction[-1])
    assert [(0.0, 0, 0, 1, 0), (20.0, 0, 1, 1, 0), (25.0, 0, 0, 2, 0), (40.0, 0, 0, 1, 1), (50.0, 1, 0, 1, 0)] == [
        tuple(step) for step in episode.fleet
    ]
    assert ("no room",) == episode.without_room
