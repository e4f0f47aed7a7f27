"""Replications, comparisons, and what they leave."""

import json
import sys
from dataclasses import replace

import pytest

from simulator.errors import SimulatorError
from simulator.experiments import compare, run
from simulator.results import Comparison, Result, aggregate, compare_results
from simulator.scenario import Scenario
from simulator.statistics.sequential import StoppingRule
from simulator.traffic.compiled import compiled_kernel, numba_works

SURGE = {
    "duration_seconds": 200.0,
    "machines": {"count": 4, "spec": {"cores": 8}},
    "application": {
        "demand": {"kind": "exponential", "mean_seconds": 0.1},
        "queue_limit": 50,
        "cpu_cores": 0.25,
    },
    "arrivals": {"kind": "steps", "steps": [[0, 8], [60, 60]]},
    "autoscaler": {"kind": "hpa", "max_instances": 20},
}


@pytest.fixture
def surge(make_scenario):
    return make_scenario(**SURGE)


@pytest.fixture
def platforms(make_profile):
    return [
        make_profile("quick", fixed_seconds=0.1),
        make_profile("again", fixed_seconds=0.1),
        make_profile("slow", fixed_seconds=30.0),
    ]


def test_the_same_seed_gives_the_same_bytes(surge, platforms):
    assert run(surge, platform=platforms[0], seed=4).to_json() == run(surge, platform=platforms[0], seed=4).to_json()
    assert run(surge, platform=platforms[0], seed=4).to_json() != run(surge, platform=platforms[0], seed=5).to_json()


def test_no_two_replications_are_the_same(surge, platforms):
    result = run(surge, platform=platforms[0], replications=6)

    assert 6 == len({replication.metrics["p99_seconds"] for replication in result.replications})


def test_more_replications_leave_the_first_as_they_were(surge, platforms):
    few, many = (run(surge, platform=platforms[0], replications=count) for count in (2, 3))

    assert few.replications == many.replications[:2]


def test_several_processes_give_what_one_gives(surge, platforms):
    seen: list[tuple[int, int]] = []
    serial = compare(surge, platforms[:2], seed=2)
    parallel = compare(surge, platforms[:2], seed=2, workers=2, progress=lambda done, total: seen.append((done, total)))

    assert serial.to_json() == parallel.to_json()
    assert [(1, 4), (2, 4), (3, 4), (4, 4)] == seen


def test_with_and_without_numba_gives_the_same_bytes(surge, platforms):
    pytest.importorskip("numba")
    texts = {compare(surge, platforms, seed=2, data_plane=plane).to_json() for plane in ("python", "numba")}

    assert 1 == len(texts)


def test_without_numba_plain_python_does_it(surge, platforms, monkeypatch):
    expected = run(surge, platform=platforms[0])
    monkeypatch.setitem(sys.modules, "numba", None)
    numba_works.cache_clear()
    compiled_kernel.cache_clear()
    try:
        assert expected == run(surge, platform=platforms[0])
        with pytest.raises(SimulatorError, match="needs Numba"):
            run(surge, platform=platforms[0], data_plane="numba")
    finally:
        numba_works.cache_clear()


def test_platforms_meet_the_same_requests(surge, platforms):
    comparison = compare(surge, platforms, seed=2, replications=3)
    arrivals = {
        tuple(replication.arrivals for replication in result.replications) for result in comparison.results.values()
    }

    assert 1 == len(arrivals)


def test_a_run_is_what_it_is_in_a_comparison(surge, platforms):
    comparison = compare(surge, platforms, seed=2)

    assert run(surge, platform=platforms[2], seed=2) == comparison.results["slow"]


def test_requests_are_all_accounted_for(surge, platforms):
    for replication in run(surge, platform=platforms[2], seed=2).replications:
        assert replication.arrivals == replication.completed + replication.rejected + replication.failed


def test_a_difference_larger_than_chance_has_a_verdict(surge, platforms):
    comparison = compare(surge, platforms, seed=2, replications=5)
    difference = comparison.difference("slo_violation_fraction", "quick", "slow")

    assert "quick" == difference.lower
    assert difference.low < difference.high < 0
    assert "quick has the lower slo_violation_fraction than slow" == difference.verdict
    assert comparison.results["quick"].metrics["slo_violation_fraction"].value < (
        comparison.results["slow"].metrics["slo_violation_fraction"].value
    )


def test_the_episode_that_ships_tells_a_slow_start_from_a_quick_one(platforms):
    comparison = compare(Scenario.from_toml("compare"), [platforms[0], platforms[2]], replications=3)

    for metric in ("slo_violation_fraction", "recovery_seconds", "scale_out_seconds"):
        assert "quick" == comparison.difference(metric, "quick", "slow").lower
    for result in comparison.results.values():
        assert 0.0 == result.metrics["unrecovered_fraction"].value
        assert all(replication.without_room == 0 for replication in result.replications)
        assert result.episode.fleet[-1].ready < result.metrics["peak_instances"].value


def test_the_episode_that_ships_hardly_tells_starts_within_a_second_apart(make_profile):
    near = [make_profile("instant", fixed_seconds=0.006), make_profile("blink", fixed_seconds=0.25)]
    difference = compare(Scenario.from_toml("compare"), near, replications=3).difference(
        "slo_violation_fraction", "instant", "blink"
    )

    assert abs(difference.value) < 0.01


def test_equal_platforms_have_no_winner(surge, platforms):
    difference = compare(surge, platforms, seed=2).difference("p99_seconds", "quick", "again")

    assert (None, 0.0) == (difference.lower, difference.value)
    assert "equal in every replication" in difference.verdict


def test_one_replication_has_no_winner_and_no_interval(surge, platforms):
    comparison = compare(surge, platforms, seed=2, replications=1)
    difference = comparison.difference("slo_violation_fraction", "quick", "slow")

    assert (None, None, None) == (difference.lower, difference.low, difference.high)
    assert "one replication says nothing" in difference.verdict
    assert comparison.results["quick"].metrics["p99_seconds"].low is None


def test_an_interval_that_holds_zero_has_no_winner(surge, platforms):
    result = run(surge, platform=platforms[0], replications=4)
    other = replace(
        result,
        platform="other",
        replications=tuple(
            replace(replication, metrics={"p99_seconds": replication.metrics["p99_seconds"] + shift})
            for replication, shift in zip(result.replications, (1.0, -1.0, 1.0, -0.9), strict=True)
        ),
    )
    (difference,) = compare_results({"quick": result, "other": other})

    assert difference.lower is None
    assert "holds 0" in difference.verdict


def test_results_and_comparisons_read_back_what_they_wrote(surge, platforms, tmp_path):
    result, comparison = run(surge, platform=platforms[0]), compare(surge, platforms[:2])
    result.save(tmp_path / "result.json")
    comparison.save(tmp_path / "comparison.json")

    assert result == Result.load(tmp_path / "result.json")
    assert comparison == Comparison.load(tmp_path / "comparison.json")
    assert ["quick", "again"] == list(Comparison.load(tmp_path / "comparison.json").results)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "what": "comparison"}', '{"format": 1, "what": "result"}']
)
def test_what_is_no_saved_result_is_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SimulatorError, match="result"):
        Result.load(path)


def test_a_file_that_cannot_be_read_or_written_is_named(surge, platforms, tmp_path):
    with pytest.raises(SimulatorError, match=r"none\.json"):
        Result.load(tmp_path / "none.json")
    with pytest.raises(SimulatorError, match="no-folder"):
        run(surge, platform=platforms[0]).save(tmp_path / "no-folder" / "result.json")


def test_the_frame_has_a_row_for_each_metric(surge, platforms):
    comparison = compare(surge, platforms[:2])
    frame = comparison.to_frame()
    rows = frame if isinstance(frame, list) else frame.to_dict("records")

    assert sum(len(result.metrics) for result in comparison.results.values()) == len(rows)
    assert {"platform", "metric", "value", "low", "high", "unit", "kind"} == set(rows[0])
    assert {"simulated"} == {row["kind"] for row in rows}


def test_json_says_what_each_figure_is(surge, platforms):
    tree = json.loads(compare(surge, platforms[:1]).to_json())
    metric = tree["results"]["quick"]["metrics"]["p99_seconds"]

    assert ("seconds", "simulated") == (metric["unit"], metric["kind"])
    assert metric["low"] <= metric["value"] <= metric["high"]


def test_intervals_stay_where_the_metric_can_be():
    metric = aggregate("rejected_fraction", "fraction", [0.0, 0.9, 0.1])

    assert (0.0, 1.0) == (metric.low, metric.high)


def test_replications_go_on_until_the_interval_is_narrow_enough(surge, platforms):
    result = run(surge, platform=platforms[0], precision=StoppingRule("mean_instances", 0.02, least=5, most=60))
    metric = result.metrics["mean_instances"]
    count = len(result.replications)

    assert 5 < count < 60
    assert (metric.high - metric.low) / 2 <= 0.02 / 1.02 * metric.value
    # They are the same replications that a run of a fixed number has.
    assert run(surge, platform=platforms[0], replications=count) == replace(result, stopping="")
    assert f"after {count} replications" in result.stopping


def test_how_many_replications_it_takes_does_not_depend_on_the_workers(surge, platforms):
    seen: list[tuple[int, int]] = []
    rule = StoppingRule("mean_instances", 0.02, most=60)
    serial = compare(surge, platforms[:2], precision=rule, progress=lambda done, total: seen.append((done, total)))

    assert serial == compare(surge, platforms[:2], precision=rule, workers=2)
    assert 1 == len({len(result.replications) for result in serial.results.values()})
    total = sum(len(result.replications) for result in serial.results.values())
    assert list(range(1, total + 1)) == [done for done, _ in seen]
    assert (total, total) == seen[-1]


def test_replications_end_at_the_most_allowed_and_begin_with_those_asked_for(surge, platforms):
    narrow = StoppingRule("p99_seconds", 1e-6, least=2, most=7)

    most = run(surge, platform=platforms[0], precision=narrow)
    assert 7 == len(most.replications)
    assert "7 replications are the most allowed" in most.stopping
    wide = run(surge, platform=platforms[0], replications=6, precision=("mean_instances", 0.9))
    assert 6 == len(wide.replications)


def test_precision_of_what_is_no_metric_or_cannot_be_is_refused(surge, platforms):
    for precision, said in ((("p98_seconds", 0.1), "no such metric"), (("p99_seconds", 0.0), "fraction of the mean")):
        with pytest.raises(SimulatorError, match=said):
            run(surge, platform=platforms[0], precision=precision)


def test_precision_of_what_has_no_value_is_refused_at_once(surge, platforms):
    seen = []
    with pytest.raises(SimulatorError, match="`cost`: it has no value on quick"):
        run(surge, platform=platforms[0], precision=("cost", 0.1), progress=lambda done, total: seen.append(done))

    assert 5 == len(seen)


def test_a_result_says_whether_there_is_a_steady_state_and_why_not(make_scenario, platforms):
    few, many = (
        run(make_scenario(arrivals={"kind": "poisson", "rate_per_second": rate}), platform=platforms[0], replications=1)
        for rate in (5.0, 15.0)
    )

    assert "" == few.stability
    assert "no steady state: 1.5 seconds of work arrive" in many.stability
    assert many == Result.from_dict(json.loads(many.to_json()))


def test_a_disk_that_requests_wait_for_is_part_of_the_load(make_scenario, platforms):
    machines = {"count": 1, "spec": {"cores": 4, "disk_operation_seconds": 0.02}}
    demand = {"kind": "exponential", "mean_seconds": 0.1}
    plain, waiting = (
        make_scenario(
            machines=machines,
            application={"demand": demand, "io_operations": operations},
            arrivals={"kind": "poisson", "rate_per_second": 8.0},
        )
        for operations in (0, 5)
    )

    assert "" == run(plain, platform=platforms[0], replications=1).stability
    assert "1.6 seconds of work arrive" in run(waiting, platform=platforms[0], replications=1).stability


def test_a_result_of_an_earlier_version_is_still_read(surge, platforms, tmp_path):
    result = run(surge, platform=platforms[0])
    tree = json.loads(result.to_json())
    for name in ("warm_up_seconds", "warm_up", "stability", "stopping"):
        del tree[name]
    (tmp_path / "old.json").write_text(json.dumps(tree), encoding="utf-8")

    assert result == Result.load(tmp_path / "old.json")


def test_what_cannot_be_run_is_refused(surge, platforms):
    for wrong in (
        lambda: run(surge, platform="no-such-platform"),
        lambda: run(surge, platform=platforms[0], replications=0),
        lambda: run(surge, platform=platforms[0], seed=-1),
        lambda: run(surge, platform=platforms[0], workers=0),
        lambda: compare(surge, []),
        lambda: compare(surge, [platforms[0], platforms[0]]),
    ):
        with pytest.raises(SimulatorError):
            wrong()
