"""What is run: each row of the benchmark, and the engines that are held side by side in it."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from simulator.scenario import Scenario
from simulator.traffic.arrivals import StepArrivals

MM10_NAME = "M/M/10"
MM10_WORKERS = 10
MM10_LOAD = 0.8
"""Of each worker."""
MM10_SERVICE = 1.0
"""Mean, seconds."""

SMALL_FLEET = 27
PER_INSTANCE = 10.0
"""Requests a second for each instance of a fleet, at a mean demand of 70 ms: a load of 0.7."""

TEN_TIMES = 10

THIN = 100
"""The warm-up of the full scenario has a request for each hundred."""


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        requests: of one run.
        replications: of the row that runs them on one core and on two.
        large_fleet: instances of the large fleet.
        fleet_requests: of a run of either fleet: so many that setting up the large one is not all that is seen.
    """

    requests: int
    replications: int
    large_fleet: int
    fleet_requests: int


WHOLE = Size(requests=1_000_000, replications=16, large_fleet=10_000, fleet_requests=4_000_000)
QUICK = Size(requests=10_000, replications=2, large_fleet=270, fleet_requests=10_000)
"""Enough to see that everything works, and far too little to judge by."""


@dataclass(frozen=True)
class Job:
    """One run, as the process that does it is told.

    Attributes:
        engine: a key of `classroom.bench.engines.ENGINES`.
        requests: about how many; a scenario's own number is random.
        scenario: for onggi, what `Scenario.model_dump` gives; None for a peer, which knows M/M/10 only.
        warm_up: the same with few requests, run before the measured run, so that code is loaded and compiled.
        data_plane, replications, workers: for onggi, as in `simulator.run`.
    """

    engine: str
    requests: int
    scenario: dict[str, Any] | None = None
    warm_up: dict[str, Any] | None = None
    data_plane: str = "numba"
    replications: int = 1
    workers: int = 1


@dataclass(frozen=True)
class Case:
    """One column of one row.

    Attributes:
        row: key in the report.
        engine: key in that row.
        job: what is run.
        once: run in the first round only, because it takes minutes.
    """

    row: str
    engine: str
    job: Job
    once: bool = False


def all_cases(size: Size, *, full: bool = False) -> list[Case]:
    """Every case, in the order in which a round runs them.

    Args:
        size: how much.
        full: with the hour of 1,000 machines, 10,000 instances and 100,000 requests a second.

    Raises:
        SimulatorError: a scenario that the model refuses.
    """
    shipped = Scenario.from_toml("full")
    whole, short = of_so_many(shipped, size.requests), thinned(shipped, THIN)
    ten_times, as_long = thinned(whole, 1 / TEN_TIMES), of_so_many(whole, TEN_TIMES * size.requests)
    queue, short_queue = mm10(size.requests), mm10(2000)
    small, short_fleet = (fleet(SMALL_FLEET, seconds) for seconds in (_seconds(size, SMALL_FLEET), 8.0))
    large = fleet(size.large_fleet, _seconds(size, size.large_fleet))

    def onggi(scenario: Scenario, warm_up: Scenario, requests: int = size.requests, **options: Any) -> Job:
        return Job("onggi", requests, scenario.model_dump(mode="json"), warm_up.model_dump(mode="json"), **options)

    planes = {"numba": "numba", "python": "python", "process_per_request": "processes"}
    cases = [Case("full_scenario", name, onggi(whole, short, data_plane=plane)) for name, plane in planes.items()]
    cases += [
        Case("mm10", "onggi", onggi(queue, short_queue)),
        Case("mm10", "ciw", Job("ciw", size.requests)),
        Case("mm10", "simpy", Job("simpy", size.requests)),
        Case("ten_times_the_requests", "numba", onggi(ten_times, short, TEN_TIMES * size.requests)),
        Case("ten_times_as_long", "numba", onggi(as_long, short, TEN_TIMES * size.requests)),
        Case("fleet", "small", onggi(small, short_fleet, size.fleet_requests)),
        Case("fleet", "large", onggi(large, short_fleet, size.fleet_requests)),
    ]
    together = size.requests * size.replications
    for name, workers in (("one_core", 1), ("two_cores", 2)):
        job = onggi(whole, short, together, replications=size.replications, workers=workers)
        cases.append(Case("replications", name, job))
    if full:
        hour = fleet(WHOLE.large_fleet, 3600.0)
        job = onggi(hour, short_fleet, int(WHOLE.large_fleet * PER_INSTANCE * 3600))
        cases.append(Case("hour", "numba", job, once=True))
    return cases


def of_so_many(scenario: Scenario, requests: int) -> Scenario:
    """The scenario with its steps of load repeated, or cut short, until so many requests are expected.

    The load, the fleet and everything that is asked of one request stay as they are.
    """
    arrivals = scenario.arrivals
    if not isinstance(arrivals, StepArrivals):
        raise TypeError(f"scenario {scenario.name}: only a load in steps can be repeated")
    period = scenario.duration_seconds
    again = range(math.ceil(requests / arrivals.expected(period)) + 1)
    steps = [(turn * period + time, rate) for turn in again for time, rate in arrivals.steps]
    left, duration = float(requests), steps[-1][0]
    for (begin, rate), (end, _) in pairwise(steps):
        if rate * (end - begin) >= left:
            duration = begin + left / rate
            break
        left -= rate * (end - begin)
    return Scenario.model_validate(
        scenario.model_dump()
        | {
            "duration_seconds": duration,
            "warm_up_seconds": min(scenario.counted_from_seconds, duration / 10),
            "arrivals": {"kind": "steps", "steps": [step for step in steps if step[0] < duration]},
        }
    )


def thinned(scenario: Scenario, times: float) -> Scenario:
    """The scenario with so many times fewer requests (below 1: more), each so many times the work.

    The fleet grows and shrinks as before, so that a warm-up meets everything that the run itself will.
    """
    arrivals = scenario.arrivals
    if not isinstance(arrivals, StepArrivals):
        raise TypeError(f"scenario {scenario.name}: only a load in steps can be thinned")
    tree = scenario.model_dump()
    tree["arrivals"] = {"kind": "steps", "steps": [(time, rate / times) for time, rate in arrivals.steps]}
    tree["application"]["demand"]["mean_seconds"] *= times
    return Scenario.model_validate(tree)


def mm10(requests: int) -> Scenario:
    """M/M/10 at a load of 0.8 and a mean service of one second, from empty, as the peers run it too."""
    rate = MM10_LOAD * MM10_WORKERS / MM10_SERVICE
    return _fixed(
        MM10_NAME,
        instances=1,
        machines=1,
        workers=MM10_WORKERS,
        rate=rate,
        mean_demand=MM10_SERVICE,
        seconds=requests / rate,
    )


def fleet(instances: int, seconds: float) -> Scenario:
    """Instances of one worker at a load of 0.7 behind one balancer, ten on a machine."""
    return _fixed(
        f"fleet of {instances}", instances=instances, machines=math.ceil(instances / 10), workers=1,
        rate=PER_INSTANCE * instances, mean_demand=0.07, seconds=seconds,
    )  # fmt: skip


def _seconds(size: Size, instances: int) -> float:
    """How long a fleet of so many runs for the requests of a run."""
    return size.fleet_requests / (PER_INSTANCE * instances)


def _fixed(
    name: str, *, instances: int, machines: int, workers: int, rate: float, mean_demand: float, seconds: float
) -> Scenario:
    return Scenario.model_validate(
        {
            "name": name,
            "duration_seconds": seconds,
            "replications": 1,
            "machines": {"count": machines},
            "application": {
                "demand": {"kind": "exponential", "mean_seconds": mean_demand},
                "workers": workers,
                "queue_limit": 1_000_000_000,
            },
            "arrivals": {"kind": "poisson", "rate_per_second": rate},
            "balancer": "least-connections",
            "autoscaler": {"kind": "fixed", "instances": instances},
            "slo": {"latency_seconds": 10.0},
        }
    )
