"""`warm_up_seconds = "auto"`: found in runs that are not counted, the same for all that is compared."""

import json

import numpy as np
import pytest

from simulator.errors import SimulatorError
from simulator.experiments import compare, run, sweep
from simulator.experiments.pilot import FIRST_PILOT, PILOTS, settle
from simulator.results import Result
from simulator.traffic.compiled import numba_works


@pytest.fixture
def settling(make_scenario):
    """Far too many requests for 20 seconds, and then few: what is counted must begin after their queue is gone."""
    return make_scenario(
        duration_seconds=400.0,
        warm_up_seconds="auto",
        application={"demand": {"kind": "exponential", "mean_seconds": 0.5}, "queue_limit": 1000},
        arrivals={"kind": "steps", "steps": [[0, 4], [20, 1]]},
        slo={"latency_seconds": 2.0},
    )


@pytest.fixture
def even(make_scenario):
    """Half loaded from its first second on."""
    return make_scenario(duration_seconds=300.0, warm_up_seconds="auto")


def test_a_queue_that_the_beginning_left_is_not_counted(settling, make_profile):
    result = run(settling, platform=make_profile())

    assert 20 < result.warm_up_seconds < 200
    assert f"warm-up {result.warm_up_seconds:g} s, found by MSER-5 in {PILOTS} pilot replications" == result.warm_up
    whole = run(settling.model_copy(update={"warm_up_seconds": 0.0}), platform=make_profile())
    assert result.metrics["mean_seconds"].value < whole.metrics["mean_seconds"].value


def test_it_is_the_run_with_that_number(even, make_profile):
    result = run(even, platform=make_profile(), seed=2)
    given = run(even.model_copy(update={"warm_up_seconds": result.warm_up_seconds}), platform=make_profile(), seed=2)

    assert given.replications == result.replications
    assert (result.warm_up_seconds, "") == (given.warm_up_seconds, given.warm_up)
    assert result == Result.from_dict(json.loads(result.to_json()))


def test_it_depends_on_neither_workers_nor_replications_nor_data_plane(settling, make_profile):
    platforms = [make_profile("quick"), make_profile("heavy", cpu_factor=1.2)]
    found = compare(settling, platforms)

    assert found == compare(settling, platforms, workers=2)
    assert (
        found.results["quick"].replications
        == compare(settling, platforms, replications=3).results["quick"].replications[:2]
    )
    for plane in ("python", "processes", *(["numba"] if numba_works() else [])):
        assert found == compare(settling, platforms, data_plane=plane)


def test_platforms_that_are_compared_are_judged_by_the_same_requests(settling, make_profile):
    platforms = [make_profile("quick"), make_profile("heavy", cpu_factor=1.4)]
    alone = [run(settling, platform=each).warm_up_seconds for each in platforms]
    together = compare(settling, platforms)

    assert [max(alone)] * 2 == [result.warm_up_seconds for result in together.results.values()]
    assert f"quick {alone[0]:g} s, heavy {alone[1]:g} s" in together.results["quick"].warm_up


def test_each_point_of_a_sweep_has_its_own_and_an_impossible_one_is_only_its_own(settling, make_profile, tmp_path):
    platforms = [make_profile("quick"), make_profile("heavy", cpu_factor=1.4)]
    over = {"arrivals.steps.0.1": [1.0, 4.0], "arrivals.steps.1.1": [1.0, 3.0]}
    swept = sweep(settling, platforms, over=over, store=tmp_path / "store")

    assert swept == sweep(settling, platforms, over=over, workers=2)
    assert swept == sweep(settling, platforms, over=over, store=tmp_path / "store", resume=True)
    same = settling.model_copy(update={"arrivals": settling.arrivals.model_copy(update={"steps": ((0, 4), (20, 1))})})
    expected = compare(same, platforms)
    assert expected.results["heavy"].metrics == swept.result(2, "heavy").metrics
    assert expected.results["heavy"].warm_up == swept.result(2, "heavy").warm_up
    # Three a second are more than one worker serves: latency grows to the end.
    assert {1, 3} == {cell.point for cell in swept.refused}
    assert all("MSER-5 finds no end" in str(cell.refusal) for cell in swept.refused)


def test_a_latency_that_drifts_to_the_end_is_refused_with_what_to_do(settling, make_profile):
    growing = settling.model_copy(
        update={"arrivals": settling.arrivals.model_copy(update={"steps": ((0.0, 1.0), (20.0, 3.0))})}
    )
    with pytest.raises(SimulatorError) as refused:
        run(growing, platform=make_profile())

    assert 'scenario test on free: `warm_up_seconds` is "auto"' in str(refused.value)
    assert "lengthen `duration_seconds`, or set `warm_up_seconds`" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_too_short_to_tell_is_refused_with_what_to_do(make_scenario, make_profile):
    with pytest.raises(SimulatorError, match=r"answered in only \d+ of its bins; lengthen `duration_seconds`"):
        run(make_scenario(duration_seconds=30.0, warm_up_seconds="auto"), platform=make_profile())


def test_seconds_without_an_answer_are_passed_over(make_scenario):
    scenario = make_scenario(duration_seconds=200.0, warm_up_seconds="auto")
    pilots = np.full((PILOTS, 200), np.nan)
    pilots[:, ::2] = 0.1
    pilots[:, :20:2] = 5.0
    found = settle(scenario, [("free", list(pilots))])

    assert 20.0 == found.scenario.warm_up_seconds


def test_pilots_have_random_numbers_of_their_own(even, make_profile):
    counted = run(even, platform=make_profile(), replications=2)

    assert all(replication.number < FIRST_PILOT for replication in counted.replications)
    assert {0, 1} == {replication.number for replication in counted.replications}


def test_progress_counts_pilots(even, make_profile):
    seen: list[tuple[int, int]] = []
    run(even, platform=make_profile(), replications=3, progress=lambda done, total: seen.append((done, total)))

    assert [(done, PILOTS + 3) for done in range(1, PILOTS + 4)] == seen
