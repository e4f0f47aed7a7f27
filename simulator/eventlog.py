"""What happened in a run, one line of JSON an event: for people, for a page that shows a run live, and for its replay.

A line is `{"version": 1, "run_id": …, "platform": …, "replication": …, "seconds": …, "kind": …}` and the facts of the
event: `instance`, `machine`, `reason`, … Events are in order of time within a run. A log has the events of instances,
machines, faults and decisions, and none of single requests, so its length does not grow with their number.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args

from simulator.errors import SimulatorError

VERSION = 1
"""Of a line, so that a later version can tell."""

Kind = Literal[
    "run-begun",
    "run-ended",
    "instance-pending",
    "instance-pulling",
    "instance-starting",
    "instance-backing-off",
    "instance-pooled",
    "instance-ready",
    "instance-draining",
    "instance-stopped",
    "instance-failed",
    "machine-added",
    "machine-removed",
    "fault",
    "recovered",
    "scale-decision",
    "place",
    "route",
    "burst-rejected",
]
"""What can happen. `place` and `route` are decisions, with their `reason`: which machine, and how instances are chosen.
`burst-rejected` sums up rejections, `count` of them since the last such event."""

KINDS: tuple[str, ...] = get_args(Kind)

Fact = str | int | float | bool | None
"""What an event can say beside its kind and time."""

_HEAD = ("version", "run_id", "platform", "replication", "seconds", "kind")
_LARGEST_LINE = 64 * 1024  # bytes; an event has about two hundred
_MOST_EVENTS = 10_000_000  # 2 GB; no run of the model comes near


class EventLog(Protocol):
    """What a model writes its events to."""

    def write(self, kind: Kind, seconds: float, **facts: Fact) -> None:
        """One event at a moment of the simulation, with its facts; those that are None are left out."""


class NoLog:
    """Keeps nothing: the log of a run that nobody asked to log."""

    def write(self, kind: Kind, seconds: float, **facts: Fact) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        run_id: of the replication, see `simulator.fingerprint.run_id`.
        platform: name of the profile.
        replication: which.
        seconds: simulated, from the beginning of the run.
        kind: one of `KINDS`.
        facts: what else is known of it.
    """

    run_id: str
    platform: str
    replication: int
    seconds: float
    kind: str
    facts: dict[str, Fact] = field(default_factory=dict)

    def to_line(self) -> str:
        """As a line of the log, without its end."""
        head = {"version": VERSION, **{name: getattr(self, name) for name in _HEAD[1:]}}
        return json.dumps({**head, **self.facts}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def explain(self) -> str:
        """In words: when, what, of whom, and why."""
        reason = self.facts.get("reason")
        return f"{self.seconds:10.3f} s  {self._told()}{' – ' + str(reason) if reason else ''}"

    def _told(self) -> str:
        """What happened, without its reason."""
        facts = self.facts
        match self.kind:
            case "place" if {"instance", "machine"} <= facts.keys():
                return f"instance {facts['instance']} is placed on {facts['machine']}"
            case "route" if "policy" in facts:
                return f"requests are routed by {facts['policy']}"
            case "route" if "instance" in facts:
                return f"no request is routed to instance {facts['instance']}"
            case "scale-decision" if {"current", "desired"} <= facts.keys():
                what, current, desired = facts.get("what", "instances"), facts["current"], facts["desired"]
                return f"{what} stay at {current}" if current == desired else f"{what} go from {current} to {desired}"
            case "fault" if "what" in facts:
                return f"fault: {facts['what']}{' of ' + str(facts['target']) if 'target' in facts else ''}"
        told = ", ".join(
            f"{name.replace('_', ' ')} {_shown(value)}" for name, value in facts.items() if name != "reason"
        )
        return f"{self.kind}{': ' + told if told else ''}"


class MemoryLog:
    """Keeps events in memory, in `events`.

    Args:
        run_id: of the replication.
        platform: name of the profile.
        replication: which.

    Raises:
        SimulatorError: on `write`, a kind that there is not, a time that is before the last, or a fact with a name of
            the head: a bug of who writes, which a reader could not make sense of.
    """

    def __init__(self, run_id: str, platform: str, replication: int = 0) -> None:
        self._head = (run_id, platform, replication)
        self._last = 0.0
        self.events: list[Event] = []

    def write(self, kind: Kind, seconds: float, **facts: Fact) -> None:
        """Keep an event."""
        self.events.append(self._event(kind, seconds, facts))

    def _event(self, kind: str, seconds: float, facts: dict[str, Fact]) -> Event:
        if kind not in KINDS:
            raise SimulatorError(f"event log: no kind `{kind}`; choose from {', '.join(KINDS)}")
        if not self._last <= seconds < float("inf"):
            raise SimulatorError(f"event log: `{kind}` at {seconds} s comes after an event at {self._last} s")
        if taken := facts.keys() & {*_HEAD}:
            raise SimulatorError(f"event log: `{min(taken)}` of `{kind}` is set by the log itself")
        self._last = seconds
        known: dict[str, Fact] = {name: value for name, value in facts.items() if value is not None}
        return Event(*self._head, float(seconds), kind, known)


class FileLog(MemoryLog):
    """Appends events to a file as they happen. A context manager, which closes it.

    It appends, and does not write beside and rename at the end: a page that follows a run must see it grow, and of a
    run that ended early its log is what one wants to read. A line is in the file as soon as it is written, whole; after
    a crash of the machine the last may be torn, which `read_events` can pass over.

    Args:
        path: made, or emptied if it is there; with `append`, added to, so that a file can hold several replications.
        run_id, platform, replication: as of `MemoryLog`.
        append: see `path`.

    Raises:
        SimulatorError: the file cannot be written.
    """

    def __init__(self, path: Path, run_id: str, platform: str, replication: int = 0, *, append: bool = False) -> None:
        super().__init__(run_id, platform, replication)
        self._path = path
        try:
            # A buffer of one line: what others read is made of whole lines.
            self._file = path.open("a" if append else "w", encoding="utf-8", buffering=1, newline="\n")
        except OSError as error:
            raise SimulatorError(f"{path}: {error.strerror}; name a file that can be written") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, kind: Kind, seconds: float, **facts: Fact) -> None:
        """Append an event."""
        line = self._event(kind, seconds, facts).to_line()
        try:
            self._file.write(line + "\n")
        except OSError as error:
            raise SimulatorError(f"{self._path}: {error.strerror}; make room, or run without a log") from error

    def close(self) -> None:
        """Make sure that all is on the disk, and close the file. Closing twice does nothing."""
        if not self._file.closed:
            self._file.flush()
            with suppress(OSError):  # what is no file, such as a pipe, has no disk to be on
                os.fsync(self._file.fileno())
            self._file.close()


def begin_log(path: Path) -> None:
    """Make an empty log, or empty the one that is there, for `FileLog` to append to.

    Raises:
        SimulatorError: the file cannot be written.
    """
    try:
        path.open("wb").close()
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; name a file that can be written") from error


def join_log(path: Path, part: Path) -> None:
    """Append the log `part` to the log at `path`, and remove it.

    Raises:
        SimulatorError: one cannot be read, or the other not be written.
    """
    try:
        with path.open("ab") as whole, part.open("rb") as events:
            shutil.copyfileobj(events, whole)
        part.unlink()
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; make room, or run without a log") from error


def read_events(path: Path, *, follow: bool = False, most: int = _MOST_EVENTS) -> Iterator[Event]:
    """The events of a log in order, read line by line.

    Args:
        path: what `FileLog` wrote.
        follow: of a run that is not over (or was cut off): the last line may be torn, and the events before it are all.
        most: events to read, before the file is taken for something else.

    Raises:
        SimulatorError: unreadable, or a line that is no event; the message names it.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; name a log of events") from error
    with file:
        for number, line in enumerate(iter(lambda: file.readline(_LARGEST_LINE), b""), start=1):
            if number > most:
                raise SimulatorError(f"{path}: more than {most} events; give `most` if they are meant")
            if not line.endswith(b"\n"):
                if follow and len(line) < _LARGEST_LINE:
                    return
                raise SimulatorError(f"{path}:{number}: the line has no end: cut off, or longer than an event can be")
            yield _parse(line, f"{path}:{number}")


def _parse(line: bytes, where: str) -> Event:
    try:
        tree: Any = json.loads(line)
    except ValueError as error:
        raise SimulatorError(f"{where}: not JSON: {error}") from error
    if not isinstance(tree, dict) or "version" not in tree:
        raise SimulatorError(f"{where}: not an event: it has no `version`")
    if tree["version"] != VERSION:
        raise SimulatorError(f"{where}: an event of version {tree['version']}, and this reads {VERSION}; run it again")
    missing = [name for name in _HEAD if name not in tree]
    if missing:
        raise SimulatorError(f"{where}: the event has no `{missing[0]}`")
    if tree["kind"] not in KINDS:
        raise SimulatorError(f"{where}: no kind `{tree['kind']}`; one of {', '.join(KINDS)}")
    facts = {name: value for name, value in tree.items() if name not in _HEAD}
    try:
        return Event(
            str(tree["run_id"]),
            str(tree["platform"]),
            int(tree["replication"]),
            float(tree["seconds"]),
            tree["kind"],
            facts,
        )
    except (TypeError, ValueError) as error:
        raise SimulatorError(f"{where}: not an event: {error}") from error


def _shown(value: Fact) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
