"""What the machine itself does when several cores are busy, measured apart from any container or VM.

Two hyperthreads of one core, a shared cache or a hypervisor's scheduler make n busy cores slower than n times one, and
work that takes turns on a core finds its caches cold. The model needs these numbers, and may not fit them from the
contention of containers, which it is to predict.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from real_engine.measure.cohort import Cohort
from real_engine.measure.samples import Sample

COMPUTE_ROUNDS = 6_000_000
FORKS = 400
"""Each about 200 ms on a machine of 2024: long enough to be of a start-up's kind, short enough to be repeated."""

WORKS = ("compute", "fork")


def compute() -> None:
    """Arithmetic that stays in the interpreter's registers and the first-level cache."""
    total = 0
    for number in range(COMPUTE_ROUNDS):
        total += number & 7


def fork_and_exec(busybox: Path) -> Callable[[], None]:
    """Work like an engine's: processes made, programs loaded, page tables built and torn down by the kernel."""

    def work() -> None:
        for _ in range(FORKS):
            os.waitpid(os.posix_spawn(busybox, ["true"], {}), 0)

    return work


def measure_machine(busybox: Path, work: str, repetition: int) -> Iterator[Sample]:
    """Run 1, 2, … copies of `work` at once, up to four a core, and yield the seconds of each number of copies.

    Up to one a core, they show how much busy cores slow each other down; beyond, what taking turns costs. One number
    after the other within the trial, forwards and backwards in turn, so that each repetition gives ratios of times
    that the machine's neighbours slowed alike.
    """
    job = compute if work == "compute" else fork_and_exec(busybox)

    def timed(released_at: float) -> float:
        job()
        return time.monotonic() - released_at

    cores = len(os.sched_getaffinity(0))
    counts = [*range(1, cores + 1), 2 * cores, 4 * cores]
    for copies in counts if repetition % 2 == 0 else reversed(counts):
        with Cohort(copies, timed) as cohort:
            seconds = cohort.release()
        for metric, value in (("wall", sum(seconds) / len(seconds)), ("last", max(seconds))):
            yield Sample("machine", "process", "default", (copies, work), metric, value, "seconds", repetition)
