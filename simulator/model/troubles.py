"""What goes wrong in a run: the scenario's faults, and memory that runs out."""

from bisect import bisect_left
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from simpy import Environment

from simulator.control.blast_radius import BlastRadius, Endangered, Recovery, blast_radius
from simulator.control.faults import Crash, TimedFault, draw, draw_machine
from simulator.datacenter.instance import Instance, State
from simulator.datacenter.machine import Machine
from simulator.datacenter.memory.killing import OutOfMemory
from simulator.datacenter.platforms import PlatformProfile
from simulator.eventlog import EventLog
from simulator.model.record import FaultFelt
from simulator.model.replica_set import ReplicaSet
from simulator.model.site import Site
from simulator.scenario import Scenario
from simulator.statistics.streams import RandomStreams
from simulator.traffic.plane import DataPlane

_REQUESTS_SAMPLED_SECONDS = 1.0
"""How often the requests in an instance are counted for its memory, where each needs some."""


class Troubles:
    """Lets faults happen, and kills where memory runs out.

    Args:
        env: the SimPy environment.
        scenario: what is asked.
        profile: of the platform.
        streams: of the replication.
        plane: carries the requests.
        site: the machines.
        replicas: the instances on them.
        log: is told of what happens.
    """

    def __init__(
        self,
        env: Environment,
        scenario: Scenario,
        profile: PlatformProfile,
        streams: RandomStreams,
        plane: DataPlane,
        site: Site,
        replicas: ReplicaSet,
        log: EventLog,
    ) -> None:
        self._env = env
        self._scenario = scenario
        self._profile = profile
        self._streams = streams
        self._plane = plane
        self._site = site
        self._replicas = replicas
        self._log = log
        self._blasts: list[BlastRadius] = []
        self._watches: dict[str, int] = {}
        self._registry_outages = 0
        replicas.memory_changed = self._watch_memory
        replicas.crashed = self._crash

    def begin(self) -> None:
        """Let everything that is known beforehand come at its time."""
        machines = self._site.machines
        zones = sorted(set(self._scenario.machines.zones) or {self._scenario.machines.spec.zone})
        self._let_come(
            draw(
                self._scenario.faults,
                self._streams,
                self._scenario.duration_seconds,
                machines=tuple(machines),
                zones=zones,
            )
        )
        if self._scenario.application.working_set.mib_per_request:
            self._env.process(self._count_requests())

    def machine_came(self, machine: Machine) -> None:
        """A machine that comes later has faults of its own."""
        now, end = self._env.now, self._scenario.duration_seconds
        self._let_come(draw_machine(self._scenario.faults, self._streams, end, machine=machine.name, since=now))

    def felt(self) -> tuple[FaultFelt, ...]:
        """All faults that came, each with how long it was until as many instances were ready again."""
        ready, wishes = _ready_over_time(self._replicas.instances), self._replicas.wishes
        changes = sorted([(seconds, 0, count) for seconds, count in wishes] + [(seconds, 1, n) for seconds, n in ready])
        return tuple(FaultFelt(blast, _recovery(blast, changes)) for blast in self._blasts)

    # -- faults of the scenario

    def _let_come(self, faults: Sequence[TimedFault]) -> None:
        for timed in faults:
            self._env.process(self._wait_for(timed))

    def _wait_for(self, timed: TimedFault) -> Generator[Any, Any, None]:
        yield self._env.timeout(timed.seconds - self._env.now)
        yield from self._befall(timed)

    def _befall(self, timed: TimedFault) -> Generator[Any, Any, None]:
        """The fault takes what it takes, and what it befell is whole again after a while."""
        blast = blast_radius(
            timed, self._endangered(), self._zones(), shares_host_kernel=self._profile.shares_host_kernel
        )
        kind, lasts = timed.fault.kind, timed.ends_seconds - timed.seconds
        machines = self._site.machines
        if kind == "zone-loss":
            hit = [machine for machine in self._site.up.values() if machine.zone == blast.target]
        elif kind == "machine-loss" or (kind == "kernel-crash" and self._profile.shares_host_kernel):
            hit = [machines[blast.target]] if blast.target else []
        else:
            hit = []
        for machine in hit:
            self._site.close(machine, kind)
            machine.page_cache.drop()
        # What is lost is asked for again as soon as that is noticed, except where the fault says how long that takes.
        self._take(blast, replaced_after=lasts if kind == "instance-crash" else 0.0)
        slowed = machines.get(blast.target) if kind == "slow-machine" else None
        if slowed is not None and timed.fault.kind == "slow-machine":
            self._site.slow_down(slowed, timed.fault.speed_factor)
        if kind == "registry-outage":
            self._registry_outages += 1
            self._site.registry.set_speed(0.0)
        if not hit and slowed is None and kind != "registry-outage":
            return
        yield self._env.timeout(lasts)
        for machine in hit:
            if machine.name in machines:
                self._site.open(machine, kind)
        if slowed is not None and timed.fault.kind == "slow-machine":
            self._site.speed_up(slowed, timed.fault.speed_factor)
        if kind == "registry-outage":
            self._registry_outages -= 1
            self._site.registry.set_speed(float(not self._registry_outages))
        self._log.write("recovered", self._env.now, what=kind, target=blast.target or None)
        self._replicas.place_those_without_room()

    def _crash(self, instance: Instance, crash: Crash) -> None:
        """The program of one instance ends."""
        fault = crash.fault
        if fault is None:
            return
        requests = self._requests(instance)
        before = self._replicas.ready
        reason = f"instance {instance.number} ended: 1 of {before} ready instances and {requests} requests lost"
        blast = BlastRadius(self._env.now, fault.kind, "", (instance.number,), (), requests, before, 1, reason)
        self._take(blast, replaced_after=fault.lasts_seconds)

    def _take(self, blast: BlastRadius, *, replaced_after: float, back_off: bool = False) -> None:
        """All that the fault takes ends."""
        self._blasts.append(blast)
        self._log.write(
            "fault",
            self._env.now,
            what=blast.kind,
            target=blast.target or None,
            lost=len(blast.lost),
            slowed=len(blast.slowed),
            requests=blast.requests,
            reason=blast.reason,
        )
        for number in blast.lost:
            instance = self._replicas.instances[number]
            if not instance.is_over:
                self._replicas.lose(instance, blast.kind, replaced_after=replaced_after, back_off=back_off)

    def _endangered(self) -> list[Endangered]:
        """Every instance that is on a machine."""
        return [
            Endangered(
                instance.number,
                instance.machine.name,
                instance.machine.zone,
                instance.state is State.READY,
                self._requests(instance),
            )
            for instance in self._replicas.instances
            if instance.machine is not None and not instance.is_over
        ]

    def _requests(self, instance: Instance) -> int:
        return 0 if instance.slot is None else self._plane.in_flight(instance.slot)

    def _zones(self) -> dict[str, str]:
        return {name: machine.zone for name, machine in self._site.up.items()}

    # -- memory that runs out

    def _watch_memory(self, machine: Machine) -> None:
        """Wake up when memory runs out on `machine`, if nothing changes there before."""
        watch = self._watches.get(machine.name, 0) + 1
        self._watches[machine.name] = watch
        out = machine.memory.next_out_of_memory(self._env.now)
        if out is None or out.seconds >= self._scenario.duration_seconds:
            return
        self._env.process(self._run_out(machine, out, watch))

    def _run_out(self, machine: Machine, out: OutOfMemory, watch: int) -> Generator[Any, Any, None]:
        yield self._env.timeout(max(out.seconds - self._env.now, 0.0))
        if self._watches[machine.name] != watch:
            return
        if not isinstance(out.instance, int):
            self._panic(machine, out)
        else:
            self._kill(machine, self._replicas.instances[out.instance], out)
        # What was killed is gone a moment later at the same time; only then is there something new to see.
        yield self._env.timeout(0.0)
        self._watch_memory(machine)

    def _kill(self, machine: Machine, instance: Instance, out: OutOfMemory) -> None:
        before = self._replicas.ready
        ready = instance.state is State.READY
        # In a guest only a program that serves is killed with its requests; one that drains goes on.
        inside = out.scope != "machine" and self._profile.guest is not None
        requests = 0 if inside and not ready else self._requests(instance)
        blast = BlastRadius(
            self._env.now,
            "out-of-memory",
            machine.name,
            (instance.number,),
            (),
            requests,
            before,
            int(ready),
            f"{out.reason}: {int(ready)} of {before} ready instances and {requests} requests lost",
        )
        if not inside:
            self._take(blast, replaced_after=0.0, back_off=True)
            return
        # A guest goes on when the program in it is killed, and starts it again.
        machine.memory.restart_program(instance.number, now=self._env.now)
        self._take(replace(blast, lost=()), replaced_after=0.0)
        if ready:
            self._replicas.restart_program(instance, blast.kind)

    def _panic(self, machine: Machine, out: OutOfMemory) -> None:
        """Nobody may be killed, so the machine goes with all that is on it. It boots again at once, empty."""
        here = [each for each in self._endangered() if each.machine == machine.name]
        before = self._replicas.ready
        requests, ready = sum(each.requests for each in here), sum(each.ready for each in here)
        lost = tuple(each.number for each in here)
        reason = f"{out.reason}: {ready} of {before} ready instances and {requests} requests lost"
        blast = BlastRadius(self._env.now, "out-of-memory", machine.name, lost, (), requests, before, ready, reason)
        machine.page_cache.drop()
        self._take(blast, replaced_after=0.0, back_off=True)

    def _count_requests(self) -> Generator[Any, Any, None]:
        """Tell the machines' memory how many requests each instance has."""
        while self._env.now < self._scenario.duration_seconds:
            yield self._env.timeout(_REQUESTS_SAMPLED_SECONDS)
            changed: dict[str, Machine] = {}
            for instance in self._replicas.instances:
                if instance.state in (State.READY, State.DRAINING) and instance.machine is not None:
                    requests = self._requests(instance)
                    instance.machine.memory.requests(instance.number, requests, now=self._env.now)
                    changed[instance.machine.name] = instance.machine
            for machine in changed.values():
                self._watch_memory(machine)


def _recovery(blast: BlastRadius, changes: Sequence[tuple[float, int, int]]) -> Recovery:
    """How long until as many are ready as before, or as many as are wanted, if that has become less.

    Args:
        blast: the fault.
        changes: in order: (seconds, 0, how many are wanted from then on) and (seconds, 1, how many are ready).
    """
    if not blast.ready_lost:
        return Recovery(0.0, "no ready instance was lost")
    before, place = blast.ready_before, bisect_left(changes, (blast.seconds, 0, 0))
    wanted = next(
        (count for _, is_ready, count in reversed(changes[max(place - 1000, 0) : place]) if not is_ready), before
    )
    lowest = before
    there: int | None = None
    for seconds, is_ready, count in islice(changes, place, None):
        if is_ready:
            there = count
            lowest = min(lowest, count)
        else:
            wanted = count
        # Those that are ready at the very moment of the fault are the ones that are left.
        if there is not None and there >= min(before, wanted) and seconds > blast.seconds:
            took = seconds - blast.seconds
            return Recovery(took, f"{min(before, wanted)} ready again after {took:g} s, down to {lowest} meanwhile")
    return Recovery(None, f"not {min(before, wanted)} ready again before the end, down to {lowest}")


def _ready_over_time(instances: Sequence[Instance]) -> list[tuple[float, int]]:
    """(seconds, ready instances from then on) at every change, in order."""
    changes: list[tuple[float, int]] = []
    for instance in instances:
        was_ready = False
        for seconds, state in instance.history:
            if (state is State.READY) != was_ready:
                was_ready = not was_ready
                changes.append((seconds, 1 if was_ready else -1))
    timeline: list[tuple[float, int]] = []
    ready = 0
    for seconds, change in sorted(changes, key=lambda each: each[0]):
        ready += change
        if timeline and timeline[-1][0] == seconds:
            timeline[-1] = (seconds, ready)
        else:
            timeline.append((seconds, ready))
    return timeline
