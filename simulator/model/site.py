"""Machines and zones, the registry, who is placed where, and what all of it consumes."""

import math
from collections import Counter
from collections.abc import Generator
from typing import Any

import numpy as np
from simpy import Environment, Event

from simulator.datacenter.costs import GIGABYTE, Consumption, hours
from simulator.datacenter.energy import watt_hours
from simulator.datacenter.instance import Instance
from simulator.datacenter.links import Links
from simulator.datacenter.machine import Machine
from simulator.datacenter.memory import InstanceMemory
from simulator.datacenter.neighbours import Neighbour
from simulator.datacenter.placement import Placement, Placer
from simulator.datacenter.platforms import PlatformProfile
from simulator.datacenter.registry import Registry
from simulator.errors import SimulatorError
from simulator.eventlog import EventLog
from simulator.model.plane_cores import PlaneCores
from simulator.scenario import MIB, Scenario
from simulator.traffic.plane import DataPlane
from simulator.traffic.windows import WindowedPlane

POWER_SAMPLE_SECONDS = 10.0
"""Power is computed from the mean utilisation over so long. For a straight line of power it makes no difference."""


def instance_memory(scenario: Scenario, profile: PlatformProfile) -> InstanceMemory:
    """What one instance of `scenario` asks of memory on a platform."""
    application = scenario.application
    limit, image = application.memory_limit_mib, application.image
    return InstanceMemory(
        working_set=application.working_set,
        guest=profile.guest,
        limit_bytes=None if limit is None else limit * MIB,
        oom_score_adj=application.oom_score_adj,
        image="" if image is None else image.name,
        # What a start reads of it stays in memory: once a machine for containers, once each for guests.
        image_bytes=0.0 if image is None else image.read_fraction * image.unpacked_mib * MIB,
    )


def new_placer(machines: list[Machine], scenario: Scenario, profile: PlatformProfile) -> Placer:
    """Places the instances of `scenario` on `machines`."""
    return Placer(
        machines,
        profile,
        policy=scenario.machines.placement,
        cpu_cores=scenario.placed_cores,
        application_bytes=scenario.application.memory_bytes,
        instance=instance_memory(scenario, profile),
    )


class Site:
    """The machines of a run.

    Args:
        env: the SimPy environment.
        scenario: what is asked.
        profile: of the platform.
        plane: carries the requests.
        log: is told of what happens.

    Attributes:
        registry: from where images are pulled.
        machines: by name, those that are up and those that are not.
        running: how many instances have started and run, by machine.
    """

    def __init__(
        self, env: Environment, scenario: Scenario, profile: PlatformProfile, plane: DataPlane, log: EventLog
    ) -> None:
        self._env = env
        self._scenario = scenario
        self._profile = profile
        self._plane = plane
        self._log = log
        self._network = Links(env)
        self.registry = Registry(env, self._network, scenario.registry)
        self.machines: dict[str, Machine] = {}
        self.running: Counter[str] = Counter()
        self._added = 0
        self._number_at_plane: dict[str, int] = {}
        self._lives: dict[str, tuple[float, float]] = {}
        self._working: dict[int, PlaneCores] = {}
        self._closed: dict[str, list[str]] = {}
        self._speeds: dict[str, list[float]] = {}
        self._slots_on: list[str] = []
        self._energy = 0.0
        self._promised = 0.0
        self._promised_on: dict[str, float] = {}
        self._promised_since = scenario.counted_from_seconds
        self._byte_seconds = 0.0
        self._waiting_for_release: list[Event] = []
        self.placer = new_placer([], scenario, profile)
        self._check_that_one_fits()
        for _ in range(scenario.machines.count):
            self.add_machine()
        if scenario.machines.spec.power is not None:
            env.process(self._sample_power())

    # -- machines come and go

    def add_machine(self) -> Machine:
        """A new machine, the next in number."""
        name = f"machine-{self._added}"
        zone = self._scenario.machines.zone_of(self._added)
        self._added += 1
        machine = Machine(self._env, self._scenario.machines.spec, name, network=self._network, zone=zone)
        if isinstance(self._plane, WindowedPlane) and self._scenario.machines.cores == "shared":
            number = self._plane.add_machine(machine.spec.cores)
            self._number_at_plane[name] = number
            machine.cores = PlaneCores(
                self._env, self._plane, number, self._scenario.application.cpu_weight, self._working
            )
        self.machines[name] = machine
        self._lives[name] = (self._env.now, math.inf)
        self.placer.add_machine(machine)
        self._log.write("machine-added", self._env.now, machine=name, zone=zone)
        return machine

    def remove_machine(self, machine: Machine) -> None:
        """It is gone for good; nothing may be on it any more."""
        self.placer.remove_machine(machine)
        del self.machines[machine.name]
        self._lives[machine.name] = (self._lives[machine.name][0], self._env.now)
        self._log.write("machine-removed", self._env.now, machine=machine.name)

    def close(self, machine: Machine, why: str) -> None:
        """Nothing is placed there until `open`; several reasons add up."""
        self._closed.setdefault(machine.name, []).append(why)
        self.placer.cordon(machine, why)

    def open(self, machine: Machine, why: str) -> None:
        """One reason not to place there is over."""
        reasons = self._closed[machine.name]
        reasons.remove(why)
        if reasons:
            self.placer.cordon(machine, reasons[-1])
        else:
            self.placer.uncordon(machine)

    @property
    def up(self) -> dict[str, Machine]:
        """Machines on which something can run, by name, in order."""
        return {name: machine for name, machine in self.machines.items() if not self._closed.get(name)}

    def slow_down(self, machine: Machine, factor: float) -> None:
        """From now on its cores are so many times as fast; several factors multiply."""
        self._speeds.setdefault(machine.name, []).append(factor)
        self._set_speed(machine)

    def speed_up(self, machine: Machine, factor: float) -> None:
        """One slowing-down is over."""
        self._speeds[machine.name].remove(factor)
        self._set_speed(machine)

    def _set_speed(self, machine: Machine) -> None:
        if isinstance(self._plane, WindowedPlane) and machine.name in self._number_at_plane:
            self._plane.set_speed(self._number_at_plane[machine.name], math.prod(self._speeds[machine.name]))

    def add_neighbour(self, neighbour: Neighbour) -> list[int]:
        """Its threads want to run from now on; gives their groups at the data plane, for `remove_neighbour`."""
        if not isinstance(self._plane, WindowedPlane):
            raise SimulatorError("neighbours: this data plane shares no cores")
        limit = math.inf if neighbour.cpu_limit is None else neighbour.cpu_limit
        names = [neighbour.machine] if neighbour.machine is not None else list(self.machines)
        return [
            self._plane.add_neighbour(self._number_at_plane[name], neighbour.threads, neighbour.cpu_weight, limit)
            for name in names
            if name in self.machines
        ]

    def remove_neighbour(self, groups: list[int]) -> None:
        """The threads stop."""
        for group in groups:
            if isinstance(self._plane, WindowedPlane):
                self._plane.remove_neighbour(group)

    def take_up(self, piece: int) -> None:
        """Work that the data plane has done was a start-up's."""
        cores = self._working.pop(piece, None)
        if cores is not None:
            cores.take_up(piece)

    # -- instances

    def place(self, instance: Instance) -> Placement:
        """Give `instance` a machine, if there is room."""
        placement = self.placer.place(instance.number)
        if placement.machine is not None:
            self._log.write(
                "place",
                self._env.now,
                instance=instance.number,
                machine=placement.machine.name,
                reason=placement.reason,
            )
            self._count_promised(placement.machine)
        return placement

    def release(self, instance: Instance) -> None:
        """Its room is free again."""
        self.placer.release(instance.number)
        if instance.machine is not None:
            self._count_promised(instance.machine)
        waiting, self._waiting_for_release = self._waiting_for_release, []
        for event in waiting:
            event.succeed()

    def one_released(self) -> Event:
        """Triggers when some instance has given back its room."""
        self._waiting_for_release.append(self._env.event())
        return self._waiting_for_release[-1]

    def _check_that_one_fits(self) -> None:
        """Refuse an instance that is larger than any machine, and say which key to change."""
        spec = self._scenario.machines.spec
        empty = Machine(self._env, spec, "empty")
        placer = new_placer([empty], self._scenario, self._profile)
        placement = placer.place(0)
        if placement.machine is not None:
            return
        lack = placement.reason.rpartition("short of ")[2]
        needed = empty.memory.needed(
            self._profile,
            self._scenario.application.memory_bytes,
            instance=instance_memory(self._scenario, self._profile),
        )
        key, needs = {
            "memory": (
                "memory_bytes",
                f"{needed / MIB:.0f} MiB, and {spec.usable_bytes / MIB:.0f} MiB are for instances",
            ),
            "cores": ("cores", f"{self._scenario.placed_cores:g} cores"),
            "pids": ("pid_max", f"{self._profile.pids_per_instance} process identifiers"),
        }[lack]
        raise SimulatorError(
            f"scenario {self._scenario.name} on {self._profile.name}: not one instance fits on an empty machine: "
            f"it needs {needs}; raise `machines.spec.{key}` ({getattr(spec, key)}), or make the application smaller"
        )

    def room_on_an_empty_machine(self) -> int:
        """How many instances fit on a machine that has none."""
        empty = Machine(self._env, self._scenario.machines.spec, "empty")
        placer = new_placer([empty], self._scenario, self._profile)
        return placer.room_on(empty)

    def add_to_plane(self, instance: Instance, machine: Machine, weight: float) -> int:
        """The instance takes requests from now on; gives its slot."""
        application = self._scenario.application
        slot = self._plane.add(
            weight=weight,
            machine=self._number_at_plane.get(machine.name, 0),
            cpu_weight=application.cpu_weight,
            quota=math.inf if application.cpu_limit is None else application.cpu_limit,
        )
        self._slots_on.append(machine.name)
        return slot

    # -- what it consumes

    def _count_promised(self, changed: Machine | None = None, now: float | None = None) -> None:
        """Add up the memory that has been promised until now; what is promised on one machine may have changed."""
        now = max(self._env.now if now is None else now, self._promised_since)
        self._byte_seconds += self._promised * (now - self._promised_since)
        self._promised_since = now
        if changed is not None:
            used = changed.memory.used_bytes
            self._promised += used - self._promised_on.get(changed.name, 0.0)
            self._promised_on[changed.name] = used

    def _sample_power(self) -> Generator[Any, Any, None]:
        """Add up the energy of all machines, from the mean utilisation of each over a short while."""
        power, spec = self._scenario.machines.spec.power, self._scenario.machines.spec
        end = self._scenario.duration_seconds
        if power is None:
            raise SimulatorError("machines.spec.power is not given, so no power can be sampled")
        if self._scenario.counted_from_seconds:
            yield self._env.timeout(self._scenario.counted_from_seconds)
        before, now = self._busy_core_seconds(), self._env.now
        while now < end:
            yield self._env.timeout(min(POWER_SAMPLE_SECONDS, end - now))
            busy, elapsed = self._busy_core_seconds(), self._env.now - now
            for name, seconds in busy.items():
                came, went = self._lives[name]
                on = min(self._env.now, went) - max(now, came)
                if on > 0:
                    used = min((seconds - before.get(name, 0.0)) / (on * spec.cores), 1.0)
                    self._energy += watt_hours(power, (0.0, on), (max(used, 0.0),))
            before, now = busy, now + elapsed

    def _busy_core_seconds(self) -> dict[str, float]:
        """Core seconds used so far, by machine."""
        busy = {name: machine.cores.used_core_seconds() for name, machine in self.machines.items()}
        if not self._number_at_plane:
            for name, seconds in zip(self._slots_on, self._plane.busy_seconds().tolist(), strict=True):
                if name in busy:
                    busy[name] += seconds
        return busy

    def lives(self) -> tuple[tuple[float, float], ...]:
        """(from, until) of each machine."""
        return tuple(self._lives.values())

    def consumption(self, instance_lives: list[tuple[float, float]]) -> Consumption:
        """What has been used from the end of the warm-up until the end of the run."""
        begin, end = self._scenario.counted_from_seconds, self._scenario.duration_seconds
        self._count_promised(now=end)
        costs = self._scenario.costs
        return Consumption(
            machine_hours=hours(np.array(list(self._lives.values())), begin, end, settings=costs),
            instance_hours=hours(np.array(instance_lives), begin, end, settings=costs),
            gb_hours=self._byte_seconds / GIGABYTE / 3600,
            watt_hours=self._energy,
        )
