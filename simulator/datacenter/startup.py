"""An instance comes up: its phases in order, each on what it consumes.

Contention needs no parameter of its own. Start-ups in progress share the cores, the disk and the network, queue for
kernel locks and overlap their fixed delays, so how long N take when they start at once follows from what one of them
consumes alone. What a start needs beside the platform's phases depends on how warm the machine is.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy import Environment

from simulator.datacenter.cores import Job
from simulator.datacenter.images import ImageSpec
from simulator.datacenter.machine import Machine, MachineSpec
from simulator.datacenter.platforms import Phase, PlatformProfile
from simulator.datacenter.registry import Registry
from simulator.datacenter.warmth import Warmth
from simulator.errors import SimulatorError

READ_AHEAD_MIB = 0.125
"""What Linux reads at once of a file that is read from its beginning (VM_READAHEAD_PAGES, 128 KiB)."""

DOWNLOAD, UNPACK, READ = (
    Phase(name=name, kind="simulated", source="simulator.datacenter.layer_store: the image and the machine decide")
    for name in ("download", "unpack", "read")
)
"""What `start_up` calls the parts of a start that the image needs. Unpacking counts from the last layer's arrival."""

Observe = Callable[[Phase, float, float], None]
"""Called at the end of each phase with the phase, and the times in seconds at which it began and ended."""


def start_up(
    machine: Machine,
    profile: PlatformProfile,
    *,
    observe: Observe | None = None,
    running: int = 0,
    image: ImageSpec | None = None,
    warmth: Warmth = "memory-warm",
    registry: Registry | None = None,
    factor: float = 1.0,
) -> Generator[Any, Any, float]:
    """Start one instance on `machine` (`yield from` it in a process); the value is the seconds that it took.

    A process that is interrupted in here leaves nothing behind: its work is off the cores and the disk, its downloads
    end unless another start waits for them, its lock is free and its image may be evicted. One that comes to the end
    holds its image: call `machine.images.release(image)` when the instance is over.

    Args:
        machine: where.
        profile: of the platform whose phases are gone through.
        observe: called at the end of each phase; those of the image are `DOWNLOAD`, `UNPACK` and `READ`.
        running: instances that run on the machine already.
        image: what the instance is started from, or None where that is not asked.
        warmth: from where it begins, see `simulator.datacenter.warmth`. Warmer than cold, the image is on the machine
            however it came there.
        registry: from where a cold start pulls.
        factor: all work and all delays of the platform's phases are so many times the profile's: a start that is slower
            or faster than the median one.

    Raises:
        SimulatorError: a snapshot of a platform that has none, a cold start without an image or a registry, or an image
            that does not fit on the machine.
    """
    began: float = machine.env.now
    phases = phases_of(profile, warmth)
    if image is None and warmth == "cold":
        raise SimulatorError(f"{profile.name}: a cold start pulls an image; give `image`, or start `disk-warm`")
    if image is not None:
        if warmth == "cold" and registry is None:
            raise SimulatorError(f"{profile.name}: a cold start pulls image {image.name!r}; give `registry`")
        if warmth != "cold":
            machine.images.put(image, in_memory=warmth != "disk-warm")
        machine.images.hold(image)
    try:
        if image is not None and warmth in ("cold", "disk-warm"):
            yield from _fetch(machine, image, registry if warmth == "cold" else None, observe)
        last: Job | None = None
        for phase in phases:
            phase_began: float = machine.env.now
            if phase.read_mib and warmth in ("cold", "disk-warm"):
                key = (profile.name, phase.name)
                yield from machine.page_cache.read(key, phase.read_mib, phase.read_mib / READ_AHEAD_MIB)
            cpu_seconds = phase.cpu_seconds_beside(running) * factor
            if phase.lock is None:
                last = yield from _work(machine, phase, cpu_seconds, factor, last)
            else:
                with machine.lock(phase.lock).request() as held:
                    yield held
                    last = yield from _work(machine, phase, cpu_seconds, factor, last)
            if phase.fixed_seconds:
                yield machine.env.timeout(phase.fixed_seconds * factor)
            if observe is not None:
                observe(phase, phase_began, machine.env.now)
    except BaseException:
        if image is not None:
            machine.images.release(image)
        raise
    return float(machine.env.now) - began


def phases_of(profile: PlatformProfile, warmth: Warmth) -> tuple[Phase, ...]:
    """The platform's own phases of a start from `warmth`.

    Raises:
        SimulatorError: a snapshot of a platform that has none.
    """
    if warmth != "snapshot":
        return profile.startup.phases
    if profile.snapshot is None:
        raise SimulatorError(
            f"{profile.name}: its profile has no `snapshot`; choose another `warmth`, or write [snapshot] into it"
        )
    return profile.snapshot.phases


def _fetch(
    machine: Machine, image: ImageSpec, registry: Registry | None, observe: Observe | None
) -> Generator[Any, Any, None]:
    """Have the image on the machine, and what a start reads of it in memory."""
    if registry is not None:
        pulled = yield from machine.images.pull(image, registry)
        if observe is not None:
            observe(DOWNLOAD, pulled.began, pulled.downloaded)
            observe(UNPACK, pulled.downloaded, pulled.unpacked)
    began: float = machine.env.now
    yield from machine.images.read(image)
    if observe is not None:
        observe(READ, began, machine.env.now)


def _work(
    machine: Machine, phase: Phase, cpu_seconds: float, factor: float, last: Job | None
) -> Generator[Any, Any, Job | None]:
    """Work off the phase's CPU seconds: one thread's, and beside it those that run on another core meanwhile.

    Args:
        machine: where.
        phase: what.
        cpu_seconds: of its main thread.
        factor: of its second thread.
        last: what the start-up's thread did before, since it goes on with its turn if nothing made it wait.
    """
    if not cpu_seconds:
        return last
    job = machine.cores.submit(cpu_seconds, phase.work, after=last)
    beside = machine.cores.submit(phase.parallel_cpu_seconds * factor, phase.work)
    try:
        yield job
        if not beside.triggered:
            yield beside
    finally:
        machine.cores.cancel(job)
        machine.cores.cancel(beside)
    return job


def predict_sequence(
    spec: MachineSpec, profile: PlatformProfile, instances: int, *, image: ImageSpec | None = None
) -> NDArray[np.float64]:
    """Predict how long each of `instances` instances takes that start one after another and all stay.

    Args:
        spec: the machine, empty at first.
        profile: the platform.
        instances: how many, at least 1.
        image: what they are started from, on the disk at first and not in memory; or None.

    Returns:
        Start-up seconds of each, in order: element N is of the one beside which N run already, shape (instances,).

    Raises:
        SimulatorError: fewer than one instance.
    """
    if instances < 1:
        raise SimulatorError(f"{instances} instances: at least one must start")
    env = Environment()
    machine = Machine(env, spec, spec.name)
    took: list[float] = []

    def one_after_another() -> Generator[Any, Any, None]:
        for running in range(instances):
            warmth: Warmth = "memory-warm" if image is None else "disk-warm"
            took.append((yield from start_up(machine, profile, running=running, image=image, warmth=warmth)))

    env.process(one_after_another())
    env.run()
    return np.array(took)


def predict_contention(spec: MachineSpec, profile: PlatformProfile, concurrency: int) -> NDArray[np.float64]:
    """Predict how long each of `concurrency` instances takes that start at the same moment on an idle machine.

    Deterministic: the phases are those of the profile, which are medians.

    Args:
        spec: the machine.
        profile: the platform.
        concurrency: how many instances, at least 1.

    Returns:
        Start-up seconds of each instance, in the order in which they were asked for, shape (concurrency,).

    Raises:
        SimulatorError: fewer than one instance.
    """
    if concurrency < 1:
        raise SimulatorError(f"concurrency {concurrency}: at least one instance must start")
    env = Environment()
    machine = Machine(env, spec, spec.name)
    starts = [env.process(start_up(machine, profile)) for _ in range(concurrency)]
    env.run()
    return np.array([start.value for start in starts])
