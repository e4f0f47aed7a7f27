"""Runs the cases in rounds, A B C A B C …, so that a slow moment of the machine hits all alike."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from classroom.bench.cases import Case, Job
from simulator.errors import SimulatorError

Progress = Callable[[int, int], None]
Samples = dict[tuple[str, str], list[dict[str, Any]]]
"""By row and engine: what `classroom.bench.one_run.measure` gave, in the order of the rounds."""


def run_rounds(cases: Sequence[Case], runs: int, *, progress: Progress | None = None) -> Samples:
    """Run every case `runs` times, each time in a new process. Round i has seed i in every engine.

    Args:
        cases: what to run.
        runs: rounds, at least 1.
        progress: called as runs end: (how many have ended, how many there are).

    Raises:
        SimulatorError: no rounds, a library that is not installed, or a run that failed.
    """
    if runs < 1:
        raise SimulatorError(f"runs {runs}: each engine must run at least once")
    check_engines(cases)
    turns = [(case, turn) for turn in range(runs) for case in cases if turn == 0 or not case.once]
    samples: Samples = {}
    for done, (case, turn) in enumerate(turns, start=1):
        samples.setdefault((case.row, case.engine), []).append(run_once(case.job, turn))
        if progress is not None:
            progress(done, len(turns))
    return samples


def check_engines(cases: Sequence[Case]) -> None:
    """Refuse to begin without what the cases need.

    Raises:
        SimulatorError: a library is missing, with what to install.
    """
    jobs = [case.job for case in cases]
    needed = {"ciw" for job in jobs if job.engine == "ciw"} | {
        "numba" for job in jobs if job.engine == "onggi" and job.data_plane == "numba"
    }
    missing = sorted(name for name in needed if find_spec(name) is None)
    if missing:
        raise SimulatorError(f'the benchmark needs {" and ".join(missing)}: install "onggi[bench]"')


def run_once(job: Job, seed: int) -> dict[str, Any]:
    """One run in a new process.

    Raises:
        SimulatorError: it failed, with its last words.
    """
    # -P: a file in the directory where the reader happens to be must not shadow a library's.
    command = [sys.executable, "-P", "-m", "classroom.bench.one_run"]
    asked = json.dumps({"job": asdict(job), "seed": seed})
    ended = subprocess.run(command, input=asked, capture_output=True, text=True, encoding="utf-8", check=False)
    if ended.returncode != 0:
        words = ended.stderr.strip().splitlines() or [f"it ended with status {ended.returncode}"]
        raise SimulatorError(f"a run of {job.engine} failed: {words[-1]}")
    sample: dict[str, Any] = json.loads(ended.stdout)
    return sample
