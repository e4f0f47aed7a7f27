import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.virtual_machine import cpio
from real_engine.virtual_machine.guest import PHASES, BootError, Guest, boot
from real_engine.virtual_machine.guest_files import GuestFiles
from real_engine.virtual_machine.qemu import MEBIBYTE, MachineType

StandIn = Callable[[str], Path]


def children() -> set[int]:
    """Process ids of all children of this process, dead ones not yet reaped included."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in listed.split()}


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module", params=["microvm", "q35"])
def guest(request: pytest.FixtureRequest, files: GuestFiles) -> Iterator[Guest]:
    with boot(request.param, "tcg", files=files) as running:
        yield running


@pytest.mark.qemu
def test_the_phases_of_a_guest_add_up_to_its_total(guest: Guest) -> None:
    assert PHASES == tuple(phase.name for phase in guest.phases)
    assert all(phase.wall_seconds > 0 and phase.cpu_seconds > 0 for phase in guest.phases)
    assert guest.ready_at - guest.requested_at == pytest.approx(sum(phase.wall_seconds for phase in guest.phases))
    # One virtual processor and a VMM that has little else to do: not more than two cores' worth of work.
    assert guest.cpu_seconds < 2 * guest.total_seconds


@pytest.mark.qemu
def test_the_kernel_is_what_takes_the_time(guest: Guest) -> None:
    kernel = next(phase for phase in guest.phases if phase.name == "guest-kernel")
    assert kernel.cpu_seconds > guest.cpu_seconds / 2


@pytest.mark.qemu
def test_a_guest_answers(guest: Guest) -> None:
    times, memory = guest.kernel_times(), guest.memory()
    assert 0 < times.init_seconds < times.ready_seconds < guest.total_seconds
    assert 0 < memory.available_bytes < memory.total_bytes < guest.memory_bytes


@pytest.mark.qemu
def test_memory_of_a_guest_holds_what_its_kernel_uses(guest: Guest) -> None:
    memory = guest.memory()
    assert guest.pss_bytes() > memory.total_bytes - memory.available_bytes


@pytest.mark.qemu
def test_qemu_has_no_privileges(guest: Guest) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{guest.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert "1" == status["NoNewPrivs"].strip()
    assert "2" == status["Seccomp"].strip()  # SECCOMP_MODE_FILTER
    assert 0 == int(status["CapEff"], 16)


@pytest.mark.qemu
def test_a_guest_that_never_reports_times_out_and_leaves_nothing(files: GuestFiles, tmp_path: Path) -> None:
    silent = tmp_path / "silent.cpio"
    silent.write_bytes(
        cpio.archive(
            [
                cpio.directory("bin"),
                cpio.directory("dev"),
                cpio.character_device("dev/console", 5, 1),
                cpio.program("bin/busybox", files.busybox.read_bytes()),
                cpio.program("init", b"#!/bin/busybox sh\nread -r never\n"),
            ]
        )
    )
    before = children(), descriptors()
    with pytest.raises(BootError, match=r"did not boot within 4 s"):
        boot(files=replace(files, initramfs=silent), timeout_seconds=4.0)
    assert before == (children(), descriptors())


@pytest.mark.qemu
def test_too_little_memory_is_told(files: GuestFiles) -> None:
    with pytest.raises(BootError, match=r"guest of 16 MiB.*too little memory"):
        boot(memory_bytes=16 * MEBIBYTE, files=files)


def boot_and_stop(machine_type: MachineType, files: GuestFiles) -> tuple[float, ...]:
    with boot(machine_type, files=files) as running:
        return running.total_seconds, sum(phase.wall_seconds for phase in running.phases)


@pytest.mark.qemu
def test_forked_processes_boot_guests_at_once(files: GuestFiles) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        results = list(pool.map(boot_and_stop, ["microvm"] * 3, [files] * 3))
    assert all(total == pytest.approx(phases) for total, phases in results)


@pytest.mark.qemu
def test_a_guest_dies_with_its_maker(files: GuestFiles) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from real_engine.virtual_machine.guest import GuestFiles, boot\n"
        "files = GuestFiles(Path(sys.argv[1]), Path(sys.argv[2]), '', Path())\n"
        "print(boot(files=files).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, files.kernel, files.initramfs], stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        process = Path("/proc") / maker.stdout.readline().strip()
        assert "qemu" in (process / "cmdline").read_text()
        maker.kill()
    assert gone_within(process, seconds=5.0)


def gone_within(process: Path, seconds: float) -> bool:
    """Whether the process ends: there is none any more, or a zombie that its new parent has yet to reap."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_a_stopped_guest_is_reaped_and_may_be_stopped_again(
    stand_in: StandIn, boots: str, empty_files: GuestFiles
) -> None:
    stand_in(boots)
    before = children(), descriptors()
    guest = boot(files=empty_files)
    assert {guest.pid} == children() - before[0]
    guest.stop()
    guest.stop()
    assert before == (children(), descriptors())
    with pytest.raises(EngineError, match="has ended"):
        guest.pss_bytes()


def test_a_qemu_that_ignores_sigterm_is_killed(
    stand_in: StandIn, boots: str, empty_files: GuestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("real_engine.virtual_machine.guest._GRACE_SECONDS", 0.1)
    stand_in("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + boots)
    before = children()
    boot(files=empty_files).stop()
    assert before == children()


def test_ctrl_c_while_booting_leaves_nothing(stand_in: StandIn, empty_files: GuestFiles) -> None:
    stand_in("access(); os.kill(os.getppid(), signal.SIGINT); time.sleep(60)")
    before = children(), descriptors()
    with pytest.raises(KeyboardInterrupt):
        boot(files=empty_files)
    assert before == (children(), descriptors())


def test_what_qemu_complains_of_is_passed_on(stand_in: StandIn, empty_files: GuestFiles) -> None:
    stand_in("sys.exit('qemu-system-x86_64: invalid machine of a kind')")
    with pytest.raises(BootError, match=r"exit status 1; QEMU says: .*invalid machine of a kind"):
        boot(files=empty_files)


def test_a_qemu_that_is_killed_names_the_signal(stand_in: StandIn, empty_files: GuestFiles) -> None:
    stand_in("os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(BootError, match="signal SIGSEGV"):
        boot(files=empty_files)


def test_a_guest_that_floods_the_serial_line_does_not_fill_memory(stand_in: StandIn, empty_files: GuestFiles) -> None:
    stand_in('access()\nfor _ in range(2000): say(b"x" * 4096)\nsay(b"\\r\\nlast words\\x1b[2J\\r\\n"); time.sleep(60)')
    with pytest.raises(BootError, match="last words") as raised:
        boot(files=empty_files, timeout_seconds=3.0)
    assert 1000 > len(str(raised.value))
    assert "\x1b" not in str(raised.value)


def test_a_qemu_that_does_not_trace_is_told(stand_in: StandIn, empty_files: GuestFiles) -> None:
    stand_in('say(b"onggi: init\\r\\nonggi: ready\\r\\n"); time.sleep(60)')
    with pytest.raises(BootError, match="did not trace"):
        boot(files=empty_files)


def test_accesses_of_qemus_own_thread_do_not_end_the_first_phase(stand_in: StandIn, empty_files: GuestFiles) -> None:
    own = 'sys.stderr.write(f"{os.getpid()}@1.000000:fw_cfg_select 0x1 key 0x0000\\n"); sys.stderr.flush()'
    stand_in(f'{own}; time.sleep(0.3); access(); say(b"onggi: init\\r\\nonggi: ready\\r\\n"); time.sleep(60)')
    with boot(files=empty_files) as guest:
        assert guest.phases[0].wall_seconds >= 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"machine_type": "pc"}, "machine type `pc`: choose one of microvm, q35"),
        ({"accelerator": "hvf"}, "accelerator `hvf`: choose one of kvm, tcg"),
        ({"memory_bytes": 0}, "whole number of MiB"),
        ({"memory_bytes": MEBIBYTE + 1}, "whole number of MiB"),
    ],
)
def test_a_guest_that_cannot_be_is_refused(
    stand_in: StandIn, empty_files: GuestFiles, arguments: dict[str, object], message: str
) -> None:
    calls = stand_in("sys.exit(1)")
    with pytest.raises(EngineError, match=message):
        boot(files=empty_files, **arguments)  # type: ignore[arg-type]
    assert "" == calls.read_text()


def test_the_signal_that_ends_a_python_program_ends_its_guest(
    stand_in: StandIn, boots: str, empty_files: GuestFiles
) -> None:
    stand_in(boots)
    program = "import sys\nfrom pathlib import Path\nfrom real_engine.virtual_machine.guest import GuestFiles, boot\n"
    program += "with boot(files=GuestFiles(Path(sys.argv[1]), Path(sys.argv[2]), '', Path())) as guest:\n"
    program += "    print(guest.pid, flush=True)\n    sys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", program, empty_files.kernel, empty_files.initramfs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as maker:
        assert maker.stdout is not None
        process = Path("/proc") / maker.stdout.readline().strip()
        maker.send_signal(signal.SIGINT)
    assert gone_within(process, seconds=5.0)
