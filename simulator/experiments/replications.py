"""Replications of a scenario on one platform, or on several side by side; so many, or until they are precise enough."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.metrics import UNITS, summarise
from simulator.model import Model
from simulator.results import Comparison, Replication, Result, aggregate, compare_results
from simulator.scenario import Scenario
from simulator.traffic.plane import DataPlaneName

if TYPE_CHECKING:
    from simulator.statistics.sequential import StoppingRule

Progress = Callable[[int, int], None]
"""Called as replications end: (how many have ended, how many there are)."""


class Task(NamedTuple):
    """One replication on one platform."""

    scenario: Scenario
    profile: PlatformProfile
    seed: int
    replication: int
    data_plane: DataPlaneName
    with_episode: bool


def run(
    scenario: Scenario,
    *,
    platform: str | PlatformProfile = "container",
    seed: int = 0,
    replications: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    data_plane: DataPlaneName = "auto",
    precision: "StoppingRule | tuple[str, float] | None" = None,
) -> Result:
    """Simulate `scenario` on one platform.

    Args:
        scenario: what is asked.
        platform: a profile, the name of one that ships, or the path of one.
        seed: root of all random numbers; the same seed gives the same result.
        replications: independent repetitions; default: as the scenario says. With `precision`, the least.
        workers: processes; 1 stays in this one, -1 takes one a core.
        progress: called as replications end.
        data_plane: how requests are run, see `simulator.model.Model`.
        precision: replicate until the interval of a metric is so narrow: `("p99_seconds", 0.05)` is 5 % of the mean
            on either side. How many that takes does not depend on `workers`.

    Raises:
        SimulatorError: no such platform, or a scenario that does not fit on its machines.
    """
    profile = read_profile(platform)
    replicated = _replicate(scenario, [profile], seed, replications, workers, progress, data_plane, precision)
    return gather(scenario, profile, seed, replicated[0])


def compare(
    scenario: Scenario,
    platforms: Sequence[str | PlatformProfile],
    *,
    seed: int = 0,
    replications: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    data_plane: DataPlaneName = "auto",
    precision: "StoppingRule | tuple[str, float] | None" = None,
) -> Comparison:
    """Simulate `scenario` on several platforms, which meet the same arrivals and demands in each replication.

    Args:
        scenario: what is asked.
        platforms: as in `run`, each once.
        seed, replications, workers, progress, data_plane: as in `run`.
        precision: as in `run`; all platforms are replicated until the metric of each is precise, since they are paired.

    Raises:
        SimulatorError: no platform or one twice, no such platform, or a scenario that does not fit on its machines.
    """
    profiles = read_profiles(platforms, "compare")
    replicated = _replicate(scenario, profiles, seed, replications, workers, progress, data_plane, precision)
    results = {
        profile.name: gather(scenario, profile, seed, ran) for profile, ran in zip(profiles, replicated, strict=True)
    }
    return Comparison(scenario.name, seed, results, compare_results(results))


def read_profile(platform: str | PlatformProfile) -> PlatformProfile:
    """The profile itself, or the one of this name or path."""
    return platform if isinstance(platform, PlatformProfile) else PlatformProfile.from_toml(platform)


def read_profiles(platforms: Sequence[str | PlatformProfile], what: str) -> list[PlatformProfile]:
    """Profiles of several platforms, at least one and each once.

    Raises:
        SimulatorError: none, one twice (the message begins with `what`), or one that there is not.
    """
    profiles = [read_profile(platform) for platform in platforms]
    names = [profile.name for profile in profiles]
    if not names or len(set(names)) != len(names):
        raise SimulatorError(f"{what}: name at least one platform, and each once; got {', '.join(names) or 'none'}")
    return profiles


def count_replications(scenario: Scenario, replications: int | None) -> int:
    """How many to run: `replications`, or what the scenario says.

    Raises:
        SimulatorError: fewer than one.
    """
    count = scenario.replications if replications is None else replications
    if count < 1:
        raise SimulatorError(f"replications {count}: at least one must run")
    return count


def check_seed(seed: int) -> None:
    """Refuse a seed that is none.

    Raises:
        SimulatorError: it is negative.
    """
    if seed < 0:
        raise SimulatorError(f"seed {seed}: give an integer that is not negative")


def count_processes(workers: int, most: int) -> int:
    """How many processes `workers` stands for, at most `most`.

    Raises:
        SimulatorError: neither a positive number nor -1.
    """
    processes = min((os.cpu_count() or 1) if workers == -1 else workers, most)
    if processes < 1:
        raise SimulatorError(f"workers {workers}: give a number of processes, or -1 for one a core")
    return processes


def run_one(task: Task) -> Replication:
    """Simulate one replication.

    Raises:
        SimulatorError: the scenario does not fit on its machines.
    """
    model = Model(task.scenario, task.profile, seed=task.seed, replication=task.replication, data_plane=task.data_plane)
    return summarise(model.run(), with_episode=task.with_episode)


def gather(scenario: Scenario, profile: PlatformProfile, seed: int, replications: Sequence[Replication]) -> Result:
    """The replications of a scenario on a platform as one result, each metric with its interval."""
    metrics = {}
    for name, unit in UNITS.items():
        samples = [replication.metrics[name] for replication in replications if name in replication.metrics]
        if samples:
            metrics[name] = aggregate(name, unit, samples)
    return Result(scenario.name, profile.name, seed, scenario.slo.model_dump(), tuple(replications), metrics)


def _replicate(
    scenario: Scenario,
    profiles: Sequence[PlatformProfile],
    seed: int,
    replications: int | None,
    workers: int,
    progress: Progress | None,
    data_plane: DataPlaneName,
    precision: "StoppingRule | tuple[str, float] | None",
) -> list[list[Replication]]:
    """The replications on each of `profiles`, the same number on all."""
    check_seed(seed)
    rule = _stopping_rule(precision)
    if rule is None:
        wanted = count_replications(scenario, replications)
    else:
        wanted = max(rule.least, 1 if replications is None else count_replications(scenario, replications))
    done: list[list[Replication]] = [[] for _ in profiles]
    began = 0
    while began < wanted:
        # A round holds as many as the rule asks for after the one before, never as many as there are workers: where it
        # stops must not depend on the machine.
        tasks = [
            Task(scenario, profile, seed, number, data_plane, number == 0)
            for profile in profiles
            for number in range(began, wanted)
        ]
        before = began * len(profiles)
        finished = iter(_run_all(tasks, workers, _shifted(progress, before)))
        for ran in done:
            ran += [next(finished) for _ in range(wanted - began)]
        began = wanted
        if rule is not None:
            more = max(_more(rule, ran) for ran in done)
            wanted = min(began + more, max(rule.most, began))
    return done


def _stopping_rule(precision: "StoppingRule | tuple[str, float] | None") -> "StoppingRule | None":
    if precision is None:
        return None
    from simulator.statistics.sequential import StoppingRule

    rule = precision if isinstance(precision, StoppingRule) else StoppingRule(*precision)
    if rule.metric not in UNITS:
        raise SimulatorError(f"precision of `{rule.metric}`: no such metric; choose from {', '.join(UNITS)}")
    return rule


def _more(rule: "StoppingRule", replications: Sequence[Replication]) -> int:
    """How many more replications a platform needs."""
    samples = [each.metrics[rule.metric] for each in replications if rule.metric in each.metrics]
    enough, more, _ = rule.decide(samples)
    return 0 if enough else max(more, 1)


def _shifted(progress: Progress | None, before: int) -> Progress | None:
    """`progress` for a round that begins when `before` replications have ended."""
    if progress is None:
        return None
    return lambda done, total: progress(before + done, before + total)


def _run_all(tasks: Sequence[Task], workers: int, progress: Progress | None) -> Iterator[Replication]:
    """The replications of `tasks`, in their order."""
    processes = count_processes(workers, len(tasks))
    for done, replication in enumerate(_results_of(tasks, processes), start=1):
        if progress is not None:
            progress(done, len(tasks))
        yield replication


def _results_of(tasks: Sequence[Task], processes: int) -> Iterable[Replication]:
    if processes == 1:
        return (run_one(task) for task in tasks)
    from joblib import Parallel, delayed

    # In order: joblib hands the results over as they come due, whatever the order in which they end.
    results: Iterable[Replication] = Parallel(n_jobs=processes, return_as="generator")(
        delayed(run_one)(task) for task in tasks
    )
    return results
