"""Memory: what N instances of one image need together, what one more needs, and how many fit on a machine.

Containers of one image map the same files, so the page cache holds their programs once; each adds its private pages
and the kernel objects made for it (namespaces, control group, mounts). A VM's guest kernel, guest page cache and
device model are private to it: the host cannot see that two guests hold the same pages.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.datacenter.platforms import Memory, PlatformProfile, Quantity
from simulator.errors import SimulatorError

if TYPE_CHECKING:
    from simulator.datacenter.machine import MachineSpec


def footprint(memory: Memory, instances: int, application_bytes: float = 0.0) -> float:
    """Bytes that `instances` instances of one image need on one machine: `shared + N * (private + kernel)`.

    Args:
        memory: of the platform.
        instances: N, 0 or more. Nothing is shared while nothing runs.
        application_bytes: private bytes of the application inside each instance.
    """
    if instances <= 0:
        return 0.0
    return memory.shared_bytes.value + instances * marginal(memory, application_bytes)


def marginal(memory: Memory, application_bytes: float = 0.0) -> float:
    """Bytes that one more instance of an image that already runs needs: `private + kernel`."""
    return memory.private_bytes.value + memory.kernel_bytes.value + application_bytes


def proportional_set_size(memory: Memory, instances: int) -> float:
    """PSS in bytes of one among `instances` instances of one image: private pages and an equal part of the shared.

    That is what /proc/PID/smaps_rollup says; pages of the kernel itself are not in it.
    """
    return memory.private_bytes.value + memory.shared_bytes.value / max(instances, 1)


@dataclass(frozen=True)
class Limit:
    """One thing that a machine has a finite number of, and how many instances it allows.

    Attributes:
        name: `memory`, `bridge ports`, `pids`, `cpu reservation` or `pods per node`.
        instances: how many instances fit if this were the only limit.
        reason: the arithmetic, for a person.
    """

    name: str
    instances: int
    reason: str


@dataclass(frozen=True)
class Density:
    """How many instances of one image one machine takes.

    Attributes:
        instances: the largest number that no limit forbids.
        low: the same if each instance needed as much memory as the upper ends of the platform's intervals say.
        high: the same at the lower ends.
        limit: name of the limit that bound.
        limits: all that were looked at, the tightest first.
        kind: `published` if any figure of the memory is, else the platform's kind.
    """

    instances: int
    low: int
    high: int
    limit: str
    limits: tuple[Limit, ...]
    kind: str


def density(
    profile: PlatformProfile,
    machine: "MachineSpec",
    *,
    application_bytes: float = 0.0,
    cpu_reservation: float | None = None,
) -> Density:
    """The largest number of instances of one image on one machine, and which limit ended it.

    Args:
        profile: the platform.
        machine: what the machine has.
        application_bytes: private bytes of the application inside each instance.
        cpu_reservation: cores promised to each instance, or None where cores are shared without a promise.

    Raises:
        SimulatorError: a negative application size, or a reservation that is not positive.
    """
    if application_bytes < 0 or (cpu_reservation is not None and cpu_reservation <= 0):
        raise SimulatorError(
            f"density: application_bytes ({application_bytes}) must be at least 0 and cpu_reservation "
            f"({cpu_reservation}) above 0"
        )
    others = _limits_beside_memory(profile, machine, cpu_reservation)
    memory = profile.memory

    def limits_at(end: str) -> list[Limit]:
        private, shared, kernel = (
            float(getattr(quantity, end))
            for quantity in (memory.private_bytes, memory.shared_bytes, memory.kernel_bytes)
        )
        every = [*_memory_limit(machine, private + kernel + application_bytes, shared), *others]
        return sorted(every, key=lambda limit: limit.instances)

    limits = limits_at("value")
    return Density(
        instances=limits[0].instances,
        low=limits_at("high")[0].instances,
        high=limits_at("low")[0].instances,
        limit=limits[0].name,
        limits=tuple(limits),
        kind=weakest_kind(memory.private_bytes, memory.shared_bytes, memory.kernel_bytes),
    )


def weakest_kind(*quantities: Quantity) -> str:
    """What a figure computed from `quantities` may call itself: measured only if every part was measured."""
    kinds = {quantity.kind for quantity in quantities if quantity.value or quantity.high}
    return next((kind for kind in ("published", "simulated") if kind in kinds), "measured")


def _memory_limit(machine: "MachineSpec", each: float, shared: float) -> list[Limit]:
    """The limit that memory sets, or none where instances need no memory of their own (a plain process, at best)."""
    if each <= 0:
        return []
    fits = max(int((machine.usable_bytes - shared) // each), 0)
    usable, mib = machine.usable_bytes / 2**20, 2**20
    return [Limit("memory", fits, f"({usable:.0f} MiB - {shared / mib:.2f} MiB shared) / {each / mib:.2f} MiB each")]


def _limits_beside_memory(
    profile: PlatformProfile, machine: "MachineSpec", cpu_reservation: float | None
) -> list[Limit]:
    pids = max(machine.pid_max - machine.reserved_pids, 0)
    limits = [
        Limit(
            "pids",
            pids // profile.pids_per_instance,
            f"{pids} process identifiers / {profile.pids_per_instance} per instance",
        )
    ]
    if profile.bridge_ports is not None:
        limits.append(Limit("bridge ports", profile.bridge_ports, f"{profile.bridge_ports} ports on one Linux bridge"))
    if cpu_reservation is not None:
        # The small addition keeps 0.1 + 0.2 from costing an instance.
        limits.append(
            Limit(
                "cpu reservation",
                int(machine.cores / cpu_reservation + 1e-9),
                f"{machine.cores} cores / {cpu_reservation:g} reserved each",
            )
        )
    if machine.pods_per_node is not None:
        limits.append(Limit("pods per node", machine.pods_per_node, f"{machine.pods_per_node} allowed on one node"))
    return limits


class MemoryAccount:
    """Who holds how much of one machine's memory: admits an instance only if it fits.

    Args:
        capacity_bytes: what instances can have.
        machine: the machine's name, for messages.
    """

    def __init__(self, capacity_bytes: float, machine: str = "machine") -> None:
        self.capacity_bytes = capacity_bytes
        self._machine = machine
        self._held: dict[object, tuple[PlatformProfile, float]] = {}
        self._sharing: dict[str, int] = {}
        self._used = 0.0

    @property
    def used_bytes(self) -> float:
        """Bytes held by the instances admitted and not yet released."""
        return self._used

    @property
    def free_bytes(self) -> float:
        """Bytes that nobody holds."""
        return self.capacity_bytes - self._used

    def needed(self, profile: PlatformProfile, application_bytes: float = 0.0) -> float:
        """Bytes that one more instance would add here: less where others of its platform already share with it."""
        shared = 0.0 if self._sharing.get(profile.name) else profile.memory.shared_bytes.value
        return shared + marginal(profile.memory, application_bytes)

    def fits(self, profile: PlatformProfile, application_bytes: float = 0.0) -> bool:
        """Whether one more instance can be admitted."""
        return self.needed(profile, application_bytes) <= self.free_bytes

    def admit(self, instance: object, profile: PlatformProfile, application_bytes: float = 0.0) -> None:
        """Give `instance` (any hashable name of it) its memory.

        Raises:
            SimulatorError: it does not fit, or it is here already.
        """
        if instance in self._held:
            raise SimulatorError(f"{self._machine}: instance {instance} is admitted already; release it first")
        need = self.needed(profile, application_bytes)
        if need > self.free_bytes:
            raise SimulatorError(
                f"{self._machine}: instance {instance} needs {need:.0f} bytes, {self.free_bytes:.0f} are free; "
                "place it on another machine"
            )
        self._held[instance] = (profile, marginal(profile.memory, application_bytes))
        self._sharing[profile.name] = self._sharing.get(profile.name, 0) + 1
        self._used += need

    def release(self, instance: object) -> None:
        """Take back the memory of `instance`, and what it shared if it was the last of its platform.

        Raises:
            SimulatorError: it is not here.
        """
        if instance not in self._held:
            raise SimulatorError(f"{self._machine}: instance {instance} holds no memory here")
        profile, held = self._held.pop(instance)
        self._sharing[profile.name] -= 1
        if not self._sharing[profile.name]:
            held += profile.memory.shared_bytes.value
        # An empty machine uses nothing, whatever the rounding of many additions left behind.
        self._used = self._used - held if self._held else 0.0
