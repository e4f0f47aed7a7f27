"""What a guest starts from: a kernel of the distribution, and an initramfs that we build from the host's busybox.

The initramfs holds one program (the host's static busybox, with which the built-in container image is made too) and
one script (`guest_init.sh`), so both sides of a comparison run the same user space. It is not compressed: unpacking
takes the guest no longer either way (12 to 30 ms under TCG, for 1 MB of gzip as for 2 MB plain), and the host's page
cache holds one copy for all guests.
"""

import hashlib
import os
import platform
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.files import write_durably
from real_engine.images.busybox import find_busybox
from real_engine.virtual_machine import cpio

KERNEL_VARIABLE = "ONGGI_GUEST_KERNEL"
SYSTEM_CACHE = Path("/var/cache/onggi/guest")
_BOOT = Path("/boot")
_SETUP = "run `tools/debian-packages test` as root, or set ONGGI_GUEST_KERNEL to an x86-64 bzImage"


@dataclass(frozen=True)
class GuestFiles:
    """The two files that QEMU loads into a guest, and what they were made from."""

    kernel: Path
    initramfs: Path
    kernel_release: str
    busybox: Path


def cache_directory() -> Path:
    """Where this user's guest files are kept: `$XDG_CACHE_HOME/onggi/guest`, or `~/.cache/onggi/guest`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "onggi" / "guest"


def guest_files(cache: Path | None = None) -> GuestFiles:
    """Find a guest kernel, and build the initramfs into `cache` (default: `cache_directory()`) unless it is there.

    Many processes may ask at once: the initramfs is named after its contents and moved into place complete.

    Raises:
        EngineError: not Linux on amd64; no guest kernel; no static busybox; the cache cannot be written.
    """
    _refuse_other_machines()
    cache = cache_directory() if cache is None else cache
    kernel = find_kernel(cache)
    busybox = find_busybox()
    return GuestFiles(kernel, _initramfs(busybox, cache), kernel_release(kernel), busybox)


def find_kernel(cache: Path) -> Path:
    """The guest kernel: `ONGGI_GUEST_KERNEL`, else the newest in `cache`, `/var/cache/onggi/guest` or `/boot`.

    Raises:
        EngineError: there is none, or the variable names something that is not an x86 kernel.
    """
    if named := os.environ.get(KERNEL_VARIABLE):
        kernel_release(Path(named))
        return Path(named)
    for place, pattern in ((cache, "vmlinuz-*"), (SYSTEM_CACHE, "vmlinuz-*"), (_BOOT, "vmlinuz-*-cloud-amd64")):
        if found := sorted(place.glob(pattern), key=_version_order):
            return found[-1]
    raise EngineError(f"no guest kernel in {cache}, {SYSTEM_CACHE} or {_BOOT}: {_SETUP}")


def kernel_release(kernel: Path) -> str:
    """The release that the bzImage `kernel` says it is, such as `6.1.0-37-cloud-amd64`.

    The x86 boot protocol puts `HdrS` at 0x202 and, at 0x20e, where the version string starts, less 0x200
    (Documentation/arch/x86/boot.rst of the Linux sources).

    Raises:
        EngineError: `kernel` cannot be read or is no bzImage.
    """
    try:
        with kernel.open("rb") as file:
            head = file.read(64 * 1024)
    except OSError as error:
        raise EngineError(f"guest kernel {kernel}: {error.strerror}; {_SETUP}") from error
    if head[0x202:0x206] != b"HdrS":
        raise EngineError(f"guest kernel {kernel}: not an x86 bzImage; {_SETUP}")
    (offset,) = struct.unpack_from("<H", head, 0x20E)
    version = head[offset + 0x200 :].split(b"\0", 1)[0].decode("ascii", "replace")
    return version.split(" ", 1)[0] or "unknown"


def _refuse_other_machines() -> None:
    if not sys.platform.startswith("linux"):
        raise EngineError(f"virtual machines need Linux with QEMU, and this is {platform.system()}")
    if platform.machine() not in ("x86_64", "amd64"):
        raise EngineError(
            f"virtual machines need amd64 and this is {platform.machine()}: QEMU's microvm and q35 are x86 machines"
        )


def _initramfs(busybox: Path, cache: Path) -> Path:
    init = Path(__file__).with_name("guest_init.sh").read_bytes()
    entries = (
        cpio.directory("bin"),
        cpio.directory("dev"),
        cpio.directory("proc"),
        cpio.directory("sys"),
        # The kernel opens /dev/console for the first process, before that process can mount anything.
        cpio.character_device("dev/console", 5, 1),
        cpio.program("bin/busybox", busybox.read_bytes()),
        cpio.program("init", init),
    )
    data = cpio.archive(entries)
    path = cache / f"initramfs-{hashlib.sha256(data).hexdigest()[:16]}.cpio"
    if not path.exists():
        keep(path, data)
    return path


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache, whose directory is made if need be.

    Raises:
        EngineError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, data)
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}; set XDG_CACHE_HOME to a directory you can write") from error


def _version_order(path: Path) -> list[tuple[int, str]]:
    """Sorts 6.1.0-9 before 6.1.0-10, as names alone do not."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
