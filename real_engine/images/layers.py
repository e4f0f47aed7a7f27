"""Layers on the disk: each an extracted directory under its diff id, ready to be a lower directory of an overlay.

    DIR/layers/HEX/diff/        what the layer holds, with overlayfs's marks for what it takes away
    DIR/layers/HEX/layer.json   its diff id, its size, and in which blobs its tar archive is kept

The *diff id* is the digest of the layer's uncompressed tar archive. A layer is extracted beside its place and moved
into it when it is complete, checked against its diff id, and flushed to the disk (one syncfs for all its files), so
what is in its place is whole, also after a power cut. Its exact tar can always be given again: from the blob that it
came as, or from one of the plain tar, kept when it was made here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.files import write_durably
from real_engine.images.archive import Policy, extract, write_tar
from real_engine.images.blobs import BlobStore, BlobWriter, Descriptor, DigestMismatch, parse_object, syncfs
from real_engine.images.compression import Decompressed, gzip_pieces
from real_engine.images.marks import Marks, may_be_root
from real_engine.images.references import is_sha256
from real_engine.images.streams import HashedReader, IteratorReader
from real_engine.images.tar_reader import SYMLINK, Entry
from real_engine.images.trees import remove_tree
from real_engine.registry.media_types import DOCKER_LAYER, OCI_LAYER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from real_engine.images.compression import Source

EMPTY_DIFF_ID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""The diff id of an archive without entries: 1024 zeros."""

_LARGEST = 1 << 42  # bytes of an uncompressed layer
_RECORD = "layer.json"
_NEW_SECONDS = 3600.0  # how long a layer that no image has yet is kept for whoever made it, or asked for it


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is here: its diff id, its directory (to be a lower directory), its files' bytes together."""

    diff_id: str
    directory: Path
    size: int


@dataclass(slots=True)
class _Record:
    """What `layer.json` says."""

    diff_id: str
    size: int
    tar_size: int
    blobs: dict[str, Descriptor] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        blobs = [descriptor.to_json() for descriptor in self.blobs.values()]
        value = {"diff_id": self.diff_id, "size": self.size, "tar_size": self.tar_size, "blobs": blobs}
        return json.dumps(value).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> _Record:
        value = parse_object(data, path)
        found = [Descriptor(str(one["mediaType"]), str(one["digest"]), int(one["size"])) for one in value["blobs"]]
        return cls(
            str(value["diff_id"]), int(value["size"]), int(value["tar_size"]), {one.digest: one for one in found}
        )


class LayerStore:
    """The layers beneath `root`, with their archives in `blobs`. For any number of threads of one process."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self.root = root
        self.blobs = blobs
        self.marks = Marks.for_this_process()
        self._policy = Policy(
            marks=self.marks,
            root_entry=True,
            lenient=not may_be_root(),
            devices="make" if may_be_root() else "skip",
        )
        self._lock = threading.Lock()
        self._in_hand: dict[str, threading.Lock] = {}
        self._holds: list[tuple[set[str], set[str]]] = []  # layers that are held, and of these what was to be removed
        self._new: dict[str, float] = {}  # when a layer was made or asked for, until an image has it
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- what is here ------------------------------------------------------------------------------------------------

    def has(self, diff_id: str) -> bool:
        """Whether the layer is here, and its tar can be given. It stays for an hour for whoever asked."""
        self._touch(diff_id)
        return self._has(diff_id)

    def _has(self, diff_id: str) -> bool:
        try:
            return self._tar_source(self._read_record(diff_id)) is not None
        except NotFound:
            return False

    def get(self, diff_id: str) -> Layer:
        """The layer.

        Raises:
            NotFound: it isn't here.
        """
        record = self._read_record(diff_id)
        return Layer(diff_id, self.directory(diff_id), record.size)

    def directory(self, diff_id: str) -> Path:
        """Where the layer's files are, or would be.

        Raises:
            InvalidParameter: it is no sha256 digest.
        """
        return self._place(diff_id) / "diff"

    def diff_ids(self) -> Iterator[str]:
        """Every layer that is here."""
        for path in self.root.iterdir():
            if is_sha256(f"sha256:{path.name}"):
                yield f"sha256:{path.name}"

    # --- new layers --------------------------------------------------------------------------------------------------

    def apply(self, stream: Source, *, expected_diff_id: str | None = None, blob: Descriptor | None = None) -> Layer:
        """Make a layer of a tar archive, compressed (gzip, zstd, xz, bzip2) or not.

        `blob` is what the content store has, or is about to have, of the very bytes that `stream` gives. Without it the
        plain tar is stored as a blob on the way. A layer that is here already, and is named by `expected_diff_id`, is
        taken as it is, and nothing is read but where its archive is missing. All is there in the end, or nothing.

        Raises:
            DigestMismatch: it isn't the layer that was expected.
            InvalidParameter: the archive is damaged, or leads out of the layer.
            OSError: no room.
        """
        if expected_diff_id is None:
            return self._apply(stream, None, blob)
        with self._holding(expected_diff_id):
            self._touch(expected_diff_id)
            if self._has(expected_diff_id):
                return self.get(expected_diff_id)
            if blob is not None and self._place(expected_diff_id).exists():  # only its archive is missing
                self._verify(stream, expected_diff_id)
                self._remember(expected_diff_id, blob)
                return self.get(expected_diff_id)
            return self._apply(stream, expected_diff_id, blob)

    @staticmethod
    def _verify(stream: Source, expected: str) -> None:
        """See that an archive is the layer's: whoever names both could give another for that of somebody's image."""
        plain = HashedReader(io.BufferedReader(Decompressed(stream), 1 << 20), _LARGEST)
        while plain.read():
            pass
        if plain.digest != expected:
            raise DigestMismatch(f"layer has diff id {plain.digest}, expected {expected}")

    def _apply(self, stream: Source, expected: str | None, blob: Descriptor | None) -> Layer:
        with self._building() as building, contextlib.ExitStack() as closing:
            writer = None if blob is not None else closing.enter_context(self.blobs.writer(durable=False))
            plain = HashedReader(
                io.BufferedReader(Decompressed(stream), 1 << 20), _LARGEST, None if writer is None else writer.write
            )
            root = os.open(building / "diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                extracted = extract(plain, root, self._policy)
            finally:
                os.close(root)
            while plain.read():
                pass  # what comes after the archive's end counts for the digest
            if expected not in (None, plain.digest):
                raise DigestMismatch(f"layer has diff id {plain.digest}, expected {expected}")
            blob = blob or Descriptor(OCI_LAYER, plain.digest, plain.size)
            record = _Record(plain.digest, extracted.size, plain.size, {blob.digest: blob})
            return self._settle(building, record, writer, held=expected is not None)

    def commit(self, upper: Path) -> Layer:
        """Make a layer of an overlay's upper directory, which must not change meanwhile.

        Its whiteouts become those of the archive. What is below doesn't matter: the upper directory says all.

        Raises:
            EngineError: overlayfs has put something there that no layer can say.
            OSError: no room.
        """
        root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stream = IteratorReader(write_tar(root, marks=self.marks, whole_seconds=True))
            return self.apply(stream)
        finally:
            os.close(root)

    def take(self, upper: Path) -> Layer:
        """As `commit`, but the upper directory itself becomes the layer's: no file is copied.

        An empty directory is left in its place, or the whole where this fails. Nothing may have it mounted any more.

        Raises:
            EngineError: overlayfs has put something there that no layer can say.
            OSError: no room, or it is on another file system.
        """
        size = 0

        def count(entry: Entry) -> None:
            nonlocal size
            size += entry.size + (len(os.fsencode(entry.link)) if entry.kind == SYMLINK else 0)

        root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with self._building() as building, self.blobs.writer(durable=False) as writer:
                for piece in write_tar(root, marks=self.marks, whole_seconds=True, settle=True, seen=count):
                    writer.write(piece)
                blob = Descriptor(OCI_LAYER, writer.digest, writer.offset)
                record = _Record(blob.digest, size, blob.size, {blob.digest: blob})
                taken = building / "diff"
                upper.rename(taken)
                try:
                    upper.mkdir(mode=0o755)
                    os.fchown(root, os.geteuid(), os.getegid())  # an archive of changes says nothing of the root itself
                    os.fchmod(root, 0o755)
                    return self._settle(building, record, writer, held=False)
                except BaseException:
                    if taken.exists():
                        taken.rename(upper)
                    raise
        finally:
            os.close(root)

    def empty(self) -> Layer:
        """The layer without entries."""
        return self.apply(io.BytesIO(bytes(1024)), expected_diff_id=EMPTY_DIFF_ID)

    # --- archives ----------------------------------------------------------------------------------------------------

    def tar(self, diff_id: str) -> BinaryIO:
        """The layer's uncompressed tar archive, byte for byte what its diff id says.

        Raises:
            NotFound: the layer isn't here, or its archive has been removed.
        """
        source = self._tar_source(self._read_record(diff_id))
        if source is None:
            raise NotFound(f"the archive of layer {diff_id} is not in the content store")
        file = self.blobs.open(source.digest)
        if source.digest == diff_id:
            return file
        return cast("BinaryIO", _Owning(Decompressed(file), file))

    def tar_size(self, diff_id: str) -> int:
        """The length in bytes of the layer's uncompressed tar archive.

        Raises:
            NotFound: the layer isn't here.
        """
        return self._read_record(diff_id).tar_size

    def compressed(self, diff_id: str, media_type: str = DOCKER_LAYER) -> Descriptor:
        """The layer's archive as a compressed blob, for a push: the one that it came as, or gzip made now and kept.

        Made twice it is the same, byte for byte. `media_type` is that of one that is made.

        Raises:
            NotFound: as `tar`.
            OSError: no room.
        """
        with self._holding(diff_id):
            record = self._read_record(diff_id)
            for blob in record.blobs.values():
                if blob.digest != diff_id and self.blobs.has(blob.digest):
                    return blob
            with self.tar(diff_id) as file, self.blobs.writer() as writer:
                plain = HashedReader(file)
                for piece in gzip_pieces(plain):
                    writer.write(piece)
                if plain.digest != diff_id:
                    raise DigestMismatch(f"the archive of layer {diff_id} has been changed on the disk")
                made = writer.commit(media_type=media_type)
            self._remember(diff_id, made)
            return made

    def remember(self, diff_id: str, blob: Descriptor) -> None:
        """Note that `blob` is an archive of the layer, compressed or not.

        Raises:
            NotFound: the layer isn't here.
        """
        with self._holding(diff_id):
            self._remember(diff_id, blob)

    def archives(self, diff_id: str) -> tuple[Descriptor, ...]:
        """The blobs that are known to hold the layer's archive and are here.

        Raises:
            NotFound: the layer isn't here.
        """
        return tuple(blob for blob in self._read_record(diff_id).blobs.values() if self.blobs.has(blob.digest))

    # --- removal -----------------------------------------------------------------------------------------------------

    def claim(self, diff_id: str) -> None:
        """Note that an image has the layer now: it needs no keeping for its own sake any more."""
        self._new.pop(diff_id, None)

    @contextlib.contextmanager
    def held(self, diff_ids: Iterable[str]) -> Iterator[set[str]]:
        """Keep these layers for as long as the block lasts; gives those that were to be removed meanwhile, at its end.

        It is for the caller to remove them then, if nobody needs them still: see `ImageStore.held`.
        """
        missed: set[str] = set()
        mine = set(diff_ids)
        with self._lock:
            self._holds.append((mine, missed))
        try:
            yield missed
        finally:
            with self._lock:
                self._holds = [hold for hold in self._holds if hold[1] is not missed]

    def _is_held(self, diff_id: str) -> bool:
        """Whether somebody holds the layer; all who do learn that it was to be removed."""
        with self._lock:
            holds = [missed for held, missed in self._holds if diff_id in held]
            for missed in holds:
                missed.add(diff_id)
        return bool(holds)

    def remove(self, diff_id: str, *, though_new: bool = False, is_used: Callable[[], bool] = lambda: False) -> int:
        """Remove the layer and its archives, if it is here; returns the bytes that this gives back.

        One that was made or asked for within the last hour, and that no image has had since, stays unless `though_new`;
        one that is `held` stays in any case.
        It is moved out of its place first: a crash meanwhile leaves no half of a layer. Then `is_used` is asked, and if
        somebody has begun to use it it is put back: who makes an image looks after its layers once it is known.

        Raises:
            OSError: it can't be removed.
        """
        self._place(diff_id)  # which checks it
        with self._holding(diff_id):
            if not though_new and time.monotonic() - self._new.get(diff_id, -_NEW_SECONDS) < _NEW_SECONDS:
                return 0
            if self._is_held(diff_id):
                return 0
            self._new.pop(diff_id, None)
            try:
                record = self._read_record(diff_id)
            except NotFound:
                return 0
            freed = record.size
            grave = self.root / f".removed-{record.diff_id[7:]}-{os.urandom(4).hex()}"
            self._place(diff_id).rename(grave)
            if is_used():
                grave.rename(self._place(diff_id))
                return 0
            for digest in record.blobs:
                freed += self.blobs.remove(digest)
        remove_tree(grave)
        return freed

    def remove_abandoned(self) -> None:
        """Remove what an engine that was killed left half-made or half-removed; for when nobody else is at work."""
        for path in self.root.iterdir():
            if path.name.startswith((".building-", ".removed-")):
                remove_tree(path)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _touch(self, diff_id: str) -> None:
        self._place(diff_id)  # which checks it
        self._new[diff_id] = time.monotonic()

    def _place(self, diff_id: str) -> Path:
        if not is_sha256(diff_id):
            raise InvalidParameter(f"invalid checksum digest format: {diff_id[:100]}")
        return self.root / diff_id[7:]

    def _read_record(self, diff_id: str) -> _Record:
        path = self._place(diff_id) / _RECORD
        try:
            return _Record.from_bytes(path.read_bytes(), str(path))
        except FileNotFoundError as error:
            raise NotFound(f"layer {diff_id} is not in the store") from error
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"{path} is damaged: {error}") from error

    def _write_record(self, record: _Record) -> None:
        write_durably(self._place(record.diff_id) / _RECORD, record.to_bytes(), mode=0o600)

    def _remember(self, diff_id: str, blob: Descriptor) -> None:
        record = self._read_record(diff_id)
        if blob.digest not in record.blobs:
            record.blobs[blob.digest] = blob
            self._write_record(record)

    def _tar_source(self, record: _Record) -> Descriptor | None:
        """The blob to read the layer's tar from: the plain one before a compressed one."""
        here = [blob for blob in record.blobs.values() if self.blobs.has(blob.digest)]
        return next((blob for blob in here if blob.digest == record.diff_id), here[0] if here else None)

    @contextlib.contextmanager
    def _building(self) -> Iterator[Path]:
        """A directory to make a layer in, beside those that are made; gone at the end unless it was moved."""
        building = self.root / os.path.basename(tempfile.mkdtemp(prefix=".building-", dir=self.root))
        try:
            (building / "diff").mkdir()
            (building / "diff").chmod(0o755)
            yield building
        finally:
            remove_tree(building)

    def _settle(self, building: Path, record: _Record, writer: BlobWriter | None, *, held: bool) -> Layer:
        """Put a complete layer into its place; if it is there already, its archive is noted and this one goes.

        `writer` has its plain tar, if that is to be stored: also that is there in the end only if the layer is.
        """
        (building / _RECORD).write_bytes(record.to_bytes())
        with contextlib.nullcontext() if held else self._holding(record.diff_id):
            self._touch(record.diff_id)
            place = self._place(record.diff_id)
            known = place.exists()
            try:
                if writer is not None:
                    writer.commit(record.diff_id)
                if known:
                    for blob in record.blobs.values():
                        self._remember(record.diff_id, blob)
                else:
                    syncfs(building)
                    building.rename(place)
            except BaseException:
                if writer is not None and not known:
                    self.blobs.remove(record.diff_id)
                raise
            directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            return self.get(record.diff_id)

    @contextlib.contextmanager
    def _holding(self, diff_id: str) -> Iterator[None]:
        """Only one thread at a time makes, changes or removes a layer; different layers don't wait for each other."""
        with self._lock:
            lock = self._in_hand.setdefault(diff_id, threading.Lock())
        with lock:
            yield


class _Owning(io.BufferedReader):
    """A buffered reader that closes, with itself, the file that its raw stream reads from."""

    def __init__(self, raw: io.RawIOBase, file: BinaryIO) -> None:
        super().__init__(raw, 1 << 20)
        self._file = file

    def close(self) -> None:
        super().close()
        self._file.close()
