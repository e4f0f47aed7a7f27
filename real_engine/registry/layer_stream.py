"""A layer on its way: from the registry through the content store to whoever extracts it, in one pass.

    registry ──▶ blob (hashed, written) ──▶ decompression ──▶ files
                    └─ what an earlier, cut-off pull has left is read from the disk first

So nothing is read twice, and extraction ends a moment after the last byte has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from real_engine.errors import EngineError
from real_engine.images.blobs import DigestMismatch
from real_engine.registry.download import Download

if TYPE_CHECKING:
    from collections.abc import Callable

    from real_engine.images.blobs import BlobStore, BlobWriter
    from real_engine.registry.client import RegistryClient
    from real_engine.registry.manifests import Descriptor

_CHUNK_BYTES = 256 << 10


class LayerStream:
    """The bytes of a layer's blob, to be read once; at their end the blob is in the store, and what it should be.

    Nothing is asked of the registry before the first byte is read. What has come when it is closed early stays in the
    store, for the next one to go on from.

    `progress` is told how many bytes have come; `on_whole` is called when the last one has, before it is verified,
    and `on_retry`, with the seconds to wait, when a connection broke.
    """

    def __init__(
        self,
        blobs: BlobStore,
        client: RegistryClient,
        repository: str,
        descriptor: Descriptor,
        progress: Callable[[int], None],
        on_whole: Callable[[], None],
        on_retry: Callable[[float], None],
    ) -> None:
        self._blobs = blobs
        self._client = client
        self._repository = repository
        self._descriptor = descriptor
        self._progress = progress
        self._on_whole = on_whole
        self._on_retry = on_retry
        self._writer: BlobWriter | None = None
        self._kept: BinaryIO | None = None
        self._kept_bytes = 0
        self._download: Download | None = None
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self.begun = False
        """Whether anything was read."""
        self.failed = False
        """Whether it was not the blob that it should be."""
        self.finished = False
        """Whether all of it is in the store, verified."""

    def read(self, size: int = _CHUNK_BYTES, /) -> bytes:
        """Up to `size` bytes; none at the end.

        Raises:
            DigestMismatch: it isn't the blob that it should be; nothing is left of it.
            EngineError: the registry doesn't give it.
            OSError: no room.
        """
        if self.finished:
            return b""
        if self._writer is None:
            self.begun = True
            self._open()
        assert self._writer is not None
        if self._kept is not None:
            piece = self._kept.read(min(size, self._kept_bytes))
            self._kept_bytes -= len(piece)
            if piece:
                return piece
            self._kept.close()
            self._kept = None
            if self._kept_bytes:
                raise EngineError(f"what was kept of blob {self._descriptor.digest} has changed on the disk")
        assert self._download is not None
        count = self._download.readinto(self._buffer[:size])
        if count:
            piece = bytes(self._buffer[:count])
            self._writer.write(piece)
            self._progress(self._writer.offset)
            return piece
        self._finish(self._writer)
        return b""

    def drain(self) -> None:
        """Read what is left, so that all of it is verified and in the store."""
        while self.read():
            pass

    def close(self) -> None:
        """Stop; what has come is kept unless it is whole already, or wrong."""
        for part in (self._download, self._kept, self._writer):
            if part is not None:
                part.close()

    def __enter__(self) -> LayerStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> None:
        digest = str(self._descriptor.digest)
        self._writer = writer = self._blobs.writer(digest, durable=False)
        if writer.offset > self._descriptor.size:
            writer.restart()
        if writer.offset:
            self._kept = (self._blobs.root / "partial" / self._descriptor.digest.hex).open("rb")
            self._kept_bytes = writer.offset
        self._download = Download(self._client, self._repository, self._descriptor, writer.offset, self._on_retry)

    def _finish(self, writer: BlobWriter) -> None:
        self._on_whole()
        digest = str(self._descriptor.digest)
        if writer.digest != digest:
            self.failed = True
            writer.abort()
            raise DigestMismatch(f"filesystem layer verification failed for digest {digest}")
        writer.commit(digest)
        self.finished = True
