"""The supermarket model: each request looks at d queues of very many, chosen at random, and joins the shortest.

All figures are the limit of very many servers. With n of them the mean time is off by a term of the order 1 / n (Gast,
Expected values estimated via mean-field approximation are 1/N-accurate, Proceedings of the ACM on Measurement and
Analysis of Computing Systems 1, 2017).
Source: Mitzenmacher, The power of two choices in randomized load balancing, IEEE Transactions on Parallel and
Distributed Systems 12 (2001); Vvedenskaya, Dobrushin and Karpelevich, Problems of Information Transmission 32 (1996).
"""

import math

from simulator.evidence.theory.checks import check_count, check_stable

_LEAST_LOGARITHM = -745.0
"""Below this, the exponential is no double any more."""


def supermarket_tail(choices: int, load: float, length: int) -> float:
    """The fraction of servers that have at least `length` requests, in service or waiting.

    load^((d^length - 1) / (d - 1)): with two choices it falls doubly exponentially, with one as in M/M/1.

    Args:
        choices: d, at least 1.
        load: of each server, below 1.
        length: at least 0.

    Raises:
        SimulatorError: no choice, a load that the servers cannot carry, or a negative length.
    """
    check_count("choices", choices, 1)
    check_count("length", length, 0)
    check_stable(1, load)
    if load == 0:
        return 0.0 if length else 1.0
    logarithm = 0.0
    for _ in range(length):
        logarithm = choices * logarithm + math.log(load)
        if logarithm < _LEAST_LOGARITHM:
            return 0.0
    return math.exp(logarithm)


def supermarket_mean_sojourn(choices: int, arrival_rate: float, mean_demand: float) -> float:
    """Mean time from arrival to departure, where demands are exponential and queues first come, first served.

    The mean number at a server is the sum of the tails, and Little's law makes it a time. One choice is M/M/1.

    Args:
        choices: d, at least 1.
        arrival_rate: requests per second *of each server*.
        mean_demand: seconds.

    Raises:
        SimulatorError: no choice, or a load that the servers cannot carry.
    """
    load = arrival_rate * mean_demand
    check_stable(1, load)
    check_count("choices", choices, 1)
    if load == 0:
        return mean_demand
    if choices == 1:
        return mean_demand / (1 - load)
    total, length = 0.0, 1
    while (tail := supermarket_tail(choices, load, length)) > 0:
        total += tail
        length += 1
    return total / load * mean_demand
