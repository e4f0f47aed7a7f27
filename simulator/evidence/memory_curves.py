"""The published curves of memory against the memory model: what was fitted, and how far off it is everywhere else.

| curve | what | fitted | predicted |
|---|---|---|---|
| 3 | memory of N guests or containers (LightVM, Fig 14) | N = 250 of each line | N = 500 and 995 |
| 5 | the isolation ladder's memory (Runtimes-data) | runc | gVisor, Kata |
| 5 | a sandbox around a program (gVisor-data) | what it adds where nothing runs | the same around node.js |

Nothing evaluates `shared + N * each` in the place of the model: a fit gives a platform, and so many instances of it are
admitted to a machine's memory account.

What to expect. The model says that the N-th instance needs what the first did. That holds for guests to within what
reading the figure leaves open. It does not hold for Docker, whose memory in the figure grows faster than the number of
its containers; LightVM §6.1 tells of large jumps in it, of which the model knows nothing. Nor does a sandbox cost the
same around every program: gVisor's is larger around node.js than around nothing.
"""

from collections.abc import Iterator, Sequence

from simulator.datacenter.guests import GuestMemory
from simulator.datacenter.machine import MIB
from simulator.datacenter.memory import InstanceMemory, MemoryAccount
from simulator.datacenter.platforms import Memory, PlatformProfile, Quantity
from simulator.errors import SimulatorError
from simulator.evidence.curves import LIGHTVM, CurvePoint, curve_point
from simulator.evidence.published import Figure, read_published

FITTED_INSTANCES = 250
"""At which N each line of curve 3 is fitted: the first, so that all others are beyond it."""

LADDER_INSTANCES = 50
"""How many ran side by side when the ladder was measured (Runtimes-data, n=50)."""

_UNLIMITED = 1e18
"""Bytes: a machine that is never full, where the question is how much, not whether."""


def validate_memory_curves() -> tuple[CurvePoint, ...]:
    """Every point of curve 3, and then of the memory of curve 5, with what the memory model gives for it.

    Raises:
        SimulatorError: the published figures cannot be read, or one that is needed is missing.
    """
    curves, memory = read_published("curves"), read_published("memory")
    return (*memory_of_many(curves), *ladder_memory(curves, memory), *sandbox_around_a_program(memory))


def memory_of_many(figures: Sequence[Figure]) -> Iterator[CurvePoint]:
    """Curve 3: fill LightVM's machine with so many, and look at its account."""
    lines: dict[str, dict[int, Figure]] = {}
    for figure in figures:
        if figure.quantity == "all instances":
            lines.setdefault(figure.platform, {})[int(figure.conditions["instances"])] = figure
    for platform, line in lines.items():
        if FITTED_INSTANCES not in line:
            raise SimulatorError(f"curves.csv: {platform} has no point at instances={FITTED_INSTANCES}, to be fitted")
        profile = _needing(platform, line[FITTED_INSTANCES].value / FITTED_INSTANCES)
        for instances, figure in line.items():
            model = _in_use(profile, instances, capacity_bytes=LIGHTVM.memory_bytes)
            yield curve_point(3, figure, model, fitted=instances == FITTED_INSTANCES)


def ladder_memory(curves: Sequence[Figure], memory: Sequence[Figure]) -> Iterator[CurvePoint]:
    """Curve 5, memory: what a container needs, and what a rung adds to it, which is taken from other measurements.

    gVisor's sandbox: an empty one less an empty container (gVisor-data). Kata: QEMU, its default, beyond the memory
    of the guest (Firecracker-data), and a minimal Linux guest (LightVM, Tinyx). So an error is also that of another
    machine, and of another guest than Kata's.
    """
    rungs = {figure.platform: figure for figure in curves if figure.quantity == "isolation ladder memory"}
    container = _the(rungs, "runc").value
    sandbox = _sandbox(memory)
    monitor = _figure(memory, "vmm overhead", "qemu").value
    tinyx = _figure(memory, "all instances", "tinyx-xen")
    guest = tinyx.value / int(tinyx.conditions["instances"])
    needs = {
        "runc": _needing("runc", container),
        "gvisor-systrap": _needing("gvisor", container + sandbox),
        "kata": _needing("kata", container + monitor + guest),
    }
    vm = InstanceMemory(guest=GuestMemory(vmm_mib=(container + monitor) / MIB))
    for platform, profile in needs.items():
        instance = vm if platform == "kata" else InstanceMemory()
        each = _in_use(profile, LADDER_INSTANCES, instance) / LADDER_INSTANCES
        yield curve_point(5, _the(rungs, platform), each, fitted=platform == "runc")


def sandbox_around_a_program(memory: Sequence[Figure]) -> Iterator[CurvePoint]:
    """What gVisor adds to a container, fitted where nothing runs in it, then around node.js."""
    added = _sandbox(memory)
    for program in ("none", "node"):
        container = _figure(memory, "sandbox", "runc", program=program).value
        model = _in_use(_needing("gvisor", added), 1, application_bytes=container)
        yield curve_point(5, _figure(memory, "sandbox", "runsc", program=program), model, fitted=program == "none")


def _sandbox(memory: Sequence[Figure]) -> float:
    """Bytes that gVisor adds to a container in which nothing runs (gVisor-data)."""
    empty, plain = (_figure(memory, "sandbox", platform, program="none").value for platform in ("runsc", "runc"))
    return empty - plain


def _in_use(
    profile: PlatformProfile,
    instances: int,
    instance: InstanceMemory | None = None,
    *,
    application_bytes: float = 0.0,
    capacity_bytes: float = _UNLIMITED,
) -> float:
    """Bytes in use on one machine after so many were admitted."""
    account = MemoryAccount(capacity_bytes, "the machine")
    for number in range(instances):
        account.admit(number, profile, application_bytes, instance=instance or InstanceMemory())
    return account.use()


def _needing(name: str, each_bytes: float) -> PlatformProfile:
    """A platform of which nothing is known but what each instance needs."""

    def quantity(value: float) -> Quantity:
        return Quantity(value=value, low=value, high=value, kind="published", source="see memory_curves")

    memory = Memory(private_bytes=quantity(each_bytes), shared_bytes=quantity(0.0), kernel_bytes=quantity(0.0))
    return PlatformProfile.from_toml("unikernel").model_copy(update={"name": name, "memory": memory})


def _figure(figures: Sequence[Figure], quantity: str, platform: str, **conditions: str) -> Figure:
    found = [
        figure
        for figure in figures
        if (figure.quantity, figure.platform) == (quantity, platform)
        and all(figure.conditions.get(name) == value for name, value in conditions.items())
    ]
    if len(found) != 1:
        asked = ", ".join([quantity, platform, *(f"{name}={value}" for name, value in conditions.items())])
        raise SimulatorError(f"memory.csv: {len(found)} rows for {asked}; exactly one is needed")
    return found[0]


def _the(rungs: dict[str, Figure], platform: str) -> Figure:
    if platform not in rungs:
        raise SimulatorError(f"curves.csv: no row `isolation ladder memory,{platform}`; add it again")
    return rungs[platform]
