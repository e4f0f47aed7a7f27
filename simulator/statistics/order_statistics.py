"""Intervals of quantiles. A p99 is a random number as a mean is, and a more uncertain one.

Of independent samples, two of the samples themselves are the limits, whatever the distribution. Latencies of one run
depend on each other, so theirs are taken over replications.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from simulator.errors import SimulatorError
from simulator.statistics.intervals import Interval, finite_samples, t_interval


def quantile_interval(samples: ArrayLike, fraction: float, confidence: float = 0.95) -> Interval:
    """A quantile of independent samples and the interval between two of them that holds it. Any distribution.

    The number of samples below the true quantile is binomial, so the limits are the samples whose ranks leave less than
    (1 - confidence) / 2 of it on either side. With too few samples there is no such rank, and the limit is infinite:
    the highest of fewer than 368 samples is no upper limit of a p99 at 95 %.

    Args:
        samples: shape (n,), independent.
        fraction: which quantile, between 0 and 1.
        confidence: the wanted coverage, at least.

    Raises:
        SimulatorError: no samples, one that is not finite, or a fraction or confidence that is not between 0 and 1.

    Source: Hahn and Meeker, Statistical Intervals (1991), section 5.2; Law, Simulation Modeling and Analysis (5th ed.),
    section 9.5.3.
    """
    from scipy.special import bdtr

    values = np.sort(finite_samples(samples))
    _check_fraction(fraction)
    if not 0 < confidence < 1:
        raise SimulatorError(f"confidence {confidence}: give a fraction between 0 and 1, such as 0.95")
    tail, count = (1 - confidence) / 2, len(values)
    # Ten standard deviations around the mean hold every rank that matters, of any number of samples.
    reach = 10 * math.sqrt(count * fraction * (1 - fraction)) + 10
    below = np.arange(max(math.floor(count * fraction - reach), 0), min(math.ceil(count * fraction + reach), count))
    at_most = bdtr(below.astype(np.float64), count, fraction)  # chance that so many, or fewer, lie below
    low = below[at_most <= tail]
    high = below[at_most >= 1 - tail]
    # With the chance `at_most[k]` the quantile lies below sample k, counted from 0.
    lowest = float(values[low[-1]]) if low.size else -math.inf
    highest = float(values[high[0]]) if high.size else math.inf
    estimate = float(np.quantile(values, fraction))
    return Interval(estimate, min(lowest, estimate), max(highest, estimate))


def replicated_quantile(replications: Sequence[ArrayLike], fraction: float, confidence: float = 0.95) -> Interval:
    """The mean of a quantile over independent replications and its t-interval. Right where samples of one depend.

    Args:
        replications: the samples of each, shape (n,), which may differ in number.
        fraction: which quantile.
        confidence: the wanted coverage.

    Raises:
        SimulatorError: no replication, one without samples, or a fraction that is not between 0 and 1.

    Source: Law, Simulation Modeling and Analysis (5th ed.), section 9.4.2.
    """
    _check_fraction(fraction)
    return t_interval([float(np.quantile(finite_samples(samples), fraction)) for samples in replications], confidence)


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise SimulatorError(f"quantile {fraction}: give a fraction between 0 and 1, such as 0.99")
