"""The loop that lets the control plane and the data plane advance together, and what the autoscaler sees and does."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from inspect import getdoc
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy import Environment

from simulator.control.autoscaler import Autoscaler, Decision, Fleet, PodMetrics
from simulator.datacenter.instance import Instance, State
from simulator.datacenter.neighbours import Neighbour
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.eventlog import EventLog, NoLog
from simulator.model.inputs import ScenarioNumbers, io_seconds, new_tally, service_of
from simulator.model.provisioning import Provisioning
from simulator.model.record import RunRecord
from simulator.model.replica_set import ReplicaSet
from simulator.model.site import Site
from simulator.model.troubles import Troubles
from simulator.scenario import Scenario
from simulator.statistics.streams import RandomStreams
from simulator.traffic.balancing.policies import POLICIES
from simulator.traffic.compiled import numba_works
from simulator.traffic.plane import DataPlane, DataPlaneName, Notice, NoticeKind, Outcomes
from simulator.traffic.processes import ProcessPlane
from simulator.traffic.windows import WindowedPlane


class Model:
    """One replication of a scenario on one platform.

    Args:
        scenario: what is asked.
        profile: what the platform costs.
        seed: root of all random numbers.
        replication: which independent repetition.
        data_plane: how requests are run: `auto` takes Numba where it is installed. All give the same results.
        observer: takes each request that has ended, beside the tally; for those who want to see every one.
        log: is told of every event in the life of instances and machines, and of every decision.

    Raises:
        SimulatorError: the machines have no room for the first instances, Numba is asked for and missing, or the
            platform or the data plane lacks something that the scenario asks for.
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
        log: EventLog | None = None,
    ) -> None:
        if scenario.warmth == "snapshot" and profile.snapshot is None:
            raise SimulatorError(
                f'scenario {scenario.name}: `warmth` is "snapshot", but platform {profile.name} has none; choose '
                "another warmth, or write [snapshot] into its profile"
            )
        self._scenario = scenario
        self._profile = profile
        self._replication = replication
        self._log: EventLog = NoLog() if log is None else log
        self._streams = RandomStreams(seed, replication)
        self._env = Environment()
        self._tally = new_tally(scenario, profile.overhead.network_seconds.value)
        self._plane = self._make_plane(data_plane, _Both(self._tally, observer) if observer else self._tally)
        self._log.write("run-begun", 0.0, scenario=scenario.name, duration_seconds=scenario.duration_seconds)
        policy = getdoc(POLICIES[scenario.balancer.kind].choose) or ""
        self._log.write("route", 0.0, policy=scenario.balancer.kind, reason=policy.partition("\n")[0])
        self._site = Site(self._env, scenario, profile, self._plane, self._log)
        self._replicas = ReplicaSet(self._env, scenario, profile, self._streams, self._plane, self._site, self._log)
        self._troubles = Troubles(
            self._env, scenario, profile, self._streams, self._plane, self._site, self._replicas, self._log
        )
        self._provisioning: Provisioning | None = None
        if scenario.machine_autoscaler is not None:
            self._provisioning = Provisioning(
                self._env, scenario, scenario.machine_autoscaler, self._streams, self._site, self._replicas, self._log
            )
            self._provisioning.came = self._troubles.machine_came
        self._autoscaler: Autoscaler = scenario.autoscaler.build()
        self._decisions: list[Decision] = []
        self._looked = _Look(0.0, np.zeros(0), 0.0, 0, 0)

    def run(self) -> RunRecord:
        """Simulate the whole scenario, once."""
        self._replicas.begin_with(self._autoscaler.initial_instances)
        self._troubles.begin()
        for neighbour in self._scenario.machines.neighbours:
            self._env.process(self._neighbour(neighbour))
        if self._autoscaler.sync_seconds is not None:
            self._env.process(self._control(self._autoscaler.sync_seconds))
        self._advance_to_the_end()
        end = self._scenario.duration_seconds
        in_flight = self._plane.in_flight()
        instances = tuple(self._replicas.instances)
        consumption = self._site.consumption([each.lifetime(end) for each in instances])
        faults = self._troubles.felt()
        while self._plane.advance(math.inf) is not None:
            pass
        self._plane.fail_held(end)
        self._plane.hand_over()
        self._tally.close()
        counts = self._plane.counts()
        self._log.write(
            "run-ended",
            end,
            arrived=counts.arrived,
            completed=counts.completed,
            rejected=counts.rejected,
            failed=counts.failed,
            timed_out=counts.timed_out,
        )
        return RunRecord(
            self._scenario,
            self._profile.name,
            self._replication,
            counts,
            in_flight,
            self._tally,
            instances,
            tuple(self._decisions),
            () if self._provisioning is None else tuple(self._provisioning.decisions),
            self._site.lives(),
            faults,
            consumption,
            self._scenario.machines.spec.power is not None,
        )

    def _advance_to_the_end(self) -> None:
        end = self._scenario.duration_seconds
        while True:
            moment = min(self._env.peek(), end)
            # The requests come first: whatever happens here sees all that has happened to them until then.
            notice = self._plane.advance(moment)
            if notice is not None:
                self._take_notice(notice)
            elif self._env.peek() > end:
                return
            else:
                self._env.step()

    def _make_plane(self, name: DataPlaneName, outcomes: Outcomes) -> DataPlane:
        scenario, profile = self._scenario, self._profile
        cpu_factor = profile.overhead.cpu_factor.value
        numbers = ScenarioNumbers(scenario, self._streams, cpu_factor, io_seconds(scenario, profile))
        service, closing = service_of(scenario), scenario.duration_seconds
        shared = scenario.machines.cores == "shared"
        if name == "processes":
            if shared:
                raise SimulatorError(
                    f"scenario {scenario.name}: the data plane `processes` shares no cores, and `machines.cores` is "
                    '"shared"; choose `python` or `numba`'
                )
            return ProcessPlane(service, numbers, outcomes, closing_seconds=closing)
        compiled = name == "numba" or (name == "auto" and numba_works())
        # Machines are added as they come.
        machines = () if shared else None
        return WindowedPlane(service, numbers, outcomes, closing_seconds=closing, machines=machines, compiled=compiled)

    def _take_notice(self, notice: Notice) -> None:
        """The data plane has come to something that the control plane must know, at a moment of its own."""
        if notice.seconds > self._env.now:
            self._env.run(until=notice.seconds)
        if notice.kind is NoticeKind.DRAINED:
            self._replicas.drained(notice.which)
        elif notice.kind is NoticeKind.WORK_DONE:
            self._site.take_up(notice.which)
        elif self._autoscaler.wakes_on_arrival and not self._replicas.wanted:
            # A request has come and there is no instance. Once one is coming, the usual rhythm is quick enough.
            self._decide(woken=True)

    def _neighbour(self, neighbour: Neighbour) -> Generator[Any, Any, None]:
        """Somebody else's threads want the cores for a while."""
        yield self._env.timeout(neighbour.from_seconds)
        until = neighbour.until_seconds
        groups = self._site.add_neighbour(neighbour)
        if until is not None:
            yield self._env.timeout(until - self._env.now)
            self._site.remove_neighbour(groups)

    # -- the autoscaler

    def _control(self, sync_seconds: float) -> Generator[Any, Any, None]:
        """The autoscaler looks every `sync_seconds`, at moments that have nothing to do with the load's."""
        yield self._env.timeout(self._streams.stream("control").random() * sync_seconds)
        while self._env.now < self._scenario.duration_seconds:
            self._decide()
            yield self._env.timeout(sync_seconds)

    def _decide(self, *, woken: bool = False) -> None:
        """The autoscaler looks at what happened since it last did, and says how many instances there should be.

        Args:
            woken: because a request has come and there is no instance, whether it waits or was turned away.
        """
        now, before = self._env.now, self._looked
        busy, inside, counts = self._plane.busy_seconds(), self._plane.inside_seconds(), self._plane.counts()
        self._looked = _Look(now, busy, float(inside.sum()), counts.arrived, counts.rejected)
        known = np.zeros(len(busy))
        known[: len(before.busy)] = before.busy
        elapsed = max(now - before.seconds, 1e-9)
        # A scheduler's books are in thousandths of a core, rounded up.
        millicores = np.ceil(1000 * (busy - known) / elapsed - 1e-6).astype(int)
        wanted = self._replicas.wanted
        pods = tuple(self._pod(instance, millicores) for instance in wanted)
        ready = sum(instance.state is State.READY for instance in wanted)
        fleet = Fleet(
            pods,
            concurrency=(self._looked.inside - before.inside) / elapsed + counts.held,
            requests_per_second=(counts.arrived - before.arrived) / elapsed,
            queued=max(counts.in_flight - ready * self._scenario.application.workers, counts.held, int(woken)),
            rejected_per_second=(counts.rejected - before.rejected) / elapsed,
        )
        decision = self._autoscaler.decide(now, pods, fleet)
        self._decisions.append(decision)
        if counts.rejected > before.rejected:
            self._log.write("burst-rejected", now, count=counts.rejected - before.rejected)
        self._log.write(
            "scale-decision",
            now,
            what="instances",
            current=decision.current,
            desired=decision.desired,
            reason=decision.reason,
        )
        self._replicas.scale(decision.desired)

    def _pod(self, instance: Instance, millicores: NDArray[np.int64]) -> PodMetrics:
        reserved = math.ceil(1000 * self._scenario.application.reserved_cores)
        usage = None if instance.slot is None else max(int(millicores[instance.slot]), 0)
        # Of one that was ready before and is starting again, nothing is known.
        ready = instance.history[-1][0] if instance.state is State.READY else None
        return PodMetrics(instance.created_seconds, ready, usage, reserved)


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
