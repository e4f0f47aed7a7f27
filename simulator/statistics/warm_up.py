"""How much of a run is warm-up: the part that still remembers the empty start, and would bias a steady-state mean.

MSER-5 deletes as much as makes the mean of the rest as sure as it can be. Sources: White, An effective truncation
heuristic for bias reduction in simulation output, Simulation 69(6), 1997; White, Cobb and Spratt, A comparison of five
steady-state truncation heuristics for simulation, Winter Simulation Conference 2000; Hoad, Robinson and Davies,
Automating warm-up length estimation, Journal of the Operational Research Society 61(9), 2010.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from simulator.errors import SimulatorError
from simulator.statistics.intervals import finite_samples

BATCH = 5
"""Observations that are averaged before the rule looks: the 5 of MSER-5."""

_FEWEST_BATCHES = 10
_UNUSED_BATCHES = 5
"""A mean of the last few batches can be sure of itself by chance, so the rule never deletes all but these."""


class WarmUp(NamedTuple):
    """What MSER-5 found.

    Attributes:
        observations: how many to delete from the beginning, a multiple of the batch.
        trustworthy: whether the point lies in the first half of the run. Where it does not, the series was still
            drifting at its end: run longer, or it has no steady state.
        reason: the same in words.
    """

    observations: int
    trustworthy: bool
    reason: str


def mser5(series: ArrayLike, batch: int = BATCH) -> WarmUp:
    """How many observations at the beginning of `series` are warm-up.

    Args:
        series: observations in order of time, shape (n,); or of several replications of the same length, shape
            (replications, n), whose mean at each place is judged, since it shows a drift that one run hides.
        batch: observations that are averaged first.

    Raises:
        SimulatorError: fewer than 10 batches, a batch of none, or a value that is not finite.
    """
    values = np.asarray(series, dtype=np.float64)
    values = finite_samples(values.mean(axis=0) if values.ndim == 2 else values)
    if batch < 1:
        raise SimulatorError(f"batch {batch}: give how many observations are averaged, at least 1")
    count = len(values) // batch
    if count < _FEWEST_BATCHES:
        raise SimulatorError(
            f"warm-up: {len(values)} observations are too few to find it; give at least {_FEWEST_BATCHES * batch}"
        )
    means = values[: count * batch].reshape(count, batch).mean(axis=1)
    # Relative to the last half, whose mean is near that of any rest, so that the squares below do not cancel.
    means = means - means[count // 2 :].mean()
    rest = np.arange(count, 0, -1)
    sums = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum(means[::-1] ** 2)[::-1]
    # The squared standard error of the mean of what is left after deleting the first 0, 1, 2, … batches.
    errors = np.maximum(squares - sums**2 / rest, 0.0) / rest**2
    deleted = int(np.argmin(errors[: count - _UNUSED_BATCHES]))
    observations = deleted * batch
    if 2 * deleted < count:
        return WarmUp(observations, True, f"the first {observations} of {len(values)} observations are warm-up")
    return WarmUp(
        observations,
        False,
        f"no end of the warm-up: {observations} of {len(values)} observations lie before it, more than half; run "
        "longer, unless the load is more than can be served and there is no steady state",
    )
