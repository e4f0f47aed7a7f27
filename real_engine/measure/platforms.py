"""What can be measured: a process, a container, a virtual machine, each started and asked in the same way."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from real_engine.container.engine import Engine
    from real_engine.container.spec import ContainerSpec
    from real_engine.virtual_machine.guest import Guest
    from real_engine.virtual_machine.guest_files import GuestFiles
    from real_engine.virtual_machine.qemu import AcceleratorName, MachineType

READY = b"ready\n"
"""What an instance's own program writes first. Its arrival ends the start-up."""


@dataclass(frozen=True)
class PhaseTime:
    """One step of a start-up: wall-clock seconds, and CPU seconds of everything that worked for it."""

    name: str
    wall_seconds: float
    cpu_seconds: float


class Instance(Protocol):
    """Something that was started and has said that it is ready."""

    @property
    def phases(self) -> Sequence[PhaseTime]:
        """In order. Their wall-clock seconds add up to the time from the request until ready."""

    @property
    def ready_at(self) -> float:
        """When its readiness was seen, on the clock of `time.monotonic`."""

    def pss_bytes(self) -> int:
        """Proportional set size of all of its processes, a VMM included."""

    def stop(self) -> None:
        """End it and take away all that it had."""


class Platform(Protocol):
    """A way to isolate an instance. `name` and `variant` are the columns of the samples."""

    name: str
    variant: str
    rehearses: bool
    """Whether a start is so short that what the process that asks for it does first would show in it."""

    def start(self) -> Instance:
        """Start an instance and return when its own program has said that it runs."""


def pss_of(pid: int) -> int:
    """Proportional set size of process `pid` in bytes, from /proc/PID/smaps_rollup (proc(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/smaps_rollup: has no Pss line")


def cpu_seconds_of(pid: int) -> float:
    """CPU seconds that process `pid` has used, with nanosecond resolution.

    The clock's number is what clock_getcpuclockid(3) computes: the complement of the pid, and CPUCLOCK_SCHED (2).
    """
    return time.clock_gettime((~pid << 3) | 2)


class ProcessPlatform:
    """The baseline: fork and exec of the same program that the container runs, with no isolation at all."""

    name = "process"
    variant = "default"
    rehearses = True

    def __init__(self, busybox: Path) -> None:
        self.busybox = busybox

    def start(self) -> "ProcessInstance":
        """Start the shell of busybox, which says that it runs and goes to sleep."""
        return ProcessInstance(self.busybox)


class ProcessInstance:
    """A plain process. Its phases: `spawn` (fork and exec asked for), `exec` (until its program runs)."""

    def __init__(self, busybox: Path) -> None:
        requested, cpu_before = time.monotonic(), time.process_time()
        read_end, write_end = os.pipe()
        try:
            self.pid = os.posix_spawn(
                busybox,
                ["sh", "-c", PROGRAM],
                {"PATH": str(busybox.parent)},
                file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1)],
            )
            # posix_spawn waits until the child has become the program, so the child's work is in this phase.
            cpu_spawned = time.process_time() + cpu_seconds_of(self.pid)
            spawned = time.monotonic()
            os.close(write_end)
            write_end = -1
            await_ready(read_end)
            self.ready_at = time.monotonic()
            cpu_ready = time.process_time() + cpu_seconds_of(self.pid)
        finally:
            os.close(read_end)
            if write_end >= 0:
                os.close(write_end)
        self.phases = (
            PhaseTime("spawn", spawned - requested, cpu_spawned - cpu_before),
            PhaseTime("exec", self.ready_at - spawned, cpu_ready - cpu_spawned),
        )

    def pss_bytes(self) -> int:
        """Proportional set size of the process."""
        return pss_of(self.pid)

    def stop(self) -> None:
        """Kill and reap it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


PROGRAM = "echo ready; exec sleep 1000000"
"""What a process and a container run: say so at once, then hold still while memory is measured."""


def await_ready(descriptor: int) -> None:
    """Read `READY` from a pipe.

    Raises:
        OSError: the pipe ended, or something else came.
    """
    received = b""
    while len(received) < len(READY):
        chunk = os.read(descriptor, len(READY) - len(received))
        if not chunk:
            break
        received += chunk
    if received != READY:
        raise OSError(f"the instance ended before it was ready, having said {received!r}")


class ContainerPlatform:
    """The engine's container: all of its isolation, and no network but loopback."""

    name = "container"
    variant = "default"
    rehearses = True

    def __init__(self, engine: "Engine", layers: tuple[Path, ...]) -> None:
        """`layers` hold busybox, whose shell says that it runs."""
        from real_engine.container.spec import ContainerSpec

        self.engine = engine
        self.spec = ContainerSpec(layers=layers, argv=("/bin/sh", "-c", PROGRAM))

    def start(self) -> "ContainerInstance":
        """Start a container of the image."""
        return ContainerInstance(self.engine, self.spec)


class ContainerInstance:
    """A container. Its phases are the engine's, and at last `program`: from the exec until its program has spoken."""

    def __init__(self, engine: "Engine", spec: "ContainerSpec") -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            with open(os.devnull, "r+b", buffering=0) as null:
                self._container = engine.start(spec, null.fileno(), write_end, null.fileno())
            os.close(write_end)
            write_end = -1
            cpu_started = time.process_time() + cpu_seconds_of(self._container.pid)
            await_ready(read_end)
            self.ready_at = time.monotonic()
            self._program_cpu_seconds = time.process_time() + cpu_seconds_of(self._container.pid) - cpu_started
        finally:
            os.close(read_end)
            if write_end >= 0:
                os.close(write_end)

    @cached_property
    def phases(self) -> Sequence[PhaseTime]:
        """See `Instance`. Made when asked for: that takes a while in which others may still be starting."""
        *_, last = (phases := self._container.phases)
        program_seconds = max(0.0, self.ready_at - last.end_seconds)
        return (
            *(PhaseTime(phase.name, phase.wall_seconds, phase.cpu_seconds) for phase in phases),
            PhaseTime("program", program_seconds, self._program_cpu_seconds),
        )

    def pss_bytes(self) -> int:
        """Proportional set size of its only process."""
        return pss_of(self._container.pid)

    def stop(self) -> None:
        """Kill it and remove all that it had."""
        self._container.remove()


class GuestPlatform:
    """A guest under QEMU: a Debian kernel and busybox, on one machine type, with one accelerator."""

    rehearses = False

    def __init__(self, machine_type: "MachineType", accelerator: "AcceleratorName", files: "GuestFiles") -> None:
        self.name = f"vm-{accelerator}"
        self.variant: str = machine_type
        self.machine_type = machine_type
        self.accelerator = accelerator
        self.files = files

    def start(self) -> "GuestInstance":
        """Boot a guest."""
        from real_engine.virtual_machine.guest import boot

        return GuestInstance(boot(self.machine_type, self.accelerator, files=self.files, timeout_seconds=600.0))


class GuestInstance:
    """A guest. Its phases are those of `real_engine.virtual_machine.guest`."""

    def __init__(self, guest: "Guest") -> None:
        self._guest = guest
        self.ready_at = guest.ready_at
        self.phases = tuple(PhaseTime(phase.name, phase.wall_seconds, phase.cpu_seconds) for phase in guest.phases)

    def pss_bytes(self) -> int:
        """Proportional set size of QEMU: the guest's touched memory, and the VMM."""
        return self._guest.pss_bytes()

    def stop(self) -> None:
        """End QEMU."""
        self._guest.stop()
