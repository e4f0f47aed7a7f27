"""Which machine gets an instance: the first with room, or the one with the most room. And if none has, why not."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from simulator.datacenter.machine import Machine
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError

_ROUNDING = 1e-9
"""Cores; keeps 0.1 + 0.2 from costing an instance."""


class Candidate(NamedTuple):
    """A machine with room, and how many cores are not reserved there."""

    machine: Machine
    free_cores: float


Policy = Callable[[Sequence[Candidate]], Candidate]
"""Chooses among the machines that have room, given in their order; never called with none."""


def first_fit(candidates: Sequence[Candidate]) -> Candidate:
    """The first with room: fills one machine after the other, so that the others can be switched off."""
    return candidates[0]


def spread(candidates: Sequence[Candidate]) -> Candidate:
    """The one with the most free cores, the first among equals: start-ups and failures are spread."""
    return max(candidates, key=lambda candidate: candidate.free_cores)


POLICIES: dict[str, Policy] = {"first-fit": first_fit, "spread": spread}


class Placement(NamedTuple):
    """Where an instance goes, or None, and why."""

    machine: Machine | None
    reason: str


class Placer:
    """Places instances of one application on machines and keeps account of what is reserved.

    Args:
        machines: all of them, in order.
        profile: of the platform; its memory and its limits count.
        policy: a key of `POLICIES`.
        cpu_cores: reserved for each instance.
        application_bytes: private memory of the application in each instance.

    Raises:
        SimulatorError: an unknown policy.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        profile: PlatformProfile,
        *,
        policy: str,
        cpu_cores: float,
        application_bytes: float,
    ) -> None:
        if policy not in POLICIES:
            raise SimulatorError(f"placement `{policy}`: unknown; there are {', '.join(POLICIES)}")
        self._machines = tuple(machines)
        self._profile = profile
        self._policy_name = policy
        self._cpu_cores = cpu_cores
        self._application_bytes = application_bytes
        self._here: dict[int, Machine] = {}

    def place(self, instance: int) -> Placement:
        """Reserve room for `instance` (its number) on the machine that the policy chooses.

        Returns:
            The machine and why it, or None and what each machine lacks.

        Raises:
            SimulatorError: the instance has a place already.
        """
        if instance in self._here:
            raise SimulatorError(f"instance {instance} is already on {self._here[instance].name}")
        count = Counter(id(machine) for machine in self._here.values())
        candidates: list[Candidate] = []
        lacking: list[str] = []
        for machine in self._machines:
            lack = self._lack(machine, count[id(machine)])
            if lack:
                lacking.append(lack)
            else:
                candidates.append(Candidate(machine, self._free_cores(machine, count[id(machine)])))
        if not candidates:
            lacks = ", ".join(f"{number} short of {lack}" for lack, number in sorted(Counter(lacking).items()))
            return Placement(None, f"none of {len(self._machines)} machines has room: {lacks}")
        machine, free = POLICIES[self._policy_name](candidates)
        machine.memory.admit(instance, self._profile, self._application_bytes)
        self._here[instance] = machine
        return Placement(machine, f"{self._policy_name}: {free:g} free cores, {len(candidates)} machines had room")

    def release(self, instance: int) -> None:
        """Give back what `instance` had reserved.

        Raises:
            SimulatorError: it has no place.
        """
        if instance not in self._here:
            raise SimulatorError(f"instance {instance} has no place to give back")
        self._here.pop(instance).memory.release(instance)

    def _free_cores(self, machine: Machine, instances: int) -> float:
        return machine.spec.cores - instances * self._cpu_cores

    def _lack(self, machine: Machine, instances: int) -> str:
        """What the machine lacks for one more instance beside `instances` others, or nothing."""
        spec, profile = machine.spec, self._profile
        if self._free_cores(machine, instances) + _ROUNDING < self._cpu_cores:
            return "cores"
        if not machine.memory.fits(profile, self._application_bytes):
            return "memory"
        if (instances + 1) * profile.pids_per_instance > spec.pid_max - spec.reserved_pids:
            return "pids"
        if profile.bridge_ports is not None and instances >= profile.bridge_ports:
            return "bridge ports"
        if spec.pods_per_node is not None and instances >= spec.pods_per_node:
            return "pods per node"
        return ""
