"""Compressed streams: found out by their first bytes, and read in bounded memory.

Layers are gzip, zstd or plain tars (OCI image-spec v1.1 layer.md); what a person adds or imports may be xz or bzip2.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Any, Protocol

from real_engine.errors import InvalidParameter, NotImplementedHere
from real_engine.images.streams import IteratorReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    class Source(Protocol):
        """Something to read bytes from."""

        def read(self, size: int = ..., /) -> bytes:
            """Up to `size` bytes; none at the end."""
            ...


_CHUNK = 1 << 18
_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
}
_LONGEST_MAGIC = max(map(len, _MAGIC))
_XZ_MEMORY = 128 << 20  # bytes; a dictionary of 64 MiB (xz -9) needs 65 MiB
_ZSTD_STEP = 4096  # bytes; they make at most 128 MiB
_ZSTD_WINDOW = 128 << 20  # bytes; the most that `zstd --ultra` makes without --long


def compression_of(start: bytes) -> str:
    """What a stream that begins so is compressed with: `gzip`, `zstd`, `xz`, `bzip2`, or "" for not at all."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


class Decompressed(IteratorReader):
    """The plain bytes of `source`, whatever it is compressed with; a stream that isn't compressed is passed through.

    `kind` says what it was. Reading raises `InvalidParameter` where the compressed stream is damaged or cut off.
    """

    def __init__(self, source: Source) -> None:
        start = b""
        while len(start) < _LONGEST_MAGIC and (piece := source.read(_CHUNK)):
            start += piece
        self.kind = compression_of(start)
        super().__init__(_plain(start, source) if not self.kind else _READERS[self.kind](start, source))


def _plain(start: bytes, source: Source) -> Iterator[bytes]:
    while start:
        yield start
        start = source.read(_CHUNK)


def _gzip(start: bytes, source: Source) -> Iterator[bytes]:
    data = start
    while data:
        reader = zlib.decompressobj(wbits=31)
        while not reader.eof:
            data = data or source.read(_CHUNK)
            try:
                piece = reader.decompress(data, _CHUNK)
            except zlib.error as error:
                raise InvalidParameter(f"gzip: invalid compressed data: {error}") from error
            if not (piece or data or reader.eof):
                raise InvalidParameter("unexpected EOF")
            data = reader.unconsumed_tail
            if piece:
                yield piece
        data = _next_member(reader.unused_data, source)


def _of_the_library(start: bytes, source: Source, new: Callable[[], Any], kind: str) -> Iterator[bytes]:
    """Streams for which Python's library has a reader of the shape of `lzma.LZMADecompressor`."""
    data = start
    while data:
        reader = new()
        while not reader.eof:
            if reader.needs_input:
                data = data or source.read(_CHUNK)
                if not data:
                    raise InvalidParameter("unexpected EOF")
            try:
                piece = reader.decompress(data, _CHUNK)
            except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
                raise InvalidParameter(f"{kind}: invalid compressed data: {error}") from error
            data = b""  # what it hasn't used yet, it keeps
            if piece:
                yield piece
        data = _next_member(reader.unused_data, source)


def _next_member(data: bytes, source: Source) -> bytes:
    """Where another stream begins after the end of one; zeros between and after them count for nothing (gzip(1))."""
    data = data.lstrip(b"\0") or source.read(_CHUNK).lstrip(b"\0")
    while not data and (more := source.read(_CHUNK)):
        data = more.lstrip(b"\0")
    return data


def _xz(start: bytes, source: Source) -> Iterator[bytes]:
    return _of_the_library(start, source, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), "xz")


def _bzip2(start: bytes, source: Source) -> Iterator[bytes]:
    return _of_the_library(start, source, bz2.BZ2Decompressor, "bzip2")


def _zstd(start: bytes, source: Source) -> Iterator[bytes]:
    try:
        import zstandard  # the one part of the engine that isn't in Python's own library before 3.14
    except ImportError as error:
        raise NotImplementedHere("to read zstd, install the package zstandard: pip install 'onggi[engine]'") from error
    # Little goes in at a time: a hundred bytes may stand for megabytes, and come out in one piece.
    waiting = _Joined(start, source)
    data = waiting.read(_ZSTD_STEP)
    while data:
        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        while not reader.eof:
            if not data:
                raise InvalidParameter("unexpected EOF")
            try:
                piece = reader.decompress(data)
            except zstandard.ZstdError as error:
                raise InvalidParameter(f"zstd: invalid compressed data: {error}") from error
            data = b"" if reader.eof else waiting.read(_ZSTD_STEP)
            if piece:
                yield piece
        data = reader.unused_data or waiting.read(_ZSTD_STEP)


class _Joined:
    """`start`, and then what `source` has left."""

    def __init__(self, start: bytes, source: Source) -> None:
        self._piece = start
        self._position = 0
        self._source = source

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        if self._position == len(self._piece):
            self._piece, self._position = self._source.read(_CHUNK), 0
        piece = self._piece[self._position : self._position + size]
        self._position += len(piece)
        return piece


_READERS: dict[str, Callable[[bytes, Source], Iterator[bytes]]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "xz": _xz,
    "bzip2": _bzip2,
}


def gzip_pieces(source: Source, level: int = 6) -> Iterator[bytes]:
    """`source` compressed with gzip: the same bytes for the same content, since no time or name goes into the head."""
    writer = zlib.compressobj(level, zlib.DEFLATED, 31)
    while piece := source.read(_CHUNK):
        if compressed := writer.compress(piece):
            yield compressed
    yield writer.flush()
