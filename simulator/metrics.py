"""What a run is judged by: latency, broken promises, instances paid for, and how long a surge hurt."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from simulator.datacenter.costs import cost
from simulator.datacenter.instance import Instance, State
from simulator.model import RunRecord
from simulator.results import DecisionRecord, Episode, FaultRecord, FleetStep, MachineStep, Replication
from simulator.traffic.plane import FAILED, REJECTED, TIMED_OUT

RECOVERY_WINDOW_SECONDS = 30.0
"""A service has recovered once it keeps its objective over a window this long."""

UNITS = {
    "p50_seconds": "seconds",
    "p99_seconds": "seconds",
    "mean_seconds": "seconds",
    "slo_violation_fraction": "fraction",
    "rejected_fraction": "fraction",
    "failed_fraction": "fraction",
    "timed_out_fraction": "fraction",
    "retries_per_request": "count",
    "recovery_seconds": "seconds",
    "unrecovered_fraction": "fraction",
    "scale_out_seconds": "seconds",
    "mean_instances": "count",
    "peak_instances": "count",
    "lost_instances": "count",
    "blast_radius_fraction": "fraction",
    "fault_recovery_seconds": "seconds",
    "fault_unrecovered_fraction": "fraction",
    "instance_hours": "hours",
    "machine_hours": "hours",
    "memory_gb_hours": "GB-hours",
    "energy_watt_hours": "Wh",
    "mean_watts": "W",
    "cost": "currency",
    "cost_per_million_requests": "currency",
}
"""Every metric of a replication, in the order in which they are shown, with its unit.

`p50_seconds`, `p99_seconds`, `mean_seconds`: latency of the requests that were answered. `slo_violation_fraction`:
late, rejected, lost or given up, of all that arrived; three of these apart in the next three. `recovery_seconds`: from
the load's largest rise until the objective is kept again, or until the end where it never is (`unrecovered_fraction`
says how often). `scale_out_seconds`: from the decision until the instance is ready, median; instances that replace lost
ones do not count.

`retries_per_request` is of the whole run, the warm-up included.

Of faults after the warm-up, memory that ran out among them: `lost_instances`: how many ended. `blast_radius_fraction`:
part of the ready instances that one fault takes, mean over those that can take any. `fault_recovery_seconds`: from a
fault that took some until as many are ready again as before it, or as are wanted by then, mean, or until the end where
that never is (`fault_unrecovered_fraction` says how often).

What was used from the end of the warm-up on: `instance_hours`: from the start of start-up until it has stopped, summed;
`machine_hours`; `memory_gb_hours`: what instances were promised, 10⁹ bytes; `energy_watt_hours` and `mean_watts` where
the machines' power is given; `cost` in the currency of `[costs]` where prices are. The least that is billed and its
steps, if `[costs]` has them, are in the hours.
"""


def summarise(record: RunRecord, *, with_episode: bool = False) -> Replication:
    """The figures of one replication. Requests that arrived during the warm-up are not counted.

    Args:
        record: what the run left.
        with_episode: whether to keep the run over time as well, for a figure.
    """
    scenario, tally, counts = record.scenario, record.tally, record.counts
    begin, end = scenario.counted_from_seconds, scenario.duration_seconds
    alive = [_alive(instance, begin, end) for instance in record.instances]
    paid = sum(stop - start for start, stop in alive)
    metrics: dict[str, float] = {}
    if tally.latencies.count:
        metrics["p50_seconds"], metrics["p99_seconds"] = (tally.latencies.quantile(part) for part in (0.5, 0.99))
        metrics["mean_seconds"] = tally.latencies.mean
    if tally.counted:
        metrics["slo_violation_fraction"] = tally.broken / tally.counted
        metrics["rejected_fraction"] = tally.fraction(REJECTED)
        metrics["failed_fraction"] = tally.fraction(FAILED)
        metrics["timed_out_fraction"] = tally.fraction(TIMED_OUT)
        metrics["retries_per_request"] = counts.retried / counts.arrived
    metrics |= _recovery(record)
    scale_outs = _scale_outs(record.instances)
    if scale_outs:
        metrics["scale_out_seconds"] = float(np.median(scale_outs))
    metrics["mean_instances"] = paid / (end - begin)
    metrics["peak_instances"] = float(_peak(alive))
    metrics |= _faults(record)
    metrics |= _consumption(record)
    return Replication(
        number=record.replication,
        arrivals=counts.arrived,
        completed=counts.completed,
        rejected=counts.rejected,
        failed=counts.failed,
        timed_out=counts.timed_out,
        in_flight=record.in_flight,
        without_room=sum(bool(instance.why_pending) for instance in record.instances),
        metrics={name: metrics[name] for name in UNITS if name in metrics},
        episode=_episode(record) if with_episode else None,
    )


def _faults(record: RunRecord) -> dict[str, float]:
    """What faults took, and how long they were felt; nothing if there was none."""
    begin, end = record.scenario.counted_from_seconds, record.scenario.duration_seconds
    felt = [each for each in record.faults if each.blast.seconds >= begin]
    if not felt:
        return {}
    metrics = {
        "lost_instances": float(sum(len(each.blast.lost) for each in felt)),
    }
    takes = [each for each in felt if each.blast.kind not in ("slow-machine", "registry-outage")]
    if takes:
        metrics["blast_radius_fraction"] = float(np.mean([each.blast.fraction for each in takes]))
    hurt = [each for each in felt if each.blast.ready_lost]
    if hurt:
        until = [each.recovery.seconds for each in hurt]
        seconds = [end - each.blast.seconds if took is None else took for each, took in zip(hurt, until, strict=True)]
        metrics["fault_recovery_seconds"] = float(np.mean(seconds))
        metrics["fault_unrecovered_fraction"] = float(np.mean([took is None for took in until]))
    return metrics


def _consumption(record: RunRecord) -> dict[str, float]:
    """Hours, energy and money."""
    used, scenario = record.consumption, record.scenario
    metrics = {
        "instance_hours": used.instance_hours,
        "machine_hours": used.machine_hours,
        "memory_gb_hours": used.gb_hours,
    }
    if record.knows_energy:
        seconds = scenario.duration_seconds - scenario.counted_from_seconds
        metrics["energy_watt_hours"] = used.watt_hours
        metrics["mean_watts"] = used.watt_hours * 3600 / seconds
    if scenario.costs is not None:
        metrics["cost"] = cost(used, scenario.costs).total
        if record.tally.counted:
            metrics["cost_per_million_requests"] = metrics["cost"] / record.tally.counted * 1e6
    return metrics


def _alive(instance: Instance, begin: float, end: float) -> tuple[float, float]:
    """The part of [begin, end] in which the instance held resources; empty for one that was never placed."""
    start, stop = instance.lifetime(end)
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
    readied = [
        (instance.created_seconds, instance.since(State.READY)) for instance in instances if instance.replaces is None
    ]
    return [ready - created for created, ready in readied if created > 0 and ready is not None]


def _recovery(record: RunRecord) -> dict[str, float]:
    """How long the load's largest rise hurt, if it has one and a window follows it."""
    surge, end = record.scenario.arrivals.surge_seconds, record.scenario.duration_seconds
    if surge is None or surge + RECOVERY_WINDOW_SECONDS > end:
        return {}
    tally = record.tally
    first = int(np.searchsorted(tally.edges, surge - 1e-9))
    width = max(round(RECOVERY_WINDOW_SECONDS / float(tally.edges[1] - tally.edges[0])), 1)
    last = int(np.searchsorted(tally.edges, end - RECOVERY_WINDOW_SECONDS + 1e-9, side="right"))
    arrived, broken = (np.concatenate([[0], np.cumsum(counts)]) for counts in (tally.arrived_in, tally.broken_in))
    starts = np.arange(first, max(last, first + 1))
    ends = np.minimum(starts + width, len(arrived) - 1)
    allowed = (1 - record.scenario.slo.quantile) * (arrived[ends] - arrived[starts])
    kept = broken[ends] - broken[starts] <= allowed
    if kept.any():
        return {"recovery_seconds": float(tally.edges[starts[np.argmax(kept)]] - surge), "unrecovered_fraction": 0.0}
    return {"recovery_seconds": end - surge, "unrecovered_fraction": 1.0}


def _episode(record: RunRecord) -> Episode:
    """The run over time."""
    tally = record.tally
    edges = tally.period_edges
    middles = (tally.edges[:-1] + tally.edges[1:]) / 2
    place = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, len(edges) - 2)
    arrived, broken = (
        np.bincount(place, weights=counts, minlength=len(edges) - 1) for counts in (tally.arrived_in, tally.broken_in)
    )
    return Episode(
        seconds=tuple(((edges[:-1] + edges[1:]) / 2).tolist()),
        offered_rate=tuple((arrived / np.diff(edges)).tolist()),
        p99_seconds=tuple(answers.quantile(0.99) if answers.count else None for answers in tally.answers_in),
        violation_fraction=tuple(
            part / all_of_them if all_of_them else None
            for part, all_of_them in zip(broken.tolist(), arrived.tolist(), strict=True)
        ),
        fleet=_fleet(record.instances),
        decisions=tuple(
            DecisionRecord(
                decision.seconds, decision.current, decision.desired, decision.utilisation_percent, decision.reason
            )
            for decision in record.decisions
        ),
        faults=tuple(
            FaultRecord(
                each.blast.seconds,
                each.blast.kind,
                each.blast.target,
                len(each.blast.lost),
                each.blast.requests,
                each.blast.fraction,
                each.recovery.seconds,
                each.blast.reason,
            )
            for each in record.faults
        ),
        machine_decisions=tuple(
            MachineStep(decision.seconds, decision.machines, decision.add, len(decision.remove), decision.reason)
            for decision in record.machine_decisions
        ),
        without_room=tuple(sorted({instance.why_pending for instance in record.instances if instance.why_pending})),
    )


def _fleet(instances: Sequence[Instance]) -> tuple[FleetStep, ...]:
    """How many instances were in which state, from each moment on at which that changed."""
    changes = sorted(
        (seconds, instance.number, turn, state)
        for instance in instances
        for turn, (seconds, state) in enumerate(instance.history)
    )
    present: dict[int, State] = {}
    number_in: Counter[State] = Counter()
    steps: list[FleetStep] = []
    for index, (seconds, number, _, state) in enumerate(changes):
        if number in present:
            number_in[present[number]] -= 1
        present[number] = state
        number_in[state] += 1
        if index + 1 < len(changes) and changes[index + 1][0] == seconds:
            continue
        steps.append(
            FleetStep(
                seconds,
                pending=number_in[State.PENDING],
                starting=sum(number_in[state] for state in (State.PULLING, State.STARTING, State.BACKING_OFF)),
                ready=number_in[State.READY],
                draining=number_in[State.DRAINING],
            )
        )
    return tuple(steps)
