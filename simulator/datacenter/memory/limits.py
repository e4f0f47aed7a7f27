"""Density: how many instances of one image one machine takes, and which limit ends it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simulator.datacenter.memory.footprint import weakest_kind
from simulator.datacenter.memory.merging import copies
from simulator.datacenter.memory.parts import PLAIN, InstanceMemory, Parts, parts_of
from simulator.datacenter.memory.settings import MIB, MemorySettings
from simulator.datacenter.platforms import Memory, PlatformProfile
from simulator.errors import SimulatorError

if TYPE_CHECKING:
    from simulator.datacenter.machine import MachineSpec

BRIDGE_PORT_NUMBERS = 1024
"""Of one Linux bridge (net/bridge/br_private.h, BR_PORT_BITS 10). Number 0 is reserved (br_if.c, find_portno), so that
1023 instances can have one; a machine's gateway is the bridge itself and needs none."""

_MORE_THAN_ANY_MACHINE = 1 << 40


@dataclass(frozen=True)
class Limit:
    """One thing that a machine has a finite number of, and how many instances it allows.

    Attributes:
        name: `memory`, `promised memory`, `bridge ports`, `pids`, `cpu reservation` or `pods per node`.
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
    settings: MemorySettings | None = None,
    instance: InstanceMemory = PLAIN,
) -> Density:
    """The largest number of instances of one image on one machine, and which limit ended it.

    Memory sets up to two limits. What is promised must stay within `overcommit` times what the machine has; and what
    is in use must stay within the machine, in the long run: all merged that can be, all given back that is not needed,
    and every working set grown up. Where the two are the same sum, there is one limit, `memory`.

    Args:
        profile: the platform.
        machine: what the machine has.
        application_bytes: private bytes of the application inside each instance.
        cpu_reservation: cores promised to each instance, or None where cores are shared without a promise.
        settings: merging, ballooning and overcommitment of the machine.
        instance: what else each instance asks of memory. One that grows for ever is counted as it begins: it fills
            any machine, and `MemoryAccount.seconds_until_full` says when.

    Raises:
        SimulatorError: a negative application size, a reservation that is not positive, or what an instance asks
            contradicts itself.
    """
    if application_bytes < 0 or (cpu_reservation is not None and cpu_reservation <= 0):
        raise SimulatorError(
            f"density: application_bytes ({application_bytes}) must be at least 0 and cpu_reservation "
            f"({cpu_reservation}) above 0"
        )
    settings = settings or MemorySettings()
    others = _limits_beside_memory(profile, machine, cpu_reservation)

    def limits_at(end: str) -> list[Limit]:
        there = profile.model_copy(update={"memory": _at_end(profile.memory, end)})
        asked = instance
        if instance.guest is not None:
            # What the parts of a guest add up to is another sum at that end.
            guest = instance.guest.for_private(there.memory.private_bytes.value, profile.memory.private_bytes.value)
            asked = replace(instance, guest=guest)
        memory = _memory_limits(there, machine, application_bytes, settings, asked)
        return sorted([*memory, *others], key=lambda limit: limit.instances)

    limits = limits_at("value")
    memory = profile.memory
    return Density(
        instances=limits[0].instances,
        low=limits_at("high")[0].instances,
        high=limits_at("low")[0].instances,
        limit=limits[0].name,
        limits=tuple(limits),
        kind=weakest_kind(memory.private_bytes, memory.shared_bytes, memory.kernel_bytes),
    )


def _at_end(memory: Memory, end: str) -> Memory:
    """The memory with each value at one end of its interval."""
    changes = {}
    for name in ("private_bytes", "shared_bytes", "kernel_bytes"):
        quantity = getattr(memory, name)
        value = getattr(quantity, end)
        changes[name] = quantity.model_copy(update={"value": value})
    return memory.model_copy(update=changes)


def _memory_limits(
    profile: PlatformProfile,
    machine: "MachineSpec",
    application_bytes: float,
    settings: MemorySettings,
    instance: InstanceMemory,
) -> list[Limit]:
    """The limits that memory sets, or none where instances need no memory of their own (a plain process, at best)."""
    parts = parts_of(profile, application_bytes, instance)
    shared = profile.memory.shared_bytes.value + (0.0 if instance.guest else instance.image_bytes)
    usable = float(machine.usable_bytes)
    each, saved, sharing = _in_the_long_run(parts, settings, instance)
    fits = _fits(usable, shared, each, saved, sharing)
    text = f"({usable / MIB:.0f} MiB - {shared / MIB:.2f} MiB shared) / {each / MIB:.2f} MiB each"
    if saved:
        text = f"{text}, less {saved / MIB:.2f} MiB merged with others: all but one of every {sharing} save that much"
    limits = [Limit("memory", fits, text)] if each > 0 else []
    ratio = settings.overcommit
    if parts.promised > 0 and (ratio, parts.promised, 0.0) != (1.0, each, saved):
        promised = Limit(
            "promised memory",
            _fits(ratio * usable, shared, parts.promised, 0.0, 1),
            f"({ratio:g} x {usable / MIB:.0f} MiB - {shared / MIB:.2f} MiB shared) / "
            f"{parts.promised / MIB:.2f} MiB promised to each",
        )
        limits.append(promised)
    return limits


def _in_the_long_run(parts: Parts, settings: MemorySettings, instance: InstanceMemory) -> tuple[float, float, int]:
    """Bytes that one instance holds in the end, what of them merging saves, and how many share one copy."""
    grown = instance.working_set.growth_bytes
    each = parts.total + (grown if grown < float("inf") else 0.0)
    if instance.guest is None:
        return each, 0.0, 1
    if parts.guest_ram is not None:
        each = min(each, parts.promised)
    inside = parts.guest
    if settings.balloon:
        given = max(min(parts.guest_cache, parts.guest - settings.balloon.minimum_mib * MIB), 0.0)
        each, inside = each - given, inside - given
    if not settings.ksm:
        return each, 0.0, 1
    return each, settings.ksm.mergeable_fraction * inside, settings.ksm.max_page_sharing


def _fits(usable: float, shared: float, each: float, saved: float, sharing: int) -> int:
    """The largest N with `shared + N * each - (N - copies) * saved <= usable`."""

    def needs(instances: int) -> float:
        return shared + instances * each - (instances - copies(instances, sharing)) * saved

    if each <= 0 or needs(1) > usable:
        return 0
    if not saved:
        return int((usable - shared) // each)
    fits, too_many = 1, 2
    while too_many < _MORE_THAN_ANY_MACHINE and needs(too_many) <= usable:
        fits, too_many = too_many, 2 * too_many
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if needs(middle) <= usable else (fits, middle)
    return fits


def _limits_beside_memory(
    profile: PlatformProfile, machine: "MachineSpec", cpu_reservation: float | None
) -> list[Limit]:
    pids = max(machine.pid_max - machine.reserved_pids, 0)
    limits = [
        Limit(
            "pids",
            pids // profile.pids_per_instance,
            f"({machine.pid_max} process identifiers - {machine.reserved_pids} of the host) / "
            f"{profile.pids_per_instance} per instance",
        )
    ]
    if profile.bridge_ports is not None:
        ports = f"{profile.bridge_ports} ports on one Linux bridge"
        if profile.bridge_ports == BRIDGE_PORT_NUMBERS - 1:
            ports += f": {BRIDGE_PORT_NUMBERS} numbers, of which 0 is reserved"
        limits.append(Limit("bridge ports", profile.bridge_ports, ports))
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
