"""A measuring session: the plan of trials, run in random order, and the files that it leaves, whatever ends it."""

import contextlib
import json
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.measure.experiments import measure_contention, measure_memory, measure_startup
from real_engine.measure.machine import WORKS, measure_machine
from real_engine.measure.platforms import Platform
from real_engine.measure.provenance import Provenance
from real_engine.measure.samples import Sample, Samples

CONCURRENCIES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Effort:
    """How often each experiment is repeated, for light platforms (process, container) and for heavy ones (VM).

    `memory_counts` are the instances at which memory is read, ascending.
    """

    light_startups: int
    heavy_startups: int
    light_contentions: int
    heavy_contentions: int
    light_memories: int
    heavy_memories: int
    light_memory_counts: tuple[int, ...]
    heavy_memory_counts: tuple[int, ...]
    heavy_concurrencies: tuple[int, ...]
    machine: int


FULL = Effort(
    light_startups=50,
    heavy_startups=10,
    light_contentions=20,
    heavy_contentions=5,
    light_memories=5,
    heavy_memories=3,
    light_memory_counts=(1, 2, 4, 8, 16, 32, 64, 128),
    heavy_memory_counts=(1, 2, 4, 8, 16),
    heavy_concurrencies=CONCURRENCIES,
    machine=15,
)
QUICK = Effort(
    light_startups=30,
    heavy_startups=5,
    light_contentions=7,
    heavy_contentions=1,
    light_memories=3,
    heavy_memories=1,
    light_memory_counts=(1, 2, 4, 8, 16, 32, 64),
    heavy_memory_counts=(1, 2, 4),
    heavy_concurrencies=(1, 2, 4),
    machine=7,
)


@dataclass(frozen=True)
class Trial:
    """One repetition of one experiment under one condition: a line for people, and what yields its samples."""

    label: str
    measure: Callable[[], Iterable[Sample]]


def plan(
    platforms: Sequence[Platform], experiments: Sequence[str], effort: Effort, busybox: Path, seed: int
) -> list[Trial]:
    """All trials of a session, in an order drawn from `seed`: those that take time first, then those of memory.

    Interleaving experiments, conditions and platforms lets a slow minute of the machine touch all of them and favour
    none. What a model is fitted to and what it is held against must above all have met the same machine.
    """
    shuffle = random.Random(seed).shuffle  # noqa: S311 -- an order of trials, not a secret
    trials: list[Trial] = []
    for batch in (
        [experiment for experiment in experiments if experiment != "memory"],
        [experiment for experiment in experiments if experiment == "memory"],
    ):
        mixed = [trial for experiment in batch for trial in _TRIALS[experiment](platforms, effort, busybox)]
        shuffle(mixed)
        trials.extend(mixed)
    return trials


def _is_heavy(platform: Platform) -> bool:
    return platform.name.startswith("vm")


def _label(platform: Platform) -> str:
    return platform.name if platform.variant == "default" else f"{platform.name} ({platform.variant})"


def _machine_trials(platforms: Sequence[Platform], effort: Effort, busybox: Path) -> Iterator[Trial]:
    for repetition in range(effort.machine):
        for work in WORKS:
            yield Trial(f"{work} on one core and on several", partial(measure_machine, busybox, work, repetition))


def _startup_trials(platforms: Sequence[Platform], effort: Effort, busybox: Path) -> Iterator[Trial]:
    for platform in platforms:
        for repetition in range(effort.heavy_startups if _is_heavy(platform) else effort.light_startups):
            yield Trial(
                f"start of a {_label(platform)}",
                partial(measure_startup, platform, repetition),
            )


def _contention_trials(platforms: Sequence[Platform], effort: Effort, busybox: Path) -> Iterator[Trial]:
    for platform in platforms:
        heavy = _is_heavy(platform)
        for repetition in range(effort.heavy_contentions if heavy else effort.light_contentions):
            for concurrency in effort.heavy_concurrencies if heavy else CONCURRENCIES:
                yield Trial(
                    f"{concurrency} starts at once of a {_label(platform)}",
                    partial(measure_contention, platform, concurrency, repetition),
                )


def _memory_trials(platforms: Sequence[Platform], effort: Effort, busybox: Path) -> Iterator[Trial]:
    for platform in platforms:
        heavy = _is_heavy(platform)
        counts = effort.heavy_memory_counts if heavy else effort.light_memory_counts
        for repetition in range(effort.heavy_memories if heavy else effort.light_memories):
            yield Trial(
                f"memory of up to {counts[-1]} × {_label(platform)}",
                partial(measure_memory, platform, counts, repetition),
            )


_TRIALS: dict[str, Callable[[Sequence[Platform], Effort, Path], Iterator[Trial]]] = {
    "machine": _machine_trials,
    "startup": _startup_trials,
    "contention": _contention_trials,
    "memory": _memory_trials,
}
EXPERIMENTS = tuple(_TRIALS)


@dataclass
class Outcome:
    """What a session left: the directory, whether all trials were run, and how many were."""

    directory: Path
    complete: bool
    trials_done: int
    samples: Samples = field(repr=False)


def run_session(
    trials: Sequence[Trial],
    provenance: Provenance,
    destination: Path,
    progress: Callable[[int, Trial], None] = lambda done, trial: None,
) -> Outcome:
    """Run the trials and leave their samples and provenance in `destination`, a directory.

    Files are written to a directory beside it that takes its place in one step, so `destination` always holds one
    session. Ctrl-C ends a session early and keeps what was measured by then; it never takes the place of a whole one,
    but is left beside it as `DESTINATION.interrupted`.

    Raises:
        KeyboardInterrupt: Ctrl-C came before the first trial had ended, so that there is nothing to keep.
        EngineError: the samples could not be written.
    """
    samples = Samples()
    done = 0
    complete = False
    try:
        for trial in trials:
            progress(done, trial)
            # A trial counts whole or not at all, so that no condition is left with half of its instances.
            samples.extend(list(trial.measure()))
            done += 1
        complete = True
    except KeyboardInterrupt:
        if not samples.rows:
            raise
    provenance.finish(complete)
    if not complete and _is_complete(destination):
        destination = destination.with_name(f"{destination.name}.interrupted")
    with _deaf_to_interrupts(), _written_to(destination) as directory:
        samples.write(directory)
        provenance.write(directory)
    return Outcome(destination, complete, done, samples)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a second, impatient Ctrl-C not take away what the first one meant to keep."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_complete(directory: Path) -> bool:
    try:
        return bool(json.loads((directory / "provenance.json").read_text()).get("complete"))
    except (OSError, json.JSONDecodeError):
        return False


@contextlib.contextmanager
def _written_to(destination: Path) -> Iterator[Path]:
    """A new directory to write in, which takes the place of `destination` when the block ends well."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise EngineError(
            f"{destination.parent}: {error.strerror}; name a directory to write to with --output"
        ) from error
    try:
        staging.chmod(0o755)
        yield staging
        if destination.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f".{destination.name}.old.", dir=destination.parent))
            destination.rename(replaced / destination.name)
            staging.rename(destination)
            shutil.rmtree(replaced)
        else:
            staging.rename(destination)
    except OSError as error:
        raise EngineError(
            f"{error.filename or destination}: {error.strerror}; the samples could not be kept"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
