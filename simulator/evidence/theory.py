"""Closed forms of queueing theory that the simulation is verified against.

Rates are per second, times in seconds, and a *load* is arrival rate times mean demand, in erlangs (busy workers).
Source of all: Kleinrock, Queueing Systems, volume 1 (1975): 3.5 and 3.6 for Erlang's formulas, 5.6 for the
Pollaczek-Khinchine mean-value formula.
"""

import math

from simulator.errors import SimulatorError


def erlang_b(workers: int, load: float) -> float:
    """The fraction of requests that M/M/c/c turns away: all `workers` are busy and none may wait.

    Args:
        workers: c, at least 1.
        load: offered, in erlangs; may exceed c.

    Raises:
        SimulatorError: no workers, or a load that is negative or not finite.
    """
    _check(workers, load)
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
    _check_stable(workers, load)
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
    _check_stable(1, load)
    if not coefficient_of_variation >= 0:
        raise SimulatorError(f"coefficient_of_variation {coefficient_of_variation}: must be at least 0")
    return load * mean_demand * (1 + coefficient_of_variation**2) / (2 * (1 - load))


def _check(workers: int, load: float) -> None:
    if workers < 1:
        raise SimulatorError(f"workers {workers}: a queue needs at least one")
    if not (math.isfinite(load) and load >= 0):
        raise SimulatorError(f"load {load}: must be a finite number, at least 0")


def _check_stable(workers: int, load: float) -> None:
    _check(workers, load)
    if load >= workers:
        raise SimulatorError(f"load {load:g} on {workers} workers: the queue grows without end; offer less")
