"""Why to believe the model: its predictions beside measurements that it was not fitted to.

A pair is one prediction and what was measured under the same condition. Pairs that the model was fitted to are listed
and marked, and never counted. An error means little alone, so each pair also has the run-to-run spread of the real
thing: no model can be expected to hit closer than the machine repeats itself.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.memory import footprint, proportional_set_size
from simulator.datacenter.platforms import Memory, PlatformProfile
from simulator.datacenter.startup import predict_contention
from simulator.errors import SimulatorError
from simulator.evidence.calibration import (
    FITTED_CONCURRENCY,
    calibrate,
    described_profile,
    fit_machine,
    fitted_instances,
)
from simulator.evidence.measurements import Measurements, MemorySamples, Samples, Subject
from simulator.statistics.intervals import bootstrap_median, coefficient_of_variation

TARGETS = {"contention": 0.15, "memory": 0.10}
"""The median absolute relative error that the model is to stay within, by experiment."""

ALL = "all"
"""In a summary: every platform, or every variant."""


@dataclass(frozen=True)
class Pair:
    """One prediction beside what was measured.

    Attributes:
        experiment: `startup`, `contention` or `memory`.
        platform: which one.
        variant: how it was set up.
        metric: `mean` or `last` start-up of those that started at once; `pss` of one instance, growth of the host's
            `kernel` memory since the first ran, or the `footprint`: PSS of all instances and that growth.
        condition: e.g. `concurrency=4`.
        unit: `seconds` or `bytes`, of all figures below.
        predicted: by the model, with `predicted_low` and `predicted_high` from the interval of what it was fitted to.
        measured: median over the repetitions, with `measured_low` and `measured_high` its 95 % bootstrap interval.
        relative_error: (predicted - measured) / measured.
        fitted: whether the model was fitted to this figure, so that it shows nothing.
        spread: coefficient of variation of the measured figure over the repetitions.
        repetitions: how many there were.
    """

    experiment: str
    platform: str
    variant: str
    metric: str
    condition: str
    unit: str
    predicted: float
    predicted_low: float
    predicted_high: float
    measured: float
    measured_low: float
    measured_high: float
    relative_error: float
    fitted: bool
    spread: float
    repetitions: int


@dataclass(frozen=True)
class Summary:
    """How far the predictions of one experiment and platform are off. Fitted pairs are not counted.

    Attributes:
        experiment: `contention` or `memory`.
        platform: which one, or `all`.
        variant: which one, or `all`.
        points: how many pairs were counted.
        median_absolute_relative_error: of these pairs.
        worst: the pair that is furthest off.
        median_spread: of the measured figures, run to run.
        target: what the error is to stay within.
        met: whether it does.
    """

    experiment: str
    platform: str
    variant: str
    points: int
    median_absolute_relative_error: float
    worst: Pair
    median_spread: float
    target: float
    met: bool


@dataclass(frozen=True)
class Validation:
    """All pairs of one host, and what they come to."""

    host: str
    recorded_at: str
    pairs: tuple[Pair, ...]
    summary: tuple[Summary, ...]

    def to_json(self) -> str:
        """As JSON, keys sorted: the same measurements always give the same bytes."""
        return json.dumps(asdict(self), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def validate(measurements: Measurements) -> Validation:
    """Calibrate on the part of the measurements meant for it, and hold the predictions against all of them.

    Args:
        measurements: of one host.

    Raises:
        SimulatorError: no platform was measured as calibration needs it.
    """
    subjects = [subject for subject in measurements.startup if subject in measurements.memory]
    if not subjects:
        raise SimulatorError(
            f"{measurements.directory}: no platform has both start-up and memory measured, so there is nothing to fit; "
            "run `onggi measure` to its end"
        )
    machine = fit_machine(measurements)
    pairs = tuple(
        pair
        for subject in subjects
        for pair in validate_profile(
            calibrate(measurements, subject, described_profile(subject)), machine, measurements, subject
        )
    )
    return Validation(measurements.host, measurements.provenance.recorded_at, pairs, tuple(summaries(pairs)))


def validate_profile(
    profile: PlatformProfile, machine: MachineSpec, measurements: Measurements, subject: Subject
) -> Iterator[Pair]:
    """Pairs of one platform: its start-up, its contention, its memory."""
    alone = measurements.startup[subject].total
    at_one = _startup_range(profile, 1.0)
    yield _pair(subject, "startup", "mean", "concurrency=1", "seconds", at_one, alone, fitted=True)
    for concurrency, samples in measurements.contention.get(subject, {}).items():
        predicted = predict_contention(machine, profile, concurrency)
        figures = [("mean", predicted.mean(), samples.mean(axis=1)), ("last", predicted.max(), samples.max(axis=1))]
        for metric, value, measured in figures if concurrency > 1 else figures[:1]:
            yield _pair(
                subject,
                "contention",
                metric,
                f"concurrency={concurrency}",
                "seconds",
                _startup_range(profile, value / profile.startup.total_seconds.value),
                measured,
                fitted=concurrency <= FITTED_CONCURRENCY,
            )
    yield from _memory_pairs(profile.memory, measurements.memory[subject], subject)


def _memory_pairs(memory: Memory, samples: MemorySamples, subject: Subject) -> Iterator[Pair]:
    """PSS of one, and what the instances after the first added to the kernel's memory and to all memory.

    The host drifts between the reading without instances and the one with the first; from then on it holds still, so
    growth is counted from there.
    """
    ends = [_memory_at(memory, end) for end in ("value", "low", "high")]
    first = min(samples.kernel, default=0)
    for count, pss in samples.pss.items():
        measured = {"pss": pss.mean(axis=1)}
        predicted = {"pss": [proportional_set_size(at, count) for at in ends]}
        if count in samples.kernel and count > first:
            repetitions = min(pss.shape[0], samples.kernel[count].size, samples.kernel[first].size)
            grown = samples.kernel[count][:repetitions] - samples.kernel[first][:repetitions]
            measured |= {"kernel": grown, "footprint": pss[:repetitions].sum(axis=1) + grown}
            predicted |= {
                "kernel": [(count - first) * at.kernel_bytes.value for at in ends],
                "footprint": [footprint(at, count) - first * at.kernel_bytes.value for at in ends],
            }
        for metric, values in measured.items():
            value, low, high = predicted[metric]
            yield _pair(
                subject,
                "memory",
                metric,
                f"instances={count}",
                "bytes",
                (value, low, high),
                values,
                fitted=count <= fitted_instances(subject.platform),
            )


def _memory_at(memory: Memory, end: str) -> Memory:
    """The memory model with each quantity at one end of its interval."""
    return memory.model_copy(
        update={
            name: (quantity := getattr(memory, name)).model_copy(update={"value": getattr(quantity, end)})
            for name in ("private_bytes", "shared_bytes", "kernel_bytes")
        }
    )


def _startup_range(profile: PlatformProfile, factor: float) -> tuple[float, float, float]:
    """A prediction that is `factor` times the start-up of one, with the interval that follows from that of one."""
    total = profile.startup.total_seconds
    return total.value * factor, total.low * factor, total.high * factor


def _pair(
    subject: Subject,
    experiment: str,
    metric: str,
    condition: str,
    unit: str,
    predicted: tuple[float, float, float],
    samples: Samples,
    *,
    fitted: bool,
) -> Pair:
    measured = bootstrap_median(samples)
    value, low, high = (float(number) for number in predicted)
    # A host's growth of kernel memory can be nil or noise below it; an error relative to that is the whole prediction.
    error = (value - measured.value) / abs(measured.value) if measured.value else float(bool(value))
    return Pair(
        experiment=experiment,
        platform=subject.platform,
        variant=subject.variant,
        metric=metric,
        condition=condition,
        unit=unit,
        predicted=value,
        predicted_low=low,
        predicted_high=high,
        measured=measured.value,
        measured_low=measured.low,
        measured_high=measured.high,
        relative_error=error,
        fitted=fitted,
        spread=coefficient_of_variation(samples),
        repetitions=int(samples.size),
    )


def summaries(pairs: Iterable[Pair]) -> Iterator[Summary]:
    """What the unfitted pairs come to: for each experiment all together, then each platform and variant."""
    unfitted = [pair for pair in pairs if not pair.fitted]
    for experiment, target in TARGETS.items():
        parts: dict[tuple[str, str], list[Pair]] = {}
        for pair in unfitted:
            if pair.experiment == experiment:
                parts.setdefault((ALL, ALL), []).append(pair)
                parts.setdefault((pair.platform, pair.variant), []).append(pair)
        for (platform, variant), part in parts.items():
            error = float(np.median([abs(pair.relative_error) for pair in part]))
            yield Summary(
                experiment=experiment,
                platform=platform,
                variant=variant,
                points=len(part),
                median_absolute_relative_error=error,
                worst=max(part, key=lambda pair: abs(pair.relative_error)),
                median_spread=float(np.median([pair.spread for pair in part])),
                target=target,
                met=error <= target,
            )
