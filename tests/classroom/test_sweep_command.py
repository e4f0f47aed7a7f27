"""`onggi sweep`: what is typed is what is simulated, and what was interrupted goes on."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import classroom
from classroom.cli import main
from simulator.datafiles import data_directory
from simulator.experiments.sweeps import Sweep

PATIENCE_SECONDS = 60.0
QUICK = ["--replications", "2", "--workers", "1"]


@pytest.fixture
def quick(tmp_path):
    """A small scenario in a file."""
    text = (data_directory() / "scenarios" / "steady.toml").read_text(encoding="utf-8")
    path = tmp_path / "quick.toml"
    path.write_text(text.replace("1200", "150"), encoding="utf-8")
    return str(path)


def swept(capsys, *command):
    assert 0 == main(["sweep", *command, *QUICK, "--json", "-"]), capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("over", "values"),
    [
        ("application.workers=4,6", [4, 6]),
        ("application.workers=4..6", [4, 5, 6]),
        ("arrivals.rate_per_second=10,12.5", [10, 12.5]),
        ("balancer=random,round-robin", ["random", "round-robin"]),
        (
            "application.demand={kind = 'deterministic', mean_seconds = 0.1}",
            [{"kind": "deterministic", "mean_seconds": 0.1}],
        ),
    ],
)
def test_values_are_read_as_they_are_meant(quick, capsys, over, values):
    (key,) = (tree := swept(capsys, quick, "--over", over))["keys"]

    assert values == [point[key] for point in tree["points"]]


def test_ranges_of_numbers_are_cut_or_drawn_from(quick, capsys):
    even = swept(capsys, quick, "--over", "arrivals.rate_per_second=10..30.0", "--points", "3")
    ratios = swept(capsys, quick, "--over", "arrivals.rate_per_second=log:1..25.0", "--points", "3")
    drawn = swept(
        capsys, quick, "--over", "arrivals.rate_per_second=10..30.0", "--design", "latin-hypercube", "--points", "4"
    )

    assert [10, 20, 30] == [point["arrivals.rate_per_second"] for point in even["points"]]
    assert pytest.approx([1, 5, 25]) == [point["arrivals.rate_per_second"] for point in ratios["points"]]
    assert [0, 1, 2, 3] == sorted((point["arrivals.rate_per_second"] - 10) // 5 for point in drawn["points"])


def test_the_table_has_a_row_for_each_point_and_platform_with_intervals(quick, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    command = ["sweep", quick, "--over", "application.workers=4,40", "--platform", "process,vm-kvm", *QUICK]
    assert 0 == main([*command, "--metric", "mean_seconds"])

    shown = capsys.readouterr().out
    assert "All figures are simulated" in shown
    assert 2 == sum("process" in line and "…" in line for line in shown.splitlines()) + sum(
        "vm-kvm" in line and "…" in line for line in shown.splitlines()
    )
    assert 2 == shown.count(" refused")
    assert "refused: point 1 (application.workers=40): " in shown
    assert "mean_seconds of process and vm-kvm: lower with process at" in shown


def test_one_replication_of_each_point_gives_no_verdict(quick, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    command = ["sweep", quick, "--over", "application.workers=4,5", "--platform", "process,vm-kvm", "--workers", "1"]
    assert 0 == main([*command, "--replications", "1"])

    shown = capsys.readouterr().out
    assert "no verdict on p99_seconds: one replication says nothing about chance" in shown
    assert "lower with" not in shown
    assert "…" not in shown


def test_warm_ups_that_were_found_and_points_without_a_steady_state_are_said(quick, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "auto.toml"
    text = Path(quick).read_text(encoding="utf-8")
    text = text.replace("= 150", "= 300").replace("= 100\n", '= "auto"\n').replace("= 100000 ", "= 10 ")
    path.write_text(text, encoding="utf-8")
    assert 0 == main(["sweep", str(path), "--over", "arrivals.rate_per_second=10,60", *QUICK])

    shown = capsys.readouterr().out
    assert "warm-up, found by MSER-5 in pilot replications of each point" in shown
    assert "1 of 2 rows have no steady state; the first (arrivals.rate_per_second=60 on container)" in shown


def test_csv_and_json_hold_the_same_sweep(quick, capsys, tmp_path):
    command = ["sweep", quick, "--over", "application.workers=4,5", *QUICK, "--json", str(tmp_path / "sweep.json")]
    assert 0 == main([*command, "--csv", "-"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    read = Sweep.load(tmp_path / "sweep.json")

    assert [row["value"] for row in read.rows()] == [float(row["value"]) for row in rows]
    assert ["4", "5"] == sorted({row["application.workers"] for row in rows})


def test_a_plan_in_a_file_is_carried_out_and_options_change_it(quick, capsys, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[sweep]\nscenario = "quick.toml"\nplatforms = ["process"]\nseed = 4\n'
        '[sweep.over]\n"application.workers" = [4, 5]\n',
        encoding="utf-8",
    )
    typed = swept(capsys, quick, "--platform", "process", "--over", "application.workers=4,5", "--seed", "4")

    assert typed == swept(capsys, str(plan))
    assert 7 == swept(capsys, str(plan), "--seed", "7")["seed"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "sweep over nothing"),
        (["--over", "aplication.workers=1"], "did you mean `application.workers`"),
        (["--over", "application.workers=1", "--over", "application.workers=2"], "given twice"),
        (["--over", "application.workers=1", "--metric", "p98_seconds"], "did you mean `p99_seconds`"),
        (["--over", "application.workers=1", "--platform", "no-such"], "no such file"),
        (["--over", "application.workers=1", "--resume"], "--store DIR"),
        (["--over", "application.workers=1", "--csv", "-", "--json", "-"], "can have one of them"),
        (["--over", "application.workers=1", "--design", "latin-hypercube"], "give `points`"),
        (["--over", "application.workers=40,41"], "no point of the sweep is possible"),
        (["--over", "application.workers=1", "--seed", "-1"], "seed"),
        (["--over", "application.workers=1", "--replications", "0"], "replications"),
        (["--over", "application.workers=1", "--workers", "0"], "workers 0"),
    ],
)
def test_wrong_input_ends_in_one_line_and_status_2(quick, capsys, options, said):
    assert 2 == main(["sweep", quick, *options])

    captured = capsys.readouterr()
    assert "" == captured.out
    assert captured.err.startswith("onggi: ")
    assert said in captured.err
    assert 1 == captured.err.count("\n")


def test_an_over_without_values_is_answered_with_an_example(quick, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", quick, "--over", "application.workers"])

    assert 2 == ended.value.code
    assert "application.workers=1,2,4" in capsys.readouterr().err


def test_a_store_is_gone_on_with_only_when_asked(quick, capsys, tmp_path):
    command = [
        "sweep",
        quick,
        "--over",
        "application.workers=4,5",
        *QUICK,
        "--store",
        str(tmp_path / "store"),
        "--csv",
        "-",
    ]
    assert 0 == main(command)
    first = capsys.readouterr().out

    assert 2 == main(command)
    assert "4 finished replications" in capsys.readouterr().err
    assert 0 == main([*command, "--resume"])
    assert first == capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_sweep_that_is_killed_and_interrupted_goes_on_and_gives_the_same(tmp_path, capsys):
    store, asked = (
        tmp_path / "store",
        ["sweep", "steady", "--over", "application.workers=4,5,6", "--replications", "30"],
    )
    kept = [*asked, "--json", "-", "--store", str(store), "--resume"]

    assert -signal.SIGKILL == _stop([*kept, "--workers", "2"], store, signal.SIGKILL).returncode
    survived = _finished(store)
    interrupted = _stop([*kept, "--workers", "1"], store, signal.SIGINT)
    assert 0 < survived < _finished(store) < 90
    assert 130 == interrupted.returncode
    assert f"of 90 replications are in {store}; go on with `onggi sweep steady" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr

    assert 0 == main([*kept, "--workers", "1"])
    resumed = capsys.readouterr().out
    assert 90 == _finished(store)
    assert 0 == main([*asked, "--json", "-", "--workers", "1"])
    assert capsys.readouterr().out == resumed


def _finished(store):
    lines = store / "replications.jsonl"
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


def _stop(arguments, store, sent):
    """Start the command, and send it and its workers a signal, as a terminal does, once it has finished some more."""
    before = _finished(store)
    command = [sys.executable, "-m", "classroom.cli", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=Path(classroom.__file__).parents[1],
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while _finished(store) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, sent)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.returncode, out, err)
