"""Of the samples: medians and ratios with their intervals, and what a reader should doubt."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classroom.bench.engine.operations import operations
from classroom.bench.engine.race import Samples

CONFIDENCE = 0.95
_RESAMPLES = 10_000
SPREAD = 0.25
"""(third - first quartile) / median, above which a row is called unsteady."""
BUSY_LOAD = 0.5
"""A load average per core above which the machine was too busy when the race began."""


def report(
    samples: Samples,
    missing: Sequence[str],
    remarks: Sequence[str],
    *,
    runs: int,
    quick: bool,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The table, ready for JSON: a row an operation, `ratios` of ours to dockerd's, and how it was found."""
    known = {one.name: one for one in operations("", quick=quick)}
    rows: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    warnings = [*remarks, *_warnings(samples, quick=quick, runs=runs, machine=machine)]
    for name, taken in samples.items():
        rows[name] = {
            who: dict(zip(("median", "low", "high"), median_interval(values), strict=True)) | {"samples": values}
            for who, values in taken.items()
        } | {"unit": known[name].unit, "title": known[name].title}
        if "dockerd" in taken:
            value, low, high = ratio_interval(taken["onggi"], taken["dockerd"])
            target = known[name].target
            ratios[name] = {"ratio": value, "low": low, "high": high, "target": target, "better": known[name].better}
            if target is not None:
                ratios[name]["met"] = value <= target if known[name].better == "less" else value >= target
    return rows | {
        "ratios": ratios,
        "not_installed": list(missing),
        "warnings": warnings,
        "runs": runs,
        "quick": quick,
        "machine": dict(machine),
        "method": {
            "order": "one sample of each contestant in turn, the order drawn anew for each turn",
            "figures": f"medians, and ratios of medians (ours to dockerd's), with {CONFIDENCE:.0%} bootstrap intervals",
            "memory": "proportional set size: daemon, containerd and shims, or daemon and supervisor; no container",
        },
    }


def median_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The median, and its interval by the percentile bootstrap; no interval of fewer than three values."""
    data = np.asarray(values)
    if len(data) < 3:
        return float(np.median(data)), None, None
    low, high = _percentiles(np.median(_resampled(data, 1), axis=1))
    return float(np.median(data)), low, high


def ratio_interval(over: Sequence[float], under: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The ratio of two medians, and its interval by the bootstrap of both."""
    one, other = np.asarray(over), np.asarray(under)
    value = float(np.median(one) / np.median(other))
    if min(len(one), len(other)) < 3:
        return value, None, None
    low, high = _percentiles(np.median(_resampled(one, 1), axis=1) / np.median(_resampled(other, 2), axis=1))
    return value, low, high


def _resampled(data: "np.ndarray[Any, Any]", seed: int) -> "np.ndarray[Any, Any]":
    """Shape (resamples, values)."""
    return np.random.default_rng(seed).choice(data, (_RESAMPLES, len(data)))


def _percentiles(values: "np.ndarray[Any, Any]") -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)


def _warnings(samples: Samples, *, quick: bool, runs: int, machine: Mapping[str, Any]) -> list[str]:
    found = []
    if quick:
        found.append("a quick run: it shows that everything works, and its figures say nothing about speed")
    if runs < 3:
        found.append(f"{runs} runs each: give at least 3 for an interval")
    load, cores = machine["load_average"], machine["cores"]
    if load is not None and load > BUSY_LOAD * cores:
        found.append(f"unsteady: the load average was {load:.2f} on {cores} cores before the first sample")
    for name, taken in samples.items():
        for who, values in taken.items():
            first, middle, third = np.percentile(values, (25, 50, 75))
            if len(values) > 2 and (third - first) / middle > SPREAD:
                found.append(
                    f"unsteady: {name} of {who}: the middle half of its samples spans {(third - first) / middle:.0%}"
                )
    return found
