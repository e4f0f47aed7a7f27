"""What is going on: told in lines, or on a terminal in a block whose lines change."""

import sys
import threading
import time
from typing import Any, Protocol, TextIO


class Reporter(Protocol):
    """Is told what happens to a thing: `report("Container", "p-web-1", "Started")`. Thread-safe."""

    def report(self, kind: str, name: str, status: str) -> None:
        """`status` is what happens (`Starting`) or has happened (`Started`)."""
        ...

    def detail(self, name: str, text: str) -> None:
        """A line of a longer work, such as a build's."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class LineReporter:
    """A line for each thing that happened, as docker compose writes them where there is no terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def report(self, kind: str, name: str, status: str) -> None:
        """Write ` Container p-web-1  Started`."""
        self._write(f" {kind} {name}  {status}")

    def detail(self, name: str, text: str) -> None:
        """Write the line with its name before it."""
        for line in text.rstrip("\n").splitlines():
            self._write(f"{name}: {line}")

    def close(self) -> None:
        """Nothing is held back."""

    def _write(self, line: str) -> None:
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class QuietReporter:
    """Says nothing."""

    def report(self, kind: str, name: str, status: str) -> None:
        """Nothing."""

    def detail(self, name: str, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LiveReporter:
    """A block on a terminal: one line for each thing, with its state and for how long it has been in work."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], tuple[str, float, float | None]] = {}
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._table)
        self._started = False

    def report(self, kind: str, name: str, status: str) -> None:
        """Change the line of that thing."""
        now = time.monotonic()
        with self._lock:
            begin = self._rows.get((kind, name), ("", now, None))[1]
            finished = None if status.endswith("ing") and status != "Running" else now
            self._rows[kind, name] = (status, begin, finished)
            if not self._started:
                self._live.start()
                self._started = True

    def detail(self, name: str, text: str) -> None:
        """Write the line above the block."""
        for line in text.rstrip("\n").splitlines():
            self._console.print(f"{name}: {line}", markup=False, highlight=False)

    def close(self) -> None:
        """Leave the block as it is now."""
        with self._lock:
            started, self._started = self._started, False
        if started:
            self._live.stop()

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        now = time.monotonic()
        with self._lock:
            rows = list(self._rows.items())
        for (kind, name), (status, begin, finished) in rows:
            mark, style = (" ", "cyan") if finished is None else ("✔", "green")
            if status.startswith("Error"):
                mark, style = "✘", "red"
            seconds = f"{(finished or now) - begin:.1f}s"
            table.add_row(Text(f" {mark}", style), Text(f"{kind} {name}"), Text(status, style), Text(seconds, "blue"))
        return table


def reporter_for(stream: TextIO, *, quiet: bool = False) -> Reporter:
    """The right one for where it is read."""
    if quiet:
        return QuietReporter()
    return LiveReporter() if stream.isatty() else LineReporter(stream)
