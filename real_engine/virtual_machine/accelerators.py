"""Whether KVM really boots a guest here. Being there is not enough: some machines have a /dev/kvm that opens and
answers, and whose guests never get to run. So a guest is booted to see.
"""

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.virtual_machine.guest import BootError, boot
from real_engine.virtual_machine.guest_files import GuestFiles, cache_directory, guest_files, keep
from real_engine.virtual_machine.qemu import AcceleratorName, find_qemu

KVM_DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 5.0
"""How long the probe guest has. Under a KVM that works it takes well under a second."""

_SEEN: dict[str, "Accelerator"] = {}  # the outcome of a probe, for the rest of this process


@dataclass(frozen=True)
class Accelerator:
    """A way in which QEMU can run a guest's instructions.

    Attributes:
        name: `kvm` or `tcg`.
        usable: whether a guest boots with it here.
        reason: why it is believed to work, or why it does not, in words.
    """

    name: AcceleratorName
    usable: bool
    reason: str

    @property
    def platform(self) -> str:
        """The platform that is measured with it: `vm-kvm` or `vm-tcg`."""
        return f"vm-{self.name}"


def probe_accelerators(
    cache: Path | None = None, *, device: Path = KVM_DEVICE, timeout_seconds: float = PROBE_SECONDS
) -> dict[AcceleratorName, Accelerator]:
    """Which accelerators boot a guest here, and why not.

    Booting the probe guest takes up to `timeout_seconds` where KVM does not work. Its outcome is kept in `cache` until
    the next boot of the host, or until QEMU or the guest kernel changes.

    Args:
        cache: where guest files and the outcome are kept, default `cache_directory()`.
        device: the device file of KVM.
        timeout_seconds: how long the probe guest has.
    """
    cache = cache_directory() if cache is None else cache
    try:
        program, files = find_qemu(), guest_files(cache)
    except EngineError as error:
        return {"kvm": Accelerator("kvm", False, str(error)), "tcg": Accelerator("tcg", False, str(error))}
    return {
        "kvm": _probe_kvm(device, program, files, cache, timeout_seconds),
        "tcg": Accelerator("tcg", True, "QEMU translates the guest's instructions, which needs no hardware"),
    }


def best_accelerator(cache: Path | None = None) -> Accelerator:
    """KVM where it boots a guest, else TCG.

    Raises:
        EngineError: neither works, as QEMU or what a guest starts from is missing.
    """
    accelerators = probe_accelerators(cache)
    for accelerator in (accelerators["kvm"], accelerators["tcg"]):
        if accelerator.usable:
            return accelerator
    raise EngineError(accelerators["tcg"].reason)


def _probe_kvm(device: Path, program: str, files: GuestFiles, cache: Path, timeout_seconds: float) -> Accelerator:
    if not device.exists():
        return Accelerator("kvm", False, f"there is no {device}: the processor or the hypervisor offers none")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return Accelerator("kvm", False, f"no permission to open {device}: add yourself to the group kvm")
    except OSError as error:
        return Accelerator("kvm", False, f"{device} does not open: {error.strerror}")
    key = _key(device, program, files, timeout_seconds)
    record = cache / f"kvm-probe-{key}.json"
    outcome = _SEEN.get(key) or _recall(record)
    if outcome is None:
        outcome = _boot_probe(device, files, timeout_seconds)
        keep(record, json.dumps(asdict(outcome)).encode())
    _SEEN[key] = outcome
    return outcome


def _boot_probe(device: Path, files: GuestFiles, timeout_seconds: float) -> Accelerator:
    try:
        with boot("microvm", "kvm", files=files, timeout_seconds=timeout_seconds) as guest:
            return Accelerator("kvm", True, f"a probe guest booted in {guest.total_seconds:.2f} s")
    except BootError as error:
        return Accelerator("kvm", False, f"{device} opens, but {error}")


def _key(device: Path, program: str, files: GuestFiles, timeout_seconds: float) -> str:
    """Names the circumstances of a probe: when any of them changes, it is made again."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    of_files = [
        (str(path), state.st_size, state.st_mtime_ns)
        for path in (Path(program).resolve(), files.kernel, files.initramfs)
        for state in [path.stat()]
    ]
    circumstances = (platform.release(), boot_id, os.geteuid(), str(device), timeout_seconds, of_files)
    return hashlib.sha256(repr(circumstances).encode()).hexdigest()[:16]


def _recall(record: Path) -> Accelerator | None:
    """The outcome of an earlier probe; None if there was none, or if the record is not one of ours."""
    try:
        tree = json.loads(record.read_text(encoding="utf-8"))
        usable, reason = tree["usable"], tree["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Accelerator("kvm", usable, reason) if isinstance(usable, bool) and isinstance(reason, str) else None
