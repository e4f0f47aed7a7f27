"""An instance comes up: its phases in order, each on what it consumes.

Contention needs no parameter of its own. Start-ups in progress share the cores, queue for kernel locks and overlap
their fixed delays, so how long N take when they start at once follows from what one of them consumes alone.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy import Environment

from simulator.datacenter.cores import Job
from simulator.datacenter.machine import Machine, MachineSpec
from simulator.datacenter.platforms import Phase, PlatformProfile
from simulator.errors import SimulatorError

Observe = Callable[[Phase, float, float], None]
"""Called at the end of each phase with the phase, and the times in seconds at which it began and ended."""


def start_up(
    machine: Machine, profile: PlatformProfile, *, observe: Observe | None = None
) -> Generator[Any, Any, float]:
    """Start one instance on `machine` (`yield from` it in a process); the value is the seconds that it took.

    A process that is interrupted in here leaves nothing behind: its work is off the cores and its lock is free.

    Args:
        machine: where.
        profile: of the platform whose phases are gone through.
        observe: called at the end of each phase.
    """
    began: float = machine.env.now
    last: Job | None = None
    for phase in profile.startup.phases:
        phase_began: float = machine.env.now
        if phase.lock is None:
            last = yield from _work(machine, phase, last)
        else:
            with machine.lock(phase.lock).request() as held:
                yield held
                last = yield from _work(machine, phase, last)
        if phase.fixed_seconds:
            yield machine.env.timeout(phase.fixed_seconds)
        if observe is not None:
            observe(phase, phase_began, machine.env.now)
    return float(machine.env.now) - began


def _work(machine: Machine, phase: Phase, last: Job | None) -> Generator[Any, Any, Job | None]:
    """Work off the phase's CPU seconds: one thread's, and beside it those that run on another core meanwhile.

    Args:
        machine: where.
        phase: what.
        last: what the start-up's thread did before, since it goes on with its turn if nothing made it wait.
    """
    if not phase.cpu_seconds:
        return last
    job = machine.cores.submit(phase.cpu_seconds, phase.work, after=last)
    beside = machine.cores.submit(phase.parallel_cpu_seconds, phase.work)
    try:
        yield job
        if not beside.triggered:
            yield beside
    finally:
        machine.cores.cancel(job)
        machine.cores.cancel(beside)
    return job


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
