"""Everything on one SimPy environment: machines, instances that come up and go, an autoscaler, and the requests.

SimPy runs the control plane. Requests run in the data plane, which catches up with every event here before it happens,
and stops where the control plane must know something (`simulator.traffic.plane`).

What the model leaves out, knowingly: a worker has a core of its own, so start-ups on a machine slow each other but not
the requests served there; a start-up's consumption is the profile's, the same for each; images are on every machine.
"""

import math
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy import Environment, Event, Interrupt, Process

from simulator.control.autoscaler import Autoscaler, Decision, Fleet, PodMetrics
from simulator.datacenter.instance import Instance, State
from simulator.datacenter.machine import Machine
from simulator.datacenter.placement import Placer
from simulator.datacenter.platforms import PlatformProfile
from simulator.datacenter.startup import start_up
from simulator.errors import SimulatorError
from simulator.scenario import Scenario
from simulator.statistics.streams import RandomStreams
from simulator.traffic.arrivals import ClosedLoop
from simulator.traffic.compiled import numba_works
from simulator.traffic.plane import Counts, DataPlane, DataPlaneName, Notice, NoticeKind, Outcomes, Service
from simulator.traffic.processes import ProcessPlane
from simulator.traffic.tally import Tally
from simulator.traffic.windows import WindowedPlane

_WANTED = (State.PENDING, State.STARTING, State.READY)
"""States of an instance that nobody is taking down."""


@dataclass(frozen=True)
class RunRecord:
    """Everything that one replication left behind.

    Attributes:
        scenario: what was asked.
        platform: name of the profile.
        replication: which.
        counts: requests, at the end.
        in_flight: requests that were waiting or in service when the last had arrived; they were still served.
        tally: what became of the requests, added up.
        instances: every instance that ever was, with its history.
        decisions: all of the autoscaler's, in order.
    """

    scenario: Scenario
    platform: str
    replication: int
    counts: Counts
    in_flight: int
    tally: Tally
    instances: tuple[Instance, ...]
    decisions: tuple[Decision, ...]


def new_tally(scenario: Scenario, path_seconds: float = 0.0) -> Tally:
    """A tally of what a run of `scenario` is judged by, on a platform whose network path takes so long."""
    return Tally(
        duration_seconds=scenario.duration_seconds,
        warm_up_seconds=scenario.warm_up_seconds,
        objective_seconds=scenario.slo.latency_seconds,
        path_seconds=path_seconds,
        origin_seconds=scenario.arrivals.surge_seconds or 0.0,
    )


class ScenarioNumbers:
    """The random numbers of one replication, each kind from a stream of its own.

    No platform is asked, so all meet the same requests; only their demands are longer where the platform is slower.

    Args:
        scenario: what is asked.
        streams: of the replication.
        cpu_factor: every demand is multiplied by it.
    """

    def __init__(self, scenario: Scenario, streams: RandomStreams, cpu_factor: float) -> None:
        self._scenario = scenario
        self._arrivals = streams.stream("arrivals")
        self._demands = streams.stream("demands")
        self._lots = streams.stream("balancer")
        self._thinks = streams.stream("thinks")
        self._cpu_factor = cpu_factor

    def arrivals(self) -> Iterator[NDArray[np.float64]]:
        """Sorted arrival times, seconds; none in a closed loop."""
        arrivals = self._scenario.arrivals
        if isinstance(arrivals, ClosedLoop):
            return iter(())
        return arrivals.stream(self._arrivals, self._scenario.duration_seconds)

    def demands(self, count: int) -> NDArray[np.float64]:
        """Demands of the next requests, seconds of one core of this platform."""
        return self._scenario.application.demand.draw(self._demands, count) * self._cpu_factor

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
        users=scenario.arrivals.users if isinstance(scenario.arrivals, ClosedLoop) else 0,
        **given,
    )


class Model:
    """One replication of a scenario on one platform.

    Args:
        scenario: what is asked.
        profile: what the platform costs.
        seed: root of all random numbers.
        replication: which independent repetition.
        data_plane: how requests are run: `auto` takes Numba where it is installed. All give the same results.
        observer: takes each request that has ended, beside the tally; for those who want to see every one.

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
        observer: Outcomes | None = None,
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
        self._tally = new_tally(scenario, profile.overhead.network_seconds.value)
        self._plane = self._make_plane(data_plane, _Both(self._tally, observer) if observer else self._tally)
        self._autoscaler: Autoscaler = scenario.autoscaler.build()
        self._instances: list[Instance] = []
        self._without_room: deque[Instance] = deque()
        self._starting: dict[Instance, Process] = {}
        self._drained: dict[int, Event] = {}
        self._decisions: list[Decision] = []
        self._looked = _Look(0.0, np.zeros(0), 0.0, 0, 0)

    def run(self) -> RunRecord:
        """Simulate the whole scenario, once."""
        for _ in range(self._autoscaler.initial_instances):
            self._begin_with_one()
        if self._autoscaler.sync_seconds is not None:
            self._env.process(self._control(self._autoscaler.sync_seconds))
        end = self._scenario.duration_seconds
        while True:
            moment = min(self._env.peek(), end)
            # The requests come first: whatever happens here sees all that has happened to them until then.
            notice = self._plane.advance(moment)
            if notice is not None:
                self._take_notice(notice)
            elif self._env.peek() > end:
                break
            else:
                self._env.step()
        in_flight = self._plane.in_flight()
        instances = tuple(replace(instance, history=list(instance.history)) for instance in self._instances)
        while self._plane.advance(math.inf) is not None:
            pass
        self._plane.hand_over()
        self._tally.close()
        return RunRecord(
            self._scenario,
            self._profile.name,
            self._replication,
            self._plane.counts(),
            in_flight,
            self._tally,
            instances,
            tuple(self._decisions),
        )

    def _make_plane(self, name: DataPlaneName, outcomes: Outcomes) -> DataPlane:
        numbers = ScenarioNumbers(self._scenario, self._streams, self._profile.overhead.cpu_factor.value)
        service, closing = service_of(self._scenario), self._scenario.duration_seconds
        if name == "processes":
            return ProcessPlane(service, numbers, outcomes, closing_seconds=closing)
        compiled = name == "numba" or (name == "auto" and numba_works())
        return WindowedPlane(service, numbers, outcomes, closing_seconds=closing, compiled=compiled)

    def _take_notice(self, notice: Notice) -> None:
        """The data plane has come to something that the control plane must know, at a moment of its own."""
        if notice.seconds > self._env.now:
            self._env.run(until=notice.seconds)
        if notice.kind is NoticeKind.DRAINED:
            drained = self._drained.pop(notice.which, None)
            if drained is not None:
                drained.succeed()
        elif notice.kind is NoticeKind.ARRIVED_AT_NONE and self._autoscaler.wakes_on_arrival:
            self._decide()

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
        while self._env.now < self._scenario.duration_seconds:
            self._decide()
            yield self._env.timeout(sync_seconds)

    def _decide(self) -> None:
        """The autoscaler looks at what happened since it last did, and says how many instances there should be."""
        now, before = self._env.now, self._looked
        busy, inside, counts = self._plane.busy_seconds(), self._plane.inside_seconds(), self._plane.counts()
        self._looked = _Look(now, busy, float(inside.sum()), counts.arrived, counts.rejected)
        known = np.zeros(len(busy))
        known[: len(before.busy)] = before.busy
        elapsed = max(now - before.seconds, 1e-9)
        # A scheduler's books are in thousandths of a core, rounded up.
        millicores = np.ceil(1000 * (busy - known) / elapsed - 1e-6).astype(int)
        wanted = [instance for instance in self._instances if instance.state in _WANTED]
        pods = tuple(self._pod(instance, millicores) for instance in wanted)
        ready = sum(instance.state is State.READY for instance in wanted)
        fleet = Fleet(
            pods,
            concurrency=(self._looked.inside - before.inside) / elapsed + counts.held,
            requests_per_second=(counts.arrived - before.arrived) / elapsed,
            queued=max(counts.in_flight - ready * self._scenario.application.workers, counts.held),
            rejected_per_second=(counts.rejected - before.rejected) / elapsed,
        )
        decision = self._autoscaler.decide(now, pods, fleet)
        self._decisions.append(decision)
        self._scale(wanted, decision.desired)

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
        weights = getattr(self._scenario.balancer, "weights", (1.0,))
        instance.slot = self._plane.add(weight=weights[instance.number % len(weights)])
        instance.enter(State.READY, self._env.now)

    def _take_down(self, instance: Instance) -> None:
        """A ready instance finishes its requests first; one that is not ready just ends."""
        if instance.state is State.PENDING:
            self._without_room.remove(instance)
            instance.enter(State.STOPPED, self._env.now)
        elif instance.state is State.STARTING:
            self._starting[instance].interrupt("scaled in")
        elif instance.slot is not None:
            empty = self._plane.drain(instance.slot)
            instance.enter(State.DRAINING, self._env.now)
            drained = self._env.event()
            if empty:
                drained.succeed()
            else:
                self._drained[instance.slot] = drained
            self._env.process(self._drain(instance, drained))

    def _drain(self, instance: Instance, drained: Event) -> Generator[Any, Any, None]:
        """Until its last request is served, or until its time is over and what is left is cut off."""
        patience = self._scenario.draining_seconds
        if patience is None:
            yield drained
        else:
            yield drained | self._env.timeout(patience)
            if not drained.triggered and instance.slot is not None:
                del self._drained[instance.slot]
                self._plane.kill(instance.slot)
        self._stop(instance)

    def _stop(self, instance: Instance) -> None:
        """Its machine has room again, which may be what another waits for."""
        instance.enter(State.STOPPED, self._env.now)
        self._placer.release(instance.number)
        self._place_those_without_room()


@dataclass(frozen=True)
class _Look:
    """What the autoscaler saw when it last looked: when, core seconds by slot, request seconds, and requests."""

    seconds: float
    busy: NDArray[np.float64]
    inside: float
    arrived: int
    rejected: int


class _Both:
    """Gives what became of the requests to two."""

    def __init__(self, first: Outcomes, second: Outcomes) -> None:
        self._takers = (first, second)

    def record(self, arrived: NDArray[np.float64], seconds: NDArray[np.float64], state: NDArray[np.int8]) -> None:
        """So many requests arrived then, and after `seconds` ended as `state`."""
        for taker in self._takers:
            taker.record(arrived, seconds, state)
