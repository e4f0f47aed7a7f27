"""Power and energy of machines, from how busy they were.

The model is a straight line between idle and full power (X. Fan, W.-D. Weber, L. A. Barroso: Power Provisioning for a
Warehouse-sized Computer, ISCA 2007): for a group of machines, CPU utilisation alone tells the power well. Their other
form bends the line, `idle + (full - idle) (2 u - u^r)`, with r found by calibration on the machines in question; 1.4
for theirs.

How far such a model can be trusted: OpenDC, which ships the same kind, reports an error of its own against measured
power of 4.4 % after calibration and 5.1 % before, for machines whose idle and full power were known. With a guess of
those two, only ratios between scenarios mean anything.
"""

from typing import Annotated, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from simulator.errors import SimulatorError
from simulator.records import NonNegative, StrictModel

_ROUNDING = 1e-9


class PowerModel(StrictModel):
    """`[machines.spec.power]`: what one machine draws. The defaults are assumed: put in your machine's.

    Attributes:
        idle_watts: when it is on and does nothing. Default: half of full power, which is what L. A. Barroso and
            U. Hölzle found of servers of their time (The Case for Energy-Proportional Computing, IEEE Computer 40:12,
            2007); newer ones draw less of it.
        full_watts: when all cores are busy. Default: 200, a judgement: a small server of two sockets.
        bend: r of the bent form, at least 1; 1 is the straight line.
        facility_factor: of the building's power over the machines' (PUE); 1 counts machines only.
    """

    idle_watts: NonNegative = 100.0
    full_watts: NonNegative = 200.0
    bend: Annotated[float, Field(ge=1, le=2)] = 1.0
    facility_factor: Annotated[float, Field(ge=1, le=10)] = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.idle_watts > self.full_watts:
            raise ValueError(f"`idle_watts` {self.idle_watts:g} must not exceed `full_watts` {self.full_watts:g}")
        return self

    def watts(self, utilisation: ArrayLike) -> NDArray[np.float64]:
        """Power at each utilisation of all cores, 0 to 1.

        Raises:
            SimulatorError: a utilisation is outside of that.
        """
        busy = np.asarray(utilisation, dtype=float)
        if not ((busy >= -_ROUNDING) & (busy <= 1 + _ROUNDING)).all():
            raise SimulatorError("utilisation: each must be between 0 and 1, the part of all cores that is busy")
        busy = np.clip(busy, 0.0, 1.0)
        range_watts = self.full_watts - self.idle_watts
        drawn: NDArray[np.float64] = self.facility_factor * (
            self.idle_watts + range_watts * (2 * busy - busy**self.bend)
        )
        return drawn


def watt_hours(power: PowerModel, edges_seconds: ArrayLike, utilisation: ArrayLike) -> float:
    """Energy of one machine that is on from the first edge to the last.

    Args:
        power: of the machine.
        edges_seconds: when its utilisation changed, in order, shape (k + 1,).
        utilisation: between two edges, of all its cores, 0 to 1, shape (k,).

    Raises:
        SimulatorError: the shapes do not fit, time runs backwards, or a utilisation is impossible.
    """
    edges = np.asarray(edges_seconds, dtype=float)
    busy = np.asarray(utilisation, dtype=float)
    if edges.ndim != 1 or busy.shape != (max(len(edges) - 1, 0),):
        raise SimulatorError(
            f"watt_hours: {busy.size} utilisations for {edges.size} edges; there is one between each two edges"
        )
    lengths = np.diff(edges)
    if not (lengths >= 0).all():
        raise SimulatorError("watt_hours: `edges_seconds` must be in order of time")
    return float(lengths @ power.watts(busy)) / 3600


def watt_hours_of_work(power: PowerModel, on_seconds: float, busy_core_seconds: float, cores: int) -> float:
    """The same of any number of equal machines from their totals, which is all that a straight line asks.

    Args:
        power: of each machine.
        on_seconds: for which machines were on, added up.
        busy_core_seconds: for which cores were busy, added up (`SharedCores.busy_core_seconds`).
        cores: of each machine.

    Raises:
        SimulatorError: the power is not a straight line, or there was more work than the cores can have done.
    """
    if power.bend != 1:
        raise SimulatorError(f"`power.bend` is {power.bend:g}: totals tell the energy only where it is 1")
    if not 0 <= busy_core_seconds <= on_seconds * cores * (1 + _ROUNDING):
        raise SimulatorError(
            f"{busy_core_seconds:g} busy core-seconds on {cores} cores that were on for {on_seconds:g} s: impossible"
        )
    range_watts = power.full_watts - power.idle_watts
    joules = power.idle_watts * on_seconds + range_watts * busy_core_seconds / cores
    return power.facility_factor * joules / 3600
