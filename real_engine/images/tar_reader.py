"""Reads tar archives as a stream: their headers in every form that is in use, in bounded memory, and strictly.

Forms: ustar and PAX (POSIX.1-2017 pax), GNU (long names, base-256 numbers, sparse files of the old form and of PAX
0.0, 0.1 and 1.0; GNU tar's manual, "Tar Internals"), and V7. Python's `tarfile` takes a damaged header in the middle
for the end of the archive, and reads extended headers of any length into memory; here the one is an error and the
other has a limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from real_engine.images.compression import Source

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_LONGEST_EXTENDED = 1 << 20  # bytes of an entry's PAX headers and long names together, or of a sparse map
_MOST_SPARSE = 1 << 16  # pieces of a sparse file
_LARGEST = 1 << 62  # bytes of a file
_CHUNK = 1 << 20
_XATTR = "SCHILY.xattr."
_REGULAR_KINDS = (b"0", b"\0", b"7", b"S")
_WITHOUT_DATA = (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_SECONDS = re.compile(r"(-?)(\d{1,18})(?:\.(\d*))?")


class InvalidArchive(InvalidParameter):
    """The archive is damaged, or asks for what no archive may."""


@dataclass(slots=True)
class Entry:
    """One entry. `kind` is one of the constants above; `size` is a regular file's length in bytes, holes included.

    Names are as they stand in the archive; bytes that are no UTF-8 are kept (`surrogateescape`).
    """

    name: str
    kind: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)


class TarReader:
    """The entries of the tar archive that `source` gives, one after the other, each with its data.

    Iterating gives an `Entry`; then `pieces` gives its data, or what is left of it is skipped. Raises `InvalidArchive`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""
        self._position = 0  # in the buffer
        self._stored = 0  # bytes of the current entry's data that are still to come, without padding
        self._padding = 0
        self._sparse: list[tuple[int, int]] | None = None

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """The data of the current entry: (offset in the file, bytes). What lies between the pieces is zeros."""
        if self._sparse is None:
            offset = 0
            while self._stored:
                piece = self._data(min(self._stored, _CHUNK))
                yield offset, piece
                offset += len(piece)
            return
        for start, length in self._sparse:
            offset, left = start, length
            while left:
                piece = self._data(min(left, _CHUNK))
                yield offset, piece
                offset += len(piece)
                left -= len(piece)

    def drain(self) -> None:
        """Read what comes after the archive's end (padding) to the end of the stream."""
        self._buffer, self._position = b"", 0
        while self._source.read(_CHUNK):
            pass

    # --- headers -----------------------------------------------------------------------------------------------------

    def _next(self) -> Entry | None:
        self._skip()
        extended: list[tuple[str, bytes]] = []
        long_name = long_link = None
        pending = False
        room = _LONGEST_EXTENDED  # for all that belong to one entry
        while True:
            header = self._header()
            if header is None:
                if pending:
                    raise InvalidArchive("unexpected EOF")
                return None
            kind = header[156:157]
            size = _number(header[124:136])
            if size < 0:
                raise InvalidArchive("archive/tar: invalid tar header")
            if kind not in b"xgLKX":
                break
            pending = True
            content = self._extension(size, room)
            room -= len(content)
            if kind in b"xX":
                extended += _records(content)
            elif kind == b"L":
                long_name = _text(content.split(b"\0", 1)[0])
            elif kind == b"K":
                long_link = _text(content.split(b"\0", 1)[0])
            else:
                pending = False  # records for all that follow: Docker takes no notice of them, and nor do we
        return self._entry(header, kind, size, extended, long_name, long_link)

    def _entry(
        self,
        header: bytes,
        kind: bytes,
        size: int,
        extended: list[tuple[str, bytes]],
        long_name: str | None,
        long_link: str | None,
    ) -> Entry:
        name = _text(header[:100].split(b"\0", 1)[0])
        if header[257:263] == b"ustar\0" and header[345:346] != b"\0":
            name = f"{_text(header[345:500].split(bytes(1), 1)[0])}/{name}"
        entry = Entry(
            name if long_name is None else long_name,
            kind,
            _number(header[100:108]) & 0o7777,
            _number(header[108:116]),
            _number(header[116:124]),
            size,
            _number(header[136:148]) * 1_000_000_000,
            _text(header[157:257].split(b"\0", 1)[0]) if long_link is None else long_link,
        )
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.device = (_number(header[329:337]), _number(header[337:345]))
        sparse = _Sparse()
        for key, value in extended:
            _apply(entry, key, value, sparse)
        entry.name = sparse.name or entry.name
        if not (0 <= entry.uid < 1 << 32 and 0 <= entry.gid < 1 << 32):
            raise InvalidArchive("archive/tar: invalid tar header")
        if kind in _REGULAR_KINDS:
            # V7 archives have no type for a directory but the slash at the end of its name.
            entry.kind = DIRECTORY if kind == b"\0" and entry.name.endswith("/") else REGULAR
        if not 0 <= entry.size <= _LARGEST:
            raise InvalidArchive("archive/tar: invalid tar header")
        if entry.kind in _WITHOUT_DATA:
            entry.size = 0  # some writers give a hard link its file's size, and no data
            return entry
        self._stored, self._padding = entry.size, -entry.size % BLOCK
        if kind == b"S":
            self._set_sparse(entry, self._old_gnu_map(header), _number(header[483:495]))
        elif sparse.major == 1:
            before = entry.size
            pieces, used = self._map_in_data(entry.size)
            self._stored = before - used
            self._padding = -before % BLOCK
            self._set_sparse(entry, pieces, sparse.size)
        elif sparse.pieces is not None or sparse.numbers:
            self._set_sparse(entry, sparse.pieces or _pairs(sparse.numbers), sparse.size)
        return entry

    def _set_sparse(self, entry: Entry, pieces: list[tuple[int, int]], size: int | None) -> None:
        """Take the map of a sparse file, which must fit its data and be in order."""
        end = 0
        for offset, length in pieces:
            if offset < end or length < 0:
                raise InvalidArchive("archive/tar: invalid sparse file map")
            end = offset + length
        if size is None or end > size or size > _LARGEST or sum(length for _, length in pieces) != self._stored:
            raise InvalidArchive("archive/tar: invalid sparse file map")
        self._sparse = pieces
        entry.size = size

    def _old_gnu_map(self, header: bytes) -> list[tuple[int, int]]:
        pieces = _old_gnu_pieces(header[386:482])
        more = header[482]
        while more:
            block = self._read_exactly(BLOCK)
            pieces += _old_gnu_pieces(block[:504])
            more = block[504]
            if len(pieces) > _MOST_SPARSE:
                raise InvalidArchive("archive/tar: sparse file map too long")
        return pieces

    def _map_in_data(self, size: int) -> tuple[list[tuple[int, int]], int]:
        """The map at the beginning of the data (PAX sparse 1.0): numbers on lines, padded to whole blocks."""
        text, used = b"", 0
        wanted: int | None = None
        while wanted is None or text.count(b"\n") < wanted:
            if used + BLOCK > size or used > _LONGEST_EXTENDED:
                raise InvalidArchive("archive/tar: invalid sparse file map")
            text += self._read_exactly(BLOCK)
            used += BLOCK
            if wanted is None and b"\n" in text:
                count = _decimal(text.split(b"\n", 1)[0])
                if count > _MOST_SPARSE:
                    raise InvalidArchive("archive/tar: sparse file map too long")
                wanted = 1 + 2 * count
        return _pairs([_decimal(line) for line in text.split(b"\n")[1:wanted]]), used

    def _header(self) -> bytes | None:
        """The next header block, checked; None at the archive's end."""
        block = self._read(BLOCK)
        if not block:
            return (
                None  # two blocks of zeros should stand there; not all writers keep to it (Go's reader is as lenient)
            )
        if len(block) < BLOCK:
            raise InvalidArchive("unexpected EOF")
        if block == bytes(BLOCK):
            second = self._read(BLOCK)
            if not second or second == bytes(BLOCK):
                return None
            raise InvalidArchive("archive/tar: invalid tar header")
        written = _number(block[148:156])
        unsigned = sum((block[:148] + block[156:]).replace(b"\0", b"")) + 8 * 0x20
        if written != unsigned:
            signed = unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # of some old writers
            if written != signed:
                raise InvalidArchive("archive/tar: invalid tar header")
        return block

    def _extension(self, size: int, room: int) -> bytes:
        if size > room:
            raise InvalidArchive(f"archive/tar: an extended header of {size} bytes is too long")
        content = self._read_exactly(size)
        self._read_exactly(-size % BLOCK)
        return content

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _skip(self) -> None:
        """Pass over what is left of the current entry."""
        left = self._stored + self._padding
        while left:
            piece = self._read(min(left, _CHUNK))
            if not piece:
                raise InvalidArchive("unexpected EOF")
            left -= len(piece)
        self._stored = self._padding = 0
        self._sparse = None

    def _data(self, size: int) -> bytes:
        piece = self._some(size)
        if not piece:
            raise InvalidArchive("unexpected EOF")
        self._stored -= len(piece)
        return piece

    def _some(self, size: int) -> bytes:
        """Some bytes, at most `size`; none at the end."""
        if self._position >= len(self._buffer):
            self._buffer = self._source.read(_CHUNK)
            self._position = 0
        if self._position == 0 and len(self._buffer) <= size:
            piece, self._buffer = self._buffer, b""
            return piece
        piece = self._buffer[self._position : self._position + size]
        self._position += len(piece)
        return piece

    def _read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        piece = self._some(size)
        if len(piece) == size:
            return piece
        pieces = [piece]
        size -= len(piece)
        while size and piece:
            piece = self._some(size)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _read_exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise InvalidArchive("unexpected EOF")
        return data


@dataclass(slots=True)
class _Sparse:
    """What the extended header says of a sparse file."""

    name: str = ""  # the file's; that of the header is made up, for readers that don't know sparse files
    major: int = 0
    size: int | None = None
    pieces: list[tuple[int, int]] | None = None
    numbers: list[int] = field(default_factory=list)


def _apply(entry: Entry, key: str, value: bytes, sparse: _Sparse) -> None:
    """Let one record of the extended header stand before what the header itself says."""
    if key == "path":
        entry.name = _text(value)
    elif key == "linkpath":
        entry.link = _text(value)
    elif key == "size":
        entry.size = _decimal(value)
    elif key == "uid":
        entry.uid = _decimal(value)
    elif key == "gid":
        entry.gid = _decimal(value)
    elif key == "mtime":
        entry.mtime_ns = _nanoseconds(value)
    elif key.startswith(_XATTR):
        entry.xattrs[key[len(_XATTR) :]] = value
    elif key == "GNU.sparse.name":
        sparse.name = _text(value)
    elif key == "GNU.sparse.major":
        sparse.major = _decimal(value)
    elif key in ("GNU.sparse.realsize", "GNU.sparse.size"):
        sparse.size = _decimal(value)
    elif key == "GNU.sparse.map":
        sparse.pieces = _pairs([_decimal(number) for number in value.split(b",")] if value else [])
    elif key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
        sparse.numbers.append(_decimal(value))
        if len(sparse.numbers) > 2 * _MOST_SPARSE:
            raise InvalidArchive("archive/tar: sparse file map too long")


def _records(content: bytes) -> list[tuple[str, bytes]]:
    """The records of a PAX header: `LENGTH KEY=VALUE\\n`, where the length counts itself and the end of the line."""
    records, position = [], 0
    while position < len(content):
        space = content.find(b" ", position, position + 21)
        if space < 0:
            if not content[position:].strip(b"\0"):
                break
            raise InvalidArchive("archive/tar: invalid tar header")
        length = _decimal(content[position:space])
        record = content[space + 1 : position + length]
        key, equals, value = record[:-1].partition(b"=")
        if position + length > len(content) or not record.endswith(b"\n") or not equals or not key:
            raise InvalidArchive("archive/tar: invalid tar header")
        records.append((_text(key), value))
        position += length
    return records


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or base 256 where the first byte has its highest bit set (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        return value - (1 << 8 * len(field) - 1) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    digits = digits.split(b"\0", 1)[0].rstrip(b" ")
    if digits.strip(b"01234567"):
        raise InvalidArchive("archive/tar: invalid tar header")
    return int(digits, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidArchive("archive/tar: invalid tar header")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    matched = _SECONDS.fullmatch(text.decode("ascii", "replace"))
    if matched is None:
        raise InvalidArchive("archive/tar: invalid tar header")
    value = int(matched[2]) * 1_000_000_000 + int((matched[3] or "")[:9].ljust(9, "0"))
    return -value if matched[1] else value


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise InvalidArchive("archive/tar: invalid sparse file map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _old_gnu_pieces(area: bytes) -> list[tuple[int, int]]:
    pieces = []
    for start in range(0, len(area) - 23, 24):
        if area[start] == 0:
            break
        pieces.append((_number(area[start : start + 12]), _number(area[start + 12 : start + 24])))
    return pieces
