"""Streams of bytes made from others: an iterator to read from, a stream that is hashed as it passes."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from real_engine.images.compression import Source

CHUNK = 1 << 20


class IteratorReader(io.RawIOBase):
    """What an iterator of bytes gives, to be read like a file. Closing it closes the iterator."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the next piece goes."""
        while not self._waiting:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._waiting = memoryview(piece)
        size = min(len(buffer), len(self._waiting))
        buffer[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size

    def close(self) -> None:
        """Close the iterator too."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        super().close()


class HashedReader:
    """Reads from `source`, and hashes and counts what passes; `copy` is given each piece too.

    Raises:
        InvalidParameter: more than `limit` bytes came.
    """

    def __init__(self, source: Source, limit: int | None = None, copy: Callable[[bytes], object] | None = None) -> None:
        self._source = source
        self._limit = limit
        self._copy = copy
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes that have passed."""

    def read(self, size: int = CHUNK, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        piece = self._source.read(size)
        self._hash.update(piece)
        self.size += len(piece)
        if self._limit is not None and self.size > self._limit:
            raise InvalidParameter(f"a stream of more than {self._limit} bytes, which is the limit")
        if piece and self._copy is not None:
            self._copy(piece)
        return piece

    @property
    def digest(self) -> str:
        """The digest of what has passed."""
        return f"sha256:{self._hash.hexdigest()}"


def pieces(source: Source, size: int = CHUNK) -> Iterator[bytes]:
    """What `source` has, piece by piece."""
    while piece := source.read(size):
        yield piece
