"""Writes a container's output to its log, in the format of Docker's json-file driver.

An entry is a line of JSON: `{"log":"text\\n","stream":"stdout","time":"2026-11-24T15:44:22.460457149Z"}`, with
`"attrs":{…}` before the time where there are any. A line of more than 16 KiB becomes several entries, of which only the
last has its `\\n` and all have the time of the first (moby, daemon/logger/copier.go). Bytes that are no UTF-8 become
`\\ufffd`, one for each, as Go has it (moby, daemon/logger/jsonfilelog/jsonlog).

The log must never hold the container up: what cannot be written is dropped and counted.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator

from real_engine.supervisor.log_options import LogOptions

LONGEST_PIECE = 16384  # bytes of a line in one entry
_COMPRESS_BYTES = 65536  # at once, for the event loop goes on between

# What JSON, or a browser that shows it as HTML, would misread. Lone surrogates stand for bytes that are no UTF-8.
_SPECIAL = re.compile('[\x00-\x09\x0b-\x1f"\\\\<>&\u2028\u2029\udc80-\udcff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\r": "\\r"}

Report = Callable[[str], None]


class LogWriter:
    """The log of one container. It is appended to; a file that a crash has left without its last newline gets it.

    `failed` is called with the reason when an entry cannot be written, once until one can be written again; then
    `recovered` is called with how many are missing. `work` is given long jobs (compression), to be done piece by piece.

    Raises:
        EngineError: an option whose value can't be meant.
        OSError: the file can't be opened.
    """

    def __init__(
        self,
        options: LogOptions,
        *,
        failed: Report,
        recovered: Callable[[int], None],
        work: Callable[[Iterator[None]], None],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = options.path
        self._rotation = options.rotation
        self._failed, self._recovered, self._work, self._clock = failed, recovered, work, clock
        attrs = ""
        if options.attributes:
            ordered = json.dumps(dict(sorted(options.attributes.items())), separators=(",", ":"))
            attrs = f'"attrs":{ordered},'
        self._between = {name: f'","stream":"{name}",{attrs}"time":"' for name in ("stdout", "stderr")}
        self._lines = {name: _Lines() for name in ("stdout", "stderr")}
        self._timestamps = TimestampFormat()
        self._compression: Iterator[None] | None = None
        self.dropped = 0
        self._stuck = False
        self._descriptor = -1
        self._open()

    def write(self, stream: str, data: bytes | memoryview) -> None:
        """Log what the container wrote to `stream`; lines that aren't complete yet are kept."""
        now = self._clock()
        whole, pieces = self._lines[stream].feed(bytes(data), now)
        if whole:
            self._append(self._entries(stream, whole, now))
        for text, piece_time in pieces:
            self._append([self._entry(stream, text, piece_time)])

    def end(self, stream: str) -> None:
        """`stream` has ended: log what is left of it, a line without its end."""
        for text, piece_time in self._lines[stream].rest(self._clock()):
            self._append([self._entry(stream, text, piece_time)])

    def close(self, done: Callable[[], None] | None = None) -> None:
        """Log what is left, and close the file; `done` is called then."""
        for stream in self._lines:
            self.end(stream)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if done is not None:
            done()

    def _entries(self, stream: str, lines: bytes, nanoseconds: int) -> list[bytes]:
        """The entries for whole lines, `lines` being without its last newline."""
        end = f"\\n{self._between[stream]}{self._timestamps.format(nanoseconds)}"
        return [f'{{"log":"{text}{end}"}}\n'.encode() for text in _escape(lines).split("\n")]

    def _entry(self, stream: str, piece: bytes, nanoseconds: int) -> bytes:
        text = _escape(piece).replace("\n", "\\n")
        return f'{{"log":"{text}{self._between[stream]}{self._timestamps.format(nanoseconds)}"}}\n'.encode()

    def _append(self, entries: list[bytes]) -> None:
        """Write entries, rotating before each that finds the file full (as moby, daemon/logger/loggerutils)."""
        limit = self._rotation.size_bytes
        begin = 0
        if limit is not None:
            size = self._size
            for index, entry in enumerate(entries):
                if size >= limit:
                    self._put(entries[begin:index])
                    self._rotate()
                    begin, size = index, self._size
                size += len(entry)
        self._put(entries[begin:])

    def _put(self, entries: list[bytes]) -> None:
        if not entries:
            return
        data = b"".join(entries)
        written = 0
        try:
            if self._descriptor < 0:
                self._open()
            while written < len(data):  # a second time when the disk is full, it seems: that tells
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            self._cut(written)
            if not self.dropped:
                self._failed(f"{self._path}: {error.strerror}")
            self.dropped += len(entries)
            return
        self._size += written
        if self.dropped:
            missing, self.dropped = self.dropped, 0
            self._recovered(missing)

    def _cut(self, written: int) -> None:
        """Take back the `written` bytes of entries that couldn't be written whole."""
        if self._descriptor >= 0 and written:
            with contextlib.suppress(OSError):  # the file system is broken; a reader passes over what is no entry
                # From what the file is now, and not was: somebody may have emptied it.
                os.ftruncate(self._descriptor, max(0, os.fstat(self._descriptor).st_size - written))

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")

    def _rotate(self) -> None:
        """Begin a new file. A follower that has the old one open can read it to its end, even if it is removed."""
        if self._compression is not None:
            for _ in self._compression:  # it fills up faster than we compress: then this has to wait
                pass
        files, path = self._rotation.files, self._path
        try:
            if files == 1:
                os.unlink(path)
            else:
                _shift(path, files)
                if self._rotation.compress:
                    self._compression = _compress(f"{path}.1", f"{path}.1.gz")
                    self._work(self._compression)
            os.close(self._descriptor)
            self._descriptor = -1
            self._open()
            self._stuck = False
        except OSError as error:  # go on in the file that is there, or open one with the next entry
            if not self._stuck:
                self._failed(f"cannot rotate {path}: {error.strerror}")
            self._stuck = True


class TimestampFormat:
    """RFC 3339 in UTC with nanoseconds, without zeros at the end of the fraction, as Go writes it.

    It keeps the last second that was asked for, since there are many entries in one.
    """

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def format(self, nanoseconds: int) -> str:
        """The moment `nanoseconds` after 1970 began."""
        second, rest = divmod(nanoseconds, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        return f"{self._text}{fraction}Z"


class _Lines:
    """Cuts a stream into lines, and long lines into pieces."""

    __slots__ = ("_begun", "_pending")

    def __init__(self) -> None:
        self._pending = b""
        self._begun = 0  # nanoseconds: when the line began of which pieces have been logged; 0: there is none

    def feed(self, data: bytes, now: int) -> tuple[bytes, list[tuple[bytes, int]]]:
        """Whole lines that need no cutting, without the last newline; and the pieces that come after them."""
        data = self._pending + data
        last = data.rfind(b"\n")
        if not self._begun and last >= 0 and max(map(len, data[:last].split(b"\n"))) < LONGEST_PIECE:
            whole, self._pending = data[:last], data[last + 1 :]
            # An empty line is whole too, and must not be taken for nothing.
            return (whole, self._cut(now)) if whole else (b"", [(b"\n", now), *self._cut(now)])
        pieces = []
        *lines, self._pending = data.split(b"\n")
        for line in lines:
            begin = 0
            while len(line) - begin >= LONGEST_PIECE:
                self._begun = self._begun or now
                pieces.append((line[begin : begin + LONGEST_PIECE], self._begun))
                begin += LONGEST_PIECE
            pieces.append((line[begin:] + b"\n", self._begun or now))
            self._begun = 0
        return b"", pieces + self._cut(now)

    def rest(self, now: int) -> list[tuple[bytes, int]]:
        """The end of the stream, if it isn't the end of a line."""
        rest = [(self._pending, self._begun or now)] if self._pending else []
        self._pending, self._begun = b"", 0
        return rest

    def _cut(self, now: int) -> list[tuple[bytes, int]]:
        """The pieces that are full of the line that has no end yet."""
        pieces = []
        while len(self._pending) >= LONGEST_PIECE:
            self._begun = self._begun or now
            pieces.append((self._pending[:LONGEST_PIECE], self._begun))
            self._pending = self._pending[LONGEST_PIECE:]
        return pieces


def _escape(data: bytes) -> str:
    """`data` as it stands in a string of JSON, but for newlines."""
    text = data.decode("utf-8", "surrogateescape")
    return _SPECIAL.sub(_escaped, text) if _SPECIAL.search(text) else text


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character >= "\ud800" and character <= "\udfff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def _shift(path: str, files: int) -> None:
    """Move each file one place on: path to path.1, path.1 to path.2, …; the last of `files` is removed."""
    for ending in ("", ".gz"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.{files - 1}{ending}")
    for number in range(files - 2, 0, -1):
        for ending in ("", ".gz"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}.{number}{ending}", f"{path}.{number + 1}{ending}")
    os.rename(path, f"{path}.1")


def _compress(source: str, target: str) -> Iterator[None]:
    """Compress a rotated file. On failure it stays as it is; a reader knows both."""
    import zlib

    partial = f"{target}.partial"
    try:
        compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)  # with gzip's header
        with open(source, "rb", buffering=0) as plain, open(partial, "wb", buffering=0) as packed:
            os.fchmod(packed.fileno(), 0o640)
            while data := plain.read(_COMPRESS_BYTES):
                _write_all(packed.fileno(), compressor.compress(data))
                yield
            _write_all(packed.fileno(), compressor.flush())
            written = os.fstat(plain.fileno()).st_mtime_ns  # by which a follower knows the file after the one it reads
            os.utime(packed.fileno(), ns=(written, written))
        os.rename(partial, target)
        os.unlink(source)
    except OSError:
        with contextlib.suppress(OSError):  # no room for it: the log is whole all the same
            os.unlink(partial)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
