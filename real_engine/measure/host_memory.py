"""What the host's kernel spends on instances, as the difference of two readings of the whole host."""

import os
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_SLABINFO = Path("/proc/slabinfo")
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_SLABS = Path("/sys/kernel/slab")

_BESIDE_SLAB = ("PageTables", "KernelStack", "Percpu")


@dataclass(frozen=True)
class HostMemory:
    """A reading of the whole host, in bytes.

    Attributes:
        kernel_bytes: live slab objects, page tables, kernel stacks and per-CPU memory.
        available_bytes: MemAvailable, see proc(5).
    """

    kernel_bytes: int
    available_bytes: int

    @classmethod
    def settled(cls) -> "HostMemory":
        """Let the kernel give back what it only keeps in reserve, and read what is left.

        Slab memory is counted in live objects and not in pages: the first instances fill free places in slabs that are
        there already, so a count of pages would grow too little at first and too much later. Only root may see
        /proc/slabinfo; others get the pages.
        """
        if os.geteuid() == 0:
            _give_back()
            slab = live_slab_bytes(_SLABINFO.read_text())
        else:
            slab = -1
        fields = meminfo_bytes(_MEMINFO.read_text())
        if slab < 0:
            slab = fields["Slab"]
        return cls(slab + sum(fields.get(name, 0) for name in _BESIDE_SLAB), fields["MemAvailable"])


def meminfo_bytes(text: str) -> dict[str, int]:
    """The fields of /proc/meminfo, in bytes (proc(5))."""
    fields = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number, *unit = rest.split()
        fields[name] = int(number) * (1024 if unit == ["kB"] else 1)
    return fields


def live_slab_bytes(text: str) -> int:
    """Bytes of the objects in use in all slab caches, from /proc/slabinfo (slabinfo(5)): active objects times size."""
    rows = (line.split() for line in text.splitlines() if line and not line.startswith(("slabinfo", "#")))
    return sum(int(row[1]) * int(row[3]) for row in rows)


def _give_back() -> None:
    """Drop unused directory entries and inodes (proc(5), drop_caches), and empty slabs (Documentation/mm/slub.rst)."""
    _DROP_CACHES.write_text("2\n")
    for cache in _SLABS.glob("*/shrink"):
        if not cache.parent.is_symlink():  # caches that were merged into one stand there under several names
            cache.write_text("1\n")
