"""Writes tar archives of the PAX form (POSIX.1-2017 pax): the same bytes for the same entries, always."""

from __future__ import annotations

from typing import TYPE_CHECKING

from real_engine.images.tar_reader import BLOCK, CHARACTER, DIRECTORY, HARD_LINK, REGULAR, SYMLINK

if TYPE_CHECKING:
    from real_engine.images.tar_reader import Entry

END = bytes(2 * BLOCK)
"""What stands at the end of an archive."""

_BLOCK_DEVICE = b"4"
_ID, _LONG = 8**7, 8**11  # what a plain header has no room for: owners, and sizes and times


def header(entry: Entry) -> bytes:
    """The header of an entry, with an extended one before it where the plain one can't hold all.

    The data of a regular file comes after it, and then `padding`. Owners go by number, without names.
    """
    records: list[tuple[str, bytes]] = []
    name = _bytes(entry.name + "/" if entry.kind == DIRECTORY and not entry.name.endswith("/") else entry.name)
    link = _bytes(entry.link)
    size = entry.size if entry.kind == REGULAR else 0
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    if len(name) > 100 or not name.isascii():
        records.append(("path", name))
    if len(link) > 100 or not link.isascii():
        records.append(("linkpath", link))
    for key, number, limit in (("uid", entry.uid, _ID), ("gid", entry.gid, _ID), ("size", size, _LONG)):
        if number >= limit:
            records.append((key, str(number).encode()))
    if fraction or not 0 <= seconds < _LONG:
        records.append(("mtime", _seconds(entry.mtime_ns)))
    records += [(f"SCHILY.xattr.{key}", value) for key, value in sorted(entry.xattrs.items())]
    plain = _block(
        name[:100],
        entry.mode & 0o7777,
        entry.uid if entry.uid < _ID else 0,
        entry.gid if entry.gid < _ID else 0,
        size if size < _LONG else 0,
        seconds if 0 <= seconds < _LONG else 0,
        entry.kind,
        link[:100] if entry.kind in (SYMLINK, HARD_LINK) else b"",
        entry.device if entry.kind in (CHARACTER, _BLOCK_DEVICE) else (0, 0),
    )
    if not records:
        return plain
    content = b"".join(_record(key, value) for key, value in records)
    directory, _, base = name.rstrip(b"/").rpartition(b"/")
    extended = b"/".join(part for part in (directory, b"PaxHeaders.0", base) if part)[:100]
    return _block(extended, 0, 0, 0, len(content), 0, b"x", b"", (0, 0)) + content + padding(len(content)) + plain


def padding(size: int) -> bytes:
    """What follows data of `size` bytes, so that the next header begins on a block."""
    return bytes(-size % BLOCK)


def _block(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime)
    after = b"%b%bustar\x0000%b%07o\0%07o\0%b" % (kind, link.ljust(100, b"\0"), bytes(64), *device, bytes(167))
    checksum = sum((before + after).replace(b"\0", b"")) + 8 * 0x20  # two thirds are zeros, which add nothing
    return b"%b%06o\0 %b" % (before, checksum, after)


def _record(key: str, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, whose length counts its own digits too."""
    rest = b" %b=%b\n" % (_bytes(key), value)
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _seconds(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return (f"{sign}{seconds}" + (f".{fraction:09d}".rstrip("0") if fraction else "")).encode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
