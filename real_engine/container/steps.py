"""The steps from a request to a running program: what each is, what they hand to one another, and how long each took.

A plan is a list of phases, and a phase a list of operations. Each operation can be described before it is executed. The
engine executes them in order; at the one that clones, the container's own process comes into being and goes on with the
rest. Both note their times in the same shared memory.
"""

import ctypes
import mmap
import struct
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from real_engine.container.users import Credentials

_ROOT = Credentials(0, 0, (), "/root")


@dataclass(slots=True)
class Site:
    """What the steps hand to one another: descriptors, and who the program will run as.

    `trees` holds the mounts made so far by the path they will have in the container. `binds` holds copies of the host's
    mounts by a name. `pid` is set in the engine once the container's process exists. `births` counts how often this
    process has become another by a clone. `network` is a network namespace that was prepared, `container` a process
    whose namespaces are to be entered. `programs` are the paths at which the program has been found. A terminal's
    master goes to the engine by `terminal_channel`. `sibling` is where the number of a process stands that a step makes
    in its own place; the engine shares that memory.
    """

    stdio: tuple[int, int, int]
    report: int
    network: int | None = None
    container: int = -1
    terminal_channel: int = -1
    terminal_size: tuple[int, int] | None = None
    sibling: "ctypes.c_int | None" = None
    pid: int = 0
    pidfd: int = -1
    births: int = 0
    cgroup_directory: int | None = None
    cgroup_tasks: dict[str, int] = field(default_factory=dict)
    namespace: int = -1
    mountpoint: int = -1
    trees: dict[str, int] = field(default_factory=dict)
    binds: dict[str, int] = field(default_factory=dict)
    credentials: Credentials = _ROOT
    programs: list[str] = field(default_factory=list)


class Operation(ABC):
    """One step: something done to the kernel, that knows how to say what it does and why."""

    why: ClassVar[str]

    @abstractmethod
    def execute(self, site: Site) -> None:
        """Do it.

        Raises:
            OSError: the kernel refused.
        """

    @abstractmethod
    def describe(self) -> str:
        """The kernel calls that it makes, as a person would write them."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps that belong together."""

    name: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A step that has been done. Times are those of `time.perf_counter`, which every process of a machine shares.

    `cpu_seconds` is what the step used in the engine and in the container's process together. `operation` is the name
    of its class, by which its reason is found in other languages.
    """

    phase: str
    call: str
    why: str
    begin_seconds: float
    end_seconds: float
    cpu_seconds: float
    operation: str = ""

    @property
    def wall_seconds(self) -> float:
        """How long it took."""
        return self.end_seconds - self.begin_seconds


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """How long a phase took. Each begins where the one before it ended, so they add up to the whole exactly."""

    name: str
    begin_seconds: float
    end_seconds: float
    cpu_seconds: float

    @property
    def wall_seconds(self) -> float:
        """How long it took."""
        return self.end_seconds - self.begin_seconds


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on the clock of `time.perf_counter`, and the CPU time that this thread had used by then."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls) -> "Instant":
        """This moment."""
        return cls(time.perf_counter(), time.thread_time())


class StepClock:
    """Notes the begin, end and CPU time of each step in memory that the engine and the container's process share.

    A step that one process begins and the other ends has fields written by each, and no field written by both.
    """

    _times = struct.Struct("2d")  # begin, end
    _record = struct.Struct("4d")  # begin, end, CPU of the engine, CPU of the container's process
    _end, _engine_cpu, _container_cpu = 8, 16, 24  # where these stand in a record
    _number = struct.Struct("d")

    def __init__(self, steps: int) -> None:
        size = max(1, steps) * self._record.size
        self._memory = mmap.mmap(-1, size + ctypes.sizeof(ctypes.c_int))
        self.sibling = ctypes.c_int.from_buffer(self._memory, size)
        self._begin = self._cpu = 0.0

    def begin(self) -> None:
        """A step begins now."""
        self._begin, self._cpu = time.perf_counter(), time.thread_time()

    def end(self, index: int) -> None:
        """Step `index`, which this process began, ends now."""
        cpu, end = time.thread_time(), time.perf_counter()
        self._record.pack_into(self._memory, index * self._record.size, self._begin, end, cpu - self._cpu, 0.0)

    def end_clone(self, index: int, in_container: bool) -> None:
        """Step `index` cloned: it ends when the new process runs, and each of the two adds its own CPU time."""
        offset = index * self._record.size
        cpu = time.thread_time()
        if in_container:
            self._times.pack_into(self._memory, offset, self._begin, time.perf_counter())
            self._number.pack_into(self._memory, offset + self._container_cpu, cpu)
        else:
            self._number.pack_into(self._memory, offset + self._engine_cpu, cpu - self._cpu)

    def begin_exec(self, index: int) -> None:
        """Step `index`, after which this process runs other code, begins now."""
        self._record.pack_into(
            self._memory, index * self._record.size, time.perf_counter(), 0.0, 0.0, -time.thread_time()
        )

    def end_exec(self, index: int, container_cpu_seconds: float) -> None:
        """Step `index` has ended, as the engine sees; the process has used `container_cpu_seconds` in all."""
        offset = index * self._record.size
        begin, _, _, minus_cpu = self._record.unpack_from(self._memory, offset)
        cpu = max(0.0, container_cpu_seconds + minus_cpu)
        self._record.pack_into(self._memory, offset, begin, time.perf_counter(), 0.0, cpu)

    def read(self, index: int) -> tuple[float, float, float]:
        """Begin, end and CPU seconds of step `index`; zeros if it wasn't done."""
        begin, end, engine_cpu, container_cpu = self._record.unpack_from(self._memory, index * self._record.size)
        return begin, end, engine_cpu + container_cpu
