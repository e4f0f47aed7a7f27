"""Runs a scenario: replications, and platforms side by side, in this process or in several.

Serial and parallel runs give identical results, because a replication's random numbers come from the seed and its
number alone, and the platforms of a comparison meet the same ones.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.metrics import UNITS, summarise
from simulator.model import Model
from simulator.results import Comparison, Replication, Result, aggregate, compare_results
from simulator.scenario import Scenario
from simulator.traffic.requests import DataPlaneName

Progress = Callable[[int, int], None]
"""Called as replications end: (how many have ended, how many there are)."""


class _Task(NamedTuple):
    """One replication on one platform."""

    scenario: Scenario
    profile: PlatformProfile
    seed: int
    replication: int
    data_plane: DataPlaneName


def run(
    scenario: Scenario,
    *,
    platform: str | PlatformProfile = "container",
    seed: int = 0,
    replications: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    data_plane: DataPlaneName = "auto",
) -> Result:
    """Simulate `scenario` on one platform.

    Args:
        scenario: what is asked.
        platform: a profile, the name of one that ships, or the path of one.
        seed: root of all random numbers; the same seed gives the same result.
        replications: independent repetitions; default: as the scenario says.
        workers: processes; 1 stays in this one, -1 takes one a core.
        progress: called as replications end.
        data_plane: how requests are run, see `simulator.model.Model`.

    Raises:
        SimulatorError: no such platform, or a scenario that does not fit on its machines.
    """
    profile = _profile(platform)
    tasks = _tasks(scenario, [profile], seed, replications, data_plane)
    return _result(scenario, profile, seed, list(_run_all(tasks, workers, progress)))


def compare(
    scenario: Scenario,
    platforms: Sequence[str | PlatformProfile],
    *,
    seed: int = 0,
    replications: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    data_plane: DataPlaneName = "auto",
) -> Comparison:
    """Simulate `scenario` on several platforms, which meet the same arrivals and demands in each replication.

    Args:
        scenario: what is asked.
        platforms: as in `run`, each once.
        seed, replications, workers, progress, data_plane: as in `run`.

    Raises:
        SimulatorError: no platform or one twice, no such platform, or a scenario that does not fit on its machines.
    """
    profiles = [_profile(platform) for platform in platforms]
    names = [profile.name for profile in profiles]
    if not names or len(set(names)) != len(names):
        raise SimulatorError(f"compare: name at least one platform, and each once; got {', '.join(names) or 'none'}")
    tasks = _tasks(scenario, profiles, seed, replications, data_plane)
    finished = _run_all(tasks, workers, progress)
    count = len(tasks) // len(profiles)
    results = {
        profile.name: _result(scenario, profile, seed, [next(finished) for _ in range(count)]) for profile in profiles
    }
    return Comparison(scenario.name, seed, results, compare_results(results))


def _profile(platform: str | PlatformProfile) -> PlatformProfile:
    return platform if isinstance(platform, PlatformProfile) else PlatformProfile.from_toml(platform)


def _tasks(
    scenario: Scenario,
    profiles: Iterable[PlatformProfile],
    seed: int,
    replications: int | None,
    data_plane: DataPlaneName,
) -> list[_Task]:
    count = scenario.replications if replications is None else replications
    if count < 1:
        raise SimulatorError(f"replications {count}: at least one must run")
    if seed < 0:
        raise SimulatorError(f"seed {seed}: give an integer that is not negative")
    return [_Task(scenario, profile, seed, number, data_plane) for profile in profiles for number in range(count)]


def _run_one(task: _Task) -> Replication:
    model = Model(task.scenario, task.profile, seed=task.seed, replication=task.replication, data_plane=task.data_plane)
    return summarise(model.run(), with_episode=task.replication == 0)


def _run_all(tasks: Sequence[_Task], workers: int, progress: Progress | None) -> Iterator[Replication]:
    """The replications of `tasks`, in their order."""
    processes = min((os.cpu_count() or 1) if workers == -1 else workers, len(tasks))
    if processes < 1:
        raise SimulatorError(f"workers {workers}: give a number of processes, or -1 for one a core")
    for done, replication in enumerate(_results_of(tasks, processes), start=1):
        if progress is not None:
            progress(done, len(tasks))
        yield replication


def _results_of(tasks: Sequence[_Task], processes: int) -> Iterable[Replication]:
    if processes == 1:
        return (_run_one(task) for task in tasks)
    from joblib import Parallel, delayed

    # In order: joblib hands the results over as they come due, whatever the order in which they end.
    results: Iterable[Replication] = Parallel(n_jobs=processes, return_as="generator")(
        delayed(_run_one)(task) for task in tasks
    )
    return results


def _result(scenario: Scenario, profile: PlatformProfile, seed: int, replications: Sequence[Replication]) -> Result:
    metrics = {}
    for name, unit in UNITS.items():
        samples = [replication.metrics[name] for replication in replications if name in replication.metrics]
        if samples:
            metrics[name] = aggregate(name, unit, samples)
    return Result(scenario.name, profile.name, seed, scenario.slo.model_dump(), tuple(replications), metrics)
