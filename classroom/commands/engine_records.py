"""How what was seen of an engine looks: each record of a session as it comes, on a terminal and elsewhere.

It needs nothing of Linux: recordings are shown by it too.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from simulator.words import Words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

Json = dict[str, Any]

_PLAIN_WIDTH = 1 << 16  # where it goes to a file or a pipe, a record is a line
_SIDE_BY_SIDE = 110  # columns from which a step and its reason stand beside one another
_MOST_TEXT_LINES = 24
_MOST_HIDDEN_HEADERS = frozenset(("host", "user-agent", "date", "server", "accept-encoding", "ostype", "api-version"))
_PHASE_STYLES = {
    "registry": "cyan",
    "network": "blue",
    "store": "green",
    "cache": "yellow",
    "build": "bold yellow",
    "end": "magenta",
}
_BYTE_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


class Reasons:
    """Why a step is done, in a language. English is in the records themselves; Korean is kept by operation.

    Steps of a class whose objects have reasons of their own are found by these.
    """

    def __init__(self, language: str) -> None:
        self.words = Words(Path(__file__).parent, language)
        self._english = Words(Path(__file__).parent, "en").texts if language != "en" else {}
        self._texts: Mapping[str, str] = self.words.texts if language != "en" else {}
        self._keys = {text: key for key, text in self._english.items() if key.startswith("reason.")}

    def why(self, record: Mapping[str, Any]) -> str:
        """The reason of a step."""
        english = str(record.get("why", ""))
        key = self._keys.get(english)
        if key is not None and key in self._texts:
            return self._texts[key]
        return self._texts.get(f"operation.{record.get('operation')}", english)


class Teller:
    """Shows records on a stream as they come. Thread-safe.

    `steps` is whether what the daemon does is shown, and `exchange` whether what is said to it. `phases` sums up the
    kernel's steps of each container's start, phase by phase, as a build with many containers needs it.
    """

    def __init__(
        self,
        language: str = "en",
        stream: TextIO | None = None,
        *,
        steps: bool = True,
        exchange: bool = True,
        phases: bool = False,
        width: int | None = None,
    ) -> None:
        from rich.console import Console

        self.reasons = Reasons(language)
        self._words = self.reasons.words
        self._steps, self._exchange, self._phases = steps, exchange, phases
        stream = stream or sys.stderr
        console = Console(file=stream, highlight=False, soft_wrap=False, width=width)
        self._terminal = console.is_terminal or width is not None
        if not self._terminal:
            console = Console(file=stream, highlight=False, width=_PLAIN_WIDTH, no_color=True)
        self._console: Console = console
        self._lock = threading.Lock()
        self._methods: dict[int, tuple[str, str]] = {}
        self._summed: dict[str, tuple[float, float, int]] = {}
        self._told_header = False
        self.totals: dict[str, tuple[int, float]] = {}

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Show a record, if it is of a kind that is to be shown."""
        with self._lock:
            show = getattr(self, f"_show_{record['kind']}", None)
            if show is not None:
                show(record)

    # --- what the daemon does ----------------------------------------------------------------------------------------

    def _show_asked(self, record: Mapping[str, Any]) -> None:
        if self._steps and not self._exchange:
            self._line(record["at"], None, "▶", f"{record['method']} {record['target']}", "bold")

    def _show_answered(self, record: Mapping[str, Any]) -> None:
        if not self._steps:
            return
        self._flush()
        if not self._exchange:
            style = "bold green" if record["status"] < 400 else "bold red"
            said = f"{record['method']} {record['target']} → {record['status']} {record.get('error', '')}".rstrip()
            self._line(record["at"], record["seconds"], "◀", said, style)

    def _show_step(self, record: Mapping[str, Any]) -> None:
        if not self._steps:
            return
        phase = str(record["phase"])
        known = phase in _PHASE_STYLES or record["operation"] in ("MountVolumes", "StartInSupervisor", "MakeContainer")
        if self._phases and not known and phase != "image":
            begin, seconds, count = self._summed.get(phase, (record["at"], 0.0, 0))
            self._summed[phase] = (begin, seconds + record["seconds"], count + 1)
            return
        self._flush()
        count, total = self.totals.get(phase, (0, 0.0))
        self.totals[phase] = (count + 1, total + record["seconds"])
        call = str(record["call"])
        if record.get("bytes"):
            call += f" ({byte_text(record['bytes'])})"
        if record.get("error"):
            call += f": {record['error']}"
        style = _PHASE_STYLES.get(phase, "")
        self._line(record["at"], record["seconds"], phase, call, style, self.reasons.why(record))

    def _flush(self) -> None:
        """Tell what was summed up."""
        summed, self._summed = self._summed, {}
        for phase, (begin, seconds, count) in summed.items():
            self._line(begin, seconds, phase, self._words("engine.summed", count=count), "dim")

    def _show_lost(self, record: Mapping[str, Any]) -> None:
        self._console.print(self._words("engine.lost", count=record["records"]), style="red", markup=False)

    # --- what is said ------------------------------------------------------------------------------------------------

    def _show_session(self, record: Mapping[str, Any]) -> None:
        command = " ".join(map(str, record.get("command", ())))
        text = self._words(
            "engine.session",
            command=command,
            when=record.get("recorded_at", "?"),
            system=record.get("system", "?"),
            kernel=record.get("kernel", "?"),
        )
        self._console.print(text, style="dim", markup=False)

    def _show_request(self, record: Mapping[str, Any]) -> None:
        self._methods[record["exchange"]] = (record["method"], record["target"])
        if not self._exchange:
            return
        self._line(record["at"], None, f"→ {record['exchange']}", f"{record['method']} {record['target']}", "bold cyan")
        self._headers(record["headers"])

    def _show_sent(self, record: Mapping[str, Any]) -> None:
        if self._exchange:
            self._body(record, "→")

    def _show_response(self, record: Mapping[str, Any]) -> None:
        if not self._exchange:
            return
        style = "bold green" if record["status"] < 400 else "bold red"
        said = f"{record['status']} {record['reason']}"
        self._line(record["at"], record["seconds"], f"← {record['exchange']}", said, style)
        self._headers(record["headers"])

    def _show_received(self, record: Mapping[str, Any]) -> None:
        if self._exchange and record["bytes"]:
            mark = f"← {record['exchange']}"
            self._line(record["at"], record["seconds"], mark, byte_text(record["bytes"]), "green")
            self._body(record, "←")

    def _show_frame(self, record: Mapping[str, Any]) -> None:
        if not self._exchange:
            return
        mark = f"{'→' if record['stream'] == 'stdin' else '←'} {record['exchange']}"
        text = printable(str(record.get("text", "")).rstrip("\n"))
        said = f"{record['stream']}, {byte_text(record['bytes'])}" + (f": {text}" if text else "")
        self._line(record["at"], None, mark, said, "magenta")

    def _headers(self, headers: list[list[str]]) -> None:
        shown = [f"{name}: {value}" for name, value in headers if name.lower() not in _MOST_HIDDEN_HEADERS]
        if shown:
            self._indented("  ".join(shown), "dim")

    def _body(self, record: Mapping[str, Any], arrow: str) -> None:
        size = byte_text(record["bytes"])
        text = record.get("text")
        if text is None:
            self._indented(f"{arrow} {self._words('engine.binary', size=size)}", "dim")
            return
        lines = pretty(str(text)).splitlines() if self._terminal else [str(text).replace("\n", "⏎")]
        more = len(lines) - _MOST_TEXT_LINES
        for line in lines[:_MOST_TEXT_LINES]:
            self._indented(printable(line), "")
        if more > 0 or record.get("cut"):
            self._indented(self._words("engine.cut", lines=max(0, more), size=size), "dim")

    # --- lines -------------------------------------------------------------------------------------------------------

    def _indented(self, text: str, style: str) -> None:
        self._row((" " * 10, " " * 9, " " * 9), text, style, "")

    def _line(self, at: float, seconds: float | None, mark: str, text: str, style: str, why: str = "") -> None:
        took = "" if seconds is None else duration(seconds)
        self._row((f"{duration(at):>10}", f"{took:>9}", pad(mark, 9)), printable(text), style, why)

    def _row(self, heads: tuple[str, str, str], text: str, style: str, why: str) -> None:
        """Moment, time, mark; then the text, and its reason beside it or, where there is little room, below."""
        from rich.table import Table
        from rich.text import Text

        if not self._terminal:
            reason = f"  # {why}" if why else ""
            self._console.print(" ".join(heads) + f" {text}{reason}", markup=False, soft_wrap=True)
            return
        width = self._console.width
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=10, no_wrap=True)
        grid.add_column(width=9, no_wrap=True)
        grid.add_column(width=9, no_wrap=True)
        head = [Text(heads[0], "dim"), Text(heads[1]), Text(heads[2], style)]
        room = width - 31
        if why and width >= _SIDE_BY_SIDE:
            grid.add_column(width=room * 3 // 5 - 1, overflow="fold")
            grid.add_column(width=room - room * 3 // 5, overflow="fold")
            grid.add_row(*head, Text(text), Text(why, "italic dim"))
        else:
            grid.add_column(width=max(20, room), overflow="fold")
            grid.add_row(*head, Text(text, style if not why else ""))
            if why:
                grid.add_row("", "", "", Text(why, "italic dim"))
        self._console.print(grid)

    def end(self, seconds: float | None = None) -> None:
        """Tell what the steps come to, and where the time went."""
        with self._lock:
            self._flush()
            parts = [f"{phase} {duration(total)} ({count})" for phase, (count, total) in self.totals.items()]
            if parts and self._steps:
                self._console.print(self._words("engine.totals", parts=", ".join(parts)), style="dim", markup=False)
            if seconds is not None:
                self._console.print(self._words("engine.took", seconds=duration(seconds)), style="dim", markup=False)


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 850 µs, 3.25 ms, 1.50 s."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.2f} s"


def byte_text(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    for size, unit in _BYTE_UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def pretty(text: str) -> str:
    """JSON as a person writes it; anything else as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


_LONG_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or change its colours; long ids are cut to twelve digits."""
    text = _LONG_ID.sub(r"\1…", text)
    return "".join(
        each if each.isprintable() or each == " " else {"\n": "⏎", "\t": " "}.get(each, f"\\x{ord(each):02x}")
        for each in text
    )


def pad(text: str, width: int) -> str:
    """`text` and spaces, `width` columns wide: Korean and other wide characters take two."""
    columns = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)
    return text + " " * max(0, width - columns)
