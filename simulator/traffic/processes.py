"""The same service as SimPy users write it: one process per request. Slow, and the one to read first.

It keeps to the six verbs of `simulator.traffic.requests.DataPlane`, and its results equal those of the hot path, which
a test asserts. SimPy runs the requests here, so `advance` has nothing left to do.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy import Environment, Interrupt, Process, Resource

from simulator.errors import SimulatorError
from simulator.traffic.balancing import BALANCERS
from simulator.traffic.requests import COMPLETED, FAILED, REJECTED, Outcomes, Requests, check_service


@dataclass
class _Instance:
    """One instance: its workers, the requests in it in the order in which they came, and what it has worked."""

    workers: Resource
    inside: dict[int, Process] = field(default_factory=dict)
    service_began: dict[int, float] = field(default_factory=dict)
    worked_seconds: float = 0.0


class ProcessPlane:
    """A data plane with one SimPy process per request.

    Args:
        env: the SimPy environment that runs the requests, in seconds.
        requests: all that will arrive.
        balancer: a key of `BALANCERS`.
        workers: requests that one instance serves at a time.
        queue_limit: how many more may wait there.

    Raises:
        SimulatorError: an unknown balancer, no workers or a negative queue limit.
    """

    def __init__(self, env: Environment, requests: Requests, *, balancer: str, workers: int, queue_limit: int) -> None:
        check_service(balancer, workers, queue_limit)
        self._env = env
        self._requests = requests
        self._choose = BALANCERS[balancer].plain
        self._workers = workers
        self._limit = workers + queue_limit
        self._instances: list[_Instance] = []
        self._routable: list[int] = []
        self._state = np.zeros(len(requests), dtype=np.int8)
        self._finished = np.full(len(requests), np.nan)
        self._given_to = np.full(len(requests), -1, dtype=np.int64)
        env.process(self._clients())

    def _clients(self) -> Generator[Any, Any, None]:
        """Requests arrive at their times and go to the instance that the balancer chooses."""
        for request, arrival in enumerate(self._requests.arrivals):
            yield self._env.timeout(max(arrival - self._env.now, 0.0))
            load = [len(self._instances[slot].inside) for slot in self._routable]
            if not load:
                self._state[request] = REJECTED
                continue
            slot = self._routable[self._choose(load, self._requests.draws[request], request)]
            instance = self._instances[slot]
            if len(instance.inside) >= self._limit:
                self._state[request] = REJECTED
                continue
            self._given_to[request] = slot
            instance.inside[request] = self._env.process(self._serve(request, instance))

    def _serve(self, request: int, instance: _Instance) -> Generator[Any, Any, None]:
        """One request waits for a worker, is served, and leaves. An interrupt means that its instance was killed."""
        try:
            with instance.workers.request() as worker:
                yield worker
                instance.service_began[request] = self._env.now
                yield self._env.timeout(self._requests.demands[request])
        except Interrupt:
            self._state[request] = FAILED
        else:
            self._state[request] = COMPLETED
            self._finished[request] = self._env.now
            del instance.inside[request]
        began = instance.service_began.pop(request, self._env.now)
        instance.worked_seconds += self._env.now - began

    def advance(self, now: float) -> None:
        """SimPy has run the requests already; only the end of a run, `now = inf`, needs the clock to go on.

        Raises:
            SimulatorError: `now` is not where the clock stands.
        """
        if np.isinf(now):
            self._env.run()
        elif now != self._env.now:
            raise SimulatorError(f"process plane: asked to advance to {now}, but the clock is at {self._env.now}")

    def add(self) -> int:
        """A new instance takes requests from now on; gives its slot."""
        self._instances.append(_Instance(Resource(self._env, capacity=self._workers)))
        self._routable.append(len(self._instances) - 1)
        return len(self._instances) - 1

    def drain(self, slot: int) -> float:
        """The instance gets no more requests; gives the time at which its last will be done (now, if it has none)."""
        self._forget(slot)
        instance = self._instances[slot]
        ends = [began + self._requests.demands[request] for request, began in instance.service_began.items()]
        heapify(ends)
        last = max(ends, default=self._env.now)
        for request in instance.inside:
            if request not in instance.service_began:
                end = ends[0] + self._requests.demands[request]
                heapreplace(ends, end)
                last = max(last, end)
        return float(last)

    def kill(self, slot: int) -> int:
        """The instance is gone; the requests in it have failed. Gives how many."""
        self._forget(slot)
        lost = list(self._instances[slot].inside.values())
        self._instances[slot].inside.clear()
        for process in lost:
            process.interrupt("instance killed")
        return len(lost)

    def in_flight(self, slot: int | None = None) -> int:
        """Requests waiting or in service at one instance, or at all."""
        return sum(len(instance.inside) for instance in (self._instances if slot is None else [self._instances[slot]]))

    def busy_seconds(self) -> NDArray[np.float64]:
        """Core seconds that each instance has spent on requests until now, by slot."""
        now = self._env.now
        return np.array(
            [
                instance.worked_seconds + sum(now - began for began in instance.service_began.values())
                for instance in self._instances
            ]
        )

    def outcomes(self) -> Outcomes:
        """What became of the requests so far (copies)."""
        return Outcomes(self._state.copy(), self._finished.copy(), self._given_to.copy())

    def _forget(self, slot: int) -> None:
        """The balancer no longer sees the instance."""
        if slot in self._routable:
            self._routable.remove(slot)
