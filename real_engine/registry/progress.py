"""The lines by which Docker tells how far a pull or a push is: JSON, one object a line, ended by CR LF.

Sources: moby pkg/streamformatter, pkg/jsonmessage (the bar), docker/go-units (sizes).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Line = dict[str, Any]
"""One line, before it is written."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BAR = 50
_SECONDS_BETWEEN = 0.1  # as Docker's progress sink: more often than that nobody can read


def human_size(size: float) -> str:
    """Bytes to four digits, in decimal units: 4.194MB."""
    unit = 0
    while size >= 1000.0 and unit < len(_UNITS) - 1:
        size /= 1000.0
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"


def bar(current: int, total: int) -> str:
    """`[====>    ]  1.2MB/4.8MB`; without a total only how much it is so far."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current):>8}"
    percentage = min(int(current / total * 100) // 2, _BAR)
    drawn = f"[{'=' * percentage}>{' ' * (_BAR - percentage)}] "
    shown = f"{human_size(current):>8}"
    return drawn + (shown if current > total else f"{shown}/{human_size(total)}")


def update(identity: str, action: str, current: int = 0, total: int = 0) -> Line:
    """How far something is: `{"status", "progressDetail", "progress", "id"}`."""
    line: Line = {"status": action, "progressDetail": {}}
    if current or total:
        line["progressDetail"] = {"current": current} | ({"total": total} if total else {})
        line["progress"] = bar(current, total)
    line["id"] = identity
    return line


def message(text: str, identity: str = "") -> Line:
    """A sentence, about the whole or about one thing."""
    return {"status": text, "id": identity} if identity else {"status": text}


def failure(text: str) -> Line:
    """What went wrong, after the status of the answer has gone out already."""
    return {"errorDetail": {"message": text}, "error": text}


def auxiliary(value: Any) -> Line:
    """Something for programs to read."""
    return {"progressDetail": {}, "aux": value}


class Meter:
    """Tells now and then how many bytes of something have gone."""

    def __init__(self, emit: Callable[[Line], None], identity: str, action: str, total: int) -> None:
        self._emit = emit
        self._identity = identity
        self._action = action
        self._total = total
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, current: int) -> None:
        """`current` bytes have gone."""
        now = time.monotonic()
        with self._lock:
            if now < self._next and current < self._total:
                return
            self._next = now + _SECONDS_BETWEEN
        self._emit(update(self._identity, self._action, current, self._total))
