"""`onggi vm boot` boots a real virtual machine and shows what happened when; `onggi vm probe` says what can run one."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from real_engine.virtual_machine.guest import Guest
    from real_engine.virtual_machine.qemu import AcceleratorName

_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}

_EXPLANATIONS = {
    "vmm": (
        "QEMU is executed, links its libraries, makes the machine (memory, one virtual processor, timers, a serial "
        "port) and reads the kernel and the initramfs. A container has no such phase: no machine is made for it."
    ),
    "firmware": (
        "The virtual processor starts as a real one does, in 16-bit mode with nothing set up. The firmware finds the "
        "memory and the devices, copies the kernel and the initramfs into memory, and jumps to the kernel."
    ),
    "guest-kernel": (
        "The kernel decompresses itself, sets up memory, interrupts, timers, drivers, file systems and network "
        "protocols, unpacks the initramfs and executes its first process. A container uses the kernel that is running."
    ),
    "guest-init": (
        "The guest's first process mounts /proc, /sys and /dev and says that it is ready. This is all that the start "
        "of a VM and of a container have in common."
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `onggi vm` understands to its parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    boot = actions.add_parser("boot", help="boot a guest, show the phases of its start-up, and stop it")
    boot.add_argument(
        "--machine",
        choices=("microvm", "q35"),
        default="microvm",
        help="microvm has next to no devices, q35 is a whole PC (default: %(default)s)",
    )
    boot.add_argument(
        "--accelerator",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="auto: kvm where it really boots a guest, else tcg, which emulates (default: %(default)s)",
    )
    boot.add_argument(
        "--memory", type=_memory, default="128M", metavar="SIZE", help="of the guest (default: %(default)s)"
    )
    boot.add_argument("--explain", action="store_true", help="say what happens in each phase, and ask the guest too")
    actions.add_parser("probe", help="tell which accelerators boot a guest here, and why the others do not")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the command line.

    Raises:
        EngineError: QEMU or what a guest starts from is missing, KVM was asked for and does not work, or the guest
            did not boot.
    """
    if arguments.action == "probe":
        return _probe()
    return _boot(arguments)


def _probe() -> int:
    from rich.console import Console
    from rich.markup import escape

    from real_engine.virtual_machine.accelerators import probe_accelerators

    with _progress("booting a guest under KVM, to see whether it does"):
        accelerators = probe_accelerators()
    console = Console()
    for accelerator in accelerators.values():
        outcome = "works" if accelerator.usable else "does not work"
        console.print(f"[bold]{accelerator.platform}[/bold] {outcome}: {escape(accelerator.reason)}", highlight=False)
    return 0


def _boot(arguments: argparse.Namespace) -> int:
    from real_engine.virtual_machine.guest import boot

    with _progress("looking for an accelerator") as progress:
        accelerator = _accelerator(arguments.accelerator)
        progress(f"booting {arguments.machine} under {accelerator.upper()}")
        guest = boot(arguments.machine, accelerator, memory_bytes=arguments.memory)
        with guest:
            pss = guest.pss_bytes()
            account = _guests_account(guest) if arguments.explain else ""
    _show(guest, pss, account, explain=arguments.explain)
    return 0


def _accelerator(wanted: str) -> AcceleratorName:
    from real_engine.errors import EngineError
    from real_engine.virtual_machine.accelerators import best_accelerator, probe_accelerators

    if wanted == "tcg":
        return "tcg"
    if wanted == "auto":
        return best_accelerator().name
    kvm = probe_accelerators()["kvm"]
    if not kvm.usable:
        raise EngineError(f"KVM does not work here: {kvm.reason}")
    return "kvm"


def _guests_account(guest: Guest) -> str:
    times, memory = guest.kernel_times(), guest.memory()
    given, total, left = (size / 2**20 for size in (guest.memory_bytes, memory.total_bytes, memory.available_bytes))
    return (
        "By the guest's own clock, which starts when its kernel has found one, /init was executed after "
        f"{times.init_seconds:.3f} s and ready after {times.ready_seconds:.3f} s.\n"
        f"Of its {given:.0f} MiB, the guest's kernel manages {total:.0f} MiB and has {left:.0f} MiB left for programs."
    )


def _show(guest: Guest, pss_bytes: int, account: str, *, explain: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{guest.platform}, {guest.machine_type}: measured on this machine", title_justify="left")
    table.add_column("phase")
    table.add_column("wall", justify="right")
    table.add_column("CPU", justify="right")
    if explain:
        table.add_column("what happens, and why")
    for phase in guest.phases:
        reason = (_EXPLANATIONS[phase.name],) if explain else ()
        table.add_row(phase.name, _milliseconds(phase.wall_seconds), _milliseconds(phase.cpu_seconds), *reason)
    table.add_section()
    table.add_row("total", _milliseconds(guest.total_seconds), _milliseconds(guest.cpu_seconds))
    console = Console()
    console.print(table)
    console.print(f"memory: {pss_bytes / 2**20:.0f} MiB proportional set size of QEMU (measured)", highlight=False)
    if account:
        console.print(account, highlight=False)
    if guest.accelerator == "tcg":
        console.print(
            "TCG emulates the processor: it is many times slower than a VM under KVM, and says nothing about how fast "
            "virtualisation is.",
            highlight=False,
        )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


@contextmanager
def _progress(words: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error, where that is a terminal; gives a function that changes its words."""
    from rich.console import Console

    with Console(stderr=True).status(words) as status:
        yield status.update


def _memory(text: str) -> int:
    """`128M` in bytes: a whole number with K, M or G, and QEMU wants whole MiB."""
    number, unit = text[:-1], text[-1:].upper()
    if unit not in _UNITS or not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"`{text}`: give a whole number with K, M or G, such as 128M")
    size = int(number) * _UNITS[unit]
    if not 0 < size <= 64 * _UNITS["G"] or size % _UNITS["M"]:
        raise argparse.ArgumentTypeError(f"`{text}`: give whole MiB, at most 64G, such as 128M")
    return size
