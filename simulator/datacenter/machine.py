"""One machine: its cores, memory, disk, network link and kernel locks, and the limits that end before any of them."""

from collections.abc import Generator
from typing import Annotated, Any

from pydantic import Field
from simpy import Environment, Resource

from simulator.datacenter.cores import Cores, SharedCores
from simulator.datacenter.disk import Disk
from simulator.datacenter.energy import PowerModel
from simulator.datacenter.layer_store import LayerStore
from simulator.datacenter.links import Links
from simulator.datacenter.memory import MemoryAccount, MemorySettings
from simulator.datacenter.time_slices import TimeSlicedCores
from simulator.datacenter.warmth import PageCache
from simulator.records import NonNegative, Positive, StrictModel

GIB = 2**30
MIB = 2**20


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
        disk_mib_per_second: of long sequential reads and writes. Default: the SSD of Felter, 807 MB/s.
        disk_operation_seconds: of the disk's time for each operation, beside that for its bytes. Default: what 84,044
            random reads of 4 KiB per second leave for each (Felter, native), less the time for the bytes.
        link_mib_per_second: of its network link. Default: what a 10 Gb/s link carries, 9.35 Gb/s (Felter, bulk TCP).
        image_cache_mib: room on its disk for unpacked image layers, or None for no limit.
        parallel_downloads: of image layers, for all pulls together; Docker's default is 3
            (dockerd, --max-concurrent-downloads).
        zone: where it stands; a zone is lost as a whole.
        memory: how its memory is run: overcommitment, merging, balloons.
        power: what it draws; None: energy is not asked.
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
    disk_mib_per_second: Positive = 807e6 / MIB
    disk_operation_seconds: NonNegative = 1 / 84044 - 4096 / 807e6
    link_mib_per_second: Positive = 9.35e9 / 8 / MIB
    image_cache_mib: Positive | None = None
    parallel_downloads: Annotated[int, Field(ge=1, le=1000)] = 3
    zone: str = "zone-1"
    memory: MemorySettings = MemorySettings()
    power: PowerModel | None = None

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
        network: to which its link belongs; machines that pull from the same registry share one. Default: its own.
        zone: where it stands, if not where `spec` says.
        cores: what its work runs on. Default: cores of its own, as `spec` describes them.

    Attributes:
        cores: all work shares them, see `compute`.
        memory: which instances hold how much.
        disk: start-ups share it.
        network: see above.
        link: its end of the network, in MiB per second.
        page_cache: what of the disk is in memory.
        images: the layers on its disk.
        zone: where it stands.
    """

    def __init__(
        self,
        env: Environment,
        spec: MachineSpec,
        name: str,
        *,
        network: Links | None = None,
        zone: str | None = None,
        cores: Cores | None = None,
    ) -> None:
        self.env = env
        self.spec = spec
        self.name = name
        self.zone = spec.zone if zone is None else zone
        self.network = Links(env) if network is None else network
        self.link = self.network.link(name, spec.link_mib_per_second)
        self.disk = Disk(env, spec.disk_mib_per_second, spec.disk_operation_seconds, f"{name}'s disk")
        self.page_cache = PageCache(env, self.disk)
        self.images = LayerStore(env, self, spec.image_cache_mib, spec.parallel_downloads)
        self.cores: Cores
        if cores is not None:
            self.cores = cores
        elif spec.time_slice_seconds:
            self.cores = TimeSlicedCores(env, spec.cores, spec.time_slice_seconds, spec.speed_when_busy)
        else:
            self.cores = SharedCores(env, spec.cores, spec.speed_when_busy)
        self.memory = MemoryAccount(spec.usable_bytes, name, settings=spec.memory)
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
