"""What the machine itself does when several cores are busy, measured apart from any container or VM.

Two hyperthreads of one core, a shared cache or a hypervisor's scheduler make n busy cores slower than n times one. The
model needs that number, and may not fit it from the contention of containers, which it is to predict.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from real_engine.measure.cohort import Cohort
from real_engine.measure.samples import Sample

COMPUTE_ROUNDS = 400_000
FORKS = 100


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


def measure_machine(busybox: Path, work: str, concurrency: int, repetition: int) -> Iterator[Sample]:
    """Run `concurrency` copies of `work` (`compute` or `fork`) at once, and yield the mean seconds that a copy took."""
    job = compute if work == "compute" else fork_and_exec(busybox)

    def timed(released_at: float) -> float:
        begin = time.monotonic()
        job()
        return time.monotonic() - begin

    with Cohort(concurrency, timed) as cohort:
        seconds = cohort.release()
    mean = sum(seconds) / len(seconds)
    yield Sample("machine", "process", "default", (concurrency, work), "wall", mean, "seconds", repetition)
