"""The hot path: every request, advanced in one call between two control events.

SimPy keeps the clock and the control plane. Whatever changes the set of instances first calls `advance(now)`, which
runs all requests since the last event through one loop over pre-drawn arrivals. The loop is plain Python over lists and
memory views, and Numba compiles the same loop over arrays where it is installed (`simulator.traffic.compiled`), with
identical results. `simulator.traffic.processes` is the same service as one SimPy process per request: slow, to read.

An instance serves first come, first served with `workers` requests at a time and at most `queue_limit` waiting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SimulatorError
from simulator.traffic.balancing import BALANCERS, Choose

UNRESOLVED, COMPLETED, REJECTED, FAILED = range(4)
"""What became of a request: not yet known (not arrived, or in flight), served, turned away, lost with its instance."""

DataPlaneName = Literal["auto", "python", "numba", "processes"]


@dataclass(frozen=True)
class Requests:
    """Every request of a run, drawn beforehand.

    Attributes:
        arrivals: sorted arrival times, seconds, shape (n,).
        demands: seconds of one core that each needs, shape (n,).
        draws: one uniform number in [0, 1) each, for a balancer that draws lots, shape (n,).

    Raises:
        SimulatorError: shapes differ, arrivals are not sorted, or a demand is negative or not finite.
    """

    arrivals: NDArray[np.float64]
    demands: NDArray[np.float64]
    draws: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.arrivals.shape == self.demands.shape == self.draws.shape:
            raise SimulatorError("requests: arrivals, demands and draws must be of the same length")
        if not (np.diff(self.arrivals) >= 0).all():
            raise SimulatorError("requests: arrivals must be sorted by time")
        if not ((self.demands >= 0) & np.isfinite(self.demands)).all():
            raise SimulatorError("requests: every demand must be a finite number of seconds, at least 0")

    def __len__(self) -> int:
        return len(self.arrivals)


@dataclass(frozen=True)
class Outcomes:
    """What became of the requests.

    Attributes:
        state: UNRESOLVED, COMPLETED, REJECTED or FAILED, shape (n,).
        finished: when a completed request left its instance, seconds; NaN for the others, shape (n,).
        instance: the slot of the instance that it was given to, -1 where none took it, shape (n,).
    """

    state: NDArray[np.int8]
    finished: NDArray[np.float64]
    instance: NDArray[np.int64]


class DataPlane(Protocol):
    """What carries the requests. A *slot* is the number of an instance, in the order in which they were added."""

    def advance(self, now: float) -> None:
        """Let everything happen that happens until `now` (inclusive), seconds; inf: until all are done."""

    def add(self) -> int:
        """A new instance takes requests from now on; gives its slot."""

    def drain(self, slot: int) -> float:
        """The instance gets no more requests but finishes those it has; gives when the last of them will be done."""

    def kill(self, slot: int) -> int:
        """The instance is gone, and with it the requests in it; gives how many were lost."""

    def in_flight(self, slot: int | None = None) -> int:
        """Requests waiting or in service at one instance, or at all."""

    def busy_seconds(self) -> NDArray[np.float64]:
        """Core seconds that each instance has spent on requests until now, by slot."""

    def outcomes(self) -> Outcomes:
        """What became of the requests so far."""


def make_kernel(choose: Choose) -> Callable[..., None]:
    """The loop over the requests of one window, for one balancer.

    A closure rather than a parameter, because Numba compiles what a closure holds into the loop.
    """

    def run_window(
        now: float, first: int, last: int, workers: int, limit: int,
        arrivals: Any, demands: Any, draws: Any,
        routable: Any, load: Any, position: Any, connections: Any, started: Any, head: Any, tail: Any,
        departures: Any, following: Any, instance: Any, finished: Any, state: Any,
    ) -> None:  # fmt: skip
        """Requests first … last - 1 arrive, and all that depart until `now` depart.

        Args:
            workers, limit: requests in service, and in the instance altogether, at most.
            routable: slot of each position that the balancer sees; `load` are its connections.
            position: of each slot, its position there, or -1.
            connections: of each slot, requests waiting or in service.
            started: of each slot, core seconds of the requests whose service has begun.
            head, tail: of each slot, the first and last request that waits; head is -1 when none does.
            departures: heap of (time, request) of all in service, with (inf, -1) so that it is never empty.
            following: of each waiting request, the one behind it, or -1.
        """
        for request in range(first, last + 1):
            time = arrivals[request] if request < last else now
            while departures[0][0] <= time:
                left, done = heappop(departures)
                slot = instance[done]
                finished[done] = left
                state[done] = COMPLETED
                connections[slot] -= 1
                if position[slot] >= 0:
                    load[position[slot]] -= 1
                waiting = head[slot]
                if waiting >= 0:
                    head[slot] = following[waiting]
                    started[slot] += demands[waiting]
                    heappush(departures, (left + demands[waiting], waiting))
            if request == last:
                break
            if len(load) == 0:
                state[request] = REJECTED
                continue
            chosen = choose(load, draws[request], request)
            slot = routable[chosen]
            present = connections[slot]
            if present >= limit:
                state[request] = REJECTED
                continue
            instance[request] = slot
            connections[slot] = present + 1
            load[chosen] += 1
            if present < workers:
                started[slot] += demands[request]
                heappush(departures, (time + demands[request], request))
            else:
                following[request] = -1
                if head[slot] < 0:
                    head[slot] = request
                else:
                    following[tail[slot]] = request
                tail[slot] = request

    return run_window


class WindowedPlane:
    """A data plane that advances in windows, in plain Python or compiled.

    Args:
        requests: all that will arrive.
        balancer: a key of `BALANCERS`.
        workers: requests that one instance serves at a time, each on a core of its own.
        queue_limit: how many more may wait there; the next is rejected.
        compiled: whether Numba compiles the loop; it must be installed then.

    Raises:
        SimulatorError: an unknown balancer, no workers, a negative queue limit, or no Numba.
    """

    def __init__(
        self, requests: Requests, *, balancer: str, workers: int, queue_limit: int, compiled: bool = False
    ) -> None:
        check_service(balancer, workers, queue_limit)
        self._requests = requests
        self._limits = (workers, workers + queue_limit)
        count = len(requests)
        self._following = np.empty(count, dtype=np.int64)
        self._instance = np.full(count, -1, dtype=np.int64)
        self._finished = np.full(count, np.nan)
        self._state = np.zeros(count, dtype=np.int8)
        # What the loop touches for each request. Plain Python indexes a memory view several times faster than an
        # array, and a list faster still; both write to the arrays above or are small.
        self._compiled = compiled
        inputs: tuple[Any, ...] = (requests.arrivals, requests.demands, requests.draws)
        columns: tuple[Any, ...] = (self._following, self._instance, self._finished, self._state)
        if compiled:
            from simulator.traffic.compiled import compiled_kernel, departure_heap

            self._run = compiled_kernel(balancer)
            self._inputs = inputs
            self._columns = columns
            self._departure_heap: Callable[[list[tuple[float, int]]], Any] = departure_heap
        else:
            self._run = make_kernel(BALANCERS[balancer].plain)
            self._inputs = tuple(memoryview(values) for values in inputs)
            self._columns = tuple(memoryview(values) for values in columns)
            self._departure_heap = list
        self._departures = self._departure_heap([(np.inf, -1)])
        self._next = 0
        self._now = 0.0
        self._routable: Any = self._integers([])
        self._load: Any = self._integers([])
        self._position: Any = self._integers([])
        self._connections: Any = self._integers([])
        self._head: Any = self._integers([])
        self._tail: Any = self._integers([])
        self._started: Any = np.empty(0) if compiled else []

    def advance(self, now: float) -> None:
        """Run the window from the last call to `now`, seconds.

        Raises:
            SimulatorError: `now` lies before the last call's.
        """
        if now < self._now:
            raise SimulatorError(f"data plane: time cannot run back from {self._now} to {now}")
        # "Until all are done" is a moment before that of the sentinel in the heap of departures.
        now = min(float(now), np.finfo(np.float64).max.item())
        last = int(np.searchsorted(self._requests.arrivals, now, side="right"))
        self._run(
            now, self._next, last, *self._limits, *self._inputs,
            self._routable, self._load, self._position, self._connections, self._started, self._head, self._tail,
            self._departures, *self._columns,
        )  # fmt: skip
        self._next, self._now = last, now

    def add(self) -> int:
        """A new instance takes requests from now on; gives its slot."""
        slot = len(self._connections)
        for name in ("_connections", "_position"):
            setattr(self, name, self._integers([*getattr(self, name), 0]))
        for name in ("_head", "_tail"):
            setattr(self, name, self._integers([*getattr(self, name), -1]))
        self._started = np.append(self._started, 0.0) if self._compiled else [*self._started, 0.0]
        self._route([*self._routable, slot])
        return slot

    def drain(self, slot: int) -> float:
        """The instance gets no more requests; gives the time at which its last will be done (now, if it has none)."""
        self._route([routable for routable in self._routable if routable != slot])
        ends = [time for time, request in self._departures if request >= 0 and self._instance[request] == slot]
        heapify(ends)
        last = max(ends, default=self._now)
        waiting = self._head[slot]
        while waiting >= 0:
            end = heappop(ends) + float(self._requests.demands[waiting])
            last = max(last, end)
            heappush(ends, end)
            waiting = self._following[waiting]
        return last

    def kill(self, slot: int) -> int:
        """The instance is gone; the requests in it have failed. Gives how many."""
        self._route([routable for routable in self._routable if routable != slot])
        self._started[slot] = float(self.busy_seconds()[slot])
        inside = (self._instance == slot) & (self._state == UNRESOLVED)
        self._state[inside] = FAILED
        kept = [entry for entry in self._departures if entry[1] < 0 or not inside[entry[1]]]
        heapify(kept)
        self._departures = self._departure_heap(kept)
        self._connections[slot], self._head[slot] = 0, -1
        return int(inside.sum())

    def in_flight(self, slot: int | None = None) -> int:
        """Requests waiting or in service at one instance, or at all."""
        return int(self._connections[slot]) if slot is not None else int(sum(self._connections))

    def busy_seconds(self) -> NDArray[np.float64]:
        """Core seconds of each instance until now: of all requests begun, less what is left of those in service."""
        seconds = np.array(self._started, dtype=np.float64)
        for time, request in self._departures:
            if request >= 0:
                seconds[self._instance[request]] -= time - self._now
        return seconds

    def outcomes(self) -> Outcomes:
        """What became of the requests so far (copies)."""
        return Outcomes(self._state.copy(), self._finished.copy(), self._instance.copy())

    def _route(self, routable: Sequence[int]) -> None:
        """The balancer sees these slots from now on."""
        self._routable = self._integers(routable)
        self._load = self._integers([self._connections[slot] for slot in routable])
        self._position = self._integers([-1] * len(self._connections))
        for position, slot in enumerate(routable):
            self._position[slot] = position

    def _integers(self, values: Sequence[int]) -> Any:
        return np.array(values, dtype=np.int64) if self._compiled else list(values)


def check_service(balancer: str, workers: int, queue_limit: int) -> None:
    """Refuse a service that cannot be.

    Raises:
        SimulatorError: an unknown balancer, no workers or a negative queue limit.
    """
    if balancer not in BALANCERS:
        raise SimulatorError(f"balancer `{balancer}`: unknown; there are {', '.join(BALANCERS)}")
    if workers < 1:
        raise SimulatorError(f"workers {workers}: an instance needs at least one")
    if queue_limit < 0:
        raise SimulatorError(f"queue_limit {queue_limit}: must be at least 0")
