"""Out of memory: where, when, and who is killed for it.

The kernel's measure of a process (mm/oom_kill.c, `oom_badness`): its pages in memory, in swap, and of its page tables,
and `oom_score_adj` thousandths of all memory on top. Whoever has most is killed, the last in the list of tasks among
equals (`oom_evaluate_task`); nobody with an `oom_score_adj` of -1000. A virtual machine is one process of the host,
with all of its guest's memory.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

from simulator.datacenter.memory.settings import MIB, PAGE_BYTES

NEVER_KILLED = -1000
"""The `oom_score_adj` that keeps a process from being killed (include/uapi/linux/oom.h, OOM_SCORE_ADJ_MIN)."""
_ENTRIES_PER_PAGE = 512
"""Entries of a page table in one page, on x86-64: 4096 / 8 bytes."""

Scope = Literal["machine", "container", "guest"]
"""What had no memory left. Only in a machine can the victim be another than who asked for more."""


@dataclass(frozen=True)
class OutOfMemory:
    """A kill, with its reason.

    Attributes:
        seconds: when, simulated.
        scope: `machine`: the whole instance ends. `container`, `guest`: the program in it ends, and nothing else on
            the machine notices.
        instance: the victim; None where the kernel finds nobody whom it may kill, and panics.
        reason: one sentence.
    """

    seconds: float
    scope: Scope
    instance: Hashable | None
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A process that may be killed, in the order of their starts.

    Attributes:
        instance: whose.
        resident_bytes: in memory, shared pages included, as the kernel counts them (RSS).
        oom_score_adj: -1000 to 1000.
    """

    instance: Hashable
    resident_bytes: float
    oom_score_adj: int

    def badness(self, total_bytes: float) -> int:
        """The kernel's points, in pages, of a machine with `total_bytes`. No swap is modelled, so none is counted."""
        resident = int(self.resident_bytes // PAGE_BYTES)
        return resident + self.page_tables + self.oom_score_adj * int(total_bytes // PAGE_BYTES // 1000)

    @property
    def page_tables(self) -> int:
        """Pages that the lowest level of its page tables takes, if its memory lies together."""
        return -(-int(self.resident_bytes // PAGE_BYTES) // _ENTRIES_PER_PAGE)


def choose_victim(candidates: Iterable[Candidate], total_bytes: float) -> tuple[Candidate | None, str]:
    """Whom the kernel kills, and why.

    Args:
        candidates: in the order in which they started.
        total_bytes: memory of the machine.

    Returns:
        The victim, or None where nobody may be killed, and half a sentence.
    """
    killable = [each for each in candidates if each.oom_score_adj > NEVER_KILLED]
    if not killable:
        return None, "nobody may be killed: the kernel panics"
    points = [each.badness(total_bytes) for each in killable]
    most = max(points)
    place = max(number for number, point in enumerate(points) if point == most)
    victim = killable[place]
    equals = points.count(most)
    among = f", as {equals - 1} others, and is the youngest" if equals > 1 else ""
    return victim, (
        f"instance {victim.instance} has the most points of {len(killable)}, {most}{among}: "
        f"{victim.resident_bytes / MIB:.1f} MiB in memory, {victim.page_tables} pages of page tables, "
        f"oom_score_adj {victim.oom_score_adj}"
    )
