"""What was seen of an engine at work, as lines of JSON: one form for what was said and for what was done.

The first line is `{"kind": "session", "format": 1, …}` with the provenance. In each other, `at` is seconds since the
beginning:

    request    exchange, connection, method, target, headers     its head has come from the client
    sent       exchange, bytes, text                             its body has ended
    response   exchange, status, reason, headers, seconds        the head of the answer; seconds since the request's
    received   exchange, bytes, text, seconds                    its body has ended
    frame      exchange, stream, bytes, text                     data of a stream that an answer has become
    begun      phase, operation, call, why, depth                a step that has parts has begun; they come next
    step       phase, operation, call, why, seconds, cpu_seconds, …   something that the daemon did, at its end: `depth`
               is how many steps are around it, `parts` how many steps, told before, were parts of it, `own_seconds`
               the time in which none of those was at work
    asked, answered                                              a request as the daemon saw it

It needs nothing of Linux, so that a recording can be read everywhere.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Json = dict[str, Any]

FORMAT = 1
KINDS = frozenset(
    (
        "session",
        "request",
        "sent",
        "response",
        "received",
        "frame",
        "begun",
        "step",
        "asked",
        "answered",
        "lost",
        "ended",
    )
)
_MOST_LINE_BYTES = 4 << 20
_LONGEST_PAUSE_SECONDS = 5.0


class Recording:
    """A file that gets each record as a line, at once. Only its owner can read it. Thread-safe.

    Raises:
        EngineError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            self._file = os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise EngineError(f"cannot write the recording {path}: {error.strerror}") from error
        self._lock = threading.Lock()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write one record; after `close`, none."""
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def header(command: list[str], **more: Any) -> Json:
    """The first record of a session: what was recorded, when, and on what."""
    import platform

    return {
        "kind": "session",
        "format": FORMAT,
        "at": 0.0,
        "command": command,
        "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        **more,
    }


def read(path: Path) -> Iterator[Json]:
    """The records of a file, in order.

    Raises:
        EngineError: it can't be read, or a line is no record; the line is named.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise EngineError(f"cannot read the recording {path}: {error.strerror}") from error
    with file:
        first = True
        for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE_BYTES + 1), b""), 1):
            if not line.strip():
                continue
            record = _record(path, number, line)
            if first and (record["kind"] != "session" or record.get("format") != FORMAT):
                raise EngineError(f"{path}: it does not begin as a session of format {FORMAT} does")
            first = False
            yield record
        if first:
            raise EngineError(f"{path}: nothing was recorded")


def _record(path: Path, number: int, line: bytes) -> Json:
    if len(line) > _MOST_LINE_BYTES:
        raise EngineError(f"{path}:{number}: longer than the {_MOST_LINE_BYTES} bytes that a line may have")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path}:{number}: not a line of JSON: {error}") from error
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        kind = record.get("kind") if isinstance(record, dict) else record
        raise EngineError(f"{path}:{number}: `{kind}` is no kind of record: {', '.join(sorted(KINDS))}")
    if not isinstance(record.get("at"), (int, float)):
        raise EngineError(f"{path}:{number}: it has no `at`, the seconds since the beginning")
    return record


def paced(records: Iterator[Json], speed: float, sleep: Callable[[float], object] = time.sleep) -> Iterator[Json]:
    """The records at the pace at which they came, `speed` times as fast; 0 is without any pause.

    A pause is cut short after 5 seconds: somebody had gone for coffee.
    """
    before = 0.0
    for record in records:
        at = float(record["at"])
        if speed > 0 and at > before:
            sleep(min((at - before) / speed, _LONGEST_PAUSE_SECONDS))
        before = max(before, at)
        yield record
