"""Uploads of blobs, in one piece or in many, that go on after a cut connection and after a restart of the registry.

    DIR/uploads/ID/data         what has come so far; its length is how far the upload is
    DIR/uploads/ID/repository   for which repository

An upload that nobody touched for a while is thrown away.
"""

import hashlib
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from real_engine.files import write_durably
from real_engine.registry.errors import RegistryError
from real_engine.registry.names import Digest
from real_engine.registry.storage import Storage

EXPIRY_SECONDS = 24 * 3600.0
"""How long an upload is kept for a client that may come back to it."""

_BLOCK_BYTES = 1 << 20
_LOCK_SECONDS = 30.0
_ID = re.compile(r"[0-9a-f]{32}")


class Source(Protocol):
    """Where the bytes of an upload come from."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as one read does; 0 at the end."""


class Uploads:
    """The uploads of one registry. Safe for threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._directory = storage.root / "uploads"
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        # sha256 of what has come, kept between two pieces: reading it all again would cost as much as the upload.
        self._hashes: dict[str, tuple[int, Any]] = {}

    def begin(self, repository: str) -> str:
        """Begin an upload; returns its id."""
        upload = uuid.uuid4().hex
        building = self._directory / f".{upload}"
        building.mkdir(mode=0o700)
        write_durably(building / "repository", repository.encode(), 0o600)
        (building / "data").touch(mode=0o600)
        building.rename(self._directory / upload)
        return upload

    def offset(self, repository: str, upload: str) -> int:
        """Bytes that have come.

        Raises:
            RegistryError: BLOB_UPLOAD_UNKNOWN.
        """
        try:
            return (self._find(repository, upload) / "data").stat().st_size
        except FileNotFoundError:
            raise _unknown(upload) from None

    def append(self, repository: str, upload: str, source: Source, first: int | None = None) -> int:
        """Add what `source` gives, all of it, which begins at byte `first` of the blob; returns the new offset.

        What came before a failure stays, and can be gone on from.

        Raises:
            RegistryError: BLOB_UPLOAD_UNKNOWN, or RANGE_INVALID if `first` isn't where the upload is.
            OSError: the source or the disk failed.
        """
        with self._held(repository, upload) as directory, (directory / "data").open("ab") as file:
            offset = file.tell()
            if first is not None and first != offset:
                raise RegistryError("RANGE_INVALID", "the upload goes on elsewhere", {"offset": offset})
            known, hasher = self._hashes.pop(upload, (0, None))
            if offset == 0:
                known, hasher = 0, hashlib.sha256()
            buffer = memoryview(bytearray(_BLOCK_BYTES))
            try:
                while count := source.readinto(buffer):
                    piece = buffer[:count]
                    file.write(piece)
                    offset += count
                    if hasher is not None and known == offset - count:
                        hasher.update(piece)
                        known = offset
            finally:
                file.flush()
                if hasher is not None and known == file.tell():
                    self._hashes[upload] = (known, hasher)
            return offset

    def finish(self, repository: str, upload: str, digest: Digest) -> int:
        """Make what has come a blob of the repository; returns its size in bytes.

        Raises:
            RegistryError: BLOB_UPLOAD_UNKNOWN, or DIGEST_INVALID if it isn't what `digest` says; the upload is over
                then, since its bytes can't be trusted.
        """
        with self._held(repository, upload) as directory:
            data = directory / "data"
            size = data.stat().st_size
            known, hasher = self._hashes.pop(upload, (0, None))
            if digest.algorithm != "sha256" or hasher is None or known != size:
                hasher = _hash_file(data, digest)
            if hasher.hexdigest() != digest.hex:
                self._forget(upload, directory)
                detail = f"{digest.algorithm}:{hasher.hexdigest()}"
                raise RegistryError("DIGEST_INVALID", "provided digest did not match uploaded content", detail)
            descriptor = os.open(data, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._storage.adopt_blob(repository, digest, data)
            self._forget(upload, directory)
            return size

    def cancel(self, repository: str, upload: str) -> None:
        """Throw an upload away.

        Raises:
            RegistryError: BLOB_UPLOAD_UNKNOWN.
        """
        with self._held(repository, upload) as directory:
            self._forget(upload, directory)

    def expire(self, seconds: float = EXPIRY_SECONDS) -> int:
        """Throw away what nobody has touched for `seconds`; returns how many there were."""
        expired = 0
        for name in os.listdir(self._directory):
            directory = self._directory / name
            data = directory / "data"
            try:
                touched = (data if data.exists() else directory).stat().st_mtime
            except FileNotFoundError:
                continue  # finished meanwhile
            if time.time() - touched < seconds:
                continue
            with self._guard:
                lock = self._locks.setdefault(name, threading.Lock())
            if lock.acquire(blocking=False):
                try:
                    self._forget(name, directory)
                finally:
                    lock.release()
                expired += 1
        return expired

    def _find(self, repository: str, upload: str) -> Path:
        directory = self._directory / upload
        if not _ID.fullmatch(upload):
            raise _unknown(upload)
        try:
            if (directory / "repository").read_bytes() == repository.encode():
                return directory
        except FileNotFoundError:
            pass
        raise _unknown(upload)

    @contextmanager
    def _held(self, repository: str, upload: str) -> Iterator[Path]:
        """The directory of an upload, for one at a time."""
        self._find(repository, upload)
        with self._guard:
            lock = self._locks.setdefault(upload, threading.Lock())
        # A client whose connection broke comes back while the broken one is still being read.
        if not lock.acquire(timeout=_LOCK_SECONDS):
            raise RegistryError("BLOB_UPLOAD_INVALID", "another request is writing to this upload", upload, status=409)
        try:
            yield self._find(repository, upload)
        except FileNotFoundError as error:
            if (self._directory / upload).exists():
                raise
            raise _unknown(upload) from error
        finally:
            lock.release()
            if not (self._directory / upload).exists():
                with self._guard:
                    self._locks.pop(upload, None)

    def _forget(self, upload: str, directory: Path) -> None:
        self._hashes.pop(upload, None)
        shutil.rmtree(directory, ignore_errors=True)
        with self._guard:
            self._locks.pop(upload, None)


def _hash_file(path: Path, digest: Digest) -> Any:
    hasher = digest.hasher()
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher


def _unknown(upload: str) -> RegistryError:
    return RegistryError("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", upload)
