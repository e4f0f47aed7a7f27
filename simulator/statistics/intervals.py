"""Intervals: a number never stands alone.

Means of independent replications get a t-interval, medians of raw samples a bootstrap interval, and two systems that
met the same random numbers are compared by the interval of their paired differences.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.errors import SimulatorError

RESAMPLES = 2000
"""Bootstrap resamples: the Monte Carlo error of a 95 % limit is then well below the width of the interval."""

_SEED = 20140721
"""The bootstrap's own stream, so that an interval of the same samples is always the same interval."""


class Interval(NamedTuple):
    """An estimate and the interval around it, in the unit of the samples."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of `high - low`."""
        return (self.high - self.low) / 2


def t_interval(samples: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of independent samples and Student's t-interval around it.

    Args:
        samples: shape (n,), one figure per independent replication.
        confidence: the wanted coverage, between 0 and 1.

    Returns:
        The mean with its interval. One sample tells nothing of the spread: its interval is the whole line.

    Raises:
        SimulatorError: no samples, a sample that is not finite, or an impossible confidence.

    Source: Law, Simulation Modeling and Analysis (5th ed.), eq. 4.12.
    """
    # scipy.special alone: scipy.stats takes half a second to import, and one quantile is wanted.
    from scipy.special import stdtrit

    values = finite_samples(samples)
    _check_confidence(confidence)
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, -np.inf, np.inf)
    standard_error = float(values.std(ddof=1)) / values.size**0.5
    half = float(stdtrit(values.size - 1, (1 + confidence) / 2)) * standard_error
    return Interval(mean, mean - half, mean + half)


def paired_t_interval(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of `first - second` and its t-interval, where sample i of both met the same random numbers.

    Args:
        first: shape (n,).
        second: shape (n,), in the same order.
        confidence: the wanted coverage.

    Raises:
        SimulatorError: different numbers of samples, none, or one that is not finite.

    Source: Law, Simulation Modeling and Analysis (5th ed.), section 10.2.1.
    """
    one, other = finite_samples(first), finite_samples(second)
    if one.size != other.size:
        raise SimulatorError(f"paired samples must match: {one.size} against {other.size}; compare equal replications")
    return t_interval(one - other, confidence)


def bootstrap_median(samples: ArrayLike, confidence: float = 0.95, *, seed: int = _SEED) -> Interval:
    """The median of independent samples and its percentile bootstrap interval. Deterministic.

    Args:
        samples: shape (n,).
        confidence: the wanted coverage.
        seed: of the resampling, so that the same samples always give the same interval.

    Raises:
        SimulatorError: no samples, or one that is not finite.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    return bootstrap(samples, lambda rows: np.median(rows, axis=1), confidence, seed=seed)


def bootstrap(
    samples: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    confidence: float = 0.95,
    *,
    seed: int = _SEED,
) -> Interval:
    """A statistic of independent samples and its percentile bootstrap interval. Deterministic.

    Args:
        samples: shape (n,).
        statistic: takes shape (resamples, n) and gives the statistic of each row, shape (resamples,).
        confidence: the wanted coverage.
        seed: of the resampling.

    Raises:
        SimulatorError: no samples, or one that is not finite.
    """
    values = finite_samples(samples)
    _check_confidence(confidence)
    estimate = float(statistic(values[np.newaxis, :])[0])
    if values.size == 1:
        return Interval(estimate, estimate, estimate)
    random = np.random.default_rng(seed)
    resampled = statistic(values[random.integers(values.size, size=(RESAMPLES, values.size))])
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def coefficient_of_variation(samples: Sequence[float] | NDArray[np.float64]) -> float:
    """Standard deviation over mean: the run-to-run spread as a fraction. 0 for one sample or a mean of zero."""
    values = finite_samples(samples)
    mean = float(values.mean())
    return float(values.std(ddof=1)) / abs(mean) if values.size > 1 and mean else 0.0


def finite_samples(samples: ArrayLike) -> NDArray[np.float64]:
    """The samples in one row, shape (n,).

    Raises:
        SimulatorError: there are none, or one is not finite.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    if values.size == 0:
        raise SimulatorError("no samples: an interval needs at least one")
    if not np.isfinite(values).all():
        raise SimulatorError("a sample is not a finite number, so it has no interval")
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise SimulatorError(f"confidence {confidence}: give a fraction between 0 and 1, such as 0.95")
