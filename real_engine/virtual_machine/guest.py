"""Boots a guest under QEMU, takes the time of each phase of it, and ends it.

What a phase's boundary is, as seen from the host (so that no clock of the guest's needs to be believed):

    vmm            from the request until the virtual processor's first access to the fw_cfg device: QEMU is executed,
                   is linked, makes the machine, reads the kernel, and the firmware's first instructions have run
    firmware       until the last access to fw_cfg, with which the firmware fetches the last part of what it boots
    guest-kernel   until the guest's first process speaks: decompression, the kernel's start, exec of /init
    guest-init     until that process says that it is ready, with the file systems mounted that a program expects

So the phases of a guest add up to its total, exactly. The CPU time of a phase is that of the QEMU process, which is
virtual processor and VMM together, read as each boundary is seen. The caller's fork, about a millisecond, is not in it.
"""

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from real_engine.errors import EngineError
from real_engine.virtual_machine import qemu
from real_engine.virtual_machine.guest_files import GuestFiles, guest_files
from real_engine.virtual_machine.qemu import MEBIBYTE, AcceleratorName, MachineType

# By trial with Debian's 6.1 and its cloud kernel: 64 MiB does not unpack, 80 MiB boots with a few MiB to spare, and
# 128 MiB leaves a program as much as the smallest cloud guests do.
DEFAULT_MEMORY_BYTES = 128 * MEBIBYTE

PHASES = ("vmm", "firmware", "guest-kernel", "guest-init")

_INIT = b"onggi: init"
_READY = b"onggi: ready"
_TRACED_ACCESS = re.compile(rb"(\d+)@[0-9.]+:fw_cfg_select ")
_TIMESTAMP = re.compile(rb"^\d{4}-\d\d-\d\dT[0-9:.]+Z ", re.MULTILINE)
_KEPT_BYTES = 16 * 1024  # of what a guest and QEMU say: enough to tell why it failed, whatever they say
_GRACE_SECONDS = 2.0  # QEMU ends within milliseconds of SIGTERM; after this it is killed


@dataclass(frozen=True)
class Phase:
    """One step of a guest's start-up.

    Attributes:
        name: one of `PHASES`.
        begin_seconds: when it began and
        end_seconds: when it ended, on the clock of `time.monotonic`.
        cpu_seconds: CPU time of the QEMU process in between, kernel time included.
    """

    name: str
    begin_seconds: float
    end_seconds: float
    cpu_seconds: float

    @property
    def wall_seconds(self) -> float:
        """How long it lasted."""
        return self.end_seconds - self.begin_seconds


@dataclass(frozen=True)
class KernelTimes:
    """The guest's own account, in seconds since its kernel found a clock (after decompression and early set-up)."""

    init_seconds: float
    ready_seconds: float


@dataclass(frozen=True)
class GuestMemory:
    """The guest kernel's view of its memory, in bytes: all that it manages, and what a program could still get."""

    total_bytes: int
    available_bytes: int


class BootError(EngineError):
    """A guest did not come up."""


@dataclass(frozen=True)
class _Instant:
    """A moment, and the CPU time of QEMU until it."""

    seconds: float
    cpu_seconds: float


class Guest:
    """A guest that is ready, made by `boot`. Ends with `stop`, or as a context manager; also when its maker dies.

    Its maker is the *thread* that called `boot`: the kernel kills QEMU when that thread ends (PR_SET_PDEATHSIG).

    Attributes:
        phases: the start-up in order, see the module.
        requested_at: when `boot` began with it, and
        ready_at: when its readiness was seen, on the clock of `time.monotonic`.
    """

    def __init__(self, machine_type: MachineType, accelerator: AcceleratorName, memory_bytes: int) -> None:
        """Not for callers: see `boot`."""
        self.machine_type = machine_type
        self.accelerator = accelerator
        self.memory_bytes = memory_bytes
        self.phases: Sequence[Phase] = ()
        self.requested_at = time.monotonic()
        self._said = bytearray()  # the end of what came over the serial line
        self._complained = bytearray()  # the end of what QEMU wrote to standard error, its trace included
        self._process: subprocess.Popen[bytes] | None = None
        self._serial: socket.socket | None = None

    @property
    def platform(self) -> str:
        """`vm-kvm` or `vm-tcg`. Emulation is not virtualisation, so these are never one."""
        return f"vm-{self.accelerator}"

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        assert self._process is not None, "set by boot before anyone sees the guest"
        return self._process.pid

    @property
    def ready_at(self) -> float:
        """When its readiness was seen, on the clock of `time.monotonic`."""
        return self.phases[-1].end_seconds

    @property
    def total_seconds(self) -> float:
        """From the request until ready."""
        return self.ready_at - self.requested_at

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the whole start-up."""
        return sum(phase.cpu_seconds for phase in self.phases)

    def pss_bytes(self) -> int:
        """Proportional set size of the QEMU process: guest memory that was touched, and the VMM.

        Raises:
            EngineError: QEMU has ended.
        """
        try:
            text = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError as error:
            raise EngineError(f"{self.platform} guest with pid {self.pid}: QEMU has ended") from error
        (kibibytes,) = re.findall(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
        return int(kibibytes) * 1024

    def kernel_times(self, timeout_seconds: float = 30.0) -> KernelTimes:
        """Ask the guest how long, by its own clock, its kernel and its first process took.

        Raises:
            EngineError: no answer within `timeout_seconds`.
        """
        answer = self._ask("times", timeout_seconds)
        return KernelTimes(init_seconds=float(answer["init"]), ready_seconds=float(answer["ready"]))

    def memory(self, timeout_seconds: float = 30.0) -> GuestMemory:
        """Ask the guest how much memory it has, and has left.

        Raises:
            EngineError: no answer within `timeout_seconds`.
        """
        answer = self._ask("memory", timeout_seconds)
        return GuestMemory(int(answer["total"]) * 1024, int(answer["available"]) * 1024)

    def stop(self) -> None:
        """End QEMU and reap it: SIGTERM, and SIGKILL if that does not do. May be called again."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process is not None and process.stderr is not None:
            process.stderr.close()
        if self._serial is not None:
            self._serial.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _execute(self, files: GuestFiles) -> None:
        """Start QEMU, with our end of the serial line in `_serial`."""
        ours, theirs = socket.socketpair()
        self._serial = ours
        with theirs, _opened(files.kernel) as kernel, _opened(files.initramfs) as initramfs:
            descriptors = qemu.Descriptors(theirs.fileno(), kernel, initramfs)
            command = qemu.command(self.machine_type, self.accelerator, self.memory_bytes, descriptors)
            self._process = subprocess.Popen(
                command,
                pass_fds=tuple(descriptors),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # A session of its own, so that Ctrl-C reaches us alone and we end the guest in order.
                start_new_session=True,
            )

    def _await_ready(self, timeout_seconds: float) -> None:
        """Read what QEMU and the guest say until it is ready, and note when each phase ended.

        Raises:
            BootError: it took longer than `timeout_seconds`, or QEMU ended.
        """
        process, serial = self._process, self._serial
        assert process is not None
        assert process.stderr is not None
        assert serial is not None
        deadline = self.requested_at + timeout_seconds
        begun = handed_over = spoke = None
        with selectors.DefaultSelector() as selector:
            selector.register(serial, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while True:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise BootError(self._failure(f"did not boot within {timeout_seconds:g} s"))
                now = self._now()
                # Standard error first: an access to fw_cfg seen at once with a word of the guest came before it.
                for key, _ in sorted(ready, key=lambda event: event[0].fileobj is serial):
                    chunk = os.read(key.fd, _KEPT_BYTES)
                    if not chunk:
                        raise BootError(self._ended())
                    if key.fileobj is process.stderr:
                        _keep_end(self._complained, chunk)
                        if self._processor_accessed_firmware_device():
                            begun, handed_over = begun or now, now
                        continue
                    _keep_end(self._said, chunk)
                    if spoke is None and _INIT in self._said:
                        spoke = now
                    if _READY in self._said:
                        if begun is None or handed_over is None or spoke is None:
                            raise BootError(self._failure("booted, but QEMU did not trace `fw_cfg_select`"))
                        requested = _Instant(self.requested_at, 0.0)
                        self.phases = _phases(requested, begun, handed_over, spoke, now)
                        return

    def _now(self) -> _Instant:
        # The clock's number is what clock_getcpuclockid(3) computes: the complement of the pid, and CPUCLOCK_SCHED (2).
        try:
            return _Instant(time.monotonic(), time.clock_gettime((~self.pid << 3) | 2))
        except OSError as error:
            raise BootError(self._ended()) from error

    def _processor_accessed_firmware_device(self) -> bool:
        """Whether the whole lines of `_complained` hold such an access. They are then dropped, to be counted once."""
        *lines, rest = bytes(self._complained).split(b"\n")
        found = False
        kept = []
        for line in lines:
            match = _TRACED_ACCESS.match(line)
            if match is None:
                kept.append(line + b"\n")
            # QEMU resets the device itself while it makes the machine. A virtual processor is another thread.
            elif int(match[1]) != self.pid:
                found = True
        self._complained[:] = b"".join(kept) + rest
        return found

    def _ended(self) -> str:
        """What to say once QEMU has closed the serial line or its standard error, which it does only at its end."""
        process = self._process
        assert process is not None
        assert process.stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
        if process.poll() is not None:
            _keep_end(self._complained, process.stderr.read(_KEPT_BYTES))
        if process.returncode == 0:
            return self._failure("reset itself, as a kernel does that panics or has too little memory")
        return self._failure(f"did not boot, QEMU ended with {_status(process.returncode)}")

    def _failure(self, what: str) -> str:
        """One line that says `what` went wrong, and the last that was heard of the guest and of QEMU."""
        guest = _last_lines(bytes(self._said))
        untraced = [line for line in bytes(self._complained).split(b"\n") if not _TRACED_ACCESS.match(line)]
        complaint = _last_lines(_TIMESTAMP.sub(b"", b"\n".join(untraced)))
        heard = f"; QEMU says: {complaint}" if complaint else ""
        heard += f"; the serial line ends with: {guest}" if guest else "; the serial line is silent"
        memory = f"{self.memory_bytes // MEBIBYTE} MiB"
        return f"the {self.machine_type} guest of {memory} under {self.accelerator.upper()} {what}{heard}"

    def _ask(self, question: str, timeout_seconds: float) -> dict[str, str]:
        """Send `question` over the serial line; the values of the answer `onggi: QUESTION NAME=VALUE … end`."""
        serial = self._serial
        assert serial is not None, "boot came before"
        deadline = time.monotonic() + timeout_seconds
        self._said.clear()
        try:
            serial.sendall(question.encode() + b"\n")
            while True:
                if answer := re.search(rb"onggi: %s (.*) end" % question.encode(), self._said):
                    return dict(pair.split("=", 1) for pair in answer[1].decode("ascii").split())
                serial.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = serial.recv(_KEPT_BYTES)
                if not chunk:
                    raise EngineError(self._failure(f"ended before it answered `{question}`"))
                _keep_end(self._said, chunk)
        except OSError as error:
            raise EngineError(self._failure(f"did not answer `{question}`")) from error


def boot(
    machine_type: MachineType = "microvm",
    accelerator: AcceleratorName = "tcg",
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    files: GuestFiles | None = None,
    timeout_seconds: float = 120.0,
) -> Guest:
    """Boot a guest with one virtual processor and return when its first process has said that it is ready.

    May be called by many processes at once: they share nothing but the two files that they read.

    Args:
        machine_type: `microvm` or `q35`.
        accelerator: `tcg`, or `kvm` where `probe_accelerators` found it to work.
        memory_bytes: a whole number of MiB.
        files: what `guest_files` returns (the default; asking for it once saves a few milliseconds a boot).
        timeout_seconds: how long it may take.

    Raises:
        BootError: it did not come up in that time, or QEMU ended. Nothing is left behind.
        EngineError: bad arguments, or QEMU, the guest kernel or busybox is missing.
    """
    files = guest_files() if files is None else files
    guest = Guest(machine_type, accelerator, memory_bytes)
    try:
        guest._execute(files)
        guest._await_ready(timeout_seconds)
    except BaseException:  # Ctrl-C too: a guest must not outlive the wish for it
        guest.stop()
        raise
    return guest


def _phases(*boundaries: _Instant) -> tuple[Phase, ...]:
    return tuple(
        Phase(name, begin.seconds, end.seconds, end.cpu_seconds - begin.cpu_seconds)
        for name, begin, end in zip(PHASES, boundaries[:-1], boundaries[1:], strict=True)
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of the file, for QEMU to inherit."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}, so no guest can be booted from it") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _keep_end(buffer: bytearray, chunk: bytes) -> None:
    buffer += chunk
    del buffer[:-_KEPT_BYTES]


def _last_lines(said: bytes, count: int = 3) -> str:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    # One line of a message: what a guest writes may not move the reader's cursor.
    return " | ".join("".join(c for c in line if c.isprintable())[-160:] for line in lines[-count:])


def _status(returncode: int | None) -> str:
    if returncode is None:
        return "its serial line closed"
    return f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit status {returncode}"
