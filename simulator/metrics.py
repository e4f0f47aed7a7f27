"""What a run is judged by: latency, broken promises, instances paid for, and how long a surge hurt."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulator.datacenter.instance import Instance, State
from simulator.model import RunRecord
from simulator.results import DecisionRecord, Episode, FleetStep, Replication
from simulator.traffic.requests import COMPLETED, FAILED, REJECTED

RECOVERY_WINDOW_SECONDS = 30.0
"""A service has recovered once it keeps its objective over a window this long."""

UNITS = {
    "p50_seconds": "seconds",
    "p99_seconds": "seconds",
    "mean_seconds": "seconds",
    "slo_violation_fraction": "fraction",
    "rejected_fraction": "fraction",
    "recovery_seconds": "seconds",
    "unrecovered_fraction": "fraction",
    "scale_out_seconds": "seconds",
    "mean_instances": "count",
    "peak_instances": "count",
    "instance_seconds": "seconds",
}
"""Every metric of a replication, in the order in which they are shown, with its unit.

`p50_seconds`, `p99_seconds`, `mean_seconds`: latency of the requests that were answered. `slo_violation_fraction`:
late, rejected or lost, of all that arrived. `recovery_seconds`: from the load's largest rise until the objective is
kept again, or until the end where it never is (`unrecovered_fraction` says how often). `scale_out_seconds`: from the
decision until the instance is ready, median. `instance_seconds`: from the start of start-up until it has stopped,
summed.
"""


def summarise(record: RunRecord, *, with_episode: bool = False) -> Replication:
    """The figures of one replication. Requests that arrived during the warm-up are not counted.

    Args:
        record: what the run left.
        with_episode: whether to keep the run over time as well, for a figure.
    """
    scenario = record.scenario
    begin, end = scenario.warm_up_seconds, scenario.duration_seconds
    counted = record.arrivals >= begin
    state, latency = record.state[counted], record.latency[counted]
    answered = latency[state == COMPLETED]
    broken = _broken(record)
    alive = [_alive(instance, begin, end) for instance in record.instances]
    paid = sum(stop - start for start, stop in alive)
    metrics: dict[str, float] = {}
    if answered.size:
        metrics["p50_seconds"], metrics["p99_seconds"] = (float(value) for value in np.quantile(answered, [0.5, 0.99]))
        metrics["mean_seconds"] = float(answered.mean())
    if state.size:
        metrics["slo_violation_fraction"] = float(broken[counted].mean())
        metrics["rejected_fraction"] = float((state == REJECTED).mean())
    metrics |= _recovery(record, broken)
    scale_outs = _scale_outs(record.instances)
    if scale_outs:
        metrics["scale_out_seconds"] = float(np.median(scale_outs))
    metrics["mean_instances"] = paid / (end - begin)
    metrics["peak_instances"] = float(_peak(alive))
    metrics["instance_seconds"] = paid
    return Replication(
        number=record.replication,
        arrivals=len(record.arrivals),
        completed=int((record.state == COMPLETED).sum()),
        rejected=int((record.state == REJECTED).sum()),
        failed=int((record.state == FAILED).sum()),
        in_flight=record.in_flight,
        without_room=sum(bool(instance.why_pending) for instance in record.instances),
        metrics={name: metrics[name] for name in UNITS if name in metrics},
        episode=_episode(record, broken) if with_episode else None,
    )


def _broken(record: RunRecord) -> NDArray[np.bool_]:
    """Which requests were late, rejected or lost."""
    late = record.latency > record.scenario.slo.latency_seconds
    broken: NDArray[np.bool_] = late | (record.state != COMPLETED)
    return broken


def _alive(instance: Instance, begin: float, end: float) -> tuple[float, float]:
    """The part of [begin, end] in which the instance held resources; empty for one that was never placed."""
    start = instance.since(State.STARTING)
    if start is None:
        return end, end
    stop = instance.history[-1][0] if instance.is_over else end
    start = min(max(start, begin), end)
    return start, max(min(stop, end), start)


def _peak(alive: Sequence[tuple[float, float]]) -> int:
    """The most that were alive at once."""
    lives = [(start, stop) for start, stop in alive if stop > start]
    # Sorted by the change as well: of two at the same moment, the one that goes makes room for the one that comes.
    edges = sorted([(start, 1) for start, _ in lives] + [(stop, -1) for _, stop in lives])
    count = peak = 0
    for _, change in edges:
        count += change
        peak = max(peak, count)
    return peak


def _scale_outs(instances: Sequence[Instance]) -> list[float]:
    """Seconds from decision to readiness, of the instances that were not there from the beginning."""
    readied = [(instance.created_seconds, instance.since(State.READY)) for instance in instances]
    return [ready - created for created, ready in readied if created > 0 and ready is not None]


def _recovery(record: RunRecord, broken: NDArray[np.bool_]) -> dict[str, float]:
    """How long the load's largest rise hurt, if it has one and a window follows it."""
    surge, end = record.scenario.arrivals.surge_seconds, record.scenario.duration_seconds
    if surge is None or surge + RECOVERY_WINDOW_SECONDS > end:
        return {}
    starts = np.arange(surge, end - RECOVERY_WINDOW_SECONDS + 1e-9, 1.0)
    first = np.searchsorted(record.arrivals, starts)
    last = np.searchsorted(record.arrivals, starts + RECOVERY_WINDOW_SECONDS)
    sums = np.concatenate([[0], np.cumsum(broken)])
    kept = sums[last] - sums[first] <= (1 - record.scenario.slo.quantile) * (last - first)
    if kept.any():
        return {"recovery_seconds": float(starts[np.argmax(kept)] - surge), "unrecovered_fraction": 0.0}
    return {"recovery_seconds": end - surge, "unrecovered_fraction": 1.0}


def _episode(record: RunRecord, broken: NDArray[np.bool_]) -> Episode:
    """The run over time."""
    end = record.scenario.duration_seconds
    edges = np.linspace(0.0, end, max(2, min(181, int(end) + 1)))
    bounds = np.searchsorted(record.arrivals, edges)
    bounds[-1] = len(record.arrivals)
    slices = [slice(first, last) for first, last in pairwise(bounds.tolist())]
    return Episode(
        seconds=tuple(((edges[:-1] + edges[1:]) / 2).tolist()),
        offered_rate=tuple((np.diff(bounds) / np.diff(edges)).tolist()),
        p99_seconds=tuple(_p99(record.latency[part]) for part in slices),
        violation_fraction=tuple(float(broken[part].mean()) if part.stop > part.start else None for part in slices),
        fleet=_fleet(record.instances),
        decisions=tuple(
            DecisionRecord(
                decision.seconds, decision.current, decision.desired, decision.utilisation_percent, decision.reason
            )
            for decision in record.decisions
        ),
        without_room=tuple(sorted({instance.why_pending for instance in record.instances if instance.why_pending})),
    )


def _p99(latency: NDArray[np.float64]) -> float | None:
    answered = latency[~np.isnan(latency)]
    return float(np.quantile(answered, 0.99)) if answered.size else None


def _fleet(instances: Sequence[Instance]) -> tuple[FleetStep, ...]:
    """How many instances were in which state, from each moment on at which that changed."""
    changes = sorted(
        (seconds, instance.number, turn, state)
        for instance in instances
        for turn, (seconds, state) in enumerate(instance.history)
    )
    present: dict[int, State] = {}
    steps: list[FleetStep] = []
    for index, (seconds, number, _, state) in enumerate(changes):
        present[number] = state
        if index + 1 < len(changes) and changes[index + 1][0] == seconds:
            continue
        states = list(present.values())
        counts = (states.count(state) for state in (State.PENDING, State.STARTING, State.READY, State.DRAINING))
        steps.append(FleetStep(seconds, *counts))
    return tuple(steps)
