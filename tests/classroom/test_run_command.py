import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import classroom
from classroom.cli import main
from simulator.datafiles import data_directory
from simulator.eventlog import read_events
from simulator.results import Result

STEADY = (data_directory() / "scenarios" / "steady.toml").read_text(encoding="utf-8").replace("1200", "300")
PATIENCE_SECONDS = 60.0
QUICK = ["run", "steady", "--replications", "2", "--seed", "1"]


def test_it_shows_every_metric_with_its_interval(capsys):
    assert 0 == main(QUICK)

    shown = capsys.readouterr().out
    assert "steady on container" in shown
    assert "p99_seconds" in shown
    assert "…" in shown


def test_json_is_the_same_each_time_and_in_a_file(capsys, tmp_path):
    texts = []
    for _ in range(2):
        assert 0 == main([*QUICK, "--json", "-"])
        texts.append(capsys.readouterr().out)
    assert 0 == main([*QUICK, "--json", str(tmp_path / "result.json")])

    assert texts[0] == texts[1] == (tmp_path / "result.json").read_text(encoding="utf-8")
    assert "container" == json.loads(texts[0])["platform"]


def test_every_data_plane_gives_the_same_figures(capsys):
    texts = set()
    for plane in ("auto", "python"):
        assert 0 == main([*QUICK, "--data-plane", plane, "--json", "-"])
        texts.add(capsys.readouterr().out)

    assert 1 == len(texts)


def test_an_autoscaler_is_shown_with_its_reasons(capsys):
    assert 0 == main(["run", "compare", "--replications", "1"])

    assert "why" in (shown := capsys.readouterr().out)
    assert "utilisation" in shown


@pytest.fixture
def changed(tmp_path):
    """Writes the scenario `steady` with a text replaced, and gives its path."""

    def write(before="", after=""):
        assert before in STEADY
        path = tmp_path / "changed.toml"
        path.write_text(STEADY.replace(before, after, 1), encoding="utf-8")
        return str(path)

    return write


def test_a_log_holds_all_replications_whatever_the_workers(capsys, tmp_path, changed):
    command = ["run", changed(), "--replications", "3", "--json", "-"]
    results = []
    for workers in ("1", "2"):
        assert 0 == main([*command, "--workers", workers, "--log", str(tmp_path / f"{workers}.jsonl")])
        results.append(capsys.readouterr().out)
    assert 0 == main(command)

    assert results[0] == results[1] == capsys.readouterr().out
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert [0, 1, 2] == sorted({event.replication for event in read_events(tmp_path / "1.jsonl")})


def test_decisions_are_explained_and_no_file_is_left(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert 0 == main(["run", "compare", "--replications", "2", "--explain"])

    shown = capsys.readouterr().out
    assert "requests are routed by least-connections – " in shown
    assert "is placed on machine-0 – spread: " in shown
    assert re.search(r"instances go from \d+ to \d+ – utilisation", shown)
    assert [] == [path for path in tmp_path.iterdir() if not path.name.startswith("joblib")]


def test_the_explanation_is_of_replication_0_alone_and_does_not_disturb_json(capsys, tmp_path, changed):
    log = tmp_path / "events.jsonl"
    assert 0 == main(["run", changed(), "--replications", "3", "--explain", "--log", str(log), "--json", "-"])

    captured = capsys.readouterr()
    assert 3 == len(json.loads(captured.out)["replications"])
    assert 1 == captured.err.count("is placed on")
    assert 3 == sum(event.kind == "place" for event in read_events(log))


def test_an_explanation_has_an_end_and_says_what_it_leaves_out(capsys, changed):
    many = changed("instances = 1", "instances = 80\n[machines.spec]\ncores = 1000")
    assert 0 == main(["run", many, "--replications", "1", "--explain"])

    shown = capsys.readouterr().out
    assert 60 == shown.count("is placed on")
    assert "and 20 more placements: --log FILE has them all" in shown


@pytest.mark.parametrize("asked", ["mean_seconds=0.1", "mean_seconds=10%"])
def test_it_replicates_until_a_metric_is_precise_and_says_why_it_stopped(capsys, tmp_path, changed, asked):
    path = tmp_path / "result.json"
    assert 0 == main(["run", changed(), "--precision", asked, "--json", str(path)])

    result = Result.load(path)
    metric = result.metrics["mean_seconds"]
    assert 5 <= len(result.replications) < 200
    assert (metric.high - metric.low) / 2 <= 0.1 / 1.1 * metric.value
    said = f"relative error of 10 % asks for, after {len(result.replications)} replications"
    assert said in result.stopping
    assert said in capsys.readouterr().out


def test_more_than_can_be_served_is_said_in_one_line(capsys, changed):
    assert 0 == main(["run", changed("rate_per_second = 30", "rate_per_second = 50"), "--replications", "2"])
    unstable = capsys.readouterr().out
    assert 0 == main(["run", changed(), "--replications", "2"])

    (line,) = (line for line in unstable.splitlines() if "no steady state" in line)
    assert line.startswith("container has no steady state: ")
    assert "lower the rate" in line
    assert "no steady state" not in capsys.readouterr().out


def test_a_warm_up_that_was_found_is_said(capsys, tmp_path, changed):
    auto = changed("warm_up_seconds = 100", 'warm_up_seconds = "auto"')
    assert 0 == main(["run", auto, "--replications", "2", "--json", str(tmp_path / "result.json")])

    result = Result.load(tmp_path / "result.json")
    assert 0 <= result.warm_up_seconds <= 150
    assert f"warm-up {result.warm_up_seconds:g} s, found by MSER-5" in capsys.readouterr().out


def test_one_replication_says_that_it_has_no_interval(capsys, changed):
    assert 0 == main(["run", changed(), "--replications", "1"])

    shown = capsys.readouterr().out
    assert "one replication says nothing about chance from run to run, so " in shown
    # But for one, which says what it is.
    assert "only mean_seconds has an interval (batch means, within one run)" in shown
    assert ["mean_seconds"] == [line.split()[0] for line in shown.splitlines() if "…" in line]
    assert 1 == shown.count("(one run)")


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interruption_leaves_one_line_and_what_was_logged(tmp_path, workers):
    log = tmp_path / "events.jsonl"
    command = ["run", "steady", "--replications", "5000", "--workers", workers, "--log", str(log)]
    process = subprocess.Popen(
        [sys.executable, "-m", "classroom.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=Path(classroom.__file__).parents[1],
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        out, error = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()

    assert (130, "") == (process.returncode, out)
    assert "onggi: interrupted\n" == error
    assert [log] == list(tmp_path.iterdir())
    assert 0 == next(read_events(log, follow=True)).replication


IMPOSSIBLE = {
    "an unknown key": ("queue_limit", "queue_limt", "did you mean `queue_limit`"),
    "more cores than any machine has": ("workers = 4", "workers = 40", "`application` needs 40 cores"),
    "more memory than any machine has": (
        "workers = 4",
        "workers = 4\nmemory_mib = 9e9",
        "`machines.spec.memory_bytes`",
    ),
    "no worker": ("workers = 4", "workers = 0", "`application.workers`"),
    "no user": (
        'kind = "poisson"\nrate_per_second = 30',
        'kind = "closed"\nusers = 0\nthink = { kind = "deterministic", mean_seconds = 1 }',
        "`arrivals.users`",
    ),
    "an infinite mean": (
        'kind = "exponential"\nmean_seconds = 0.1',
        'kind = "pareto"\nshape = 1.0\nminimum_seconds = 0.1',
        "`shape` 1 of `pareto` has an infinite mean",
    ),
    "a trace that is not there": (
        'kind = "poisson"\nrate_per_second = 30',
        'kind = "trace"\npath = "no-such.csv"',
        "no-such.csv: No such file",
    ),
    "weights of nothing": ("[slo]", '[balancer]\nkind = "weighted"\nweights = [0.0]\n[slo]', "`balancer.weights"),
    "a kind that there is not": (
        'kind = "poisson"',
        'kind = "poison"',
        "`arrivals.kind`: unknown kind `poison`: did you",
    ),
    "no kind": ('kind = "poisson"', "", "`arrivals.kind` is missing"),
    "a warm-up longer than the run": ("warm_up_seconds = 100", "warm_up_seconds = 300", "`warm_up_seconds` 300"),
    "a warm-up that is no number": ("warm_up_seconds = 100", 'warm_up_seconds = "atuo"', "`warm_up_seconds`"),
    "an image that is not described": ("replications", 'warmth = "cold"\nreplications', "`application.image`"),
    "a fault of nothing": (
        "[slo]",
        '[[faults]]\nkind = "machine-loss"\nmachine = "machine-9"\nat_seconds = 1\nrepair_seconds = 1\n[slo]',
        "`faults`: there is no machine-9",
    ),
    "bounds the wrong way round": (
        'kind = "fixed"\ninstances = 1',
        'kind = "hpa"\nmin_instances = 5\nmax_instances = 3',
        "`min_instances` 5 must not exceed `max_instances` 3",
    ),
}


@pytest.mark.parametrize("what", list(IMPOSSIBLE))
def test_an_impossible_scenario_ends_in_one_line_that_names_the_key(what, changed, capsys):
    before, after, said = IMPOSSIBLE[what]
    assert 2 == main(["run", changed(before, after), "--replications", "1"])

    captured = capsys.readouterr()
    assert ("", 1) == (captured.out, captured.err.count("\n"))
    assert captured.err.startswith("onggi: ")
    assert said in captured.err


def test_a_trace_out_of_order_names_the_line(changed, tmp_path, capsys):
    (tmp_path / "trace.csv").write_text("seconds\n1\n5\n3\n", encoding="utf-8")
    path = changed("rate_per_second = 30", f'path = "{tmp_path.as_posix()}/trace.csv"')
    Path(path).write_text(Path(path).read_text(encoding="utf-8").replace('"poisson"', '"trace"'), encoding="utf-8")
    assert 2 == main(["run", path])

    assert "trace.csv:4: out of order" in (error := capsys.readouterr().err)
    assert 1 == error.count("\n")


@pytest.mark.parametrize(
    "wrong",
    [
        ["run", "no-such-scenario"],
        ["run", "steady", "--platform", "no-such-platform"],
        ["run", "steady", "--replications", "0"],
        ["run", "steady", "--seed", "-1"],
        ["run", "steady", "--replications", "1", "--json", "/no/such/folder/result.json"],
        ["run", "steady", "--replications", "1", "--log", "/no/such/folder/events.jsonl"],
        ["run", "steady", "--replications", "1", "--log", "/dev", "--explain"],
        ["run", "steady", "--workers", "0"],
        ["run", "steady", "--precision", "p98_seconds=0.1"],
        ["run", "steady", "--precision", "p99_seconds"],
        ["run", "steady", "--precision", "p99_seconds=0"],
    ],
)
def test_wrong_input_ends_in_one_line_and_status_2(wrong, capsys):
    assert 2 == main(wrong)

    captured = capsys.readouterr()
    assert "" == captured.out
    assert captured.err.startswith("onggi: ")
    assert 1 == captured.err.count("\n")
