"""Replications of a scenario on one platform, or on several side by side; so many, or until they are precise enough."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.eventlog import EventLog, FileLog, begin_log, join_log
from simulator.experiments.pilot import FoundWarmUp, is_wanted, pilots_of, run_pilot, settle
from simulator.experiments.processes import as_they_come, count_processes
from simulator.experiments.within import mean_half_width
from simulator.fingerprint import run_id
from simulator.metrics import UNITS, summarise
from simulator.model import Model
from simulator.model.inputs import io_seconds
from simulator.results import Comparison, Replication, Result, aggregate, compare_results, within_one_run
from simulator.scenario import Scenario
from simulator.stability import load_of
from simulator.traffic.plane import DataPlaneName

if TYPE_CHECKING:
    from simulator.statistics.sequential import StoppingRule

Progress = Callable[[int, int], None]
"""Called as replications end, pilots among them: (how many have ended, how many there are)."""

Job = TypeVar("Job")
Done = TypeVar("Done")


class Task(NamedTuple):
    """One replication on one platform; its events are appended to `log`, if that is given."""

    scenario: Scenario
    profile: PlatformProfile
    seed: int
    replication: int
    data_plane: DataPlaneName
    with_episode: bool
    log: Path | None = None


class Replicated(NamedTuple):
    """What ran.

    Attributes:
        found: the scenario that did, whose warm-up is a number.
        replications: of each platform, the same number.
        stopping: of each platform, why there are so many; empty where their number was given.
    """

    found: FoundWarmUp
    replications: list[list[Replication]]
    stopping: list[str]


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
    log: Path | str | None = None,
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
        precision: replicate until the interval of a metric is so narrow: `("p99_seconds", 0.05)` is a relative error
            of 5 %. How many that takes does not depend on `workers`, and `Result.stopping` says why it was enough.
        log: a file for the events of all replications, in order, see `simulator.eventlog`; the same for any `workers`.

    Raises:
        SimulatorError: no such platform, a scenario that does not fit on its machines, a warm-up that is to be found
            and cannot be, a precision of what has no value, or a log that cannot be written.
    """
    profile = read_profile(platform)
    ran = _replicate(scenario, [profile], seed, replications, workers, progress, data_plane, precision, log)
    return gather(ran.found, profile, seed, ran.replications[0], ran.stopping[0])


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
    log: Path | str | None = None,
) -> Comparison:
    """Simulate `scenario` on several platforms, which meet the same arrivals and demands in each replication.

    Args:
        scenario: what is asked.
        platforms: as in `run`, each once.
        seed, replications, workers, progress, data_plane: as in `run`.
        precision: as in `run`; all platforms are replicated until the metric of each is precise, since they are paired.
        log: as in `run`; of all replications of the first platform, then of the next.

    Raises:
        SimulatorError: no platform or one twice, or as in `run`.
    """
    profiles = read_profiles(platforms, "compare")
    ran = _replicate(scenario, profiles, seed, replications, workers, progress, data_plane, precision, log)
    results = {
        profile.name: gather(ran.found, profile, seed, replications_of_it, why)
        for profile, replications_of_it, why in zip(profiles, ran.replications, ran.stopping, strict=True)
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


def run_one(task: Task) -> Replication:
    """Simulate one replication.

    Raises:
        SimulatorError: the scenario does not fit on its machines.
    """
    if task.log is None:
        return _simulate(task, None)
    name = run_id(task.scenario, task.profile, task.seed, task.replication)
    with FileLog(task.log, name, task.profile.name, task.replication, append=True) as log:
        return _simulate(task, log)


def _simulate(task: Task, log: EventLog | None) -> Replication:
    model = Model(
        task.scenario,
        task.profile,
        seed=task.seed,
        replication=task.replication,
        data_plane=task.data_plane,
        log=log,
    )
    record = model.run()
    figures = summarise(record, with_episode=task.with_episode)
    return replace(figures, mean_half_width=mean_half_width(record))


def gather(
    found: FoundWarmUp, profile: PlatformProfile, seed: int, replications: Sequence[Replication], stopping: str = ""
) -> Result:
    """The replications of a scenario on a platform as one result, each metric with its interval.

    Args:
        found: the scenario that ran, and how its warm-up was found.
        profile: the platform.
        seed: root of all random numbers.
        replications: in order.
        stopping: why there are so many.
    """
    scenario = found.scenario
    metrics = {}
    for name, unit in UNITS.items():
        samples = [replication.metrics[name] for replication in replications if name in replication.metrics]
        if samples:
            metrics[name] = aggregate(name, unit, samples)
    if len(replications) == 1 and replications[0].mean_half_width is not None:
        metrics["mean_seconds"] = within_one_run(metrics["mean_seconds"], replications[0].mean_half_width)
    load = load_of(scenario, profile.overhead.cpu_factor.value, io_seconds(scenario, profile))
    return Result(
        scenario.name,
        profile.name,
        seed,
        scenario.slo.model_dump(),
        tuple(replications),
        metrics,
        warm_up_seconds=scenario.counted_from_seconds,
        warm_up=found.reason,
        stability="" if load.has_steady_state else load.explain(),
        stopping=stopping,
    )


def _replicate(
    scenario: Scenario,
    profiles: Sequence[PlatformProfile],
    seed: int,
    replications: int | None,
    workers: int,
    progress: Progress | None,
    data_plane: DataPlaneName,
    precision: "StoppingRule | tuple[str, float] | None",
    log: Path | str | None,
) -> Replicated:
    """The replications on each of `profiles`, the same number on all."""
    check_seed(seed)
    rule = _stopping_rule(precision)
    path = None if log is None else Path(log)
    if rule is None:
        wanted = count_replications(scenario, replications)
    else:
        wanted = max(rule.least, 1 if replications is None else count_replications(scenario, replications))
    count_processes(workers, 1)
    found, pilots = FoundWarmUp(scenario), 0
    if is_wanted(scenario):
        pilots = len(jobs := [job for profile in profiles for job in pilots_of(scenario, profile, seed, data_plane)])
        shown = None if progress is None else _of_all(progress, pilots + wanted * len(profiles))
        means = list(_run_all(run_pilot, jobs, workers, shown))
        each = pilots // len(profiles)
        ran_on = [(profile.name, means[each * at : each * (at + 1)]) for at, profile in enumerate(profiles)]
        found = settle(scenario, ran_on)
    if path is not None:
        begin_log(path)
    done: list[list[Replication]] = [[] for _ in profiles]
    began = 0
    while began < wanted:
        # A round holds as many as the rule asks for after the one before, never as many as there are workers: where it
        # stops must not depend on the machine.
        tasks = [
            Task(found.scenario, profile, seed, number, data_plane, number == 0)
            for profile in profiles
            for number in range(began, wanted)
        ]
        before = pilots + began * len(profiles)
        finished = list(_run_logged(tasks, workers, shifted(progress, before), path))
        for place, ran in enumerate(done):
            ran += finished[place * (wanted - began) : (place + 1) * (wanted - began)]
        began = wanted
        if rule is not None:
            _check_metric(rule, done, profiles)
            more = max(_more(rule, ran) for ran in done)
            wanted = min(began + more, max(rule.most, began))
    return Replicated(found, done, ["" if rule is None else _why(rule, ran) for ran in done])


def _stopping_rule(precision: "StoppingRule | tuple[str, float] | None") -> "StoppingRule | None":
    if precision is None:
        return None
    from simulator.statistics.sequential import StoppingRule

    rule = precision if isinstance(precision, StoppingRule) else StoppingRule(*precision)
    if rule.metric not in UNITS:
        raise SimulatorError(f"precision of `{rule.metric}`: no such metric; choose from {', '.join(UNITS)}")
    return rule


def _check_metric(
    rule: "StoppingRule", done: Sequence[Sequence[Replication]], profiles: Sequence[PlatformProfile]
) -> None:
    """Refuse a metric that has no value in any replication of a platform: no number of them would ever do."""
    for ran, profile in zip(done, profiles, strict=True):
        if not any(rule.metric in each.metrics for each in ran):
            raise SimulatorError(
                f"precision of `{rule.metric}`: it has no value on {profile.name} in this scenario; choose another "
                "metric, such as `mean_seconds`"
            )


def _why(rule: "StoppingRule", replications: Sequence[Replication]) -> str:
    """Why there are so many replications, in words."""
    samples = [each.metrics[rule.metric] for each in replications if rule.metric in each.metrics]
    enough, _, reason = rule.decide(samples)
    if not enough:  # some replications gave no value, and no more are allowed
        reason = f"{reason} in which it has a value, but {len(replications)} replications are the most allowed"
    return f"{rule.metric}: {reason}"


def _more(rule: "StoppingRule", replications: Sequence[Replication]) -> int:
    """How many more replications a platform needs."""
    samples = [each.metrics[rule.metric] for each in replications if rule.metric in each.metrics]
    enough, more, _ = rule.decide(samples)
    return 0 if enough else max(more, 1)


def shifted(progress: Progress | None, before: int) -> Progress | None:
    """`progress` for a round that begins when `before` steps are done."""
    if progress is None:
        return None
    return lambda done, total: progress(before + done, before + total)


def _of_all(progress: Progress, total: int) -> Progress:
    """`progress` for steps that are the first of `total`."""
    return lambda done, _: progress(done, total)


def _run_logged(
    tasks: Sequence[Task], workers: int, progress: Progress | None, log: Path | None
) -> Iterator[Replication]:
    """The replications of `tasks`, in their order, their events appended to `log` in the same order."""
    if log is None:
        yield from _run_all(run_one, tasks, workers, progress)
        return
    if count_processes(workers, len(tasks)) == 1:
        yield from _run_all(run_one, [task._replace(log=log) for task in tasks], workers, progress)
        return
    # Those that run at once write a file each, and the files are joined as their turns come.
    with _directory_beside(log) as directory:
        parts = [Path(directory) / f"{number}.jsonl" for number in range(len(tasks))]
        logged = [task._replace(log=part) for task, part in zip(tasks, parts, strict=True)]
        for part, replication in zip(parts, _run_all(run_one, logged, workers, progress), strict=True):
            join_log(log, part)
            yield replication


def _directory_beside(log: Path) -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix=f".{log.name}-", dir=log.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise SimulatorError(
            f"{log.parent}: {error.strerror}; log into a directory that can be written, or with one process"
        ) from error


def _run_all(
    function: Callable[[Job], Done], jobs: Sequence[Job], workers: int, progress: Progress | None
) -> Iterator[Done]:
    """What `function` gives of each of `jobs`, in their order."""
    processes = count_processes(workers, len(jobs))
    for done, result in enumerate(_results_of(function, jobs, processes), start=1):
        if progress is not None:
            progress(done, len(jobs))
        yield result


def _results_of(function: Callable[[Job], Done], jobs: Sequence[Job], processes: int) -> Iterable[Done]:
    if processes == 1:
        return map(function, jobs)
    from joblib import Parallel, delayed

    # In order: joblib hands the results over as they come due, whatever the order in which they end.
    return as_they_come(Parallel(n_jobs=processes, return_as="generator")(delayed(function)(job) for job in jobs))
