"""Reads the log of a container: all of it or its end, over rotated files, and what is still to come.

It runs in the daemon; the supervisor only writes (`log_writer`).
"""

import contextlib
import json
import os
import re
import select
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from real_engine.linux.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from real_engine.supervisor.log_options import LogOptions, attributes, validate
from real_engine.supervisor.log_writer import LogWriter, TimestampFormat

__all__ = ["LogEntry", "LogOptions", "LogWriter", "TimestampFormat", "attributes", "read_log", "remove_log", "validate"]

_BLOCK = 65536  # bytes
_PATIENCE_SECONDS = 0.1  # after which a follower looks again whether the container runs, and whether the file is there
_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")

_NOTHING: Mapping[str, str] = MappingProxyType({})

Wait = Callable[[int, float], bool]


class LogEntry(NamedTuple):
    """A line, or a piece of a long one: what the container wrote to `stream`, with its newline if it had one.

    `time_ns` is when, in nanoseconds since 1970. (A tuple, since a log can have millions.)
    """

    stream: str
    time_ns: int
    data: bytes
    attributes: Mapping[str, str] = _NOTHING


def read_log(
    path: str | Path,
    *,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
    stdout: bool = True,
    stderr: bool = True,
    finished: Callable[[], bool] | None = None,
    wait: Wait | None = None,
) -> Iterator[LogEntry]:
    """The entries of the log whose newest file is `path`, the oldest first.

    The last `tail` of them are taken (None: all), of both streams; of these, the ones from `since` on, up to the first
    after `until` (nanoseconds since 1970, both inclusive), and of the streams that are wanted. That is the order in
    which Docker chooses. A line that is no entry is passed over.

    With `finished` it follows: it goes on with what is written later, until `finished()` is true and all is read, or
    the clock has passed `until`. Rotation meanwhile loses nothing. Between, it calls `wait(descriptor, seconds)`, which
    returns when the descriptor is readable or the time is over, and returns False to end the reading.
    """
    path = os.fspath(path)
    files = _open_files(path)
    decode = _Decoder()

    def chosen(lines: Iterable[bytes]) -> Iterator[LogEntry]:
        for entry in decode.entries(lines):
            if until is not None and entry.time_ns > until:
                raise _PastUntil
            if (since is None or entry.time_ns >= since) and (stdout if entry.stream == "stdout" else stderr):
                yield entry

    try:
        yield from chosen(_all_lines(files) if tail is None else _last_lines(files, max(0, tail)))
        if finished is not None:
            with _Watch(path, wait) as watch:
                yield from chosen(_follow(path, files[-1] if files else None, until, finished, watch))
    except _PastUntil:
        return
    finally:
        for file in files:
            file.close()


def remove_log(path: str | Path) -> None:
    """Remove a log, rotated files and all. It is no error if there is none."""
    path = Path(path)
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink(missing_ok=True)


class _PastUntil(Exception):
    """There is an entry after the last that was asked for."""


class _File:
    """A file of the log, and how far it has been read."""

    __slots__ = ("compressed", "descriptor", "offset")

    def __init__(self, descriptor: int, compressed: bool) -> None:
        self.descriptor, self.compressed = descriptor, compressed
        self.offset = 0

    @property
    def identity(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino

    @property
    def written_ns(self) -> int:
        return os.fstat(self.descriptor).st_mtime_ns

    def lines(self) -> Iterator[bytes]:
        """The complete lines from `offset` on to the present end."""
        if self.compressed:
            yield from self._unpacked()
            return
        if os.fstat(self.descriptor).st_size < self.offset:
            self.offset = 0  # somebody has emptied it
        rest = b""
        while data := os.pread(self.descriptor, _BLOCK, self.offset + len(rest)):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.offset += len(line) + 1
                yield line

    def seek_last(self, count: int) -> int:
        """Move to the last `count` complete lines, and return how many there are, at most `count`.

        It is read from its end in blocks, so only as much as is needed.
        """
        position = os.fstat(self.descriptor).st_size
        found = -1  # the newline at the end of the last line comes first
        while position > 0:
            begin = max(0, position - _BLOCK)
            block = os.pread(self.descriptor, position - begin, begin)
            if found + block.count(b"\n") < count:
                found += block.count(b"\n")
                position = begin
                continue
            place = len(block)
            while found < count:
                place = block.rindex(b"\n", 0, place)
                found += 1
            self.offset = begin + place + 1
            return count
        self.offset = 0
        return max(0, found + 1)

    def _unpacked(self) -> Iterator[bytes]:
        decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        rest = b""
        while packed := os.pread(self.descriptor, _BLOCK, self.offset):
            self.offset += len(packed)
            while packed:
                try:
                    data = decompressor.decompress(packed, _BLOCK)
                except zlib.error:  # damaged: what comes after it is still worth showing
                    return
                packed = decompressor.unconsumed_tail
                *lines, rest = (rest + data).split(b"\n")
                yield from lines

    def close(self) -> None:
        os.close(self.descriptor)


class _Decoder:
    """Makes entries of lines. It keeps the last second that it read, since there are many entries in one."""

    def __init__(self) -> None:
        self._text = ""
        self._second = 0

    def entries(self, lines: Iterable[bytes]) -> Iterator[LogEntry]:
        for line in lines:
            try:
                found = json.loads(line)
                yield LogEntry(
                    found.get("stream", "stdout"),
                    self._time(found["time"]),
                    found.get("log", "").encode("utf-8", "replace"),
                    found.get("attrs") or _NOTHING,
                )
            except (ValueError, KeyError, AttributeError, TypeError):
                continue  # cut short by a crash, or something else's

    def _time(self, text: str) -> int:
        second, fraction = text[:19], text[20:-1]
        if second != self._text:
            if _SECOND_TEXT.fullmatch(second) is None:
                raise ValueError(f"no time: {text}")
            moment = datetime.fromisoformat(second + "+00:00")
            self._text, self._second = second, int((moment - _EPOCH).total_seconds())
        if text[-1] != "Z" or len(fraction) > 9:
            raise ValueError(f"no time in UTC: {text}")
        return self._second * _SECOND + (int(fraction.ljust(9, "0")) if fraction else 0)


class _Watch:
    """Waits until something in the log's directory has changed, or some time has gone by."""

    def __init__(self, path: str, wait: Wait | None) -> None:
        self._wait = wait or _poll
        self._inotify: Inotify | None = None
        with contextlib.suppress(OSError):  # as many as allowed: then looking again and again has to do
            self._inotify = Inotify()
            self._inotify.add(os.path.dirname(path) or ".", IN_MODIFY | IN_CREATE | IN_MOVED_TO)

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def wait(self) -> bool:
        """Wait; False when the reader is to end."""
        if self._inotify is None:
            return self._wait(-1, _PATIENCE_SECONDS / 2)
        if not self._wait(self._inotify.fileno(), _PATIENCE_SECONDS):
            return False
        self._inotify.take()
        return True


def _poll(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    if descriptor >= 0:
        poll.register(descriptor, select.POLLIN)
    poll.poll(seconds * 1000)
    return True


def _open_one(path: str) -> _File | None:
    for ending in ("", ".gz"):
        try:
            return _File(os.open(path + ending, os.O_RDONLY | os.O_CLOEXEC), bool(ending))
        except FileNotFoundError:
            continue
    return None


def _open_files(path: str) -> list[_File]:
    """The log's files, the oldest first. They are opened from the newest on, so that a rotation hides none."""
    files: list[_File] = []
    try:
        seen = set()
        number = 0
        while (file := _open_one(f"{path}.{number}" if number else path)) is not None or number == 0:
            number += 1
            if file is not None and file.identity in seen:
                file.close()  # it was moved while we looked
            elif file is not None:
                seen.add(file.identity)
                files.insert(0, file)
    except BaseException:
        for file in files:
            file.close()
        raise
    return files


def _all_lines(files: list[_File]) -> Iterator[bytes]:
    for file in files:
        yield from file.lines()


def _last_lines(files: list[_File], count: int) -> Iterator[bytes]:
    parts: list[Iterable[bytes]] = []
    wanted = count
    for file in reversed(files):
        if file.compressed:
            lines = deque(file.lines(), maxlen=wanted)
            parts.insert(0, lines)
            wanted -= len(lines)
        else:
            wanted -= file.seek_last(wanted)
            parts.insert(0, file.lines())
        if wanted <= 0:
            break
    for part in parts:
        yield from part


def _follow(
    path: str, file: _File | None, until: int | None, finished: Callable[[], bool], watch: _Watch
) -> Iterator[bytes]:
    """The lines that are written from now on. Closes what it opens; `file` is its caller's."""
    opened: _File | None = None
    try:
        while True:
            # In this order: what was written before the end, or before the rotation, is read after it was seen.
            over = finished() or (until is not None and time.time_ns() > until)
            following = _following(path, file)
            if file is not None:
                yield from file.lines()
            if following is not None:
                if opened is not None:
                    opened.close()
                file = opened = following
            elif over or not watch.wait():
                return
    finally:
        if opened is not None:
            opened.close()


def _following(path: str, file: _File | None) -> _File | None:
    """The file that comes after `file` by now, if there is one."""
    files = _open_files(path)
    chosen: _File | None = None
    identities = [each.identity for each in files]
    if file is None:
        chosen = files[0] if files else None
    elif file.identity in identities:
        place = identities.index(file.identity) + 1
        chosen = files[place] if place < len(files) else None
    elif files:
        # It has been removed, or compressed, since. What is compressed has kept the time at which it was last written.
        chosen = next((each for each in files if not each.compressed or each.written_ns > file.written_ns), None)
    for each in files:
        if each is not chosen:
            each.close()
    return chosen
