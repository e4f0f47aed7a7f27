"""Open queues, first come, first served: how many wait, how long, and how many are turned away.

Source of what names no other: Kleinrock, Queueing Systems, volume 1 (1975): 3.5 and 3.6 for Erlang's formulas, 5.6 for
the Pollaczek-Khinchine mean-value formula.
"""

import cmath
import math
from typing import NamedTuple

import numpy as np

from simulator.errors import SimulatorError
from simulator.evidence.theory.chains import chances_of_states
from simulator.evidence.theory.checks import check_count, check_load, check_positive, check_stable

_SERIES_TERMS = 4000
"""The longest series that `mdc_mean_wait` sums; a queue that needs more is so full that the other form is exact."""


def erlang_b(workers: int, load: float) -> float:
    """The fraction of requests that M/M/c/c turns away: all `workers` are busy and none may wait.

    Args:
        workers: c, at least 1.
        load: offered, in erlangs; may exceed c.

    Raises:
        SimulatorError: no workers, or a load that is negative or not finite.
    """
    check_load(workers, load)
    blocked = 1.0
    # The recursion over the number of workers is exact and does not overflow, as factorials would.
    for count in range(1, workers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def erlang_c(workers: int, load: float) -> float:
    """The fraction of requests that wait in M/M/c.

    Args:
        workers: c, at least 1.
        load: offered, in erlangs, below c.

    Raises:
        SimulatorError: no workers, or a load that the workers cannot carry.
    """
    check_stable(workers, load)
    blocked = erlang_b(workers, load)
    return workers * blocked / (workers - load * (1 - blocked))


def mmc_mean_wait(workers: int, arrival_rate: float, mean_demand: float) -> float:
    """Mean wait before service in M/M/c, over all requests.

    Args:
        workers: c, at least 1.
        arrival_rate: requests per second.
        mean_demand: seconds.

    Raises:
        SimulatorError: no workers, or a load that they cannot carry.
    """
    load = arrival_rate * mean_demand
    return erlang_c(workers, load) * mean_demand / (workers - load)


def mmc_wait_quantile(workers: int, arrival_rate: float, mean_demand: float, quantile: float) -> float:
    """The wait before service that a fraction `quantile` of the requests do not exceed, in M/M/c.

    A wait is 0 with probability 1 - C, and exponential with rate (c - load) / mean_demand otherwise.

    Args:
        workers: c, at least 1.
        arrival_rate: requests per second.
        mean_demand: seconds.
        quantile: at least 0 and below 1.

    Raises:
        SimulatorError: no workers, a load that they cannot carry, or an impossible quantile.
    """
    if not 0 <= quantile < 1:
        raise SimulatorError(f"quantile {quantile}: give a fraction from 0 up to, not including, 1")
    load = arrival_rate * mean_demand
    waits = erlang_c(workers, load)
    if waits <= 1 - quantile:
        return 0.0
    return math.log(waits / (1 - quantile)) * mean_demand / (workers - load)


def mg1_mean_wait(arrival_rate: float, mean_demand: float, coefficient_of_variation: float) -> float:
    """Mean wait before service in M/G/1, first come, first served (Pollaczek-Khinchine). M/D/1 has a coefficient of 0.

    Args:
        arrival_rate: requests per second.
        mean_demand: seconds.
        coefficient_of_variation: standard deviation of the demand over its mean.

    Raises:
        SimulatorError: a load that one worker cannot carry, or a negative coefficient.
    """
    load = arrival_rate * mean_demand
    check_stable(1, load)
    if not coefficient_of_variation >= 0:
        raise SimulatorError(f"coefficient_of_variation {coefficient_of_variation}: must be at least 0")
    return load * mean_demand * (1 + coefficient_of_variation**2) / (2 * (1 - load))


class FiniteQueue(NamedTuple):
    """What M/M/c/K does in the long run.

    Attributes:
        blocked: fraction of the requests that find all K places taken, and are turned away.
        throughput: requests served per second.
        mean_number: requests in the system, those in service included, over time.
        mean_wait: seconds before service, over the requests that were let in.
    """

    blocked: float
    throughput: float
    mean_number: float
    mean_wait: float


def mmck(workers: int, places: int, arrival_rate: float, mean_demand: float) -> FiniteQueue:
    """M/M/c/K: at most K requests are in the system, in service or waiting. M/M/1/K and M/M/c/c are its ends.

    It has a steady state at every load, and so may be offered more than it can carry.

    Args:
        workers: c, at least 1.
        places: K, at least c.
        arrival_rate: requests per second, above 0.
        mean_demand: seconds, above 0.

    Raises:
        SimulatorError: no workers, fewer places than workers, or a rate or demand that is not positive.

    Source: Gross, Shortle, Thompson and Harris, Fundamentals of Queueing Theory (4th ed., 2008), chapter 2.
    """
    check_count("workers", workers, 1)
    check_count("places", places, workers)
    check_positive("arrival_rate", arrival_rate)
    check_positive("mean_demand", mean_demand)
    steps = np.log(arrival_rate * mean_demand) - np.log(np.minimum(np.arange(1, places + 1), workers))
    chance = chances_of_states(steps)
    states = np.arange(places + 1)
    throughput = arrival_rate * float(1 - chance[-1])
    waiting = float(np.maximum(states - workers, 0) @ chance)
    return FiniteQueue(float(chance[-1]), throughput, float(states @ chance), waiting / throughput)


def mdc_mean_wait(workers: int, arrival_rate: float, demand: float) -> float:
    """Mean wait before service in M/D/c: every request needs the same `demand`.

    Exact. Requests of equal demand leave in the order in which they came, so that worker i may as well serve every c-th
    of them: the wait is that of one worker whose gaps between arrivals are the sums of c exponential ones. Spitzer's
    identity gives its mean as the sum over n of E[max(0, n demand - gap of n c requests)] / n, whose terms are positive
    and fall geometrically. Where they fall too slowly, which is near full load, the mean comes from the c roots of
    z^c = exp(load (z - 1)) in the unit disc, where it is too large to be lost in rounding; each root is a value of the
    tree function (Lambert's W).

    Args:
        workers: c, at least 1.
        arrival_rate: requests per second.
        demand: seconds.

    Raises:
        SimulatorError: no workers, or a load that they cannot carry.

    Source: Crommelin, Delay probability formulae when the holding times are constant, Post Office Electrical Engineers
    Journal 25 (1932) and 26 (1934), for both forms; Asmussen, Applied Probability and Queues (2nd ed., 2003), chapter
    VIII, for Spitzer's identity.
    """
    load = arrival_rate * demand
    check_stable(workers, load)
    if load == 0:
        return 0.0
    part = load / workers
    # Of term n, the chance that n c requests come within n demands falls as exp(-n decay).
    decay = workers * (part - 1 - math.log(part))
    terms = math.ceil(40 / decay)
    if terms <= _SERIES_TERMS:
        return demand * _mdc_series(workers, load, terms)
    return demand * _mdc_roots(workers, load)


def _mdc_series(workers: int, load: float, terms: int) -> float:
    """Mean wait in demands, by Spitzer's identity."""
    from scipy.special import gammainc, gammaln

    turns = np.arange(1, terms + 1)
    come, wanted = turns * load, turns * workers
    # E[max(0, P - k)] of a Poisson number P of mean x is x Pr[P = k] - (k - x) Pr[P > k], which hardly cancels.
    exactly = np.exp(wanted * np.log(come) - come - gammaln(wanted + 1))
    beyond = come * exactly - (wanted - come) * gammainc(wanted + 1, come)
    return float(np.sum(np.maximum(beyond, 0.0) / turns)) / load


def _mdc_roots(workers: int, load: float) -> float:
    """Mean wait in demands, by the roots of the generating function of how many are in the system."""
    from scipy.special import lambertw

    part = load / workers
    waiting = (load**2 - workers * (workers - 1)) / (2 * (workers - load))
    for turn in range(1, workers):
        root = -complex(lambertw(-part * math.exp(-part) * cmath.exp(2j * math.pi * turn / workers))) / part
        waiting += (1 / (1 - root)).real
    return waiting / load
