"""What can be measured on this machine, what cannot and why, and whether that was recorded already."""

import json
import os
import platform as python_platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from real_engine.container.engine import Engine
from real_engine.errors import EngineError
from real_engine.images.busybox import builtin_image
from real_engine.measure.platforms import ContainerPlatform, GuestPlatform, Platform, ProcessPlatform
from real_engine.measure.provenance import Machine, onggi_version

PLATFORMS = ("process", "container", "vm-tcg", "vm-kvm")
"""All that there is to measure."""


@dataclass
class Subjects:
    """What is measured in a session.

    Attributes:
        platforms: those that work here.
        missing: the others that were wanted, and why not.
        runtimes: versions of what is measured, for the provenance.
        accelerators: of each VM platform whether it works here, or why not.
        busybox: the program that all of them run.
    """

    busybox: Path
    platforms: list[Platform] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    runtimes: dict[str, str] = field(default_factory=dict)
    accelerators: dict[str, str] = field(default_factory=dict)


def find_subjects(names: Sequence[str], *, explicit: bool) -> Subjects:
    """Find which of the platforms `names` can be measured here.

    Args:
        names: of `PLATFORMS`.
        explicit: somebody asked for these and no others, so that one that does not work is an error.

    Raises:
        EngineError: not Linux, no static busybox, or an explicitly named platform that does not work here.
    """
    if sys.platform != "linux":
        raise EngineError("measuring needs Linux; simulations and reports work here, on the recorded measurements")
    engine = Engine()
    image = builtin_image(engine.root)
    busybox = image.layers[0] / "bin" / "busybox"
    found = Subjects(busybox, runtimes=_runtimes(busybox))
    if "process" in names:
        found.platforms.append(ProcessPlatform(busybox))
    if "container" in names:
        if os.geteuid() == 0:
            found.platforms.append(ContainerPlatform(engine, image.layers))
        else:
            found.missing["container"] = "needs root, which the host's kernel memory is read with: use sudo"
    if "vm-tcg" in names or "vm-kvm" in names:
        _find_guests(found, names)
    if explicit and found.missing:
        name, reason = next(iter(found.missing.items()))
        raise EngineError(f"{name} cannot be measured here: {reason}")
    if not found.platforms:
        raise EngineError("nothing can be measured here: " + "; ".join(found.missing.values()))
    return found


def is_recorded(subjects: Subjects, directory: Path) -> bool:
    """Whether `directory` holds a whole set of this machine, of the same versions of what would be measured now."""
    try:
        record = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))
        same = record["fingerprint"] == Machine.this().fingerprint()
        versions = {name: record["runtimes"].get(name) for name in subjects.runtimes}
        return bool(record["complete"] and same and versions == subjects.runtimes)
    except (OSError, ValueError, KeyError, AttributeError):
        return False  # not there, or not a record of ours: then it is measured


def _runtimes(busybox: Path) -> dict[str, str]:
    """Versions of what every session runs."""
    banner = subprocess.run([busybox, "busybox"], capture_output=True, text=True, check=True, timeout=10).stdout
    return {
        "onggi": onggi_version(),
        "python": python_platform.python_version(),
        "busybox": banner.partition("\n")[0].removeprefix("BusyBox ").partition(" (")[0],
    }


def _find_guests(found: Subjects, names: Sequence[str]) -> None:
    """Add the guests that QEMU can boot here, on each machine type."""
    from real_engine.virtual_machine.accelerators import probe_accelerators
    from real_engine.virtual_machine.guest_files import guest_files, kernel_release
    from real_engine.virtual_machine.qemu import find_qemu, machine_types, qemu_version

    usable = []
    for accelerator in probe_accelerators().values():
        found.accelerators[accelerator.platform] = accelerator.reason
        if accelerator.platform in names:
            if accelerator.usable:
                usable.append(accelerator)
            else:
                found.missing[accelerator.platform] = accelerator.reason
    if usable:
        files = guest_files()
        found.runtimes["qemu"] = qemu_version(find_qemu())
        found.runtimes["guest_kernel"] = kernel_release(files.kernel)
        for accelerator in usable:
            found.platforms += [GuestPlatform(machine, accelerator.name, files) for machine in machine_types()]
