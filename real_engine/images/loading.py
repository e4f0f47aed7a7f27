"""Images from an archive: `docker load`, of what `docker save` writes and of OCI image layouts.

The archive is read once, as a stream. Each file in it goes straight into the content store, under its own digest, and
its name in the archive is only remembered: no path that an archive names is ever opened (CVE-2014-9356 was of a loader
that did). What turns out to belong to no image is removed at the end.
"""

from __future__ import annotations

import io
import json
import platform
import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError, InvalidParameter
from real_engine.images.blobs import LARGEST_JSON, Descriptor, DigestMismatch, parse_object
from real_engine.images.compression import Decompressed, compression_of
from real_engine.images.disk_errors import disk_errors_told
from real_engine.images.references import Reference, is_sha256
from real_engine.images.tar_reader import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry, InvalidArchive, TarReader
from real_engine.registry.media_types import (
    DOCKER_CONFIG,
    INDEXES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from real_engine.images.compression import Source
    from real_engine.images.store import Image, ImageStore

    Progress = Callable[[str, int, int], None]
    """Told how far a layer is: (diff id, bytes taken of its archive, bytes of it)."""

_MOST_ENTRIES = 100_000
_MOST_LINKS = 8
_MOST_INDEXES = 4  # one in the other
_KEPT_WHOLE = frozenset(("manifest.json", "index.json", "oci-layout", "repositories"))
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MEDIA_TYPES = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that was loaded, the names that it came with, and the names that it took from other images."""

    image: Image
    references: tuple[Reference, ...]
    replaced: tuple[tuple[Reference, str], ...] = ()


@disk_errors_told()
def load(
    store: ImageStore, stream: Source, progress: Progress = lambda _diff_id, _current, _total: None
) -> list[Loaded]:
    """Take the images of an archive, plain or compressed; each is complete before it has a name.

    Raises:
        InvalidParameter: it is no archive of images, or what it says of itself isn't so.
        DigestMismatch: a file or layer isn't what its digest says.
        EngineError: no room.
    """
    archive = _Archive(store)
    try:
        archive.take(stream)
        if "manifest.json" in archive.whole:
            wanted = _docker_images(archive)
        elif "index.json" in archive.whole:
            wanted = _layout_images(archive)
        else:
            raise InvalidParameter("invalid archive: it has neither a manifest.json nor an index.json")
        return [_load(store, archive, one, progress) for one in wanted]
    finally:
        archive.remove_unused()


@dataclass(slots=True)
class _Wanted:
    """An image that the archive has."""

    config: bytes
    layers: list[str]  # digests of blobs
    names: list[Reference]
    parent: str = ""
    manifest: Descriptor | None = None


@dataclass(slots=True)
class _Archive:
    """The files of an archive, in the content store under their digests."""

    store: ImageStore
    whole: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _new: set[str] = field(default_factory=set)

    def take(self, stream: Source) -> None:
        """Read the archive to its end."""
        reader = TarReader(io.BufferedReader(Decompressed(stream), 1 << 20))
        for number, entry in enumerate(reader):
            if number >= _MOST_ENTRIES:
                raise InvalidArchive(f"the archive has more than {_MOST_ENTRIES} entries, which is the limit")
            name = _clean(entry.name)
            if entry.kind == REGULAR:
                self._take_file(reader, entry, name)
            elif entry.kind == SYMLINK:
                self.links[name] = _clean(posixpath.join(posixpath.dirname(name), entry.link))
            elif entry.kind == HARD_LINK:
                self.links[name] = _clean(entry.link)
            elif entry.kind != DIRECTORY:
                raise InvalidArchive(f"invalid archive: {name} is neither a file, a directory nor a link")
        reader.drain()

    def _take_file(self, reader: TarReader, entry: Entry, name: str) -> None:
        if name in _KEPT_WHOLE:
            if entry.size > LARGEST_JSON:
                raise InvalidArchive(f"invalid archive: {name} has {entry.size} bytes")
            self.whole[name] = b"".join(piece for _, piece in reader.pieces())
            return
        with self.store.blobs.writer(durable=False) as writer:
            for offset, piece in reader.pieces():
                if offset > writer.offset:
                    raise InvalidArchive(f"invalid archive: {name} has holes")
                writer.write(piece)
            if writer.offset != entry.size:
                raise InvalidArchive(f"invalid archive: {name} has holes")
            digest = writer.digest
            if not self.store.blobs.has(digest):
                writer.commit(digest)
                self._new.add(digest)
        self.files[name] = digest

    def digest(self, path: Any) -> str:
        """The digest of the file of that name in the archive.

        Raises:
            InvalidParameter: there is none.
        """
        if not isinstance(path, str):
            raise InvalidParameter("invalid archive: a path in its manifest is no text")
        name = _clean(path)
        for _ in range(_MOST_LINKS):
            if name in self.files:
                return self.files[name]
            if name not in self.links:
                break
            name = self.links[name]
        raise InvalidParameter(f"invalid archive: {path} is not in it")

    def blob(self, described: Any) -> Descriptor:
        """The blob that a descriptor of an OCI layout means.

        Raises:
            InvalidParameter: it is no descriptor, or the archive hasn't got the blob.
            DigestMismatch: what it has under that name is something else.
        """
        if not isinstance(described, dict):
            raise InvalidParameter("invalid archive: a descriptor is no object")
        digest, size = described.get("digest"), described.get("size")
        if not isinstance(digest, str) or not is_sha256(digest) or not isinstance(size, int):
            raise InvalidParameter(f"invalid archive: a descriptor without a sha256 digest and a size: {described}")
        found = self.digest(f"blobs/sha256/{digest[7:]}")
        if found != digest or self.store.blobs.size(found) != size:
            raise DigestMismatch(f"invalid archive: blobs/sha256/{digest[7:]} is {found}, not what its name says")
        return Descriptor(str(described.get("mediaType") or ""), digest, size)

    def remove_unused(self) -> None:
        """Remove the files that no image was made of."""
        for digest in self._new - self.used:
            self.store.blobs.remove(digest)


def _load(store: ImageStore, archive: _Archive, wanted: _Wanted, progress: Progress) -> Loaded:
    """Make one image, and give it its names."""
    config = parse_object(wanted.config, "the image's configuration")
    _check_system(config)
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict):
        raise InvalidParameter("invalid image JSON, no RootFS key")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list):
        raise InvalidParameter("invalid image JSON: rootfs.diff_ids must be a list of digests")
    if len(diff_ids) != len(wanted.layers):
        raise InvalidParameter(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(wanted.layers)}"
        )
    for diff_id, digest in zip(diff_ids, wanted.layers, strict=True):
        _load_layer(store, archive, diff_id, digest, progress)
    if wanted.manifest is not None and all(digest in archive.used for digest in wanted.layers):
        manifest = store.blobs.read(wanted.manifest.digest)
        archive.used.add(wanted.manifest.digest)
        image = store.create(wanted.config, manifest=manifest, manifest_media_type=wanted.manifest.media_type)
    else:
        store.blobs.sync()
        image = store.create(wanted.config, parent=wanted.parent)
    archive.used.add(image.id)
    replaced = []
    for reference in wanted.names:
        before = store.find(reference)
        if before is not None and before.id != image.id:
            replaced.append((reference, before.id))
        image = store.tag(image, reference)
    return Loaded(image, tuple(wanted.names), tuple(replaced))


def _load_layer(store: ImageStore, archive: _Archive, diff_id: Any, digest: str, progress: Progress) -> None:
    if not isinstance(diff_id, str) or not is_sha256(diff_id):
        raise InvalidParameter(f"invalid image JSON: {diff_id!r} is no diff id")
    if store.layers.has(diff_id):
        if digest in {known.digest for known in store.layers.archives(diff_id)}:
            archive.used.add(digest)
        return
    with store.blobs.open(digest) as file:
        media_type = _MEDIA_TYPES.get(compression_of(file.read(8)))
        file.seek(0)
        size = store.blobs.size(digest)
        # What no registry would take as a layer (xz, bzip2) isn't kept: the store keeps the plain tar then.
        blob = None if media_type is None else Descriptor(media_type, digest, size)
        store.layers.apply(_Watched(file, diff_id, size, progress), expected_diff_id=diff_id, blob=blob)
        if blob is not None:
            archive.used.add(digest)


@dataclass(slots=True)
class _Watched:
    """A file, whose reading is told of."""

    file: io.BufferedIOBase | Any
    diff_id: str
    size: int
    progress: Progress
    passed: int = 0

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self.file.read(size)
        self.passed += len(data)
        self.progress(self.diff_id, self.passed, self.size)
        return data


def _docker_images(archive: _Archive) -> list[_Wanted]:
    """The images that manifest.json lists (moby image spec v1.2, "Combined Image JSON + Filesystem Changeset")."""
    try:
        listed = json.loads(archive.whole["manifest.json"])
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"invalid archive: manifest.json is no JSON: {error}") from error
    if not isinstance(listed, list):
        raise InvalidParameter("invalid archive: manifest.json is no list")
    found = []
    for item in listed:
        if not isinstance(item, dict):
            raise InvalidParameter("invalid archive: manifest.json lists something that is no object")
        config = archive.store.blobs.read(archive.digest(item.get("Config")))
        layers = [archive.digest(path) for path in item.get("Layers") or ()]
        names = [_tagged(text) for text in item.get("RepoTags") or ()]
        found.append(_Wanted(config, layers, names, str(item.get("Parent") or "")))
    return found


def _layout_images(archive: _Archive) -> list[_Wanted]:
    """The images of an OCI image layout; of one for several systems, the one for this machine."""
    found: dict[str, _Wanted] = {}
    for described in _entries(archive, parse_object(archive.whole["index.json"], "index.json"), 0):
        blob = archive.blob(described)
        manifest = parse_object(archive.store.blobs.read(blob.digest), f"manifest {blob.digest}")
        config = archive.blob(manifest.get("config"))
        if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            continue  # an artifact of another kind
        layers = [archive.blob(layer).digest for layer in manifest.get("layers") or ()]
        media_type = blob.media_type or str(manifest.get("mediaType") or OCI_MANIFEST)
        wanted = found.setdefault(
            blob.digest,
            _Wanted(
                archive.store.blobs.read(config.digest),
                layers,
                [],
                manifest=Descriptor(media_type, blob.digest, blob.size),
            ),
        )
        name = _annotated(described)
        if name is not None and name not in wanted.names:
            wanted.names.append(name)
    if not found:
        raise InvalidParameter("invalid archive: its index.json has no image for this machine")
    return list(found.values())


def _entries(archive: _Archive, index: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """The manifests that an index leads to: all of index.json, but of one for several systems only ours."""
    if depth > _MOST_INDEXES:
        raise InvalidParameter("invalid archive: too many indexes within each other")
    listed = index.get("manifests")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InvalidParameter("invalid archive: an index without a list of manifests")
    for described in listed if depth == 0 else filter(_is_ours, listed):
        if described.get("mediaType") in INDEXES:
            blob = archive.blob(described)
            inner = parse_object(archive.store.blobs.read(blob.digest), f"index {blob.digest}")
            for one in _entries(archive, inner, depth + 1):
                yield {**one, "annotations": {**(described.get("annotations") or {})}}
                break
        else:
            yield described


def _is_ours(described: dict[str, Any]) -> bool:
    wanted = described.get("platform") or {}
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return bool(wanted.get("os", "linux") == "linux" and wanted.get("architecture", machine) == machine)


def _annotated(described: dict[str, Any]) -> Reference | None:
    """The name in an index entry's annotations; a bare tag names no repository, and so nothing here."""
    annotations = described.get("annotations") or {}
    for key in _NAME_ANNOTATIONS:
        text = annotations.get(key)
        if isinstance(text, str) and (":" in text or "/" in text):
            reference = Reference.parse(text)
            return None if reference.digest else reference.with_default_tag()
    return None


def _tagged(text: Any) -> Reference:
    reference = Reference.parse(str(text))
    if not reference.tag or reference.digest:
        raise InvalidParameter(f"invalid tag {json.dumps(text)}")
    return reference


def _check_system(config: dict[str, Any]) -> None:
    system = config.get("os") or "linux"
    if system != "linux":
        raise EngineError(f"cannot load {system} image on linux")


def _clean(name: str) -> str:
    """A name in the archive, as a path from its root.

    Raises:
        InvalidArchive: it leads out of it.
    """
    clean = posixpath.normpath("./" + name)
    if clean.startswith("..") or "\0" in name or name.startswith("/"):
        raise InvalidArchive(f'invalid archive: "{name[:200]}" leads out of it')
    return clean
