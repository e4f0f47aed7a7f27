"""From measurements to a platform's profile: what is fitted, and from what.

| figure | fitted from | and not from |
|---|---|---|
| start-up phases and total | startup.csv: one instance at a time | contention.csv |
| private and shared memory | memory.csv, `pss` at few instances (`fitted_instances`) | larger numbers |
| kernel memory per instance | memory.csv, `kernel` at few instances | larger numbers |
| speed of a core when more want to run | machine.csv, which knows no container and no VM | contention.csv |
| time slice of a core | provenance.json: the kernel's timer tick | contention.csv |

So what several start-ups at once take, and what many instances need, are predictions that measurements can refute.
Labels, overheads and limits are not measured here: they are kept from the profile that is calibrated. So is how a
guest's memory splits into parts, which become smaller where they would exceed what was measured of the whole.
"""

from collections.abc import Callable, Mapping

import numpy as np

from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.platforms import Memory, Phase, PlatformProfile, Quantity, Startup, Work
from simulator.errors import SimulatorError
from simulator.evidence.measurements import Measurements, MemorySamples, Samples, StartupSamples, Subject
from simulator.statistics.intervals import Interval, bootstrap_median


def fitted_instances(platform: str) -> int:
    """Memory is fitted from at most this many instances side by side; more are predicted.

    A guest's hundred megabytes stand out at once. What a process or a container costs the kernel is a few hundred
    kilobytes, no more than the rest of the host changes by in a minute, and must be counted by the dozen.
    """
    return 4 if platform.startswith("vm") else 16


RESIDUE = 0.1
"""Of a start-up: a smaller difference between wall-clock and CPU time of a phase means nothing."""

FITTED_CONCURRENCY = 1
"""Start-up is fitted from this many at once; more are predicted."""


def calibrate(measurements: Measurements, subject: Subject, described: PlatformProfile) -> PlatformProfile:
    """Replace the start-up and memory of a profile by what was measured; all else is kept.

    Args:
        measurements: of one host.
        subject: the platform and variant whose samples are used.
        described: a profile of the same platform: its labels, overheads and limits.

    Raises:
        SimulatorError: the subject was not measured, or not at small enough numbers.
    """
    if subject not in measurements.startup:
        raise SimulatorError(f"{measurements.directory}: no start-up of {subject} was measured; run `onggi measure`")
    if subject not in measurements.memory:
        raise SimulatorError(f"{measurements.directory}: no memory of {subject} was measured; run `onggi measure`")
    host = measurements.host
    memory = fit_memory(measurements.memory[subject], subject, host)
    guest = described.guest
    if guest is not None:
        guest = guest.for_private(memory.private_bytes.value, described.memory.private_bytes.value)
    startup = fit_startup(measurements.startup[subject], subject, host)
    return described.model_copy(update={"startup": startup, "memory": memory, "guest": guest})


def calibrate_all(measurements: Measurements) -> dict[str, PlatformProfile]:
    """The profile of every platform of which enough was measured, by name.

    Where a platform was measured in several variants, the profile is of the plainest: `default`, else `microvm`.
    """
    subjects = sorted(measurements.startup.keys() & measurements.memory.keys(), key=_plainest_first)
    plainest = {subject.platform: subject for subject in reversed(subjects)}
    return {
        name: calibrate(measurements, plainest[name], described_profile(plainest[name])) for name in sorted(plainest)
    }


def _plainest_first(subject: Subject) -> tuple[int, Subject]:
    order = ("default", "microvm")
    return order.index(subject.variant) if subject.variant in order else len(order), subject


def described_profile(subject: Subject) -> PlatformProfile:
    """The profile that ships for the platform of `subject`: what measuring does not tell is kept from it."""
    return PlatformProfile.from_toml(subject.platform)


def heading(measurements: Measurements) -> str:
    """The comment that a calibrated profile's file begins with: from what, and how to make it again."""
    provenance = measurements.provenance
    cpu = provenance.cpu
    return (
        f"Start-up and memory were fitted by `onggi calibrate --measurements {measurements.host}` to what was\n"
        f"measured on {provenance.recorded_at}: {cpu.model}, {cpu.cores} cores, Linux {provenance.kernel}.\n"
        "Labels, overheads and limits are kept from the profile that was there; change those by hand."
    )


def fit_startup(samples: StartupSamples, subject: Subject, host: str) -> Startup:
    """Fit each phase at concurrency 1: CPU seconds, and what is left of the wall-clock seconds as a fixed delay.

    Both are medians over the repetitions. Medians of parts do not add up to the median of the whole, so all are
    scaled by the same factor to do so. A phase that used more CPU than its wall-clock time kept a second core busy
    meanwhile (a guest beside its device model); the excess becomes the work of a parallel thread.

    A difference below `RESIDUE` of the whole start-up is neither a wait nor a second thread, but what the two clocks
    cannot tell apart: interrupts, the hand-over from one process to the next, cycles that a hypervisor took away. Its
    phase works all the time.

    Args:
        samples: of one platform.
        subject: which platform.
        host: where it was measured, for the sources.
    """
    medians = {name: float(np.median(samples.wall[name])) for name in samples.phases}
    total = bootstrap_median(samples.total)
    scale = total.value / sum(medians.values())
    wall = [medians[name] * scale for name in samples.phases]
    cpu = _booked_where_possible([float(np.median(samples.cpu[name])) * scale for name in samples.phases], wall)
    cpu = [
        lasts if abs(of_phase - lasts) < RESIDUE * total.value else of_phase
        for of_phase, lasts in zip(cpu, wall, strict=True)
    ]
    source = f"{host}/startup.csv: {subject}, median of {samples.total.size} starts of one at a time"
    phases = [
        Phase(
            name=name,
            cpu_seconds=_rounded(min(of_phase, lasts)),
            parallel_cpu_seconds=_rounded(max(of_phase - lasts, 0.0)),
            work=work_of(subject.platform, name),
            lock=lock_of(subject.platform, name),
            fixed_seconds=_rounded(max(lasts - of_phase, 0.0)),
            kind="measured",
            source=f"{source}, phase {name}: CPU, and wall-clock less CPU as delay",
        )
        for name, lasts, of_phase in zip(samples.phases, wall, cpu, strict=True)
    ]
    return Startup(total_seconds=_quantity(total, source), phases=tuple(phases))


def _booked_where_possible(cpu: list[float], wall: list[float]) -> list[float]:
    """Move CPU seconds to earlier phases where a phase has more of them than two threads can use in its time.

    Reading a child's clock is possible only once there is a child, so what it did before is booked late. Work is
    never dropped: moved, it fills the time in which an earlier phase seemed to do nothing.
    """
    booked = list(cpu)
    for index in range(len(booked) - 1, 0, -1):
        late = booked[index] - 2 * wall[index]
        if late > 0:
            booked[index] -= late
            booked[index - 1] += late
    # What even the first phase cannot have done in its time is a rounding of the clocks: it is bounded like the rest.
    booked[0] = min(booked[0], 2 * wall[0])
    return booked


def work_of(platform: str, phase: str) -> Work:
    """Which work of machine.csv a phase resembles, so that busy cores slow it as they slowed that.

    What a start-up does before the instance's own code runs is the kernel's: processes, page tables, mounts, files
    mapped: `fork`. A guest runs its own instructions: `compute`. Chosen from what the phases do, not from how they
    fared under contention.
    """
    return "compute" if platform.startswith("vm") and phase != "vmm" else "fork"


def lock_of(platform: str, phase: str) -> str | None:
    """The kernel lock that a phase holds while it works, if it holds one for long."""
    return None


def fit_memory(samples: MemorySamples, subject: Subject, host: str) -> Memory:
    """Fit private, shared and kernel bytes from at most `fitted_instances` instances side by side.

    PSS of one among N is `private + shared / N` (proc(5)). The kernel's growth is a straight line in N whose slope is
    what an instance needs: its intercept is how the rest of the host drifted before the first instance ran.

    Args:
        samples: of one platform.
        subject: which platform.
        host: where it was measured, for the sources.

    Raises:
        SimulatorError: fewer than two different small numbers of instances, so that private and shared, or an instance
            and the host's drift, cannot be told apart.
    """
    most = fitted_instances(subject.platform)
    pss = {count: values.mean(axis=1) for count, values in samples.pss.items() if count <= most}
    kernel = {count: values for count, values in samples.kernel.items() if count <= most}
    if min(len(pss), len(kernel)) < 2:
        raise SimulatorError(
            f"{host}/memory.csv: {subject}: `pss` and `kernel` of fewer than two numbers of instances up to "
            f"{most}; private and shared memory cannot be told apart, so measure 1, 2 and 4"
        )
    source = f"{host}/memory.csv: {subject}, {', '.join(map(str, pss))} instances"
    private, shared = _fit(pss, lambda counts: 1 / counts, f"{source}: pss = private + shared / N")
    _, each = _fit(kernel, lambda counts: counts, f"{source}: kernel = drift + N * each")
    return Memory(private_bytes=private, shared_bytes=shared, kernel_bytes=each)


def fit_machine(measurements: Measurements, reserved_bytes: int = 0) -> MachineSpec:
    """The measured host as a machine: its cores and memory, and how much slower a core is when more want to run.

    The speed with n copies of a fixed work on c cores is the time of one alone over that until the last of n is done,
    times n/c where they must take turns; of these ratios, one a repetition, the median. A repetition's times were taken
    one after the other, on the same slow or fast day.

    Args:
        measurements: of one host.
        reserved_bytes: what is kept for the host itself.
    """
    cores = measurements.provenance.cpu.cores
    speeds: dict[str, tuple[float, ...]] = {}
    for work, samples in sorted(measurements.machine.items()):
        where = f"{measurements.directory}/machine.csv: `{work}`"
        if 1 not in samples:
            raise SimulatorError(f"{where} was not measured alone (concurrency 1)")
        if len({values.size for values in samples.values()}) > 1:
            raise SimulatorError(f"{where}: not every repetition has every concurrency; measure again")
        known = sorted(samples)
        ratios = [float(np.median(samples[1] / samples[count])) * max(1.0, count / cores) for count in known]
        speeds[work] = tuple(map(_rounded, np.interp(range(1, known[-1] + 1), known, ratios)))
    provenance = measurements.provenance
    return MachineSpec(
        name=measurements.host,
        cores=cores,
        memory_bytes=provenance.memory_bytes,
        reserved_bytes=reserved_bytes,
        speed_when_busy=speeds,
        time_slice_seconds=provenance.tick_seconds,
    )


def _fit(samples: Mapping[int, Samples], term: Callable[[Samples], Samples], source: str) -> list[Quantity]:
    """Least squares of `constant + coefficient * term(N)` for each repetition: both parameters, medians and intervals.

    A repetition is the independent unit: the instances of its 4 include those of its 2. A median, because something
    else on the host may have taken or freed memory in the middle of one.

    Args:
        samples: for each N, the samples by repetition, shape (repetitions,).
        term: what the coefficient multiplies.
        source: of the figures.
    """
    repetitions = min(values.size for values in samples.values())
    figures = np.stack([values[:repetitions] for values in samples.values()])
    terms = term(np.array(list(samples), dtype=np.float64))
    fitted = np.linalg.lstsq(np.stack([np.ones_like(terms), terms], axis=1), figures, rcond=None)[0]
    return [_quantity(bootstrap_median(values), f"{source}, median of {repetitions} repetitions") for values in fitted]


def _quantity(interval: Interval, source: str) -> Quantity:
    # Nothing that is measured here can be below zero; noise around nothing can.
    value, low, high = (_rounded(max(number, 0.0)) for number in interval)
    return Quantity(value=value, low=low, high=high, kind="measured", source=source)


def _rounded(number: float) -> float:
    """Six significant digits: more than any sample can tell, and a file that a person can read."""
    return float(f"{number:.6g}")
