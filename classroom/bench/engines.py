"""How each engine runs a job: prepared and warmed up first, so that the measured part is the simulation alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

from classroom.bench.cases import MM10_NAME, MM10_SERVICE, Job

WARM_UP_CUSTOMERS = 1000


class Answer(NamedTuple):
    """What a run found, for the engines to be held against each other and against theory.

    Attributes:
        requests: how many were simulated.
        figures: name to value; `mean_wait_seconds` for M/M/10.
    """

    requests: int
    figures: dict[str, float]


class Prepared(NamedTuple):
    """A job that is ready to run.

    Attributes:
        run: the measured part.
        read: makes an answer of what `run` gave; not measured.
    """

    run: Callable[[], Any]
    read: Callable[[Any], Answer]


def prepare_onggi(job: Job, seed: int) -> Prepared:
    """`simulator.run` from drawing the first arrival to the last figure of the result."""
    from simulator.datacenter.platforms import PlatformProfile
    from simulator.experiments import run
    from simulator.results import Result
    from simulator.scenario import Scenario

    # The platform that costs nothing, so that M/M/10 is M/M/10.
    platform = PlatformProfile.from_toml("process")
    scenario = Scenario.model_validate(job.scenario)
    options: dict[str, Any] = {"platform": platform, "data_plane": job.data_plane, "workers": job.workers}
    # With several processes, each has its task, so that each has loaded and compiled what it needs.
    run(Scenario.model_validate(job.warm_up), seed=seed, replications=min(job.workers, job.replications), **options)

    def read(result: Result) -> Answer:
        figures = {name: metric.value for name, metric in result.metrics.items()}
        if scenario.name == MM10_NAME:
            # One instance that turns nobody away: what is not service is waiting.
            figures["mean_wait_seconds"] = figures["mean_seconds"] - MM10_SERVICE
        return Answer(sum(replication.arrivals for replication in result.replications), figures)

    return Prepared(lambda: run(scenario, seed=seed, replications=job.replications, **options), read)


def prepare_ciw(job: Job, seed: int) -> Prepared:
    """Ciw up to its last customer. Reading the waits out of its records is not counted."""
    from classroom.bench.peers import ciw_mean_wait, ciw_queue

    ciw_queue(WARM_UP_CUSTOMERS, seed)
    return Prepared(
        lambda: ciw_queue(job.requests, seed),
        lambda simulation: Answer(job.requests, {"mean_wait_seconds": ciw_mean_wait(simulation)}),
    )


def prepare_simpy(job: Job, seed: int) -> Prepared:
    """SimPy up to its last customer."""
    from classroom.bench.peers import simpy_queue

    simpy_queue(WARM_UP_CUSTOMERS, seed)
    return Prepared(
        lambda: simpy_queue(job.requests, seed), lambda wait: Answer(job.requests, {"mean_wait_seconds": wait})
    )


ENGINES: dict[str, Callable[[Job, int], Prepared]] = {
    "onggi": prepare_onggi,
    "ciw": prepare_ciw,
    "simpy": prepare_simpy,
}
"""By the name that a job gives: prepares it, with a seed."""
