"""`onggi bench simulator`, as a person calls it; and the benchmark's own arithmetic."""

import json
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from classroom.bench import resident
from classroom.bench.cases import QUICK, WHOLE, all_cases, mm10, of_so_many, thinned
from classroom.bench.figures import report
from classroom.bench.one_run import measure
from classroom.bench.pages import ROW_TITLES, to_markdown
from classroom.bench.rounds import run_once, run_rounds
from classroom.cli import main
from simulator.errors import SimulatorError
from simulator.scenario import Scenario

MACHINE = {
    "cpu": "a machine", "cores": 2, "system": "Linux", "python": "CPython", "versions": {"onggi": "1"},
    "load_average": 0.0, "recorded_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def sample(wall, *, requests=1000, cpu=None, peak=2**20, wait=0.2, **figures):
    return {
        "wall_seconds": wall, "cpu_seconds": wall if cpu is None else cpu, "peak_bytes": peak, "requests": requests,
        "resident_bytes": 2**26, "warm_up_seconds": 0.1, "figures": {"mean_wait_seconds": wait, **figures},
    }  # fmt: skip


def reported(samples, *, runs=3, quick=False, **machine):
    return report(samples, size=WHOLE, runs=runs, quick=quick, machine=MACHINE | machine, memory="counted")


@pytest.fixture(scope="module")
def in_this_process():
    """Runs are measured in the process of the tests, which has imported everything: to see all rows within seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classroom.bench.rounds.run_once", measure)
        yield


@pytest.fixture(scope="module")
def quick(tmp_path_factory, in_this_process):
    """What the command printed, and the page that it wrote."""
    page, printed = tmp_path_factory.mktemp("bench") / "speed.md", StringIO()
    with redirect_stdout(printed):
        assert 0 == main(["bench", "simulator", "--quick", "--runs", "1", "--json", "-", "--markdown", str(page)])
    return json.loads(printed.getvalue()), page.read_text(encoding="utf-8")


def test_a_process_of_its_own_for_each_run_and_only_json_on_standard_output():
    command = [sys.executable, "-m", "classroom.cli", "bench", "simulator", "--quick", "--runs", "1"]
    ended = subprocess.run([*command, "--rows", "mm10", "--json", "-"], capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout)

    assert "" == ended.stderr
    assert {"onggi", "ciw", "simpy"} == set(found["mm10"])
    # A process that had run the others before would have Ciw and Numba in it.
    assert (
        found["mm10"]["simpy"]["samples"][0]["resident_bytes"] < found["mm10"]["onggi"]["samples"][0]["resident_bytes"]
    )


def test_it_prints_the_figures_that_others_build_on_and_nothing_else(quick):
    found, _ = quick

    assert {"numba", "python", "process_per_request"} == set(found["full_scenario"])
    assert {"onggi", "ciw", "simpy"} == set(found["mm10"])
    for row in ("full_scenario", "mm10"):
        for column in found[row].values():
            (run,) = column["samples"]
            assert run["requests"] / run["wall_seconds"] == pytest.approx(column["requests_per_second"])
            assert run["peak_bytes"] == column["peak_bytes"]
    assert found["mm10"]["onggi"]["requests_per_second"] / found["mm10"]["ciw"]["requests_per_second"] == pytest.approx(
        found["ratios"]["onggi_to_ciw"]
    )
    assert any("quick" in warning for warning in found["warnings"])


def test_the_raced_data_planes_gave_the_same_figures_and_queues_wait_as_they_should(quick):
    found, _ = quick
    waits = found["verified"]["mm10_mean_wait"]

    assert found["verified"]["full_scenario_same_figures"] is True
    assert 0.20459 == pytest.approx(waits["theory"], abs=5e-6)
    # Of 10,000 requests from empty, a mean wait is known to a quarter or so.
    for engine in ("onggi", "ciw", "simpy"):
        assert waits["theory"] == pytest.approx(waits[engine]["mean_wait_seconds"], rel=0.5)


def test_the_page_shows_every_row_and_does_not_judge_a_quick_run(quick):
    found, page = quick

    assert "\n## Ratios\n" in page
    for row in ROW_TITLES:
        assert (row in found) == (f"\n## {ROW_TITLES[row]}\n" in page)
    assert f"{found['mm10']['ciw']['requests_per_second']:,.0f}" in page
    assert "missed" not in page
    assert "met" not in page.split("## How it is measured")[0]


def test_only_the_rows_that_were_asked_for_are_run_and_a_file_holds_what_is_shown(in_this_process, capsys, tmp_path):
    path = tmp_path / "found.json"
    assert 0 == main(["bench", "simulator", "--quick", "--runs", "2", "--rows", "mm10", "--json", str(path)])
    found, shown = json.loads(path.read_text(encoding="utf-8")), capsys.readouterr().out

    assert "mm10" in found
    assert "full_scenario" not in found
    assert {"onggi_to_ciw", "onggi_to_simpy"} == set(found["ratios"])
    assert 2 == len(found["mm10"]["simpy"]["samples"])
    assert f"{found['mm10']['simpy']['requests_per_second']:,.0f}" in shown


@pytest.mark.parametrize(
    "arguments", [["--runs", "0"], ["--quick", "--rows", "mm10", "--json", "/nowhere/at/all.json"]]
)
def test_what_cannot_be_done_is_one_line_and_status_2(capsys, arguments):
    assert 2 == main(["bench", "simulator", *arguments])

    printed = capsys.readouterr()
    assert "" == printed.out
    assert 1 == len(printed.err.splitlines())


def test_a_library_that_is_missing_is_named_before_anything_runs(monkeypatch):
    monkeypatch.setattr("classroom.bench.rounds.find_spec", lambda name: None)
    monkeypatch.setattr("classroom.bench.rounds.run_once", lambda job, seed: pytest.fail("it ran"))
    with pytest.raises(SimulatorError, match=r"ciw and numba: install \"onggi\[bench\]\""):
        run_rounds(all_cases(QUICK), 1)


def test_a_run_that_fails_says_its_last_words():
    job = next(case.job for case in all_cases(QUICK) if case.engine == "onggi")
    application = job.scenario["application"] | {"memory_mib": 1e9}
    with pytest.raises(SimulatorError, match=r"onggi failed: .*not one instance fits"):
        run_once(replace(job, scenario=job.scenario | {"application": application}), 0)


def test_engines_take_turns(monkeypatch):
    order = []
    monkeypatch.setattr("classroom.bench.rounds.run_once", lambda job, seed: order.append((job.engine, seed)) or {})
    cases = [case for case in all_cases(QUICK) if case.row == "mm10"]
    run_rounds(cases, 2)

    assert [(name, turn) for turn in (0, 1) for name in ("onggi", "ciw", "simpy")] == order


@pytest.mark.parametrize("requests", [5_000, 1_000_000, 2_345_678])
def test_a_load_in_steps_is_repeated_until_so_many_requests_are_expected(requests):
    full = Scenario.from_toml("full")
    scaled = of_so_many(full, requests)

    assert requests == pytest.approx(scaled.arrivals.expected(scaled.duration_seconds))
    assert full.application == scaled.application
    moments = [moment for moment in (10.0, 400.0, 1000.0) if moment < scaled.duration_seconds]
    assert list(full.arrivals.rate(moments)) == list(scaled.arrivals.rate(moments))
    if scaled.duration_seconds > full.duration_seconds + 400:
        assert full.arrivals.rate([400.0]) == scaled.arrivals.rate([full.duration_seconds + 400.0])


def test_a_thinned_scenario_is_the_same_load():
    full = Scenario.from_toml("full")
    thin = thinned(full, 50)
    expected = [each.arrivals.expected(each.duration_seconds) for each in (full, thin)]

    assert expected[0] / 50 == pytest.approx(expected[1])
    assert full.application.demand.mean_seconds * 50 == pytest.approx(thin.application.demand.mean_seconds)


def test_the_full_scenario_is_what_it_says():
    full = Scenario.from_toml("full")

    assert 1_000_000 == pytest.approx(full.arrivals.expected(full.duration_seconds), rel=1e-3)
    assert 40.0 == full.application.ready_seconds
    assert 15.0 == full.autoscaler.sync_seconds
    assert 8.0 == mm10(1000).arrivals.rate_per_second * mm10(1000).application.demand.mean_seconds


def test_medians_ratios_and_spread_are_those_of_the_samples():
    found = reported(
        {
            ("mm10", "onggi"): [sample(1.0), sample(2.0), sample(4.0)],
            ("mm10", "ciw"): [sample(80.0), sample(100.0), sample(120.0)],
        }
    )

    assert 500.0 == found["mm10"]["onggi"]["requests_per_second"]
    assert 1.5 == found["mm10"]["onggi"]["spread"]
    assert 50.0 == found["ratios"]["onggi_to_ciw"]
    assert any("unsteady: mm10 onggi" in warning for warning in found["warnings"])
    assert "≥ 40, met" in to_markdown(found)


def test_a_target_that_is_missed_is_called_so():
    found = reported({("mm10", "onggi"): [sample(1.0)] * 3, ("mm10", "ciw"): [sample(39.0)] * 3})

    assert [] == found["warnings"]
    assert "≥ 40, **missed**" in to_markdown(found)


def test_answers_that_are_wrong_are_told():
    found = reported(
        {
            ("mm10", "onggi"): [sample(1.0, wait=wait) for wait in (0.30, 0.301, 0.299)],
            ("mm10", "ciw"): [sample(1.0, wait=wait) for wait in (0.2045, 0.2050, 0.2040)],
            ("full_scenario", "numba"): [sample(1.0, p99=1.0)] * 3,
            ("full_scenario", "python"): [sample(1.0, p99=1.001)] * 3,
        }
    )

    assert found["verified"]["mm10_mean_wait"]["onggi"]["holds_theory"] is False
    assert found["verified"]["mm10_mean_wait"]["ciw"]["holds_theory"] is True
    assert found["verified"]["full_scenario_same_figures"] is False
    assert "**different figures**" in to_markdown(found)


def test_what_a_reader_should_doubt_is_said():
    once = {("mm10", "onggi"): [sample(1.0, cpu=0.5)], ("replications", "two_cores"): [sample(1.0)]}
    warnings = " ".join(reported(once, runs=1, load_average=1.5, cores=1)["warnings"])

    for word in ("1 runs each", "load average was 1.50", "one core", "kept waiting: mm10 onggi"):
        assert word in warnings


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is set back on Linux only")
def test_memory_that_was_given_back_before_the_run_does_not_count():
    before_all = bytearray(64 * 2**20)
    del before_all
    before = resident.begin_peak()
    held = bytearray(b"x" * (16 * 2**20))
    most = resident.peak()

    # The literal and its copy: 32 MiB, and hardly more.
    assert len(held) <= most - before < 48 * 2**20


def test_memory_of_a_run_is_what_it_takes_more():
    job = next(case.job for case in all_cases(QUICK) if case.engine == "ciw")
    # In a process of its own: this one has memory that was given back, which would be used again.
    found = run_once(job, 1)

    assert QUICK.requests == found["requests"]
    # Ciw keeps a record of each customer, of a hundred bytes at the least.
    assert 100 * QUICK.requests < found["peak_bytes"] < 10_000 * QUICK.requests
    assert found["wall_seconds"] > 0
