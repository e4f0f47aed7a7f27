"""The command line under which QEMU runs a guest, with least privilege.

`setpriv` (of util-linux, which Debian always has) goes first: it asks the kernel to kill QEMU when we die, forbids
new privileges and, for root, drops every capability. Python could do that between fork and exec only by running Python
code there, which is unsafe with threads. Then QEMU's own seccomp filter (`-sandbox`) refuses it to spawn anything, to
change its user, and to set its own priorities. The guest has no network, no disk and no monitor: a processor, memory,
timers, and one serial port.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from real_engine.errors import EngineError

MachineType = Literal["microvm", "q35"]
AcceleratorName = Literal["kvm", "tcg"]

MEBIBYTE = 1024 * 1024

# microvm without ACPI, as Firecracker was first. With ACPI, microvm has neither a PM timer nor an HPET, and its PIT
# raises no interrupt that Linux uses: under TCG on a busy host Linux then fails to calibrate the TSC against the PIT,
# has no clock left and spins for ever (in 5 of 8 boots on a loaded two-core host; in none without ACPI).
_MACHINES: dict[MachineType, str] = {
    "microvm": "microvm,acpi=off,x-option-roms=off,isa-serial=on,rtc=on,pit=on,pic=on",
    "q35": "q35",
}

# quiet: the serial line would make printing, not booting, the thing measured. panic=-1: a panic resets the machine at
# once, and `-no-reboot` makes QEMU exit instead of waiting for our time-out. Mitigations stay as the kernel has them.
KERNEL_COMMAND_LINE = "console=ttyS0 quiet panic=-1"


@dataclass(frozen=True)
class Descriptors:
    """File descriptors that QEMU inherits: so nothing in the file system names a guest, or remains after it.

    The kernel and the initramfs too, as root without capabilities cannot pass through another user's home directory.
    """

    serial: int
    kernel: int
    initramfs: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.serial, self.kernel, self.initramfs))


def machine_types() -> tuple[MachineType, ...]:
    """The machine types that a guest can have: `microvm` has next to no devices, `q35` is a whole PC."""
    return get_args(MachineType)


def find_qemu() -> str:
    """The path of `qemu-system-x86_64`.

    Raises:
        EngineError: it is not installed.
    """
    return _find("qemu-system-x86_64", "qemu-system-x86")


def qemu_version(program: str) -> str:
    """The version that the QEMU at `program` tells of itself, such as `7.2.22`.

    Raises:
        EngineError: it does not run, or is something else.
    """
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"{program} --version: {error}; install the package qemu-system-x86 again") from error
    match = re.match(r"QEMU emulator version (\S+)", answer)
    if match is None:
        raise EngineError(f"{program} --version: not an answer of QEMU's; install the package qemu-system-x86 again")
    return match[1]


def command(
    machine_type: MachineType,
    accelerator: AcceleratorName,
    memory_bytes: int,
    descriptors: Descriptors,
) -> Sequence[str]:
    """What to execute for a guest.

    Raises:
        EngineError: an unknown machine type or accelerator, memory that is no whole number of MiB, or a
            program missing.
    """
    if machine_type not in _MACHINES:
        raise EngineError(f"machine type `{machine_type}`: choose one of {', '.join(_MACHINES)}")
    if accelerator not in get_args(AcceleratorName):
        raise EngineError(f"accelerator `{accelerator}`: choose one of {', '.join(get_args(AcceleratorName))}")
    if memory_bytes <= 0 or memory_bytes % MEBIBYTE:
        raise EngineError(f"guest memory of {memory_bytes} bytes: give a positive whole number of MiB, such as 128M")
    return [
        *_privileges(),
        find_qemu(),
        *("-machine", _MACHINES[machine_type]),
        *("-accel", accelerator),
        *(("-cpu", "host") if accelerator == "kvm" else ()),
        *("-m", f"{memory_bytes // MEBIBYTE}M"),
        *("-smp", "1"),
        "-no-user-config",
        "-nodefaults",
        "-no-reboot",
        *("-display", "none"),
        *("-monitor", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-chardev", f"socket,id=serial,fd={descriptors.serial}"),
        *("-serial", "chardev:serial"),
        *("-kernel", f"/proc/self/fd/{descriptors.kernel}"),
        *("-initrd", f"/proc/self/fd/{descriptors.initramfs}"),
        *("-append", KERNEL_COMMAND_LINE),
        # The firmware fetches everything it loads through the fw_cfg device, so these lines on standard error, each
        # with the number of the thread that caused it, tell when the firmware begins and when it hands over.
        *("-trace", "fw_cfg_select"),
        *("-msg", "timestamp=on"),
    ]


def _privileges() -> Sequence[str]:
    setpriv = [_find("setpriv", "util-linux"), "--pdeathsig", "KILL", "--no-new-privs"]
    if os.geteuid() == 0:
        setpriv += ["--inh-caps=-all", "--bounding-set=-all"]
    return setpriv


def _find(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise EngineError(f"no {program} on the PATH: install the package {package}")
    return path
