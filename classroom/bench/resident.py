"""How much main memory this process has, and has had at most.

Linux keeps both in `/proc/self/status` (proc_pid_status(5)): `VmRSS` now, and `VmHWM` the peak, which writing 5 to
`/proc/self/clear_refs` sets back to now (proc_pid_clear_refs(5), Linux 4.0). Elsewhere the peak is `getrusage`'s, which
cannot be set back, so that memory used before and given back hides some of what came later.
"""

import re
import sys
from pathlib import Path

PROC = Path("/proc/self")


def begin_peak() -> int | None:
    """Count the peak from here; gives the bytes that are resident now, or None where it cannot be known."""
    try:
        (PROC / "clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return _usage()


def peak() -> int | None:
    """The most bytes that were resident since `begin_peak`."""
    try:
        return _status("VmHWM")
    except OSError:
        return _usage()


def method() -> str:
    """In words, how the peak was found."""
    if (PROC / "clear_refs").exists():
        return "peak resident set (VmHWM, set back before the run) less the resident set after imports and warm-up"
    return "peak resident set of the process (getrusage) less its peak after imports and warm-up: a lower bound"


def _status(field: str) -> int:
    text = (PROC / "status").read_text(encoding="utf-8")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise OSError(f"{PROC / 'status'}: no {field}")
    return 1024 * int(found[1])


def _usage() -> int | None:
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return None
    # Linux counts in KiB and macOS in bytes (getrusage(2) of each).
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
