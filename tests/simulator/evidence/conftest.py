"""Measurements made up from a known truth: what calibration must recover, and validation must predict."""

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.platforms import Phase, PlatformProfile
from simulator.datacenter.startup import predict_contention

CONDITIONS = {
    "startup": ["phase"],
    "contention": ["concurrency", "instance"],
    "memory": ["instances", "instance"],
    "machine": ["concurrency", "work"],
}


@dataclass(frozen=True)
class Truth:
    """A platform whose costs are known, and the noise with which it is measured (a coefficient of variation)."""

    phases: tuple[tuple[str, float, float], ...] = (
        ("clone", 0.002, 0.0),
        ("mounts", 0.001, 0.001),
        ("exec", 0.001, 0.0),
    )
    private: float = 500e3
    shared: float = 1.2e6
    kernel: float = 300e3
    fork_speed: float = 0.7
    cores: int = 2
    tick: float = 0.001
    noise: float = 0.05
    platform: str = "container"
    variant: str = "default"

    def machine(self) -> MachineSpec:
        return MachineSpec(
            cores=self.cores, time_slice_seconds=self.tick, speed_when_busy={"fork": (1.0, self.fork_speed)}
        )

    def profile(self) -> PlatformProfile:
        base = PlatformProfile.from_toml("container")
        phases = tuple(
            Phase(name=name, cpu_seconds=cpu, fixed_seconds=fixed, work="fork", kind="measured", source="truth")
            for name, cpu, fixed in self.phases
        )
        return base.model_copy(update={"startup": base.startup.model_copy(update={"phases": phases})})


def write_measurements(directory: Path, truth: Truth, seed: int = 1) -> Path:
    """Write what measuring `truth` would have left: 40 starts, 20 contentions, 5 memory runs."""
    random = np.random.default_rng(seed)
    who = [truth.platform, truth.variant]

    def noisy(value: float) -> float:
        return float(value * random.lognormal(0, truth.noise))

    def startup() -> Iterable[list[object]]:
        for repetition in range(40):
            total_wall = total_cpu = 0.0
            for name, cpu, fixed in truth.phases:
                cpu_seconds, delay = noisy(cpu), noisy(fixed)
                yield ["startup", *who, name, "wall", cpu_seconds + delay, "seconds", repetition]
                yield ["startup", *who, name, "cpu", cpu_seconds, "seconds", repetition]
                total_wall, total_cpu = total_wall + cpu_seconds + delay, total_cpu + cpu_seconds
            yield ["startup", *who, "total", "wall", total_wall, "seconds", repetition]
            yield ["startup", *who, "total", "cpu", total_cpu, "seconds", repetition]

    def contention() -> Iterable[list[object]]:
        for concurrency in (1, 2, 4, 8, 16):
            alone = predict_contention(truth.machine(), truth.profile(), concurrency)
            for repetition in range(20):
                for instance, seconds in enumerate(alone):
                    yield ["contention", *who, concurrency, instance, "wall", noisy(seconds), "seconds", repetition]

    def memory() -> Iterable[list[object]]:
        for instances in (1, 2, 4, 8, 16, 32, 64):
            for repetition in range(5):
                for instance in range(instances):
                    pss = noisy(truth.private + truth.shared / instances)
                    yield ["memory", *who, instances, instance, "pss", int(pss), "bytes", repetition]
                grown = int(noisy(truth.kernel * instances))
                yield ["memory", *who, instances, "host", "kernel", grown, "bytes", repetition]
                yield ["memory", *who, instances, "host", "available", 2 * grown, "bytes", repetition]

    def machine() -> Iterable[list[object]]:
        for work, speed in (("compute", 1.0), ("fork", truth.fork_speed)):
            for copies in (1, 2):
                for repetition in range(7):
                    seconds = 0.1 if copies == 1 else 0.1 / speed
                    yield ["machine", "process", "default", copies, work, "last", seconds, "seconds", repetition]

    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in (("startup", startup), ("contention", contention), ("memory", memory), ("machine", machine)):
        with (directory / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ["experiment", "platform", "variant", *CONDITIONS[name], "metric", "value", "unit", "repetition"]
            )
            writer.writerows(rows())
    provenance = {
        "host": directory.name,
        "recorded_at": "2026-01-01T00:00:00+00:00",
        "cpu": {"model": "made up", "cores": truth.cores},
        "memory_bytes": 8 * 2**30,
        "tick_seconds": truth.tick,
        "kernel": "6.1.0",
        "complete": True,
        "command": "none",
    }
    (directory / "provenance.json").write_text(json.dumps(provenance))
    return directory


@pytest.fixture(scope="session")
def truth() -> Truth:
    return Truth()


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory, truth: Truth) -> Path:
    """A directory of measurements of `truth`. Not to be changed."""
    return write_measurements(tmp_path_factory.mktemp("measurements") / "made-up", truth)


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., Path]:
    """Writes measurements of a truth of one's own to a new directory, which may be changed."""

    def write(truth: Truth | None = None, seed: int = 1) -> Path:
        return write_measurements(tmp_path / "made-up", truth or Truth(), seed)

    return write
