"""Which machine gets an instance, and why that one. And if none has room, why not.

All instances are of one size, so what a machine lacks, and how good a choice it is, changes only when one comes to it
or goes from it. That is kept beside each machine, and the best stands at the top of a heap: placing one of n takes
O(log n), not a look at all of them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from simulator.datacenter.machine import Machine
from simulator.datacenter.memory import PLAIN, InstanceMemory, parts_of
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError

_ROUNDING = 1e-9
"""Cores; keeps 0.1 + 0.2 from costing an instance."""


class Candidate(NamedTuple):
    """A machine with room, and what is not reserved there."""

    machine: Machine
    free_cores: float
    free_bytes: float


@dataclass(frozen=True)
class Policy:
    """How to choose among machines that have room.

    Attributes:
        key: of a candidate: the smallest is chosen, the first machine among equals.
        by_zone: whether the zone with the fewest instances comes first, and then the key.
    """

    key: Callable[[Candidate], tuple[float, ...]]
    by_zone: bool = False


def first_fit(_: Candidate) -> tuple[float, ...]:
    """The first with room: fills one machine after the other, so that the others can be switched off."""
    return ()


def best_fit(candidate: Candidate) -> tuple[float, ...]:
    """The one with the fewest free cores, then the least free memory: leaves the largest gaps elsewhere."""
    return candidate.free_cores, candidate.free_bytes


def worst_fit(candidate: Candidate) -> tuple[float, ...]:
    """The one with the most free cores, then the most free memory: start-ups and failures are spread."""
    return -candidate.free_cores, -candidate.free_bytes


POLICIES: Mapping[str, Policy] = {
    "first-fit": Policy(first_fit),
    "best-fit": Policy(best_fit),
    "worst-fit": Policy(worst_fit),
    "spread": Policy(worst_fit),
    "zone-spread": Policy(worst_fit, by_zone=True),
}
"""Every policy by its name in a scenario. `spread` is another name of `worst-fit`.

`zone-spread` is what a topology spread constraint of Kubernetes over zones does that must not leave an instance without
a place (`whenUnsatisfiable: ScheduleAnyway`): where the emptiest zone has no room, the next has its turn.
"""


class Placement(NamedTuple):
    """Where an instance goes, or None, and why."""

    machine: Machine | None
    reason: str


@dataclass(eq=False)
class _Place:
    """A machine, as the placer sees it.

    Attributes:
        machine: which.
        order: its turn among equals.
        instances: those that are on it, in the order in which they came; a set that keeps it.
        closed: why nothing may come here, or nothing.
        lack: what it has not enough of for one more, or nothing.
        version: counts its changes. An older entry in a heap is out of date.
    """

    machine: Machine
    order: int
    instances: dict[int, None] = field(default_factory=dict)
    closed: str = ""
    lack: str = ""
    version: int = 0

    @property
    def obstacle(self) -> str:
        """Why nothing can be placed here, in a few words, or nothing."""
        return self.closed or (f"short of {self.lack}" if self.lack else "")


_Entry = tuple[tuple[float, ...], int, int, _Place]


class Placer:
    """Places instances of one application on machines and keeps account of what is reserved.

    What something else takes from a machine's memory is seen after `refresh`.

    Args:
        machines: all of them, in order.
        profile: of the platform; its memory and its limits count.
        policy: a key of `POLICIES`.
        cpu_cores: reserved for each instance.
        application_bytes: private memory of the application in each instance.
        instance: what else each instance asks of memory.

    Raises:
        SimulatorError: an unknown policy, or two machines of one name.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        profile: PlatformProfile,
        *,
        policy: str,
        cpu_cores: float,
        application_bytes: float,
        instance: InstanceMemory = PLAIN,
    ) -> None:
        if policy not in POLICIES:
            raise SimulatorError(f"placement `{policy}`: unknown; there are {', '.join(POLICIES)}")
        self._profile = profile
        self._policy_name = policy
        self._policy = POLICIES[policy]
        self._cpu_cores = cpu_cores
        self._application_bytes = application_bytes
        self._instance = instance
        self._places: dict[str, _Place] = {}
        self._here: dict[int, _Place] = {}
        self._heaps: dict[str, list[_Entry]] = {}
        self._in_zone: Counter[str] = Counter()
        self._obstacles: Counter[str] = Counter()
        self._added = 0
        for machine in machines:
            self.add_machine(machine)

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All machines, in order."""
        return tuple(place.machine for place in self._places.values())

    def add_machine(self, machine: Machine) -> None:
        """From now on instances may go to `machine`, as the last in order.

        Raises:
            SimulatorError: one of that name is here already.
        """
        if machine.name in self._places:
            raise SimulatorError(f"{machine.name}: there is a machine of that name already")
        place = _Place(machine, self._added)
        self._added += 1
        self._places[machine.name] = place
        self._in_zone[machine.zone] += 0
        self._obstacles[place.obstacle] += 1
        self._changed(place)

    def remove_machine(self, machine: Machine) -> tuple[int, ...]:
        """The machine is gone, and what its instances had reserved with it.

        Returns:
            The numbers of the instances that were on it, in the order in which they came. They have no place any more.

        Raises:
            SimulatorError: it is not one of these machines.
        """
        place = self._place_of(machine)
        gone = tuple(place.instances)
        for instance in gone:
            self.release(instance)
        del self._places[machine.name]
        self._obstacles[place.obstacle] -= 1
        place.version += 1
        if all(other.machine.zone != machine.zone for other in self._places.values()):
            del self._in_zone[machine.zone]
        return gone

    def cordon(self, machine: Machine, why: str = "cordoned") -> None:
        """Nothing more is placed on `machine`; what is there stays.

        Args:
            machine: which.
            why: in a word or two, for reasons: `cordoned`, `failed`, `slow`, …

        Raises:
            SimulatorError: it is not one of these machines, or no reason is given.
        """
        if not why:
            raise SimulatorError(f"{machine.name}: say why nothing may be placed on it")
        self._close(machine, why)

    def uncordon(self, machine: Machine) -> None:
        """Instances may go to `machine` again."""
        self._close(machine, "")

    def refresh(self, machine: Machine) -> None:
        """Look again at what `machine` has free, because something else has changed it."""
        self._changed(self._place_of(machine))

    def instances_on(self, machine: Machine) -> tuple[int, ...]:
        """The numbers of the instances on `machine`, in the order in which they came."""
        return tuple(self._place_of(machine).instances)

    def room_on(self, machine: Machine) -> int:
        """How many more instances fit on `machine`, as it is now, whether or not it is cordoned."""
        place = self._place_of(machine)
        count = len(place.instances)
        if self._lack(machine, count):
            return 0
        limits: list[float] = [self._pids(machine) // self._profile.pids_per_instance - count]
        if self._cpu_cores:
            limits.append((self._free_cores(machine, count) + _ROUNDING) / self._cpu_cores)
        limits += [
            most - count for most in (self._profile.bridge_ports, machine.spec.pods_per_node) if most is not None
        ]
        each = parts_of(self._profile, self._application_bytes, self._instance).promised
        if each > 0:
            first = machine.memory.needed(self._profile, self._application_bytes, instance=self._instance)
            # The first brings what all share; those after it need only their own.
            limits.append((machine.memory.free_bytes - (first - each)) / each + _ROUNDING)
        return max(int(min(limits)), 0)

    def reserved_on(self, machine: Machine) -> float:
        """The reserved part of the cores of `machine`, or of its memory, whichever is more; 0 to 1."""
        place = self._place_of(machine)
        memory = machine.memory
        can_be_promised = memory.used_bytes + memory.free_bytes
        return max(
            len(place.instances) * self._cpu_cores / machine.spec.cores,
            memory.used_bytes / can_be_promised if can_be_promised > 0 else 0.0,
        )

    def place(self, instance: int) -> Placement:
        """Reserve room for `instance` (its number) on the machine that the policy chooses.

        Returns:
            The machine and why it, or None and what each machine lacks.

        Raises:
            SimulatorError: the instance has a place already.
        """
        if instance in self._here:
            raise SimulatorError(f"instance {instance} is already on {self._here[instance].machine.name}")
        place, zone_reason = self._best()
        if place is None:
            return Placement(None, self._why_none())
        machine = place.machine
        free, with_room = self._free_cores(machine, len(place.instances)), self._obstacles[""]
        machine.memory.admit(
            instance, self._profile, self._application_bytes, instance=self._instance, now=machine.env.now
        )
        place.instances[instance] = None
        self._here[instance] = place
        self._in_zone[machine.zone] += 1
        self._changed(place)
        return Placement(
            machine, f"{self._policy_name}: {zone_reason}{free:g} free cores, {with_room} machines had room"
        )

    def release(self, instance: int) -> None:
        """Give back what `instance` had reserved.

        Raises:
            SimulatorError: it has no place.
        """
        if instance not in self._here:
            raise SimulatorError(f"instance {instance} has no place to give back")
        place = self._here.pop(instance)
        del place.instances[instance]
        machine = place.machine
        self._in_zone[machine.zone] -= 1
        machine.memory.release(instance, now=machine.env.now)
        self._changed(place)

    def _best(self) -> tuple[_Place | None, str]:
        """The place that the policy chooses, or None; and half a sentence about its zone."""
        if not self._policy.by_zone:
            return self._top(""), ""
        # Zones are few; machines are many.
        for zone in sorted(self._in_zone, key=lambda zone: (self._in_zone[zone], zone)):
            place = self._top(zone)
            if place is not None:
                return place, f"{zone} has {self._in_zone[zone]} instances, the fewest with room; "
        return None, ""

    def _top(self, zone: str) -> _Place | None:
        heap = self._heaps.get(zone, [])
        while heap and heap[0][2] != heap[0][3].version:
            heappop(heap)
        return heap[0][3] if heap else None

    def _changed(self, place: _Place) -> None:
        """Note what the machine lacks now, and where it stands among those that have room."""
        before = place.obstacle
        place.lack = self._lack(place.machine, len(place.instances))
        self._obstacles[before] -= 1
        self._obstacles[place.obstacle] += 1
        place.version += 1
        if place.obstacle:
            return
        machine = place.machine
        candidate = Candidate(machine, self._free_cores(machine, len(place.instances)), machine.memory.free_bytes)
        heap = self._heaps.setdefault(machine.zone if self._policy.by_zone else "", [])
        heappush(heap, (self._policy.key(candidate), place.order, place.version, place))
        if len(heap) > 64 + 4 * len(self._places):
            # Entries that are out of date and never came to the top.
            heap[:] = [entry for entry in heap if entry[2] == entry[3].version]
            heapify(heap)

    def _close(self, machine: Machine, why: str) -> None:
        place = self._place_of(machine)
        self._obstacles[place.obstacle] -= 1
        place.closed = why
        self._obstacles[place.obstacle] += 1
        self._changed(place)

    def _place_of(self, machine: Machine) -> _Place:
        place = self._places.get(machine.name)
        if place is None or place.machine is not machine:
            raise SimulatorError(f"{machine.name}: not one of the machines on which instances are placed")
        return place

    def _why_none(self) -> str:
        if not self._places:
            return "there is no machine"
        found = sorted((obstacle, number) for obstacle, number in self._obstacles.items() if obstacle and number)
        listed = ", ".join(f"{number} {obstacle}" for obstacle, number in found)
        return f"none of {len(self._places)} machines has room: {listed}"

    def _free_cores(self, machine: Machine, instances: int) -> float:
        return machine.spec.cores - instances * self._cpu_cores

    @staticmethod
    def _pids(machine: Machine) -> int:
        return machine.spec.pid_max - machine.spec.reserved_pids

    def _lack(self, machine: Machine, instances: int) -> str:
        """What the machine lacks for one more instance beside `instances` others, or nothing."""
        spec, profile = machine.spec, self._profile
        if self._free_cores(machine, instances) + _ROUNDING < self._cpu_cores:
            return "cores"
        if not machine.memory.fits(profile, self._application_bytes, instance=self._instance):
            return "memory"
        if (instances + 1) * profile.pids_per_instance > self._pids(machine):
            return "pids"
        if profile.bridge_ports is not None and instances >= profile.bridge_ports:
            return "bridge ports"
        if spec.pods_per_node is not None and instances >= spec.pods_per_node:
            return "pods per node"
        return ""
