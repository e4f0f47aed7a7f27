"""`onggi measure` and the measuring that `onggi compare` begins with, on the real machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from classroom.cli import main
from classroom.recordings import host_name, own_recording
from real_engine.measure import session
from simulator.evidence.measurements import Subject, read_measurements

LITTLE = session.Effort(
    light_startups=2,
    heavy_startups=1,
    light_contentions=1,
    heavy_contentions=1,
    light_memories=1,
    heavy_memories=1,
    light_memory_counts=(1, 2, 4),
    heavy_memory_counts=(1, 2),
    heavy_concurrencies=(1, 2),
    machine=1,
)


@pytest.fixture
def little(monkeypatch):
    """Few repetitions: here it matters that everything is done, not that it is done often."""
    monkeypatch.setattr(session, "QUICK", LITTLE)


def measured(directory: Path) -> set[str]:
    return {subject.platform for subject in read_measurements(directory).startup}


@pytest.mark.root
def test_what_the_engine_measures_the_simulator_reads(little, tmp_path, capsys):
    status = main(
        ["measure", "--quick", "--platforms", "process,container", "--host", "here", "--output", str(tmp_path)]
    )

    assert status == 0
    measurements = read_measurements(tmp_path / "here")
    assert {"process", "container"} == {subject.platform for subject in measurements.startup}
    container = measurements.startup[Subject("container", "default")]
    assert ("prepare", "cgroup", "clone", "mounts", "pivot", "confine", "exec", "program") == container.phases
    sums = sum(container.wall[phase] for phase in container.phases)
    assert sums == pytest.approx(container.total, abs=1e-6)
    assert {1, 2, 4, 8, 16} == set(measurements.contention[Subject("container", "default")])
    assert {1, 2, 4} == set(measurements.memory[Subject("container", "default")].pss)
    assert "here" in capsys.readouterr().out


@pytest.mark.root
@pytest.mark.qemu
def test_an_emulated_guest_is_measured_under_its_own_name(little, tmp_path):
    assert main(["measure", "--quick", "--platforms", "vm-tcg", "--host", "here", "--output", str(tmp_path)]) == 0

    measurements = read_measurements(tmp_path / "here")
    assert {Subject("vm-tcg", "microvm"), Subject("vm-tcg", "q35")} == set(measurements.startup)
    told = json.loads((tmp_path / "here" / "provenance.json").read_text(encoding="utf-8"))
    assert {"vm-kvm", "vm-tcg"} == set(told["accelerators"])
    assert told["runtimes"]["qemu"]


@pytest.mark.root
def test_compare_measures_this_machine_once(little, data_copy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["compare", "--replications", "2", "--workers", "1", "--no-report", "--json", "-"]

    assert main(arguments) == 0
    first = capsys.readouterr()
    recorded = (own_recording() / "provenance.json").read_bytes()
    assert main(arguments) == 0
    second = capsys.readouterr()

    assert "measuring this machine first" in first.err
    assert json.loads(first.out)["measurements"]["host"] == host_name()
    assert second.err == ""
    assert first.out == second.out
    assert recorded == (own_recording() / "provenance.json").read_bytes()


@pytest.mark.root
def test_compare_measures_again_when_the_machine_has_changed(little, data_copy, capsys):
    arguments = ["compare", "--replications", "2", "--workers", "1", "--no-report", "--json", "-"]
    assert main(arguments) == 0
    path = own_recording() / "provenance.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "fingerprint": "of another kernel"}), encoding="utf-8")
    capsys.readouterr()

    assert main(arguments) == 0

    assert "measuring this machine first" in capsys.readouterr().err
    assert json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == record["fingerprint"]


@pytest.mark.skipif(sys.platform != "linux", reason="the engine measures on Linux only")
def test_an_ordinary_user_is_told_that_the_reference_set_is_used(data_copy, capsys, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(data_copy.parent))

    assert main(["compare", "--replications", "2", "--workers", "1", "--no-report"]) == 0

    output = capsys.readouterr()
    assert "not measuring this machine" in output.err
    assert "reference" in output.out


def test_measuring_always_where_it_cannot_be_done_is_an_error(data_copy, capsys, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")

    assert main(["compare", "--measure", "always", "--no-report"]) == 2

    assert "needs Linux" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--platforms", "conatiner"], "unknown platform `conatiner`"),
        (["--experiments", "all"], "unknown experiment `all`"),
        (["--host", "../elsewhere"], "--host ../elsewhere"),
    ],
)
def test_a_bad_argument_ends_in_one_line(arguments, told, capsys):
    assert main(["measure", *arguments]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


@pytest.mark.root
@pytest.mark.parametrize("platform", ["process", "container"])
def test_ctrl_c_leaves_valid_files_and_no_processes(platform, tmp_path):
    command = [sys.executable, "-m", "classroom.cli", "measure", "--platforms", platform, "--experiments", "startup"]
    running = subprocess.Popen(
        [*command, "--host", "here", "--output", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal reaches its children as a terminal's Ctrl-C does
    )
    time.sleep(3.0)
    os.killpg(running.pid, signal.SIGINT)
    output, errors = running.communicate(timeout=30)

    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in output
    measurements = read_measurements(tmp_path / "here")
    assert not measurements.provenance.complete
    assert {Subject(platform, "default")} == set(measurements.startup)
    assert [tmp_path / "here"] == list(tmp_path.iterdir())
    # What the signal ended too may wait a moment for process 1 of this system to collect it.
    for _ in range(100):
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process was left behind")
