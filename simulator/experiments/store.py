"""What of a sweep is finished, on a disk: a directory that survives whatever ends the process.

`sweep.json` says which sweep it is, and `replications.jsonl` has a line for each replication that has ended. Lines are
appended and synced, a group of them at a time; the last may be torn, and is then dropped. A replication is the same in
whatever process it runs, so a sweep that goes on gives the same result as one that was never interrupted.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from simulator.errors import SimulatorError
from simulator.files import write_text
from simulator.results import Replication

FORMAT = 1
_HEADER, _LINES = "sweep.json", "replications.jsonl"
_LARGEST_LINE = 16 * 1024 * 1024  # bytes; a replication has about a thousand

Outcome = Replication | str
"""What a replication gave, or in one line why it cannot be."""


class Unit(NamedTuple):
    """One replication of one point on one platform."""

    point: int
    platform: str
    replication: int


class SweepStore:
    """The finished replications of one sweep. A context manager: it holds its file open, and locked where it can.

    Args:
        directory: made if it is not there.
        identity: what must be the same for what is stored to be of use, by name: scenario, seed, version, …
        resume: whether to go on with what is there; otherwise a directory that has any is refused.

    Raises:
        SimulatorError: cannot be written, holds another sweep or something else, is damaged, or is in use.

    Attributes:
        finished: what was there and what was added since.
    """

    def __init__(self, directory: Path, identity: Mapping[str, str], *, resume: bool) -> None:
        self._directory = directory
        self.finished: dict[Unit, Outcome] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._check_header(identity)
            self._file = (directory / _LINES).open("a+b")
        except OSError as error:
            raise SimulatorError(f"{directory}: {error.strerror}; name a directory that can be written") from error
        try:
            self._lock()
            self._read()
            if self.finished and not resume:
                raise SimulatorError(
                    f"{directory}: holds {len(self.finished)} finished replications of this sweep; "
                    "resume it (`--resume`), or name another directory"
                )
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, finished: Iterable[tuple[Unit, Outcome]]) -> None:
        """Append replications. When it returns they are on the disk.

        Raises:
            SimulatorError: the disk is full, or whatever else keeps them from being written.
        """
        new = dict(finished)
        text = "".join(_to_line(unit, outcome) for unit, outcome in new.items())
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SimulatorError(f"{self._directory / _LINES}: {error.strerror}; make room, and resume") from error
        self.finished |= new

    def _check_header(self, identity: Mapping[str, str]) -> None:
        path = self._directory / _HEADER
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if (self._directory / _LINES).exists():
                raise SimulatorError(f"{self._directory}: {_HEADER} is missing; name another directory") from None
            write_text(path, json.dumps({"format": FORMAT, "what": "sweep store", **identity}, indent=2) + "\n")
            return
        except ValueError as error:
            raise SimulatorError(f"{path}: not the store of a sweep; name another directory") from error
        if not isinstance(tree, dict) or (tree.get("what"), tree.get("format")) != ("sweep store", FORMAT):
            raise SimulatorError(f"{path}: not the store of a sweep of format {FORMAT}; name another directory")
        for name, value in identity.items():
            if tree.get(name) != value:
                raise SimulatorError(
                    f"{self._directory}: holds a sweep with another {name}: {tree.get(name)} there, {value} here; "
                    "name another directory"
                )

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two sweeps in one store write the same lines, and at worst tear the last
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SimulatorError(f"{self._directory}: another sweep is writing there; wait, or name another") from error

    def _read(self) -> None:
        path = self._directory / _LINES
        self._file.seek(0)
        good = 0
        for number, line in enumerate(iter(lambda: self._file.readline(_LARGEST_LINE), b""), start=1):
            entry = _from_line(line)
            if entry is None:
                if not _is_last(self._file):
                    raise SimulatorError(f"{path}:{number}: damaged; remove this line, and it is simulated again")
                self._file.truncate(good)
                break
            good += len(line)
            self.finished[entry[0]] = entry[1]


def _to_line(unit: Unit, outcome: Outcome) -> str:
    tree: dict[str, Any] = unit._asdict()
    if isinstance(outcome, str):
        tree["refusal"] = outcome
    else:
        tree["result"] = asdict(outcome)
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")) + "\n"


def _from_line(line: bytes) -> tuple[Unit, Outcome] | None:
    """What a line holds, or None if it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        tree = json.loads(line)
        unit = Unit(tree["point"], tree["platform"], tree["replication"])
        return unit, str(tree["refusal"]) if "refusal" in tree else Replication.from_dict(tree["result"])
    except (KeyError, TypeError, ValueError):
        return None


def _is_last(file: BinaryIO) -> bool:
    return not file.read(1)
