"""The experiments: what is done to a platform, and the raw samples that it gives."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from real_engine.measure.cohort import Cohort
from real_engine.measure.host_memory import HostMemory
from real_engine.measure.platforms import Instance, PhaseTime, Platform
from real_engine.measure.samples import Sample

SETTLE_SECONDS = 0.1
"""Between two trials. The kernel takes network namespaces and cgroups apart after their last user has gone."""


def measure_startup(platform: Platform, repetition: int) -> Iterator[Sample]:
    """Start one instance on an otherwise idle machine, and yield the wall-clock and CPU seconds of each phase."""

    def start(running: list[Instance], released_at: float) -> list[PhaseTime]:
        running.append(platform.start())
        return list(running[-1].phases)

    (phases,) = _at_once(platform, 1, start)
    total = PhaseTime("total", sum(phase.wall_seconds for phase in phases), sum(phase.cpu_seconds for phase in phases))
    for phase in (*phases, total):
        for metric, value in (("wall", phase.wall_seconds), ("cpu", phase.cpu_seconds)):
            yield Sample(
                "startup", platform.name, platform.variant, (phase.name,), metric, value, "seconds", repetition
            )


def measure_contention(platform: Platform, concurrency: int, repetition: int) -> Iterator[Sample]:
    """Start `concurrency` instances at one moment, and yield the seconds that each took until it was ready."""

    def start(running: list[Instance], released_at: float) -> float:
        running.append(platform.start())
        return running[-1].ready_at - released_at

    for index, seconds in enumerate(_at_once(platform, concurrency, start)):
        conditions = (concurrency, index)
        yield Sample("contention", platform.name, platform.variant, conditions, "wall", seconds, "seconds", repetition)


Answer = TypeVar("Answer")


def _at_once(platform: Platform, size: int, start: Callable[[list[Instance], float], Answer]) -> list[Answer]:
    """Let `size` processes start an instance each at one moment, and stop them when all are ready.

    Every trial is made by freshly forked processes, also that of a single start, so that all of them start alike.
    """
    running: list[Instance] = []

    def rehearse() -> None:
        if platform.rehearses:
            platform.start().stop()

    def stop() -> None:
        for instance in running:
            instance.stop()

    with Cohort(size, partial(start, running), prepare=rehearse, finish=stop) as cohort:
        time.sleep(SETTLE_SECONDS)
        return cohort.release()


def measure_memory(platform: Platform, counts: Sequence[int], repetition: int) -> Iterator[Sample]:
    """Start instances one after another; at each of the (ascending) `counts`, yield what all of them need by then."""
    time.sleep(SETTLE_SECONDS)
    before = HostMemory.settled()
    with ExitStack() as running:
        instances: list[Instance] = []
        for count in counts:
            while len(instances) < count:
                instances.append(platform.start())
                running.callback(instances[-1].stop)
            time.sleep(SETTLE_SECONDS)
            now = HostMemory.settled()
            host = (
                ("kernel", now.kernel_bytes - before.kernel_bytes),
                ("available", before.available_bytes - now.available_bytes),
            )
            for index, instance in enumerate(instances):
                yield _memory_sample(platform, (count, index), "pss", instance.pss_bytes(), repetition)
            for metric, value in host:
                yield _memory_sample(platform, (count, "host"), metric, value, repetition)


def _memory_sample(
    platform: Platform, conditions: tuple[str | int, ...], metric: str, value: int, repetition: int
) -> Sample:
    return Sample("memory", platform.name, platform.variant, conditions, metric, value, "bytes", repetition)
