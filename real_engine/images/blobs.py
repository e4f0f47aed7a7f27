"""The content store: bytes by their digest, in an OCI image layout (OCI image-spec v1.1 image-layout.md).

    DIR/oci-layout            the version of the layout
    DIR/blobs/sha256/HEX      a blob: complete, and what its name says
    DIR/partial/…             blobs that are being written; some may be resumed after a cut connection

A blob has its name only when it is complete. A writer that doesn't flush (`durable=False`) saves time where many blobs
belong together: the caller flushes once with `sync` before anything durable refers to them, and what nothing refers to
is removed when the engine starts, so that a power cut can't leave a blob that isn't what its name says.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.files import write_durably
from real_engine.images.references import is_sha256
from real_engine.linux.libc import fail, function

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO

LARGEST_JSON = 8 << 20
"""Bytes that a manifest or configuration may have."""

_CHUNK = 1 << 20


def _syncfs(descriptor: int) -> None:
    import ctypes

    if function("syncfs", ctypes.c_int)(descriptor) < 0:
        fail("syncfs")


def syncfs(path: Path) -> None:
    """Flush the file system that `path` is on: one call for a whole tree of files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _syncfs(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is: its media type, digest and size in bytes (OCI image-spec v1.1 descriptor.md)."""

    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class DigestMismatch(EngineError):
    """The bytes that came are not those that were asked for."""


class BlobStore:
    """Blobs beneath `root`. Any number of threads may use it; nobody else may write there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        self._blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._partial.mkdir(exist_ok=True, mode=0o700)
        layout = root / "oci-layout"
        if not layout.exists():
            write_durably(layout, b'{"imageLayoutVersion":"1.0.0"}', mode=0o600)

    def path(self, digest: str) -> Path:
        """Where a blob of that digest is, or would be.

        Raises:
            InvalidParameter: it is no sha256 digest.
        """
        if not is_sha256(digest):
            raise InvalidParameter(f"invalid checksum digest format: {digest[:100]}")
        return self._blobs / digest[7:]

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """The blob's length in bytes.

        Raises:
            NotFound: it isn't here.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise NotFound(f"blob {digest} is not in the content store") from error

    def open(self, digest: str, *, verify: bool = False) -> BinaryIO:
        """The blob's bytes. With `verify` they are read once before, and compared with the digest.

        Raises:
            NotFound: it isn't here.
            DigestMismatch: the disk has changed it.
        """
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"blob {digest} is not in the content store") from error
        if verify:
            found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            if found != digest:
                file.close()
                raise DigestMismatch(f"blob {digest} has been changed on the disk: its digest is {found}")
            file.seek(0)
        return file

    def read(self, digest: str, limit: int = LARGEST_JSON) -> bytes:
        """A small blob as a whole, verified.

        Raises:
            NotFound: it isn't here.
            EngineError: it is longer than `limit` bytes.
            DigestMismatch: the disk has changed it.
        """
        with self.open(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise EngineError(f"blob {digest} is longer than the {limit} bytes that are read of such a one")
        if digest_of(data) != digest:
            raise DigestMismatch(f"blob {digest} has been changed on the disk: its digest is {digest_of(data)}")
        return data

    def put(self, data: bytes, media_type: str = "application/octet-stream", *, durable: bool = True) -> Descriptor:
        """Store `data`."""
        digest = digest_of(data)
        if not self.has(digest):
            with self.writer(durable=durable) as writer:
                writer.write(data)
                writer.commit(digest)
        return Descriptor(media_type, digest, len(data))

    def writer(self, resume: str = "", *, durable: bool = True) -> BlobWriter:
        """Begin to write a blob.

        `resume` is the digest that it should get: what an earlier writer of it left is gone on from (see `offset`), and
        what this one leaves without `commit` or `abort` is kept for the next. While another writer has the same one in
        hand, this begins from nothing and keeps nothing.
        """
        if resume:
            path = self._partial / self.path(resume).name
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:  # else the writer before us has finished it in this moment
                    return BlobWriter(self, descriptor, path, durable, resumable=True)
            except BlockingIOError:
                pass  # a writer of our own beside it, below
            os.close(descriptor)
        descriptor, name = tempfile.mkstemp(prefix=".", dir=self._partial)
        return BlobWriter(self, descriptor, self._partial / os.path.basename(name), durable, resumable=False)

    def remove(self, digest: str) -> int:
        """Remove the blob, if it is here; returns the bytes that this gives back."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def digests(self) -> Iterator[str]:
        """Every blob that is here."""
        for path in self._blobs.iterdir():
            if is_sha256(f"sha256:{path.name}"):
                yield f"sha256:{path.name}"

    def sync(self) -> None:
        """Flush all that was written without being flushed."""
        syncfs(self.root)

    def remove_abandoned(self) -> None:
        """Remove what writers left that can't be resumed; for when the engine starts, before anybody writes."""
        for path in self._partial.iterdir():
            if not is_sha256(f"sha256:{path.name}"):
                path.unlink()


class BlobWriter(io.RawIOBase):
    """Takes a blob's bytes; `commit` gives it its name. A context manager: without `commit` nothing is left of it.

    Unless it is resumable: then what came is kept, to be gone on from.
    """

    def __init__(self, store: BlobStore, descriptor: int, path: Path, durable: bool, *, resumable: bool) -> None:
        super().__init__()
        self._store = store
        self._descriptor = descriptor
        self._path = path
        self._durable = durable
        self._resumable = resumable
        self._hash = hashlib.sha256()
        self.offset = 0
        """Bytes that are here already: where to go on from."""
        while piece := os.pread(descriptor, _CHUNK, self.offset):
            self._hash.update(piece)
            self.offset += len(piece)
        os.lseek(descriptor, self.offset, os.SEEK_SET)

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def write(self, data: Any) -> int:
        """Append `data`, all of it.

        Raises:
            OSError: no room, or the disk fails.
        """
        self._hash.update(data)
        left = memoryview(data).cast("B")
        size = left.nbytes
        while left:
            left = left[os.write(self._descriptor, left) :]
        self.offset += size
        return size

    def restart(self) -> None:
        """Forget what came so far: the other side can't go on from the middle."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.offset = 0

    @property
    def digest(self) -> str:
        """The digest of what came so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def commit(
        self, expected_digest: str | None = None, media_type: str = "application/octet-stream", size: int | None = None
    ) -> Descriptor:
        """Give the blob its name.

        Raises:
            DigestMismatch: what came isn't what was expected; it is thrown away.
            OSError: no room, or the disk fails.
        """
        found = self.digest
        if expected_digest not in (None, found) or size not in (None, self.offset):
            self.abort()
            if size not in (None, self.offset) and expected_digest in (None, found):
                raise DigestMismatch(f"wrong length: {found} has {self.offset} bytes instead of {size}")
            raise DigestMismatch(f"filesystem layer verification failed for digest {expected_digest}")
        if self._durable:
            os.fsync(self._descriptor)
        target = self._store.path(found)
        os.replace(self._path, target)
        if self._durable:
            directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        self._leave()
        return Descriptor(media_type, found, self.offset)

    def abort(self) -> None:
        """Throw away what came."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            self._leave()

    def _leave(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Stop: what came is kept if it can be resumed, and thrown away otherwise."""
        if self._descriptor >= 0 and not (self._resumable and self.offset):
            self.abort()
        self._leave()
        super().close()

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def digest_of(data: bytes) -> str:
    """The digest of `data`: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """`data` as a JSON object.

    Raises:
        InvalidParameter: it is none; `what` names it.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidParameter(f"{what} is no JSON object")
    return value
