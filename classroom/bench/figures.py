"""Of the samples: medians, ratios, whether the answers are right, and what a reader should doubt."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from classroom.bench.cases import MM10_LOAD, MM10_SERVICE, MM10_WORKERS, SMALL_FLEET, TEN_TIMES, Size
from classroom.bench.rounds import Samples
from simulator.evidence.theory import mmc_mean_wait
from simulator.statistics.intervals import t_interval

SPREAD = 0.1
"""(slowest - fastest) / median of an engine's runs, above which its figures are called unsteady."""

BUSY_LOAD = 0.5
"""A load average per core above which the machine was too busy when the benchmark began."""

KEPT_WAITING = 0.9
"""CPU seconds per wall-clock second of a run below which something else had the core."""

CONFIDENCE = 0.99
AGREEMENT = 1e-6
"""Relative: data planes that add up the same numbers in another order may differ in the last digits of a sum."""


class Ratio(NamedTuple):
    """One engine over another.

    Attributes:
        over: what is divided: row, engine, key.
        under: by what.
        target: that the project set itself, and whether the ratio should be at least (`>=`) or at most (`<=`) that.
    """

    over: tuple[str, str, str]
    under: tuple[str, str, str]
    target: tuple[str, float] | None


SPEED, PEAK, COST = "requests_per_second", "peak_bytes", "seconds_per_request"

RATIOS = {
    "numba_to_process_per_request": Ratio(
        ("full_scenario", "numba", SPEED), ("full_scenario", "process_per_request", SPEED), (">=", 25.0)
    ),
    "python_to_process_per_request": Ratio(
        ("full_scenario", "python", SPEED), ("full_scenario", "process_per_request", SPEED), None
    ),
    "onggi_to_ciw": Ratio(("mm10", "onggi", SPEED), ("mm10", "ciw", SPEED), (">=", 40.0)),
    "onggi_to_simpy": Ratio(("mm10", "onggi", SPEED), ("mm10", "simpy", SPEED), None),
    "peak_of_10x_requests": Ratio(
        ("ten_times_the_requests", "numba", PEAK), ("full_scenario", "numba", PEAK), ("<=", 1.2)
    ),
    "peak_of_10x_the_time": Ratio(("ten_times_as_long", "numba", PEAK), ("full_scenario", "numba", PEAK), ("<=", 1.2)),
    "cost_of_large_fleet": Ratio(("fleet", "large", COST), ("fleet", "small", COST), ("<=", 2.0)),
    "two_cores_to_one": Ratio(("replications", "two_cores", SPEED), ("replications", "one_core", SPEED), (">=", 1.7)),
}
"""By key in the report."""

SPEED_TARGETS = {("full_scenario", "numba"): 1.2e6, ("full_scenario", "python"): 3e5}
"""Requests per second that the project set itself, on its own machine, by row and engine."""

HOUR_TARGET_SECONDS = 480.0
"""For the hour of 10,000 instances."""


def report(
    samples: Samples, *, size: Size, runs: int, quick: bool, machine: Mapping[str, Any], memory: str
) -> dict[str, Any]:
    """Everything that the benchmark found, ready for JSON.

    Args:
        samples: of `classroom.bench.rounds.run_rounds`.
        size: what was asked of it.
        runs: rounds.
        quick: whether the runs were too short to judge by.
        machine: of `classroom.bench.machine.describe`, from before the first run.
        memory: how the peak was found, in words.
    """
    rows: dict[str, Any] = {}
    for (row, engine), taken in samples.items():
        rows.setdefault(row, {})[engine] = _column(taken)
    return rows | {
        "ratios": _ratios(rows),
        "verified": _verified(samples),
        "warnings": _warnings(samples, runs=runs, quick=quick, machine=machine),
        "runs": runs,
        "quick": quick,
        "size": {
            "requests": size.requests,
            "ten_times": TEN_TIMES * size.requests,
            "replications": size.replications,
            "small_fleet": SMALL_FLEET,
            "large_fleet": size.large_fleet,
            "fleet_requests": size.fleet_requests,
        },
        "machine": dict(machine),
        "method": {
            "runs": "each in a process of its own, engines in turns; medians; seed i in round i",
            "time": "wall clock, from drawing the first arrival to the last figure; imports, compilation and a small "
            "run before it are not counted, and are in `warm_up_seconds`",
            "memory": memory,
        },
    }


def _column(taken: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The medians of one engine's runs, and the runs."""
    speeds = [sample["requests"] / sample["wall_seconds"] for sample in taken]
    by_cpu = [sample["requests"] / sample["cpu_seconds"] for sample in taken if sample["cpu_seconds"]]
    peaks = [sample["peak_bytes"] for sample in taken if sample["peak_bytes"] is not None]
    speed = statistics.median(speeds)
    return {
        SPEED: speed,
        PEAK: int(statistics.median(peaks)) if peaks else None,
        "requests_per_cpu_second": statistics.median(by_cpu) if by_cpu else None,
        COST: 1 / speed,
        "wall_seconds": statistics.median(sample["wall_seconds"] for sample in taken),
        "spread": (max(speeds) - min(speeds)) / speed,
        "samples": [dict(sample) for sample in taken],
    }


def _ratios(rows: Mapping[str, Any]) -> dict[str, float]:
    """Those ratios whose both sides were run."""

    def value(place: tuple[str, str, str]) -> float | None:
        row, engine, key = place
        found: float | None = rows.get(row, {}).get(engine, {}).get(key)
        return found

    pairs = {name: (value(ratio.over), value(ratio.under)) for name, ratio in RATIOS.items()}
    return {name: over / under for name, (over, under) in pairs.items() if over is not None and under}


def _verified(samples: Samples) -> dict[str, Any]:
    """Whether the raced engines gave right answers: M/M/10 against Erlang C, the data planes against each other."""
    found: dict[str, Any] = {}
    theory = mmc_mean_wait(MM10_WORKERS, MM10_LOAD * MM10_WORKERS / MM10_SERVICE, MM10_SERVICE)
    waits = {
        engine: [sample["figures"]["mean_wait_seconds"] for sample in taken]
        for (row, engine), taken in samples.items()
        if row == "mm10"
    }
    if waits:
        found["mm10_mean_wait"] = {"theory": theory, **{name: _held(theory, each) for name, each in waits.items()}}
    planes = [taken for (row, _), taken in samples.items() if row == "full_scenario"]
    if len(planes) > 1:
        found["full_scenario_same_figures"] = all(_same(one, other) for one, other in pairwise(planes))
    return found


def _held(theory: float, waits: Sequence[float]) -> dict[str, Any]:
    interval = t_interval(waits, CONFIDENCE)
    if not math.isfinite(interval.half_width):
        return {"mean_wait_seconds": interval.value, "low": None, "high": None, "holds_theory": None}
    return {
        "mean_wait_seconds": interval.value,
        "low": interval.low,
        "high": interval.high,
        "holds_theory": interval.low <= theory <= interval.high,
    }


def _same(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two data planes gave the same figures, seed by seed."""
    return all(
        first["requests"] == second["requests"]
        and first["figures"].keys() == second["figures"].keys()
        and all(
            math.isclose(value, second["figures"][name], rel_tol=AGREEMENT) for name, value in first["figures"].items()
        )
        for first, second in zip(one, other, strict=True)
    )


def _warnings(samples: Samples, *, runs: int, quick: bool, machine: Mapping[str, Any]) -> list[str]:
    warnings = []
    if quick:
        warnings.append("a quick run: it shows that everything works, and its figures say nothing about speed")
    if runs < 3:
        warnings.append(f"{runs} runs each: give at least 3 for a median")
    load, cores = machine["load_average"], machine["cores"]
    if load is not None and load > BUSY_LOAD * cores:
        warnings.append(f"unsteady: the load average was {load:.2f} on {cores} cores before the first run")
    if cores < 2 and ("replications", "two_cores") in samples:
        warnings.append("this machine has one core, so two cannot be faster")
    for (row, engine), taken in samples.items():
        column = _column(taken)
        if column["spread"] > SPREAD:
            warnings.append(f"unsteady: {row} {engine} varies by {column['spread']:.0%} of its median between runs")
        shares = [sample["cpu_seconds"] / sample["wall_seconds"] for sample in taken if sample["cpu_seconds"]]
        if shares and statistics.median(shares) < KEPT_WAITING:
            warnings.append(
                f"kept waiting: {row} {engine} had the core for {statistics.median(shares):.0%} of its time"
            )
    return warnings
