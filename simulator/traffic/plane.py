"""What carries the requests: the data plane's face, whichever way it is built.

Two are built: `simulator.traffic.windows.WindowedPlane`, fast, in plain Python or compiled, and
`simulator.traffic.processes.ProcessPlane`, one SimPy process per request, to be read. Their results are identical, as
long as no two things happen at one moment that depend on each other: where an answer comes at the very moment at which
its client gives up, or at which the next request arrives, the processes may take them in another order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SimulatorError
from simulator.traffic.balancing.policies import POLICIES

COMPLETED, REJECTED, FAILED, TIMED_OUT = range(1, 5)
"""What became of a request: answered, turned away, lost with its instance, or given up by its client."""

DataPlaneName = Literal["auto", "python", "numba", "processes"]

CHUNK = 65536
"""Numbers drawn at a time, and outcomes kept at a time."""


@dataclass(frozen=True)
class Service:
    """How requests are balanced, served and tried again: what a data plane is asked.

    Attributes:
        balancer: a key of `POLICIES`.
        choices, decay_seconds, bound: of `power-of-choices`, `peak-ewma` and `bounded-hash`.
        keys: number of different keys that requests have, for `bounded-hash`.
        workers: requests that one instance serves at the same time.
        queue_limit: how many more may be in it.
        sharing: whether all requests in an instance are served at once, and share `workers` cores.
        timeout_seconds: after which a client gives up an attempt; inf for never.
        retries: how often a request is tried again at most.
        backoff_seconds, backoff_factor, backoff_cap_seconds: wait before the first retry, its growth, and its most.
        jitter: the wait is shortened by a random part of up to this fraction.
        budget_fraction, budget_burst: retries for each request that arrives, and how many may be saved up; an infinite
            fraction sets no budget.
        holding_limit: requests that may wait while no instance is routable (scaled to zero); else they are rejected.
        wakes: whether the control plane is told of those that are rejected too, because it starts an instance then.
        users: of a closed loop; 0 for open arrivals.

    Raises:
        SimulatorError: an unknown balancer, no workers or a negative queue limit.
    """

    balancer: str = "least-connections"
    workers: int = 1
    queue_limit: int = 100
    sharing: bool = False
    choices: int = 2
    decay_seconds: float = 10.0
    bound: float = 1.25
    keys: int = 1000
    timeout_seconds: float = math.inf
    retries: int = 0
    backoff_seconds: float = 0.1
    backoff_factor: float = 2.0
    backoff_cap_seconds: float = 10.0
    jitter: float = 0.5
    budget_fraction: float = math.inf
    budget_burst: float = 10.0
    holding_limit: int = 0
    wakes: bool = False
    users: int = 0

    def __post_init__(self) -> None:
        if self.balancer not in POLICIES:
            raise SimulatorError(f"balancer `{self.balancer}`: unknown; there are {', '.join(POLICIES)}")
        if self.workers < 1:
            raise SimulatorError(f"workers {self.workers}: an instance needs at least one")
        if self.queue_limit < 0:
            raise SimulatorError(f"queue_limit {self.queue_limit}: must be at least 0")

    @property
    def limit(self) -> int:
        """Requests in one instance, at most."""
        return self.workers + self.queue_limit


class Numbers(Protocol):
    """Where a data plane's random numbers come from. Each method gives the next ones of a stream of its own."""

    def arrivals(self) -> Iterator[NDArray[np.float64]]:
        """Sorted arrival times, seconds, in arrays that are not empty; none in a closed loop."""

    def demands(self, count: int) -> NDArray[np.float64]:
        """Service demands of the next requests, seconds of one core."""

    def lots(self, count: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1) for balancers and back-off."""

    def thinks(self, count: int) -> NDArray[np.float64]:
        """Think times of a closed loop's users, seconds."""


class NoticeKind(IntEnum):
    """What a data plane tells the control plane at the moment at which it happens."""

    DRAINED = 0
    WORK_DONE = 1
    ARRIVED_AT_NONE = 2


class Notice(NamedTuple):
    """Something that the control plane must know.

    Attributes:
        kind: an instance that drains has no request any more; a piece of work is done; or a request has arrived and no
            instance is routable.
        seconds: when.
        which: the slot, or the piece of work; -1 for an arrival.
    """

    kind: NoticeKind
    seconds: float
    which: int


class Outcomes(Protocol):
    """Takes what became of the requests, in the order in which that was decided."""

    def record(self, arrived: NDArray[np.float64], seconds: NDArray[np.float64], state: NDArray[np.int8]) -> None:
        """So many requests arrived then, and after `seconds` ended as `state`; all of shape (n,)."""


@dataclass(frozen=True)
class Counts:
    """Requests so far. `arrived = completed + rejected + failed + timed_out + in_flight` at every instant.

    Attributes:
        arrived, completed, rejected, failed, timed_out, in_flight: requests, each once. In flight is also one that
            waits for its next attempt.
        retried: attempts beyond the first.
        held: requests that wait for an instance to become routable.
    """

    arrived: int
    completed: int
    rejected: int
    failed: int
    timed_out: int
    in_flight: int
    retried: int
    held: int


class DataPlane(Protocol):
    """What carries the requests. A *slot* is the number of an instance, in the order in which they were added."""

    def advance(self, now: float) -> Notice | None:
        """Let everything happen that happens until `now` (inclusive), seconds; inf: until all are done.

        Stops at a notice, and gives it; to be called again then.
        """

    def add(self, weight: float = 1.0, machine: int = 0, cpu_weight: float = 1.0, quota: float = math.inf) -> int:
        """A new instance takes requests from now on; gives its slot."""

    def drain(self, slot: int) -> bool:
        """The instance gets no more requests but finishes those it has; whether it has none now. A notice follows."""

    def kill(self, slot: int, *, routable: bool = False) -> int:
        """The instance is gone, and with it the requests in it; gives how many were lost, to be tried again or not.

        Args:
            slot: which.
            routable: whether the balancer has yet to learn of it (`withdraw`); what it sends there meanwhile fails.
        """

    def fail_held(self, now: float) -> None:
        """What waits for an instance at `now` fails: none will come any more. To be called at the end."""

    def withdraw(self, slot: int) -> None:
        """The balancer does not see the instance any more."""

    def in_flight(self, slot: int | None = None) -> int:
        """Requests waiting or in service at one instance, or in flight at all."""

    def counts(self) -> Counts:
        """Requests so far."""

    def busy_seconds(self) -> NDArray[np.float64]:
        """Core seconds that each instance has spent on requests until now, by slot."""

    def inside_seconds(self) -> NDArray[np.float64]:
        """Sum over the requests of the time that they have been in each instance until now, by slot."""

    def hand_over(self) -> None:
        """Give the outcomes what has ended since the last time."""

    def completed(self) -> NDArray[np.int64]:
        """Requests that each instance has answered in time, by slot."""
