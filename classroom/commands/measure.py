"""Measure this machine: start-up with its phases, contention, and memory, of processes, containers and QEMU guests.

Needs Linux, and root for containers. Ctrl-C ends it early and keeps what was measured by then.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from real_engine.measure.session import Outcome
    from real_engine.measure.subjects import Subjects

SEED = 20140722
"""Of the order of the trials."""
COMPARED = ("process", "container", "vm-kvm")
"""What `onggi compare` measures. An emulated guest would take minutes and is not in its table."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: about a minute")
    parser.add_argument(
        "--platforms", metavar="NAME,…", help="of process, container, vm-tcg and vm-kvm (default: all that work here)"
    )
    parser.add_argument(
        "--experiments", metavar="NAME,…", help="of machine, startup, contention and memory (default: all)"
    )
    parser.add_argument("--host", metavar="NAME", help="what to call this machine (default: its host name)")
    parser.add_argument("--output", metavar="DIR", help="where to put the folder NAME (default: data/measurements)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the order of the trials")


def run(arguments: Namespace) -> int:
    """Measure, and tell where the samples are."""
    from classroom.recordings import host_name, recordings_directory
    from real_engine.errors import EngineError
    from real_engine.measure.session import EXPERIMENTS
    from real_engine.measure.subjects import PLATFORMS, find_subjects

    platforms = _chosen(arguments.platforms, PLATFORMS, "platform")
    experiments = _chosen(arguments.experiments, EXPERIMENTS, "experiment")
    host = arguments.host or host_name()
    if Path(host).name != host or host.startswith("."):
        raise EngineError(f"--host {host}: a name without slashes that does not begin with a dot is needed")
    subjects = find_subjects(platforms, explicit=arguments.platforms is not None)
    for name, reason in subjects.missing.items():
        print(f"not measured: {name}: {reason}", file=sys.stderr)
    directory = Path(arguments.output) if arguments.output else recordings_directory()
    outcome = _measure(subjects, experiments, arguments.quick, directory / host, arguments.seed)
    ended = "measured" if outcome.complete else "interrupted, and kept what was measured"
    print(f"{ended}: {len(outcome.samples.rows)} samples of {outcome.trials_done} trials in {outcome.directory}")
    return 0 if outcome.complete else 130


def measure_if_due(policy: str) -> None:
    """Before a comparison: measure this machine `always`, `never`, or (`auto`) if that can be done and was not yet.

    Raises:
        EngineError: `always`, and it cannot be done.
        KeyboardInterrupt: Ctrl-C; what was measured by then is kept.
    """
    if policy == "never":
        return
    from classroom.recordings import own_recording
    from real_engine.errors import EngineError
    from real_engine.measure.session import EXPERIMENTS
    from real_engine.measure.subjects import find_subjects, is_recorded

    try:
        subjects = find_subjects(COMPARED, explicit=False)
        if "container" in subjects.missing:
            raise EngineError(subjects.missing["container"])
        if policy == "auto" and is_recorded(subjects, own_recording()):
            return
        _say("measuring this machine first (once; `--measure never` leaves it out)")
        outcome = _measure(subjects, EXPERIMENTS, True, own_recording(), SEED)
    except EngineError as error:
        if policy == "always":
            raise
        _say(f"not measuring this machine: {error}")
        return
    if not outcome.complete:
        _say(f"interrupted: what was measured is in {outcome.directory}")
        raise KeyboardInterrupt


def _measure(subjects: "Subjects", experiments: Sequence[str], quick: bool, destination: Path, seed: int) -> "Outcome":
    from real_engine.measure.provenance import Provenance
    from real_engine.measure.session import FULL, QUICK, plan, run_session

    provenance = Provenance(
        host=destination.name,
        command=" ".join(["onggi", *sys.argv[1:]]),
        seed=seed,
        quick=quick,
        runtimes=subjects.runtimes,
        accelerators=subjects.accelerators,
    )
    trials = plan(subjects.platforms, experiments, QUICK if quick else FULL, subjects.busybox, seed)
    with _progress(len(trials)) as progress:
        return run_session(trials, provenance, destination, lambda done, trial: progress(done, trial.label))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error, drawn between trials and by no thread: trials fork, and forking wants one thread."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=total)

        def report(done: int, label: str) -> None:
            progress.update(task, completed=done, description=label, refresh=True)

        yield report


def _chosen(given: str | None, known: Sequence[str], what: str) -> Sequence[str]:
    if given is None:
        return known
    from real_engine.errors import EngineError

    names = given.split(",")
    for name in names:
        if name not in known:
            raise EngineError(f"unknown {what} `{name}`: choose from {', '.join(known)}")
    return names


def _say(line: str) -> None:
    print(f"onggi: {line}", file=sys.stderr)
