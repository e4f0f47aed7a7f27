"""The published table of scaling and balancing against the model: how fast a fleet follows, what a choice is worth.

| line | what | given to the model | predicted |
|---|---|---|---|
| `hpa` | instances at each step of an HPA that wants as many as it may | the policy's rules | the steps |
| `kubernetes` | delays from a rise of the load to a pod on a new node | those of the node | the whole |
| `power-of-1`, `-2`, `-3` | mean time in system at three loads (Mitzenmacher) | nothing | all |

What was given to the model, as its default settings, counts as fitted. The first line and the last three are theory:
what they show is that the simulator does what its rules say. The delays are what people saw of a real cluster.

What to expect. The model's HPA sees what its instances use at once, as the mean of the last 15 s. The cluster that the
FAQ tells of got its metrics once a minute, and asked for them twice a minute: the first delay is far shorter here, and
the whole, of which it is a small part, a little.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from simulator.control.machines import MachineAutoscalerSettings
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.eventlog import MemoryLog
from simulator.evidence.curves import CurvePoint, curve_point
from simulator.evidence.published import Figure, read_published
from simulator.model import Model, RunRecord
from simulator.scenario import Scenario

SERVERS = 200
"""Stand for infinitely many in the supermarket model, which is off by the order of 1 / SERVERS (see `theory`)."""

REPLICATIONS = 20
"""Of the run from which delays are taken."""

_SYNC_SECONDS = 15.0
_PLATFORM = "process"
"""What is asked here is what the control plane and the balancer do: a platform that costs next to nothing."""


def validate_scale_out(seed: int = 1) -> tuple[CurvePoint, ...]:
    """Every point of the table, with what the simulator gives for it.

    Args:
        seed: of all chance.

    Raises:
        SimulatorError: the published figures or the profile cannot be read, or there is one that the model has not.
    """
    lines: dict[str, list[Figure]] = {}
    for figure in read_published("scaling"):
        lines.setdefault(figure.platform, []).append(figure)
    return tuple(point for platform, line in lines.items() for point in _line(platform, line, seed))


def _line(platform: str, line: Sequence[Figure], seed: int) -> Iterator[CurvePoint]:
    if platform == "hpa":
        reached = steps_of_hpa(max(int(figure.conditions["step"]) for figure in line), seed)
        for figure in line:
            yield curve_point(6, figure, reached[int(figure.conditions["step"])], fitted=False)
    elif platform == "kubernetes":
        delays = delays_of_scale_out(seed)
        for figure in line:
            between = (figure.conditions["from"], figure.conditions["to"])
            if between not in delays:
                raise SimulatorError(f"scaling.csv: the model has no delay from {between[0]} to {between[1]}")
            yield curve_point(6, figure, delays[between], fitted=between in _GIVEN)
    elif platform.startswith("power-of-"):
        choices = int(platform.removeprefix("power-of-"))
        for figure in line:
            mean = mean_time_in_system(choices, float(figure.conditions["load"]), seed)
            yield curve_point(6, figure, mean, fitted=False)
    else:
        raise SimulatorError(f"scaling.csv: `{platform}` is no line that the model knows; remove it")


def steps_of_hpa(steps: int, seed: int = 1) -> list[int]:
    """Instances that an HPA wants before it first raises their number, and at each of the next looks.

    It is given far more load than it could ever serve, and a target that no instance can meet.

    Args:
        steps: how many looks, the first that raises included.
        seed: of the run.
    """
    most = 5 * 2 ** max(steps - 1, 0)
    record = _run(
        seed,
        duration_seconds=_SYNC_SECONDS * (steps + 4),
        machines={"count": most, "spec": {"cores": 1}},
        application={"demand": {"kind": "deterministic", "mean_seconds": 1.0}, "queue_limit": 1000, "memory_mib": 1},
        arrivals={"kind": "poisson", "rate_per_second": 2.0 * most},
        autoscaler={"kind": "hpa", "min_instances": 1, "max_instances": most, "target_utilisation_percent": 1},
    )[0]
    first = next(number for number, decision in enumerate(record.decisions) if decision.desired > decision.current)
    begin = record.decisions[first]
    wanted = {round(decision.seconds - begin.seconds, 6): decision.desired for decision in record.decisions[first:]}
    return [begin.current, *(wanted[_SYNC_SECONDS * step] for step in range(steps))]


Between = tuple[str, str]
"""From what to what."""

_REACTION: Between = ("load", "more pods wanted")
_WHOLE: Between = ("load", "pod on a new node")
_ORDER: Between = ("pod without room", "node ordered")
_NODE: Between = ("node ordered", "node there")
_REMOVAL: Between = ("node unneeded", "node removed")
_GIVEN = frozenset({_ORDER, _NODE, _REMOVAL})
"""The defaults of the model's machine autoscaler are these figures."""


def delays_of_scale_out(seed: int = 1) -> dict[Between, float]:
    """Seconds that a fleet takes to follow its load up to a new node, and to give that back.

    A node has two cores and each instance one, so that the first two fill it. Then four times as many requests come,
    for a while. Until a node is ordered it takes as long as it can at most, as that is published; the other figures are
    means over the replications, in which the load and the looks of both autoscalers meet by chance.

    Args:
        seed: of all replications.
    """
    settings = MachineAutoscalerSettings(max_machines=2)
    rise, fall, end = 600.0, 1500.0, 3600.0
    seen: dict[Between, list[float]] = {between: [] for between in (_REACTION, _WHOLE, _ORDER, _NODE, _REMOVAL)}
    for replication in range(REPLICATIONS):
        record, log = _run(
            seed,
            replication,
            duration_seconds=end,
            machines={"count": 1, "spec": {"cores": 2}},
            application={"demand": {"kind": "exponential", "mean_seconds": 0.1}, "queue_limit": 1000, "memory_mib": 1},
            arrivals={"kind": "steps", "steps": [[0, 6.0], [rise, 24.0], [fall, 6.0]]},
            autoscaler={"kind": "hpa", "min_instances": 2, "max_instances": 4, "target_utilisation_percent": 60},
            machine_autoscaler=settings,
        )
        wanted = next(each for each in record.decisions if each.seconds >= rise and each.desired > each.current)
        seen[_REACTION].append(wanted.seconds - rise)
        there = next(each.seconds for each in log.events if each.kind == "machine-added" and each.seconds > rise)
        ready = next(each.seconds for each in log.events if each.kind == "instance-ready" and each.seconds > there)
        seen[_WHOLE].append(ready - rise)
        removed = next(each.seconds for each in record.machine_decisions if each.remove)
        left = max(
            each.seconds for each in log.events if each.kind == "instance-stopped" and fall < each.seconds <= removed
        )
        seen[_REMOVAL].append(removed - left)
        # An order's own parts are drawn as the model draws them: its log has only their sum.
        order = settings.draw(np.random.default_rng([seed, replication]))
        seen[_ORDER].append(settings.scan_seconds + order.decided_seconds)
        seen[_NODE].append(order.provision_seconds)
    means = {between: float(np.mean(values)) for between, values in seen.items()}
    return means | {_ORDER: max(seen[_ORDER])}


def mean_time_in_system(choices: int, load: float, seed: int = 1) -> float:
    """Seconds from arrival to departure where each request joins the shortest of `choices` queues drawn from many.

    Arrivals are Poisson, demands exponential with a mean of 1 s. From empty queues the mean is reached in a time of
    the order of 1 / (1 - sqrt(load))² with one choice (M/M/1), and sooner with more.

    Args:
        choices: how many queues are drawn.
        load: of each server.
        seed: of the run.
    """
    warm_up = 5.0 / (1.0 - load**0.5) ** 2 if choices == 1 else 20.0 / (1.0 - load)
    record = _run(
        seed,
        duration_seconds=warm_up + max(warm_up, 400.0),
        warm_up_seconds=warm_up,
        machines={"count": SERVERS, "spec": {"cores": 1}},
        application={
            "demand": {"kind": "exponential", "mean_seconds": 1.0},
            "queue_limit": 1_000_000,
            "memory_mib": 1,
        },
        arrivals={"kind": "poisson", "rate_per_second": load * SERVERS},
        balancer={"kind": "power-of-choices", "choices": choices},
        autoscaler={"kind": "fixed", "instances": SERVERS},
    )[0]
    return float(record.tally.latencies.mean)


def _run(seed: int, replication: int = 0, /, **tree: Any) -> tuple[RunRecord, MemoryLog]:
    scenario = Scenario.model_validate({"name": "scale-out", "slo": {"latency_seconds": 1.0}, **tree})
    log = MemoryLog("scale-out", _PLATFORM)
    return Model(scenario, PlatformProfile.from_toml(_PLATFORM), seed=seed, replication=replication, log=log).run(), log
