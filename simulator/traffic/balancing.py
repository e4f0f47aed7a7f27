"""Which instance gets the next request.

A balancer is a function of what a balancer can know when a request comes: how many connections each routable instance
has, one uniform random number drawn for this request, and the request's turn. It is called once a request, so it is
plain arithmetic that Numba can compile. Adding one: a function here and its row in `BALANCERS`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

Choose = Callable[[Any, float, int], int]
"""(connections of each routable instance, uniform in [0, 1), turn) -> position of the one that gets the request."""


def choose_random(load: Sequence[int], draw: float, turn: int) -> int:
    """Any instance, all equally likely."""
    return int(draw * len(load))


def choose_round_robin(load: Sequence[int], draw: float, turn: int) -> int:
    """One after the other."""
    return turn % len(load)


def choose_least_connections(load: list[int], draw: float, turn: int) -> int:
    """The instance with the fewest requests in it; among equals round robin, as HAProxy's `leastconn` does."""
    fewest = min(load)
    tail = load[turn % len(load) :]
    return len(load) - len(tail) + tail.index(fewest) if fewest in tail else load.index(fewest)


def scan_least_connections(load: Sequence[int], draw: float, turn: int) -> int:
    """`choose_least_connections` as a loop over an array, which is what Numba compiles well. Always the same choice."""
    start = turn % len(load)
    best = start
    for position in range(start + 1, len(load)):
        if load[position] < load[best]:
            best = position
    for position in range(start):
        if load[position] < load[best]:
            best = position
    return best


class Balancer(NamedTuple):
    """A balancing policy: its function for plain Python over lists, and for Numba over arrays."""

    plain: Choose
    array: Choose


BALANCERS = {
    "random": Balancer(choose_random, choose_random),
    "round-robin": Balancer(choose_round_robin, choose_round_robin),
    "least-connections": Balancer(choose_least_connections, scan_least_connections),
}

BalancerName = Literal["random", "round-robin", "least-connections"]
"""A key of `BALANCERS`."""
