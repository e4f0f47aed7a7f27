"""What no formula can answer is refused here, in one line."""

import math

from simulator.errors import SimulatorError


def check_count(name: str, count: int, least: int) -> None:
    """Refuse fewer than `least`."""
    if count < least:
        raise SimulatorError(f"{name} {count}: must be at least {least}")


def check_positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise SimulatorError(f"{name} {value}: must be a finite number above 0")


def check_load(workers: int, load: float) -> None:
    """Refuse a queue without workers, and a load that is negative or not finite."""
    if workers < 1:
        raise SimulatorError(f"workers {workers}: a queue needs at least one")
    if not (math.isfinite(load) and load >= 0):
        raise SimulatorError(f"load {load}: must be a finite number, at least 0")


def check_stable(workers: int, load: float) -> None:
    """Refuse a load, in erlangs, that the workers cannot carry."""
    check_load(workers, load)
    if load >= workers:
        raise SimulatorError(f"load {load:g} on {workers} workers: the queue grows without end; offer less")
