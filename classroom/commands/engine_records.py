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
    from collections.abc import Mapping, Sequence

    from rich.console import Console

Json = dict[str, Any]

_PLAIN_WIDTH = 1 << 16  # where it goes to a file or a pipe, a record is a line
_SIDE_BY_SIDE = 110  # columns from which a step and its reason stand beside one another
_MOST_TEXT_LINES = 24
_HEAD_COLUMNS = (10, 9, 10)  # moment, time, mark
_MOST_DEPTH = 6
_MOST_HIDDEN_HEADERS = frozenset(("host", "user-agent", "date", "server", "accept-encoding", "ostype", "api-version"))
_PHASE_STYLES = {
    "registry": "cyan",
    "network": "bright_blue",
    "store": "green",
    "cache": "yellow",
    "build": "bold yellow",
    "end": "magenta",
}
_SUMMED_PHASES = frozenset(("prepare", "cgroup", "clone", "mounts", "pivot", "enter", "confine", "exec"))
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
        self._calls = Phrases(self.words, "call")

    def why(self, record: Mapping[str, Any]) -> str:
        """The reason of a step."""
        english = str(record.get("why", ""))
        key = self._keys.get(english)
        if key is not None and key in self._texts:
            return self._texts[key]
        return self._texts.get(f"operation.{record.get('operation')}", english)

    def call(self, record: Mapping[str, Any]) -> str:
        """What a step does: calls as they are, and sentences in the language."""
        text = str(record.get("call", ""))
        return self.words.get(f"doing.{record.get('operation')}", self._calls(text))

    def phase(self, name: str) -> str:
        """The name of a phase."""
        return self.words.get(f"phase.{name}", name)


class Phrases:
    """Sentences with gaps, in a language: `Phrases(words, "call")("a is b")` for the key `call."{0} is {1}"`.

    English has no such keys, since English is what they stand for. A sentence that isn't known stays as it is.
    """

    def __init__(self, words: Words, table: str) -> None:
        self._exact: dict[str, str] = {}
        self._gapped: list[tuple[re.Pattern[str], str]] = []
        for key, text in words.texts.items():
            english = key.removeprefix(f"{table}.")
            if english == key:
                continue
            if "{0}" not in english:
                self._exact[english] = text
                continue
            pattern = re.sub(r"\\\{(\d)\\\}", r"(?P<g\1>.+?)", re.escape(english))
            self._gapped.append((re.compile(pattern, re.DOTALL), text))
        self._gapped.sort(key=lambda each: len(each[0].pattern), reverse=True)  # the one that says most fits best

    def __call__(self, english: str) -> str:
        """The sentence in the language."""
        if english in self._exact:
            return self._exact[english]
        for pattern, text in self._gapped:
            found = pattern.fullmatch(english)
            if found is not None:
                return text.format(*(self(found[f"g{number}"]) for number in range(len(found.groupdict()))))
        return english


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
        # Text is loaded here and not with the first line, for which the daemon would not wait.
        from rich.console import Console
        from rich.text import Text  # noqa: F401

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
        self._summed: dict[str, tuple[float, float, int, int]] = {}
        self._begun: set[tuple[str, float]] = set()
        self._told_header = False
        self._last_why = ""
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
            # Its own end is the moment of the record; what began it has a line above.
            at = max(0.0, record["at"] - record["seconds"])
            self._line(at, record["seconds"], "◀", said, style, self._parts(record))

    def _show_begun(self, record: Mapping[str, Any]) -> None:
        if not self._steps:
            return
        self._flush()
        call, why = self.reasons.call(record), self.reasons.why(record)
        self._begun.add((str(record["operation"]), float(record["at"])))
        style = _PHASE_STYLES.get(str(record["phase"]), "")
        mark = self.reasons.phase(str(record["phase"]))
        self._line(record["at"], None, mark, call, style, why, record.get("depth", 0), "┌ ")

    def _show_step(self, record: Mapping[str, Any]) -> None:
        if not self._steps:
            return
        phase = str(record["phase"])
        own = record.get("own_seconds", record["seconds"])
        count, total = self.totals.get(phase, (0, 0.0))
        self.totals[phase] = (count + 1, total + own)
        if self._phases and phase in _SUMMED_PHASES:
            begin, seconds, count, _ = self._summed.get(phase, (record["at"], 0.0, 0, 0))
            self._summed[phase] = (begin, seconds + record["seconds"], count + 1, record.get("depth", 0))
            return
        self._flush()
        call = self.reasons.call(record)
        if record.get("bytes"):
            call += f" ({byte_text(record['bytes'])})"
        if record.get("error"):
            call += f": {record['error']}"
        parts, why = self._parts(record), self.reasons.why(record)
        begun = (str(record["operation"]), float(record["at"]))
        if begun in self._begun:  # its reason stands where it began
            self._begun.discard(begun)
            why = parts
        elif parts:
            call += f" ({parts})"
        style, branch = _PHASE_STYLES.get(phase, ""), "└ " if record.get("parts") else ""
        mark = self.reasons.phase(phase)
        self._line(record["at"], record["seconds"], mark, call, style, why, record.get("depth", 0), branch)

    def _parts(self, record: Mapping[str, Any]) -> str:
        """How much of its time is its own, if there are others in it."""
        if "own_seconds" not in record:
            return ""
        own = duration(record["own_seconds"])
        if "parts" not in record:
            return self._words("engine.until-answer", own=own)
        return self._words("engine.parts", own=own, count=record["parts"])

    def _flush(self) -> None:
        """Tell what was summed up."""
        summed, self._summed = self._summed, {}
        for phase, (begin, seconds, count, depth) in summed.items():
            text = self._words("engine.summed", count=count)
            self._line(begin, seconds, self.reasons.phase(phase), text, "dim", depth=depth)

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
        left_out = 0
        if len(lines) > _MOST_TEXT_LINES:
            shorter, left_out = telling(str(text))
            lines = shorter.splitlines() if left_out else lines
        more = len(lines) - _MOST_TEXT_LINES
        for line in lines[:_MOST_TEXT_LINES]:
            self._indented(printable(line), "")
        if left_out:
            self._indented(self._words("engine.empty", count=left_out), "dim")
        if more > 0 or record.get("cut"):
            self._indented(self._words("engine.cut", lines=max(0, more), size=size), "dim")

    # --- lines -------------------------------------------------------------------------------------------------------

    def _indented(self, text: str, style: str) -> None:
        self._row(("", "", ""), text, style, "")

    def _line(
        self,
        at: float,
        seconds: float | None,
        mark: str,
        text: str,
        style: str,
        why: str = "",
        depth: int = 0,
        branch: str = "",
    ) -> None:
        took = "" if seconds is None else duration(seconds)
        stem = "│ " * min(depth, _MOST_DEPTH)
        self._row((duration(at), took, mark), printable(text), style, why, stem, branch)

    def _row(
        self, heads: tuple[str, str, str], text: str, style: str, why: str, stem: str = "", branch: str = ""
    ) -> None:
        """Moment, time, mark; then the text, and its reason beside it or, where there is little room, below."""
        from rich.text import Text

        at, took, mark = _HEAD_COLUMNS
        fixed = f"{heads[0]:>{at}} {heads[1]:>{took}} {pad(heads[2], mark)} "
        if not self._terminal:
            reason = f"  # {why}" if why else ""
            self._console.print(f"{fixed}{stem}{branch}{text}{reason}", markup=False, soft_wrap=True)
            return
        if not self._told_header:
            self._told_header = True
            self._header()
        why, self._last_why = (self._words("engine.same") if why and why == self._last_why else why), why
        left, right = self._widths()
        beside = bool(why) and right > 0
        room = max(12, (left if beside else left + right) - columns(stem + branch))
        lines = wrapped(text, room)
        reasons = wrapped(why, right - 2) if beside else []
        below = [] if beside or not why else wrapped(why, room)
        blank = " " * (sum(_HEAD_COLUMNS) + 3)
        under = stem + " " * len(branch) if branch != "┌ " else stem + "│ "
        plain = "" if why else style
        whole = Text(no_wrap=True, overflow="ignore", end="")  # one write, into which no output of a container falls
        for number in range(max(len(lines), len(reasons))):
            if number == 0:
                whole.append(fixed[: at + 1], "dim").append(fixed[at + 1 : at + took + 2])
                whole.append(fixed[at + took + 2 :], style)
            else:
                whole.append(blank)
            whole.append(stem + branch if number == 0 else under, "dim")
            shown = lines[number] if number < len(lines) else ""
            whole.append(shown, plain)
            if number < len(reasons):
                whole.append(" " * (left + 2 - columns(stem + branch + shown))).append(reasons[number], "italic")
            whole.append("\n")
        for each in below:
            whole.append(blank).append(under, "dim").append(each, "italic").append("\n")
        self._console.print(whole, end="")

    def _widths(self) -> tuple[int, int]:
        """Columns of what is done, and of why; the second is 0 where they stand one below the other."""
        width: int = self._console.width
        room = max(20, width - sum(_HEAD_COLUMNS) - 3)
        return (room * 3 // 5, room - room * 3 // 5) if width >= _SIDE_BY_SIDE else (room, 0)

    def _header(self) -> None:
        names = [self._words(f"engine.head.{name}") for name in ("began", "took", "part", "what", "why")]
        at, took, mark = _HEAD_COLUMNS
        left, right = self._widths()
        first = f"{pad_left(names[0], at)} {pad_left(names[1], took)} {pad(names[2], mark)} "
        second = f"{pad(names[3], left + 2)}{names[4]}" if right and self._steps else names[3]
        self._console.print(first + second, style="bold underline", markup=False, no_wrap=True, overflow="crop")

    def end(self, seconds: float | None = None) -> None:
        """Tell what the steps come to, and where the time went."""
        with self._lock:
            self._flush()
            parts = [
                f"{self.reasons.phase(phase)} {duration(total)} ({count})"
                for phase, (count, total) in self.totals.items()
            ]
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


def telling(text: str) -> tuple[str, int]:
    """JSON without the fields that are empty, zero or false, as a person writes it; and how many of them there were."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text, 0
    count = 0

    def kept(value: Any) -> Any:
        nonlocal count
        if isinstance(value, list):
            return [kept(each) for each in value]
        if not isinstance(value, dict):
            return value
        found = {}
        for name, each in value.items():
            shorter = kept(each)
            if shorter or (each and not isinstance(each, dict)):
                found[name] = shorter
            elif not each:
                count += 1
        return found

    shorter = kept(value)
    return json.dumps(shorter, indent=2, ensure_ascii=False), count


_LONG_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or change its colours; long ids are cut to twelve digits."""
    text = _LONG_ID.sub(r"\1…", text)
    return "".join(
        each if each.isprintable() or each == " " else {"\n": "⏎", "\t": " "}.get(each, f"\\x{ord(each):02x}")
        for each in text
    )


def columns(text: str) -> int:
    """How many columns of a terminal it takes: Korean and other wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def pad(text: str, width: int) -> str:
    """`text` and spaces, `width` columns wide."""
    return text + " " * max(0, width - columns(text))


def pad_left(text: str, width: int) -> str:
    """Spaces and `text`, `width` columns wide."""
    return " " * max(0, width - columns(text)) + text


_BREAKS = re.compile(r"(?<=[/,:&?])")


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces; a word that is longer is broken behind a / or the like."""
    if columns(text) <= width:
        return [text]
    lines: list[str] = []
    words = text.lstrip(" ")
    line = " " * min(len(text) - len(words), width // 2)
    used = len(line)
    if used:
        return [line + each for each in wrapped(words, width - used)]
    for word in words.split(" "):
        size = columns(word)
        if line and used + 1 + size <= width:
            line, used = f"{line} {word}", used + 1 + size
            continue
        if line and (size <= width or used > width // 2):
            lines.append(line)
            line, used = "", 0
        if size <= width:
            line, used = (word, size) if not line else (f"{line} {word}", used + 1 + size)
            continue
        line = f"{line} " if line else ""
        used = columns(line)
        for piece in _BREAKS.split(word):
            if used + columns(piece) > width and used and columns(piece) <= width:
                lines.append(line)
                line, used = "", 0
            for each in piece:
                if used + columns(each) > width:
                    lines.append(line)
                    line, used = "", 0
                line, used = line + each, used + columns(each)
    return [*lines, line]


def print_row(
    console: Console, widths: Sequence[int], cells: Sequence[str], styles: Sequence[str], below: int | None = None
) -> None:
    """A row of cells, each in its column; one cell more than there are columns stands below column number `below`."""
    from rich.text import Text

    shown = [wrapped(cell, width) for cell, width in zip(cells, widths, strict=False)]
    whole = Text(no_wrap=True, overflow="ignore")
    for number in range(max(map(len, shown))):
        whole.append("\n" if number else "")
        for lines, width, style in zip(shown, widths, styles, strict=False):
            text = lines[number] if number < len(lines) else ""
            whole.append(text, style).append(" " * (width + 2 - columns(text)) if lines is not shown[-1] else "")
    if below is not None and len(cells) > len(widths) and cells[-1]:
        left = sum(widths[:below]) + 2 * below
        for line in wrapped(cells[-1], sum(widths) + 2 * (len(widths) - 1) - left):
            whole.append("\n" + " " * left).append(line, "italic")
    console.print(whole)
