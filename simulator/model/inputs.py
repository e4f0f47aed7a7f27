"""What a scenario gives the data plane: random numbers, the settings of the service, and what is counted."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulator.datacenter.platforms import PlatformProfile
from simulator.scenario import Scenario
from simulator.statistics.streams import RandomStreams
from simulator.traffic.arrivals import ClosedLoop
from simulator.traffic.plane import Service
from simulator.traffic.tally import Tally


def new_tally(scenario: Scenario, path_seconds: float = 0.0) -> Tally:
    """A tally of what a run of `scenario` is judged by, on a platform whose network path takes so long."""
    return Tally(
        duration_seconds=scenario.duration_seconds,
        warm_up_seconds=scenario.counted_from_seconds,
        objective_seconds=scenario.slo.latency_seconds,
        path_seconds=path_seconds,
        origin_seconds=scenario.arrivals.surge_seconds or 0.0,
    )


def io_seconds(scenario: Scenario, profile: PlatformProfile) -> float:
    """For how long each request waits for the disk: its operations, each with what the platform adds to it."""
    added = profile.overhead.io_operation_seconds
    each = scenario.machines.spec.disk_operation_seconds + (0.0 if added is None else added.value)
    return scenario.application.io_operations * each


class ScenarioNumbers:
    """The random numbers of one replication, each kind from a stream of its own.

    No platform is asked, so all meet the same requests; only their demands are longer where the platform is slower.

    Args:
        scenario: what is asked.
        streams: of the replication.
        cpu_factor: every demand is multiplied by it.
        added_seconds: and so much is added, see `io_seconds`.
    """

    def __init__(
        self, scenario: Scenario, streams: RandomStreams, cpu_factor: float, added_seconds: float = 0.0
    ) -> None:
        self._scenario = scenario
        self._arrivals = streams.stream("arrivals")
        self._demands = streams.stream("demands")
        self._lots = streams.stream("balancer")
        self._thinks = streams.stream("thinks")
        self._cpu_factor = cpu_factor
        self._added_seconds = added_seconds

    def arrivals(self) -> Iterator[NDArray[np.float64]]:
        """Sorted arrival times, seconds; none in a closed loop."""
        arrivals = self._scenario.arrivals
        if isinstance(arrivals, ClosedLoop):
            return iter(())
        return arrivals.stream(self._arrivals, self._scenario.duration_seconds)

    def demands(self, count: int) -> NDArray[np.float64]:
        """Demands of the next requests, seconds of one core of this platform."""
        demands = self._scenario.application.demand.draw(self._demands, count) * self._cpu_factor
        return demands + self._added_seconds if self._added_seconds else demands

    def lots(self, count: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1)."""
        return self._lots.random(count)

    def thinks(self, count: int) -> NDArray[np.float64]:
        """Think times of a closed loop's users, seconds."""
        arrivals = self._scenario.arrivals
        return arrivals.think.draw(self._thinks, count) if isinstance(arrivals, ClosedLoop) else np.empty(0)


def service_of(scenario: Scenario) -> Service:
    """What `scenario` asks of the data plane."""
    application, client, balancer = scenario.application, scenario.client, scenario.balancer
    given = balancer.model_dump(exclude={"kind", "weights"})
    budget = client.budget
    return Service(
        balancer=balancer.kind,
        workers=application.workers,
        queue_limit=application.queue_limit,
        sharing=application.discipline == "sharing",
        timeout_seconds=math.inf if client.timeout_seconds is None else client.timeout_seconds,
        retries=client.retries,
        backoff_seconds=client.backoff_seconds,
        backoff_factor=client.backoff_factor,
        backoff_cap_seconds=client.backoff_cap_seconds,
        jitter=client.jitter,
        budget_fraction=math.inf if budget is None else budget.fraction,
        budget_burst=math.inf if budget is None else budget.burst,
        holding_limit=scenario.held_requests,
        wakes=scenario.autoscaler.build().wakes_on_arrival,
        users=scenario.arrivals.users if isinstance(scenario.arrivals, ClosedLoop) else 0,
        **given,
    )
