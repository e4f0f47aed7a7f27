"""`onggi bench engine`: the race itself, small, and what is made of its samples."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classroom.bench.engine import pages
from classroom.bench.engine.figures import median_interval, ratio_interval, report

_MACHINE = {
    "cpu": "a CPU",
    "cores": 2,
    "system": "Linux 6",
    "python": "CPython 3.11",
    "load_average": 0.1,
    "recorded_at": "2026-11-24T00:00:00+00:00",
    "versions": {},
}
_SECONDS = st.lists(st.floats(0.001, 100), min_size=3, max_size=8)


@given(_SECONDS)
def test_a_median_lies_in_its_interval(values: list[float]) -> None:
    median, low, high = median_interval(values)
    assert low is not None
    assert high is not None
    assert min(values) <= low <= median <= high <= max(values)


@given(_SECONDS, _SECONDS)
def test_a_ratio_lies_in_its_interval(over: list[float], under: list[float]) -> None:
    ratio, low, high = ratio_interval(over, under)
    assert low is not None
    assert high is not None
    assert low <= ratio * (1 + 1e-9)
    assert ratio <= high * (1 + 1e-9)


def test_two_samples_have_no_interval() -> None:
    assert (1.5, None, None) == median_interval([1.0, 2.0])


def test_the_report_says_whether_a_target_is_met_and_who_is_missing() -> None:
    samples = {
        "exec": {"onggi": [1.0, 1.0, 1.0], "dockerd": [4.0, 4.0, 4.0]},
        "starts_at_once": {"onggi": [10.0, 10.0, 10.0], "dockerd": [4.0, 4.0, 4.0]},
        "run_no_network": {"onggi": [1.0, 1.0, 1.0]},
    }
    found = report(samples, ["crun"], ["a remark"], runs=3, quick=False, machine=_MACHINE)
    assert {"median": 1.0, "low": 1.0, "high": 1.0, "samples": [1.0, 1.0, 1.0]} == found["exec"]["onggi"]
    assert "s" == found["exec"]["unit"]
    assert (0.25, True) == (found["ratios"]["exec"]["ratio"], found["ratios"]["exec"]["met"])
    assert (2.5, False) == (found["ratios"]["starts_at_once"]["ratio"], found["ratios"]["starts_at_once"]["met"])
    assert "run_no_network" not in found["ratios"]
    assert ["crun"] == found["not_installed"]
    assert ["a remark"] == found["warnings"]
    json.dumps(found, allow_nan=False)
    page = pages.to_markdown(found)
    assert "| docker exec CONTAINER true | 1 s (1–1) | 4 s (4–4) | 0.25 (0.25–0.25) | ≤ 0.50 ✓ |" in page
    assert "not installed here, so not raced: crun" in page


def test_unsteady_samples_are_called_so() -> None:
    samples = {"exec": {"onggi": [1.0, 2.0, 3.0, 4.0]}}
    found = report(samples, [], [], runs=4, quick=False, machine=_MACHINE | {"load_average": 9.0})
    assert any(line.startswith("unsteady: exec of onggi") for line in found["warnings"])
    assert any("load average was 9.00" in line for line in found["warnings"])


def test_a_row_that_there_is_not_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "classroom.cli", "bench", "engine", "--rows", "nosuch"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 2 == done.returncode
    assert "unknown row `nosuch` of the engine" in done.stderr
    assert 1 == len(done.stderr.strip().splitlines())


@pytest.mark.root
@pytest.mark.peer
@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line: make peers")
def test_a_small_race_is_run_whole() -> None:
    command = [sys.executable, "-m", "classroom.cli", "bench", "engine", "--quick", "--runs", "1", "--json", "-"]
    before = _leftovers()
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert 0 == done.returncode, done.stderr
    assert before == _leftovers()
    found = json.loads(done.stdout)
    for row in ("run_bridge", "run_no_network", "exec", "starts_at_once", "idle_memory", "warm_build", "pull"):
        assert found[row]["onggi"]["median"] > 0
        if shutil.which("dockerd"):
            assert found["ratios"][row]["ratio"] > 0


@pytest.mark.root
@pytest.mark.peer
@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line: make peers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_race_that_is_ended_leaves_nothing(number: signal.Signals) -> None:
    before = _leftovers()
    command = [sys.executable, "-m", "classroom.cli", "bench", "engine", "--runs", "1000", "--rows", "exec"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not _running_in(before) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert 128 + number == process.returncode
    assert before == _leftovers()


def _leftovers() -> set[str]:
    """What a race makes outside of its own processes."""
    places = (Path(tempfile.gettempdir()), *Path("/sys/fs/cgroup").glob("*/"), Path("/sys/fs/cgroup"))
    return {str(path) for place in places for path in place.glob("onggi-bench-*")}


def _running_in(before: set[str]) -> bool:
    """Whether one of the race's directories has a supervisor by now."""
    return any((Path(path) / "onggi/root/run/supervisor.sock").exists() for path in _leftovers() - before)
