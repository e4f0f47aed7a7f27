"""What a run leaves: frozen records that know their intervals, and read and write themselves as JSON."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from simulator.errors import SimulatorError
from simulator.files import write_text
from simulator.statistics.intervals import paired_t_interval, t_interval

CONFIDENCE = 0.95
WITHIN_ONE_RUN = "batch means, within one run"
Built = TypeVar("Built")
FORMAT = 2
"""Of the JSON, so that a later version can tell."""


class FleetStep(NamedTuple):
    """From `seconds` on, so many instances are in each state."""

    seconds: float
    pending: int
    starting: int
    ready: int
    draining: int


class DecisionRecord(NamedTuple):
    """One decision of the autoscaler and its reason."""

    seconds: float
    current: int
    desired: int
    utilisation_percent: int | None
    reason: str


class FaultRecord(NamedTuple):
    """One fault: what it took, and how long until as many instances were ready again; None if never."""

    seconds: float
    kind: str
    target: str
    lost_instances: int
    lost_requests: int
    blast_radius_fraction: float
    recovery_seconds: float | None
    reason: str


class MachineStep(NamedTuple):
    """One decision of the machine autoscaler: of so many machines, so many are added and so many go."""

    seconds: float
    machines: int
    added: int
    removed: int
    reason: str


@dataclass(frozen=True)
class Episode:
    """One replication over time, for the figure.

    Attributes:
        seconds: middle of each bin.
        offered_rate: arrivals per second in each bin.
        p99_seconds: 99th percentile of the latency of requests that arrived in the bin and were answered, or None.
        violation_fraction: late, rejected or lost, of the requests that arrived in the bin, or None if none did.
        fleet: how many instances were in which state, as steps.
        decisions: all of the autoscaler's, with reasons.
        without_room: why instances had to wait for a machine, each reason once.
        faults: all that came.
        machine_decisions: those of the machine autoscaler that changed something.
    """

    seconds: tuple[float, ...]
    offered_rate: tuple[float, ...]
    p99_seconds: tuple[float | None, ...]
    violation_fraction: tuple[float | None, ...]
    fleet: tuple[FleetStep, ...]
    decisions: tuple[DecisionRecord, ...]
    without_room: tuple[str, ...]
    faults: tuple[FaultRecord, ...] = ()
    machine_decisions: tuple[MachineStep, ...] = ()

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Self:
        """Back from `dataclasses.asdict`, or from its JSON."""
        values: dict[str, Any] = {name: tuple(value) for name, value in tree.items()}
        values["fleet"] = tuple(FleetStep(*step) for step in tree["fleet"])
        values["decisions"] = tuple(DecisionRecord(*decision) for decision in tree["decisions"])
        values["faults"] = tuple(FaultRecord(*fault) for fault in tree["faults"])
        values["machine_decisions"] = tuple(MachineStep(*decision) for decision in tree["machine_decisions"])
        return cls(**values)


@dataclass(frozen=True)
class Replication:
    """The figures of one replication.

    Attributes:
        number: which.
        arrivals, completed, rejected, failed, timed_out: requests of the whole run; the first is the sum of the others.
        in_flight: of the completed, those that were still in flight when the last request arrived.
        without_room: instances for which at first no machine had room.
        metrics: name to value, see `simulator.metrics.UNITS`; a metric that has no value in this run is missing.
        episode: the run over time, where it was asked for.
        mean_half_width: half the 95 % interval of `mean_seconds` by batch means within this run, or None where they
            cannot be trusted.
    """

    number: int
    arrivals: int
    completed: int
    rejected: int
    failed: int
    timed_out: int
    in_flight: int
    without_room: int
    metrics: dict[str, float]
    episode: Episode | None = None
    mean_half_width: float | None = None

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Self:
        """Back from `dataclasses.asdict`, or from its JSON."""
        episode = tree["episode"]
        return cls(**{**tree, "episode": None if episode is None else Episode.from_dict(episode)})


@dataclass(frozen=True)
class Metric:
    """One figure over all replications: mean and 95 % interval.

    Attributes:
        name: see `simulator.metrics.UNITS`.
        value: mean over the replications.
        low, high: ends of the interval. None with fewer than two replications, but for a mean of which one run alone
            can tell: see `method`.
        unit: as in `simulator.metrics.UNITS`.
        samples: in how many replications the metric had a value.
        kind: always `simulated`.
        method: of the interval: `replications` is Student's t over them.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    unit: str
    samples: int
    kind: Literal["simulated"] = "simulated"
    method: str = "replications"


@dataclass(frozen=True)
class Result:
    """A scenario on one platform.

    Attributes:
        scenario: its name.
        platform: name of the profile.
        seed: root of all random numbers.
        slo: the objective, `{"latency_seconds": …, "quantile": …}`.
        replications: in order.
        metrics: name to figure over all replications.
        warm_up_seconds: requests that arrived before this moment are not counted.
        warm_up: how that moment was found, in words; empty where the scenario says it.
        stability: why there is no steady state, in words; empty where there is one.
        stopping: why there are so many replications, in words; empty where their number was given.
    """

    scenario: str
    platform: str
    seed: int
    slo: dict[str, float]
    replications: tuple[Replication, ...]
    metrics: dict[str, Metric] = field(default_factory=dict)
    warm_up_seconds: float = 0.0
    warm_up: str = ""
    stability: str = ""
    stopping: str = ""

    @property
    def episode(self) -> Episode:
        """The run over time of the first replication that kept it.

        Raises:
            SimulatorError: none did.
        """
        for replication in self.replications:
            if replication.episode is not None:
                return replication.episode
        raise SimulatorError(f"the result of {self.scenario} on {self.platform} holds no run over time")

    def to_frame(self) -> Any:
        """One row a metric, columns metric, value, low, high, unit, kind.

        A pandas frame where pandas is installed, else a list of records.
        """
        return frame_of(
            [
                {
                    "metric": metric.name,
                    "value": metric.value,
                    "low": metric.low,
                    "high": metric.high,
                    "unit": metric.unit,
                    "kind": metric.kind,
                }
                for metric in self.metrics.values()
            ]
        )

    def to_json(self) -> str:
        """As JSON, the same for the same result."""
        return _to_json({"format": FORMAT, "what": "result", **asdict(self)})

    def save(self, path: Path) -> None:
        """Write `to_json()` to `path`."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SimulatorError: unreadable, or not a saved result.
        """
        return _read(path, "result", cls.from_dict)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Self:
        """Back from the object that `to_json` writes."""
        return cls(
            tree["scenario"],
            tree["platform"],
            tree["seed"],
            tree["slo"],
            tuple(Replication.from_dict(replication) for replication in tree["replications"]),
            {name: Metric(**metric) for name, metric in tree["metrics"].items()},
            # A file that was written before these were kept has none of them.
            tree.get("warm_up_seconds", 0.0),
            tree.get("warm_up", ""),
            tree.get("stability", ""),
            tree.get("stopping", ""),
        )


@dataclass(frozen=True)
class Difference:
    """One metric of two platforms that met the same random numbers: `first - second`, paired, with its 95 % interval.

    Attributes:
        metric: which.
        first, second: names of the platforms.
        value: mean of the differences.
        low, high: ends of the interval, None with fewer than two pairs.
        unit: of the metric.
        pairs: replications in which both had a value.
        lower: the platform whose figure is lower, or None if that cannot be told.
        verdict: the same in words, with the reason where there is no verdict.
        kind: always `simulated`.
    """

    metric: str
    first: str
    second: str
    value: float
    low: float | None
    high: float | None
    unit: str
    pairs: int
    lower: str | None
    verdict: str
    kind: Literal["simulated"] = "simulated"


@dataclass(frozen=True)
class Comparison:
    """A scenario on several platforms, which met the same arrivals and demands.

    Attributes:
        scenario: its name.
        seed: root of all random numbers.
        results: platform to result, in the order that was asked for.
        differences: of every metric, for every pair of platforms. Each interval holds its 95 % on its own.
    """

    scenario: str
    seed: int
    results: dict[str, Result]
    differences: tuple[Difference, ...]

    def difference(self, metric: str, first: str, second: str) -> Difference:
        """The difference of `metric` between two platforms, in the order in which they were compared.

        Raises:
            SimulatorError: there is no such difference.
        """
        for difference in self.differences:
            if (difference.metric, difference.first, difference.second) == (metric, first, second):
                return difference
        raise SimulatorError(f"no difference of {metric} between {first} and {second} in this comparison")

    def to_frame(self) -> Any:
        """As `Result.to_frame`, with a first column `platform`."""
        rows: list[dict[str, Any]] = []
        for platform, result in self.results.items():
            rows += [
                {
                    "platform": platform,
                    "metric": metric.name,
                    "value": metric.value,
                    "low": metric.low,
                    "high": metric.high,
                    "unit": metric.unit,
                    "kind": metric.kind,
                }
                for metric in result.metrics.values()
            ]
        return frame_of(rows)

    def to_json(self) -> str:
        """As JSON, the same for the same comparison."""
        return _to_json({"format": FORMAT, "what": "comparison", "platforms": list(self.results), **asdict(self)})

    def save(self, path: Path) -> None:
        """Write `to_json()` to `path`."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SimulatorError: unreadable, or not a saved comparison.
        """
        return _read(path, "comparison", cls.from_dict)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Self:
        """Back from the object that `to_json` writes."""
        results = {platform: Result.from_dict(tree["results"][platform]) for platform in tree["platforms"]}
        return cls(tree["scenario"], tree["seed"], results, tuple(Difference(**row) for row in tree["differences"]))


def aggregate(name: str, unit: str, samples: Sequence[float]) -> Metric:
    """The mean of a metric over replications and its t-interval.

    No metric is negative, and no fraction exceeds 1, so the interval is cut there.

    Args:
        name: of the metric.
        unit: of the samples.
        samples: one of each replication that has a value, at least one.
    """
    interval = t_interval(samples, CONFIDENCE)
    if len(samples) < 2:
        return Metric(name, interval.value, None, None, unit, len(samples))
    highest = 1.0 if unit == "fraction" else math.inf
    return Metric(name, interval.value, max(interval.low, 0.0), min(interval.high, highest), unit, len(samples))


def within_one_run(metric: Metric, half_width: float) -> Metric:
    """The same figure of a single replication with an interval from within it; it cannot be set against another run."""
    low, high = max(metric.value - half_width, 0.0), metric.value + half_width
    return replace(metric, low=low, high=high, method=WITHIN_ONE_RUN)


def compare_results(results: dict[str, Result]) -> tuple[Difference, ...]:
    """The paired difference of every metric for every two of `results`, which must come from the same seed."""
    return tuple(
        difference
        for first, second in combinations(results.values(), 2)
        for name in first.metrics
        if (difference := _difference(name, first, second)) is not None
    )


def _difference(name: str, first: Result, second: Result) -> Difference | None:
    pairs = [
        (one.metrics[name], other.metrics[name])
        for one, other in zip(first.replications, second.replications, strict=True)
        if name in one.metrics and name in other.metrics
    ]
    if not pairs:
        return None
    interval = paired_t_interval([one for one, _ in pairs], [other for _, other in pairs], CONFIDENCE)
    low, high = (interval.low, interval.high) if len(pairs) > 1 else (None, None)
    lower, verdict = _judge(name, first.platform, second.platform, low, high)
    unit = first.metrics[name].unit
    return Difference(
        name, first.platform, second.platform, interval.value, low, high, unit, len(pairs), lower, verdict
    )


def _judge(name: str, first: str, second: str, low: float | None, high: float | None) -> tuple[str | None, str]:
    """Which of two platforms has the lower figure, if that can be told, and the words for it."""
    if low is None or high is None:
        return None, f"no verdict on {name}: one replication says nothing about chance; run more"
    if low == high == 0:
        return None, f"no difference in {name}: it was equal in every replication"
    if low <= 0 <= high:
        return None, f"no verdict on {name}: the interval of the difference holds 0; run more, or take them as equal"
    lower, higher = (first, second) if high < 0 else (second, first)
    return lower, f"{lower} has the lower {name} than {higher}"


def frame_of(rows: list[dict[str, Any]]) -> Any:
    """`rows` as a pandas frame where pandas is installed, else as they are."""
    if find_spec("pandas") is None:
        return rows
    return import_module("pandas").DataFrame(rows)


def _to_json(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _read(path: Path, what: str, build: Callable[[dict[str, Any]], Built]) -> Built:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree.get("what") != what or tree.get("format") != FORMAT:
            raise SimulatorError(f"{path}: not a {what} of format {FORMAT}; simulate it again")
        return build(tree)
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; name a {what} that was saved before") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SimulatorError(f"{path}: not a saved {what}: {error}; simulate it again") from error
