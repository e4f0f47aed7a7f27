"""What a container may be given: limits, mounts, devices, and resource limits of its processes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from real_engine.errors import EngineError, InvalidParameter

UNLIMITED = -1

_LEAST_MEMORY_BYTES = 6 * 1024 * 1024  # as Docker's: less doesn't hold a process and its page tables for long
_KINDS = ("bind", "tmpfs", "mqueue")
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
# Source: include/uapi/asm-generic/resource.h.
ULIMITS = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """A number for one block device: bytes or operations a second, or a weight from 10 to 1000."""

    path: str
    value: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use at most; None is without limit, or the kernel's own default.

    `memory_bytes` counts page cache. `memory_swap_bytes` is memory and swap together, `UNLIMITED` (-1) any amount; None
    means twice the memory, as Docker has it. `cpus` is a quota in each period of 100 ms, and the other way to say so is
    `cpu_quota_microseconds` in each `cpu_period_microseconds`. `cpu_shares` (1024 is usual) count only when CPUs are
    short. The numbers of real time are of the time that SCHED_FIFO and SCHED_RR may take. `cpuset_cpus` and
    `cpuset_mems` are lists such as `0-2,4`. Block I/O: `blkio_weight` is from 10 to 1000.

    Raises:
        EngineError: less memory than 6 MiB, no CPU, no process, or numbers that contradict each other.
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_quota_microseconds: int | None = None
    cpu_period_microseconds: int | None = None
    cpu_realtime_period_microseconds: int | None = None
    cpu_realtime_runtime_microseconds: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int | None = None
    blkio_weight_devices: tuple[DeviceRate, ...] = ()
    read_bytes_per_second: tuple[DeviceRate, ...] = ()
    write_bytes_per_second: tuple[DeviceRate, ...] = ()
    read_operations_per_second: tuple[DeviceRate, ...] = ()
    write_operations_per_second: tuple[DeviceRate, ...] = ()

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < _LEAST_MEMORY_BYTES:
            raise EngineError(f"a memory limit of {self.memory_bytes} bytes is too low: give 6m or more")
        if self.cpus is not None and not (math.isfinite(self.cpus) and self.cpus >= 0.01):
            raise EngineError(f"a limit of {self.cpus} CPUs is too low or no number: give 0.01 or more")
        if self.pids is not None and self.pids < 1 and self.pids != UNLIMITED:
            raise EngineError(f"a limit of {self.pids} processes leaves none for the program: give 1 or more")
        swap = self.memory_swap_bytes
        if swap is not None and swap != UNLIMITED and swap < (self.memory_bytes or 0):
            raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
        if self.memory_swappiness is not None and not 0 <= self.memory_swappiness <= 100:
            raise InvalidParameter(f"Invalid value: {self.memory_swappiness}, valid memory swappiness range is 0-100")
        if self.blkio_weight is not None and not 10 <= self.blkio_weight <= 1000:
            raise InvalidParameter("Range of blkio weight is from 10 to 1000")
        if self.cpus is not None and (self.cpu_quota_microseconds or self.cpu_period_microseconds):
            raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")


@dataclass(frozen=True, slots=True)
class Mount:
    """Something that is to be seen at `target`, an absolute path in the container.

    `kind` is `bind` (a file or directory `source` of the host), `tmpfs` (an empty memory file system; `options` such as
    size, mode, uid, gid) or `mqueue`. `recursive` takes along what is mounted beneath the source. `propagation` says
    whether mounts made later show on the other side. Of a bind, `read_only` holds for all that is taken along.

    Raises:
        InvalidParameter: a kind, propagation or path that can't be.
    """

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    recursive: bool = True
    propagation: str = "rprivate"
    nosuid: bool = False
    nodev: bool = False
    noexec: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InvalidParameter(f"mount type unknown: `{self.kind}`")
        if self.propagation not in PROPAGATIONS:
            raise InvalidParameter(f"invalid propagation config: {self.propagation}")
        check_path(self.target)
        if self.target.rstrip("/") == "":
            raise InvalidParameter("invalid mount target: the root of the container can't be mounted over")
        if self.kind == "bind":
            check_path(self.source)


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host, or all in a directory, for the container to use; `permissions` are of `rwm`.

    Raises:
        InvalidParameter: a path or permission that can't be.
    """

    host_path: str
    container_path: str = ""
    permissions: str = "rwm"

    def __post_init__(self) -> None:
        check_path(self.host_path)
        if self.container_path:
            check_path(self.container_path)
        if not self.permissions or not set(self.permissions) <= set("rwm"):
            raise InvalidParameter(f"invalid device mode: {self.permissions}")

    @property
    def target(self) -> str:
        """Where it is in the container."""
        return self.container_path or self.host_path


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of a container's processes (setrlimit(2)): `name` without RLIMIT_, -1 is without limit.

    Raises:
        InvalidParameter: no such limit, or a soft one above the hard one.
    """

    name: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        if self.name not in ULIMITS:
            raise InvalidParameter(f"invalid ulimit type: {self.name}")
        if self.soft < UNLIMITED or self.hard < UNLIMITED:
            raise InvalidParameter(f"invalid ulimit: {self.name}={self.soft}:{self.hard}")
        if self.hard != UNLIMITED and not UNLIMITED < self.soft <= self.hard:
            wrong = f"{self.soft} > {self.hard}"
            raise InvalidParameter(f"ulimit soft limit must be less than or equal to hard limit: {wrong}")

    @property
    def number(self) -> int:
        """The kernel's number of this limit."""
        return ULIMITS[self.name]


def check_path(path: str) -> None:
    """Raise EngineError unless `path` is absolute and without `..` and NUL."""
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidParameter(f"`{path}` must be an absolute path without `..`")
    if "\0" in path:
        raise InvalidParameter("a path can't contain a NUL character")
