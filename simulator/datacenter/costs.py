"""What a run consumed, in hours, and what that costs at prices that a person gives.

Everything is computed from histories that are constant between changes: who was there from when to when.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from simulator.errors import SimulatorError
from simulator.records import NonNegative, StrictModel

GIGABYTE = 1e9
"""Bytes, as in price lists per GB-hour that follow the SI."""


class CostSettings(StrictModel):
    """`[costs]`: prices. All are 0, which stands for not asked: no price is true for everyone, or for long.

    Whoever rents whole machines pays for these; whoever buys instances or functions, for those and their memory. Give
    the prices of one of the two, or all is counted twice.

    Attributes:
        currency: for texts, e.g. `EUR`.
        per_machine_hour: for each machine that is on, whatever runs on it.
        per_instance_hour: from the start of an instance's start-up until it has stopped.
        per_gb_hour: for each 10⁹ bytes that are in use or promised, whichever the caller counts.
        per_kwh: of energy.
        minimum_seconds: what is billed at least for one machine or one instance, however short its life; some
            providers bill a minute (Amazon EC2, On-Demand pricing: per second, at least 60 s).
        step_seconds: lives are billed in whole steps of it; 0: exactly. 3600 is the hour that was usual before 2017.
    """

    currency: Annotated[str, Field(max_length=16)] = ""
    per_machine_hour: NonNegative = 0.0
    per_instance_hour: NonNegative = 0.0
    per_gb_hour: NonNegative = 0.0
    per_kwh: NonNegative = 0.0
    minimum_seconds: NonNegative = 0.0
    step_seconds: NonNegative = 0.0


@dataclass(frozen=True)
class Consumption:
    """What a run used.

    Attributes:
        machine_hours: of machines that were on.
        instance_hours: of instances.
        gb_hours: of memory, 10⁹ bytes each.
        watt_hours: of energy.
    """

    machine_hours: float = 0.0
    instance_hours: float = 0.0
    gb_hours: float = 0.0
    watt_hours: float = 0.0


@dataclass(frozen=True)
class Cost:
    """What a run costs, part by part, in `currency`."""

    machines: float
    instances: float
    memory: float
    energy: float
    currency: str

    @property
    def total(self) -> float:
        """All parts."""
        return self.machines + self.instances + self.memory + self.energy


def cost(consumption: Consumption, settings: CostSettings) -> Cost:
    """What `consumption` costs at the prices of `settings`."""
    return Cost(
        machines=consumption.machine_hours * settings.per_machine_hour,
        instances=consumption.instance_hours * settings.per_instance_hour,
        memory=consumption.gb_hours * settings.per_gb_hour,
        energy=consumption.watt_hours / 1000 * settings.per_kwh,
        currency=settings.currency,
    )


def hours(lives: ArrayLike, begin_seconds: float, end_seconds: float, *, settings: CostSettings | None = None) -> float:
    """Machine-hours or instance-hours: how long each was there within [begin, end], added up.

    Args:
        lives: (from, until) of each in seconds, shape (n, 2); `inf` for one that was still there.
        begin_seconds: of what is counted.
        end_seconds: of what is counted.
        settings: for the least that is billed for a life, and the steps in which it is. It applies to the part of a
            life within [begin, end]. Default: exactly what was used.

    Raises:
        SimulatorError: the shape is another, or a life ends before it begins.
    """
    lengths = _within(lives, begin_seconds, end_seconds)
    if settings is not None:
        lived = lengths > 0
        if settings.step_seconds:
            # The subtraction keeps a life of exactly n steps, off by rounding, from costing one more.
            lengths = np.ceil(lengths / settings.step_seconds - 1e-9) * settings.step_seconds
        lengths = np.where(lived, np.maximum(lengths, settings.minimum_seconds), 0.0)
    return float(lengths.sum()) / 3600


def gb_hours(lives: ArrayLike, held_bytes: ArrayLike, begin_seconds: float, end_seconds: float) -> float:
    """GB-hours of memory held from when to when, within [begin, end].

    Args:
        lives: (from, until) in seconds, shape (n, 2).
        held_bytes: by each, meanwhile, shape (n,) or one for all.
        begin_seconds: of what is counted.
        end_seconds: of what is counted.

    Raises:
        SimulatorError: the shapes do not fit, a life ends before it begins, or bytes are negative.
    """
    lengths = _within(lives, begin_seconds, end_seconds)
    held = np.asarray(held_bytes, dtype=float)
    if held.shape not in ((), lengths.shape) or (held < 0).any():
        raise SimulatorError(f"gb_hours: {lengths.size} lives need as many sizes in bytes, none of them negative")
    return float((lengths * held).sum()) / GIGABYTE / 3600


def _within(lives: ArrayLike, begin: float, end: float) -> NDArray[np.float64]:
    """How many seconds of each life lie in [begin, end], shape (n,)."""
    table = np.asarray(lives, dtype=float)
    if table.size == 0:
        return np.zeros(0)
    if table.ndim != 2 or table.shape[1] != 2 or not (table[:, 0] <= table[:, 1]).all():
        raise SimulatorError("lives: each is (from, until) in seconds, and none may end before it begins")
    within: NDArray[np.float64] = np.maximum(np.minimum(table[:, 1], end) - np.maximum(table[:, 0], begin), 0.0)
    return within
