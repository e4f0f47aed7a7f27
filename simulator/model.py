"""Everything on one SimPy environment: machines, instances that come up and go, an autoscaler, and the requests.

SimPy runs the control plane. Requests run in the data plane, which every event here that changes the set of ready
instances first advances to the present (`simulator.traffic.requests`).

What the model leaves out, knowingly: a worker has a core of its own, so start-ups on a machine slow each other but not
the requests served there; a start-up's consumption is the profile's, the same for each; images are on every machine.
"""

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy import Environment, Interrupt, Process

from simulator.control.autoscaler import Autoscaler, Decision, PodMetrics
from simulator.datacenter.instance import Instance, State
from simulator.datacenter.machine import Machine
from simulator.datacenter.placement import Placer
from simulator.datacenter.platforms import PlatformProfile
from simulator.datacenter.startup import start_up
from simulator.errors import SimulatorError
from simulator.scenario import Scenario
from simulator.statistics.streams import RandomStreams
from simulator.traffic.compiled import numba_works
from simulator.traffic.processes import ProcessPlane
from simulator.traffic.requests import COMPLETED, DataPlane, DataPlaneName, Requests, WindowedPlane

_WANTED = (State.PENDING, State.STARTING, State.READY)
"""States of an instance that nobody is taking down."""


@dataclass(frozen=True)
class RunRecord:
    """Everything that one replication left behind, raw.

    Attributes:
        scenario: what was asked.
        platform: name of the profile.
        replication: which.
        arrivals: sorted arrival times, seconds, shape (n,).
        state: what became of each request, see `simulator.traffic.requests`, shape (n,).
        latency: from arrival to answer, the platform's network path included, seconds; NaN if there was no answer.
        in_flight: requests that were waiting or in service when the last had arrived; they were still served.
        instances: every instance that ever was, with its history.
        decisions: all of the autoscaler's, in order.
    """

    scenario: Scenario
    platform: str
    replication: int
    arrivals: NDArray[np.float64]
    state: NDArray[np.int8]
    latency: NDArray[np.float64]
    in_flight: int
    instances: tuple[Instance, ...]
    decisions: tuple[Decision, ...]


def draw_requests(scenario: Scenario, streams: RandomStreams) -> Requests:
    """Every request of one replication. No platform is asked: all platforms meet the same ones.

    Args:
        scenario: what is asked.
        streams: of the replication.
    """
    arrivals = scenario.arrivals.draw(streams.stream("arrivals"), scenario.duration_seconds)
    return Requests(
        arrivals,
        scenario.application.demand.draw(streams.stream("demands"), len(arrivals)),
        streams.stream("balancer").random(len(arrivals)),
    )


class Model:
    """One replication of a scenario on one platform.

    Args:
        scenario: what is asked.
        profile: what the platform costs.
        seed: root of all random numbers.
        replication: which independent repetition.
        data_plane: how requests are run: `auto` takes Numba where it is installed. All give the same results.

    Raises:
        SimulatorError: the machines have no room for the first instances, or Numba is asked for and missing.
    """

    def __init__(
        self,
        scenario: Scenario,
        profile: PlatformProfile,
        *,
        seed: int,
        replication: int = 0,
        data_plane: DataPlaneName = "auto",
    ) -> None:
        self._scenario = scenario
        self._profile = profile
        self._replication = replication
        self._streams = RandomStreams(seed, replication)
        self._env = Environment()
        room = scenario.machines
        self._placer = Placer(
            [Machine(self._env, room.spec, f"machine-{number}") for number in range(room.count)],
            profile,
            policy=room.placement,
            cpu_cores=scenario.application.placed_cores,
            application_bytes=scenario.application.memory_bytes,
        )
        drawn = draw_requests(scenario, self._streams)
        self._requests = Requests(drawn.arrivals, drawn.demands * profile.overhead.cpu_factor.value, drawn.draws)
        self._plane = self._make_plane(data_plane)
        self._autoscaler: Autoscaler = scenario.autoscaler.build()
        self._instances: list[Instance] = []
        self._without_room: deque[Instance] = deque()
        self._starting: dict[Instance, Process] = {}
        self._decisions: list[Decision] = []

    def run(self) -> RunRecord:
        """Simulate the whole scenario, once."""
        for _ in range(self._autoscaler.initial_instances):
            self._begin_with_one()
        if self._autoscaler.sync_seconds is not None:
            self._env.process(self._control(self._autoscaler.sync_seconds))
        end = self._scenario.duration_seconds
        self._env.run(until=end)
        self._plane.advance(end)
        in_flight = self._plane.in_flight()
        # Where SimPy runs the requests too, it goes on until the last is served.
        instances = tuple(replace(instance, history=list(instance.history)) for instance in self._instances)
        self._plane.advance(math.inf)
        outcomes = self._plane.outcomes()
        path = self._profile.overhead.network_seconds.value
        latency = np.where(outcomes.state == COMPLETED, outcomes.finished - self._requests.arrivals + path, np.nan)
        return RunRecord(
            self._scenario,
            self._profile.name,
            self._replication,
            self._requests.arrivals,
            outcomes.state,
            latency,
            in_flight,
            instances,
            tuple(self._decisions),
        )

    def _make_plane(self, name: DataPlaneName) -> DataPlane:
        application = self._scenario.application
        service: dict[str, Any] = {
            "balancer": self._scenario.balancer,
            "workers": application.workers,
            "queue_limit": application.queue_limit,
        }
        if name == "processes":
            return ProcessPlane(self._env, self._requests, **service)
        compiled = name == "numba" or (name == "auto" and numba_works())
        return WindowedPlane(self._requests, **service, compiled=compiled)

    def _begin_with_one(self) -> None:
        """An instance that has been running since before the simulation begins."""
        instance = self._create()
        machine, reason = self._placer.place(instance.number)
        if machine is None:
            raise SimulatorError(
                f"scenario {self._scenario.name} on {self._profile.name}: the first "
                f"{self._autoscaler.initial_instances} instances do not fit, {reason}; add machines or ask for fewer"
            )
        instance.machine = machine
        instance.enter(State.STARTING, self._env.now)
        self._become_ready(instance)

    def _create(self) -> Instance:
        instance = Instance(len(self._instances), self._env.now)
        self._instances.append(instance)
        return instance

    def _control(self, sync_seconds: float) -> Generator[Any, Any, None]:
        """The autoscaler looks every `sync_seconds`, at moments that have nothing to do with the load's."""
        yield self._env.timeout(self._streams.stream("control").random() * sync_seconds)
        before, busy_before = 0.0, np.zeros(0)
        while self._env.now < self._scenario.duration_seconds:
            now = self._env.now
            self._plane.advance(now)
            busy = self._plane.busy_seconds()
            known = np.zeros(len(busy))
            known[: len(busy_before)] = busy_before
            # A scheduler's books are in thousandths of a core, rounded up.
            cores = np.ceil(1000 * (busy - known) / max(now - before, 1e-9) - 1e-6).astype(int)
            wanted = [instance for instance in self._instances if instance.state in _WANTED]
            decision = self._autoscaler.decide(now, [self._pod(instance, cores) for instance in wanted])
            self._decisions.append(decision)
            self._scale(wanted, decision.desired)
            before, busy_before = now, busy
            yield self._env.timeout(sync_seconds)

    def _pod(self, instance: Instance, millicores: NDArray[np.int64]) -> PodMetrics:
        reserved = math.ceil(1000 * self._scenario.application.reserved_cores)
        usage = None if instance.slot is None else max(int(millicores[instance.slot]), 0)
        return PodMetrics(instance.created_seconds, instance.since(State.READY), usage, reserved)

    def _scale(self, wanted: list[Instance], desired: int) -> None:
        for _ in range(desired - len(wanted)):
            self._without_room.append(self._create())
        self._place_those_without_room()
        # As a ReplicaSet chooses: first what is not placed, then what is not ready, then the youngest.
        order = sorted(wanted, key=lambda instance: (_WANTED.index(instance.state), -instance.number))
        for instance in order[: max(len(wanted) - desired, 0)]:
            self._take_down(instance)

    def _place_those_without_room(self) -> None:
        """First come, first placed; none overtakes another, since all need the same."""
        while self._without_room:
            instance = self._without_room[0]
            instance.machine, reason = self._placer.place(instance.number)
            if instance.machine is None:
                for waiting in self._without_room:
                    waiting.why_pending = waiting.why_pending or reason
                return
            self._without_room.popleft()
            self._starting[instance] = self._env.process(self._bring_up(instance, instance.machine))

    def _bring_up(self, instance: Instance, machine: Machine) -> Generator[Any, Any, None]:
        """The platform starts, the application starts in it, and then it gets requests."""
        instance.enter(State.STARTING, self._env.now)
        try:
            yield from start_up(machine, self._profile)
            yield self._env.timeout(self._scenario.application.ready_seconds)
        except Interrupt:
            self._stop(instance)
        else:
            self._become_ready(instance)
        finally:
            del self._starting[instance]

    def _become_ready(self, instance: Instance) -> None:
        self._plane.advance(self._env.now)
        instance.slot = self._plane.add()
        instance.enter(State.READY, self._env.now)

    def _take_down(self, instance: Instance) -> None:
        """A ready instance finishes its requests first; one that is not ready just ends."""
        if instance.state is State.PENDING:
            self._without_room.remove(instance)
            instance.enter(State.STOPPED, self._env.now)
        elif instance.state is State.STARTING:
            self._starting[instance].interrupt("scaled in")
        elif instance.slot is not None:
            self._plane.advance(self._env.now)
            last = self._plane.drain(instance.slot)
            instance.enter(State.DRAINING, self._env.now)
            self._env.process(self._drain(instance, last - self._env.now))

    def _drain(self, instance: Instance, seconds: float) -> Generator[Any, Any, None]:
        yield self._env.timeout(seconds)
        self._stop(instance)

    def _stop(self, instance: Instance) -> None:
        """Its machine has room again, which may be what another waits for."""
        instance.enter(State.STOPPED, self._env.now)
        self._placer.release(instance.number)
        self._place_those_without_room()
