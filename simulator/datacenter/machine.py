"""One machine: its cores, its memory, its kernel locks, and the limits that end before either."""

from collections.abc import Generator
from typing import Any

from pydantic import Field
from simpy import Environment, Resource

from simulator.datacenter.cores import SharedCores
from simulator.datacenter.memory import MemoryAccount
from simulator.datacenter.time_slices import TimeSlicedCores
from simulator.records import NonNegative, Positive, StrictModel

GIB = 2**30


class MachineSpec(StrictModel):
    """What one machine has, as data.

    Attributes:
        name: what kind of machine it is.
        cores: hardware threads that can run at the same time.
        memory_bytes: main memory.
        reserved_bytes: memory kept for the host's own kernel and daemons.
        pid_max: process and thread identifiers; the kernel's default is max(32768, 1024 per CPU)
            (kernel/pid.c, pid_idr_init), and systemd raises it to 4194304.
        reserved_pids: identifiers that the host itself uses.
        pods_per_node: how many instances an orchestrator puts on one machine, or None for no such limit
            (Kubernetes supports 110).
        speed_when_busy: for a kind of work (`compute`, `fork`), the speed of a core when 1, 2, … jobs want to run,
            relative to when only one does. Measured apart from any instance (machine.csv); without it, 1.
        time_slice_seconds: how long a core works on one job before it turns to the next; on Linux a timer tick. 0
            stands for ideal processor sharing: quicker to simulate, and right for work much longer than a slice.
    """

    name: str = "machine"
    cores: int = Field(default=16, ge=1, le=4096)
    memory_bytes: int = Field(default=64 * GIB, gt=0)
    reserved_bytes: int = Field(default=1 * GIB, ge=0)
    pid_max: int = Field(default=4194304, ge=301, le=4194304)
    reserved_pids: int = Field(default=300, ge=0)
    pods_per_node: int | None = Field(default=None, gt=0)
    speed_when_busy: dict[str, tuple[Positive, ...]] = Field(default_factory=dict)
    time_slice_seconds: NonNegative = 0.0

    @property
    def usable_bytes(self) -> int:
        """Memory that instances can have."""
        return max(self.memory_bytes - self.reserved_bytes, 0)


class Machine:
    """A machine in the simulation.

    Args:
        env: the SimPy environment; time is in seconds.
        spec: what the machine has.
        name: which machine it is, for records and messages.

    Attributes:
        cores: all work shares them, see `compute`.
        memory: which instances hold how much.
    """

    def __init__(self, env: Environment, spec: MachineSpec, name: str) -> None:
        self.env = env
        self.spec = spec
        self.name = name
        self.cores: SharedCores | TimeSlicedCores
        if spec.time_slice_seconds:
            self.cores = TimeSlicedCores(env, spec.cores, spec.time_slice_seconds, spec.speed_when_busy)
        else:
            self.cores = SharedCores(env, spec.cores, spec.speed_when_busy)
        self.memory = MemoryAccount(spec.usable_bytes, name)
        self._locks: dict[str, Resource] = {}

    def compute(self, cpu_seconds: float, work: str = "compute") -> Generator[Any, Any, float]:
        """Use one core for `cpu_seconds` (`yield from` it in a process); the value is the seconds that it took.

        When the waiting process is interrupted, the work is taken off the cores.
        """
        job = self.cores.submit(cpu_seconds, work)
        try:
            seconds: float = yield job
        finally:
            self.cores.cancel(job)
        return seconds

    def lock(self, name: str) -> Resource:
        """The machine's kernel lock `name` (`rtnl`, `mount`, …): one holder at a time, first come, first served."""
        if name not in self._locks:
            self._locks[name] = Resource(self.env, capacity=1)
        return self._locks[name]
