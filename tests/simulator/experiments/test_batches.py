"""Groups of tasks: by a clock of the test's own, and on a Dask cluster of this machine."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import simulator
from simulator.errors import SimulatorError
from simulator.experiments import batches
from simulator.experiments.batches import Batch, run_batch, run_tasks
from simulator.experiments.sweeps import sweep

CHECKOUT = Path(simulator.__file__).resolve().parents[1]
PATIENCE_SECONDS = 60.0


@pytest.fixture
def groups(monkeypatch):
    """Makes each task, which is a number here, take that many seconds of a clock that only tasks move."""
    now, formed = [0.0], []
    plain = batches.run_batch

    def work(seconds):
        now[0] += seconds
        return f"took {seconds}"

    def run_and_remember(batch):
        formed.append(plain(batch))
        return formed[-1]

    monkeypatch.setattr(batches.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(batches, "run_one", work)
    monkeypatch.setattr(batches, "run_batch", run_and_remember)
    return formed


def places_and_outcomes(tasks):
    return sorted(done for group in run_tasks(tasks) for done in group)


@pytest.mark.parametrize("seconds", [0.0001, 0.01, 0.1, 0.49, 0.5, 3.0])
def test_after_the_first_which_is_measured_each_group_works_half_a_second_and_one_task_at_most(groups, seconds):
    tasks = [seconds] * 40_000 if seconds < 0.001 else [seconds] * 200
    assert [(place, f"took {seconds}") for place in range(len(tasks))] == places_and_outcomes(tasks)

    assert 1 == len(groups[0].outcomes)
    limit = min(0.5, batches._LARGEST_BATCH * seconds)
    assert all(limit <= sum(group.seconds) + 1e-9 for group in groups[1:-1])
    assert all(sum(group.seconds[:-1]) < 0.5 for group in groups)


def test_a_guess_that_is_wrong_loses_no_task_and_makes_no_long_group(groups):
    tasks = [0.01] * 100 + [0.3] * 20 + [0.01] * 50
    assert [(place, f"took {tasks[place]}") for place in range(len(tasks))] == places_and_outcomes(tasks)

    assert all(sum(group.seconds[:-1]) < 0.5 for group in groups)


def test_another_version_of_the_model_is_not_run():
    with pytest.raises(SimulatorError, match=r"a worker runs onggi .* and this process onggi 0\.0\.1"):
        run_batch(Batch(1, "onggi 0.0.1", ()))


def test_a_scheduler_that_is_not_there_is_one_clear_line(make_scenario, make_profile, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(batches, "CONNECT_SECONDS", 0.3)
    with socket.socket() as taken:  # bound and not listening, so nobody else answers there
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        for wrong in (address, "no address"):
            with pytest.raises(SimulatorError, match="no Dask scheduler answered") as refused:
                sweep(make_scenario(), make_profile(), over={"application.workers": [1, 2]}, dask=wrong)
            assert "\n" not in str(refused.value)


def test_without_dask_it_is_said_how_to_install_it(make_scenario, make_profile, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SimulatorError, match=r"onggi\[cluster\]"):
        sweep(make_scenario(), make_profile(), over={"application.workers": [1, 2]}, dask="tcp://127.0.0.1:1")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler without workers, on loopback."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    with subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "tcp://127.0.0.1", "--port", "0",
         "--no-dashboard", "--no-show", "--scheduler-file", str(folder / "scheduler.json")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment(), cwd=folder,
    ) as process:  # fmt: skip
        try:
            yield _address_in(folder / "scheduler.json", process)
        finally:
            process.terminate()


@pytest.fixture
def workers(scheduler, tmp_path):
    """Two worker processes of that scheduler; gives their processes."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1", "--no-nanny",
               "--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(tmp_path)]  # fmt: skip
    started = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
        for _ in range(2)
    ]
    try:
        from distributed import Client

        with Client(scheduler, timeout=PATIENCE_SECONDS, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE_SECONDS)
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE_SECONDS)


def _environment():
    return {**os.environ, "PYTHONPATH": str(CHECKOUT)}


def _address_in(path, process):
    import json

    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return json.loads(path.read_text(encoding="utf-8"))["address"]
        except (FileNotFoundError, ValueError):
            time.sleep(0.05)
    raise RuntimeError("the scheduler did not start")


def test_a_scheduler_without_workers_is_one_clear_line(scheduler, make_scenario, make_profile, monkeypatch):
    monkeypatch.setattr(batches, "CONNECT_SECONDS", 0.5)
    with pytest.raises(SimulatorError, match="the scheduler has no worker; start some: `dask worker tcp://"):
        sweep(make_scenario(), make_profile(), over={"application.workers": [1, 2]}, dask=scheduler)


def test_two_workers_of_a_cluster_give_what_one_process_gives(
    scheduler, workers, make_scenario, make_profile, tmp_path
):
    asked = {
        "platforms": [make_profile("quick"), make_profile("heavy", cpu_factor=1.5)],
        "over": {"application.workers": [1, 2, 40], "arrivals.rate_per_second": [2.0, 5.0]},
        "seed": 6,
        "replications": 5,
    }
    serial = sweep(make_scenario(), **asked)
    cluster = sweep(make_scenario(), **asked, dask=scheduler, store=tmp_path / "store")

    assert serial.to_json() == cluster.to_json()
    assert 4 == len(cluster.refused)
    assert cluster == sweep(make_scenario(), **asked, store=tmp_path / "store")


def test_a_cluster_that_loses_a_worker_gives_the_same(scheduler, workers, make_scenario, make_profile, monkeypatch):
    scenario = make_scenario(duration_seconds=60.0)
    asked = {"platforms": make_profile(), "over": {"application.workers": [1, 2]}, "replications": 60}
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0.01)

    def kill_one(done, total):
        workers[0].kill()

    assert sweep(scenario, **asked) == sweep(scenario, **asked, dask=scheduler, progress=kill_one)
