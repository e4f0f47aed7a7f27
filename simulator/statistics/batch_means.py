"""The interval of a steady-state mean from one long run, whose observations depend on each other.

The run is cut into batches. Means of long batches hardly depend on each other any more, so their t-interval is honest;
whether the batches are long enough is tested, and where they are not, the answer is to run longer. Sources: Schmeiser,
Batch size effects in the analysis of simulation output, Operations Research 30(3), 1982 (10 to 30 batches do for most
purposes); Fishman, Grouping observations in digital simulation, Management Science 24(5), 1978 (the test); Law,
Simulation Modeling and Analysis (5th ed.), section 9.5.3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.errors import SimulatorError
from simulator.statistics.intervals import Interval, finite_samples, t_interval

BATCHES = (40, 20, 10)
"""Numbers of batches that are tried. Halving them doubles their length, until the test finds no dependence."""

SIGNIFICANCE = 0.1
"""Of the test for dependence: higher than usual, since to overlook a dependence is the worse mistake."""


@dataclass(frozen=True)
class BatchMeans:
    """A steady-state mean from one run.

    Attributes:
        interval: the mean and its t-interval over the batches, in the unit of the observations.
        batches: how many.
        observations: of each batch.
        lag_one: correlation of neighbouring batch means, from -1 to 1.
        trustworthy: whether the batch means passed as independent. If not, the interval is likely too narrow.
        reason: the same in words, with what to do.
    """

    interval: Interval
    batches: int
    observations: int
    lag_one: float
    trustworthy: bool
    reason: str


def batch_means(series: ArrayLike, confidence: float = 0.95, batches: int | None = None) -> BatchMeans:
    """The mean of a dependent series and an interval around it.

    Observations that do not fill a batch are left out at the beginning, where the warm-up was.

    Args:
        series: observations in order of time without the warm-up, shape (n,).
        confidence: the wanted coverage.
        batches: how many; by default the most of `BATCHES` whose means pass as independent.

    Raises:
        SimulatorError: fewer than two observations a batch, fewer than 4 batches, or a value that is not finite.
    """
    values = finite_samples(series)
    if batches is not None and batches < 4:
        raise SimulatorError(f"batches {batches}: the test for dependence needs at least 4")
    tried = (batches,) if batches is not None else BATCHES
    if len(values) < 2 * tried[-1]:
        raise SimulatorError(
            f"batch means: {len(values)} observations are too few for {tried[-1]} batches of 2; run longer"
        )
    possible = [count for count in tried if len(values) >= 2 * count]
    for count in possible:
        size = len(values) // count
        means = values[len(values) - size * count :].reshape(count, size).mean(axis=1)
        statistic = _dependence(means)
        independent = statistic <= _normal_quantile(1 - SIGNIFICANCE)
        if independent:
            break
    reason = f"the means of {count} batches of {size} observations pass as independent"
    if not independent:
        reason = (
            f"the means of {count} batches of {size} observations still depend on each other, so the interval is "
            "likely too narrow; run longer, or replicate"
        )
    return BatchMeans(t_interval(means, confidence), count, size, _lag_one(means), bool(independent), reason)


class RunningBatches:
    """Batch means of a run of unknown length, in memory that does not grow with it.

    Batches begin with one observation each. When there are `most`, neighbours are joined, and batches are twice as long
    from then on. Source: Fishman and Yarberry, An implementation of the batch means method, INFORMS Journal on
    Computing 9(3), 1997, whose batches double in the same way.

    Args:
        most: batches that are held at most, an even number. 4096 are plenty for `mser5` and `batch_means`.
    """

    def __init__(self, most: int = 4096) -> None:
        if most < 2 or most % 2:
            raise SimulatorError(f"most {most}: give an even number of batches, at least 2")
        self._sums = np.zeros(most)
        self._full = 0
        self._size = 1
        self._begun, self._part = 0, 0.0

    @property
    def observations(self) -> int:
        """How many observations one batch has."""
        return self._size

    def means(self) -> NDArray[np.float64]:
        """The means of all full batches, in order, shape (batches,)."""
        means: NDArray[np.float64] = self._sums[: self._full] / self._size
        return means

    def add(self, values: ArrayLike) -> None:
        """Take up the next observations, shape (n,).

        How they are cut into calls changes a mean by no more than rounding.

        Raises:
            SimulatorError: one that is not finite.
        """
        rest = np.asarray(values, dtype=np.float64).ravel()
        if not np.isfinite(rest).all():
            raise SimulatorError("an observation is not a finite number, so it has no batch mean")
        while rest.size:
            if self._full == len(self._sums):
                self._join()
            wanted = self._size - self._begun
            if self._begun or rest.size < wanted:
                taken = min(wanted, rest.size)
                self._part += float(rest[:taken].sum())
                self._begun += taken
                if self._begun == self._size:
                    self._sums[self._full] = self._part
                    self._full += 1
                    self._begun, self._part = 0, 0.0
            else:
                count = min(rest.size // self._size, len(self._sums) - self._full)
                taken = count * self._size
                self._sums[self._full : self._full + count] = rest[:taken].reshape(count, self._size).sum(axis=1)
                self._full += count
            rest = rest[taken:]

    def _join(self) -> None:
        """Each two neighbours become one batch."""
        self._full //= 2
        self._sums[: self._full] = self._sums[0::2] + self._sums[1::2]
        self._size *= 2


def _dependence(means: NDArray[np.float64]) -> float:
    """How far the von Neumann ratio is from that of independent numbers, in standard errors; high where they depend.

    Of independent normal numbers, 1 less half the ratio of the squared differences of neighbours to the squared
    deviations has mean 0 and variance (k - 2) / (k^2 - 1). Source: Fishman (1978), and von Neumann, Distribution of the
    ratio of the mean square successive difference to the variance, Annals of Mathematical Statistics 12 (1941).
    """
    deviations = float(((means - means.mean()) ** 2).sum())
    if not deviations:
        return 0.0
    count = len(means)
    ratio = 1 - float((np.diff(means) ** 2).sum()) / (2 * deviations)
    return float(ratio * np.sqrt((count**2 - 1) / (count - 2)))


def _lag_one(means: NDArray[np.float64]) -> float:
    centred = means - means.mean()
    deviations = float((centred**2).sum())
    return float((centred[1:] * centred[:-1]).sum()) / deviations if deviations else 0.0


def _normal_quantile(probability: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(probability))
