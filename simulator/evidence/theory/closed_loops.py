"""Closed loops: so many users, each of whom thinks, asks, waits for the answer, and thinks again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulator.errors import SimulatorError
from simulator.evidence.theory.chains import chances_of_states
from simulator.evidence.theory.checks import check_count, check_positive
from simulator.evidence.theory.laws import interactive_response_time


class ClosedLoop(NamedTuple):
    """What a closed loop does in the long run.

    Attributes:
        throughput: answers per second.
        response: mean seconds from asking to the answer.
        mean_number: users who wait for an answer, over time.
    """

    throughput: float
    response: float
    mean_number: float


def closed_loop(users: int, mean_think: float, workers: int, mean_demand: float) -> ClosedLoop:
    """N users before one queue of c workers: the machine-repair model, users being machines and thinking running.

    Exact for exponential demands served first come, first served, and for any distribution of the time to think; under
    processor sharing among the workers for any distribution of the demand too.

    Args:
        users: N, at least 1.
        mean_think: Z, seconds, above 0. (Without thinking, all users are always inside.)
        workers: c, at least 1.
        mean_demand: seconds.

    Raises:
        SimulatorError: no users or workers, or a time that is not positive.

    Source: Gross, Shortle, Thompson and Harris, Fundamentals of Queueing Theory (4th ed., 2008), chapter 2.
    """
    check_count("users", users, 1)
    check_count("workers", workers, 1)
    check_positive("mean_think", mean_think)
    check_positive("mean_demand", mean_demand)
    inside = np.arange(1, users + 1)
    up = (users - inside + 1) / mean_think
    down = np.minimum(inside, workers) / mean_demand
    chances = chances_of_states(np.log(up) - np.log(down))
    waiting = float(np.arange(users + 1) @ chances)
    throughput = float(down @ chances[1:])
    return ClosedLoop(throughput, interactive_response_time(users, throughput, mean_think), waiting)


def mean_value_analysis(users: int, mean_think: float, demands: Sequence[float]) -> ClosedLoop:
    """Exact mean-value analysis of a loop through stations of one worker each.

    Who arrives at a station finds what the loop with one user fewer holds there on average, so the figures follow user
    by user from an empty loop.

    Args:
        users: N, at least 1.
        mean_think: Z, seconds, at least 0.
        demands: mean seconds that a request needs at each station, over all its visits.

    Raises:
        SimulatorError: no users, no station, a demand that is not positive, or a negative time to think.

    Source: Reiser and Lavenberg, Mean-value analysis of closed multichain queuing networks, Journal of the ACM 27
    (1980); the recursion as in Lazowska, Zahorjan, Graham and Sevcik, Quantitative System Performance (1984), chapter
    6.
    """
    check_count("users", users, 1)
    check_count("stations", len(demands), 1)
    for demand in demands:
        check_positive("demand", demand)
    if not mean_think >= 0:
        raise SimulatorError(f"mean_think {mean_think}: must be at least 0")
    needed = np.asarray(demands, dtype=np.float64)
    lengths = np.zeros(len(needed))
    throughput, response = 0.0, 0.0
    for count in range(1, users + 1):
        each = needed * (1 + lengths)
        response = float(each.sum())
        throughput = count / (mean_think + response)
        lengths = throughput * each
    return ClosedLoop(throughput, response, float(lengths.sum()))
