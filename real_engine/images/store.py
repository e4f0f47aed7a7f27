"""The images: their names, configurations, layers, and who was made upon whom.

    DIR/images/               an OCI image layout: oci-layout, index.json, blobs/sha256/…
    DIR/images/repositories.json   names, parents, and when an image was last named
    DIR/layers/               the layers, extracted (see `layers`)

An image's id is the digest of its configuration, byte for byte (moby image spec v1.2, "Image ID"). A change is on the
disk before it is told of; what nothing refers to after a crash is removed by `recover` at the next start.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from real_engine.errors import InvalidParameter, NotFound
from real_engine.images import busybox
from real_engine.images.blobs import BlobStore, Descriptor, digest_of, parse_object
from real_engine.images.build.committing import child_configuration
from real_engine.images.config_changes import apply_changes
from real_engine.images.layers import EMPTY_DIFF_ID, LayerStore
from real_engine.images.layout_index import LayoutIndex
from real_engine.images.packing import write_tar
from real_engine.images.references import Reference, check_digest, is_sha256
from real_engine.images.removal import Gone, Removal, UsedBy
from real_engine.images.repositories import ImageRecord, Repositories
from real_engine.images.streams import IteratorReader
from real_engine.registry.media_types import OCI_CONFIG, OCI_MANIFEST

_log = logging.getLogger("onggi")

BUILTIN = "onggi/busybox:latest"
"""The image that is made of the host's own static busybox, so that there is one without a network."""

_BUILTIN_COMMENT = "made of the host's static busybox"


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it is at this moment. `config` is the whole configuration (OCI image-spec v1.1 config.md): read only.

    `layers` are directories, the lowest first, ready to be an overlay's lower ones. `size` is the bytes of all their
    files. `parent` is the id of the image that it was made upon here, or "". `last_tagged` is in nanoseconds since
    1970, 0 for never.
    """

    id: str
    config: dict[str, Any]
    layers: tuple[Path, ...]
    diff_ids: tuple[str, ...]
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    parent: str
    last_tagged: int

    @property
    def created(self) -> str:
        """When it was made, as its configuration says (RFC 3339); "" if it doesn't."""
        return str(self.config.get("created") or "")

    @property
    def architecture(self) -> str:
        """The processor that it is for, in Go's words: amd64, arm64."""
        return str(self.config.get("architecture") or "")

    @property
    def os(self) -> str:
        """The operating system that it is for."""
        return str(self.config.get("os") or "")

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict((self.config.get("config") or {}).get("Labels") or {})


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What of an image never changes, read once."""

    config: dict[str, Any]
    diff_ids: tuple[str, ...]
    layers: tuple[Path, ...]
    size: int


class ImageStore:
    """The images beneath a data root, for any number of threads. Only one daemon may use a data root at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root / "images"
        self.blobs = BlobStore(self.root)
        self.layers = LayerStore(root / "layers", self.blobs)
        self._lock = threading.RLock()
        self._repositories = Repositories.load(self.root / "repositories.json")
        self._loaded: dict[str, _Loaded] = {}
        self._layer_users: list[Callable[[], Iterable[str | Path]]] = []
        self._index = LayoutIndex(self.root, self.blobs)

    # --- finding -----------------------------------------------------------------------------------------------------

    def resolve(self, name_or_id: str) -> Image:
        """The image of a name, of a digest, or of an id or the beginning of one (moby daemon/images GetImage).

        Raises:
            NotFound: there is none, or the beginning is that of several.
            InvalidParameter: it can be neither.
        """
        with self._lock:
            identifier, reference = self._find(name_or_id)
            if identifier is None:
                shown = name_or_id if reference is None else reference.with_default_tag().familiar
                raise NotFound(f"No such image: {shown}")
            return self._image(identifier)

    def base(self, name_or_id: str) -> Image:
        """The image to start something from: as `resolve`, and the built-in one is made when it is first asked for.

        Raises:
            NotFound: there is none.
            InvalidParameter: it can be neither a name nor an id.
        """
        try:
            return self.resolve(name_or_id)
        except NotFound:
            if name_or_id not in (BUILTIN, BUILTIN.removesuffix(":latest")):
                raise
        return self.ensure_builtin()

    def find(self, reference: Reference) -> Image | None:
        """The image that a reference stands for, by name alone."""
        with self._lock:
            identifier = self._named(reference)
            return None if identifier is None else self._image(identifier)

    def images(self) -> list[Image]:
        """Every image, those between the steps of a build too."""
        with self._lock:
            return [self._image(identifier) for identifier in self._repositories.images]

    def children(self, image_id: str) -> list[Image]:
        """The images that were made here upon an image; for "", those upon none."""
        with self._lock:
            return [self._image(identifier) for identifier in sorted(self._repositories.children(image_id))]

    def has_children(self, image_id: str) -> bool:
        """Whether an image was made here upon that one."""
        with self._lock:
            return bool(self._repositories.children(image_id))

    def references(self, image_id: str) -> list[Reference]:
        """The tags and digests that stand for an image, sorted."""
        with self._lock:
            return self._repositories.names(image_id)

    def in_repository(self, reference: Reference) -> list[tuple[Reference, str]]:
        """The tags and digests of a repository, sorted, each with the id of its image."""
        with self._lock:
            return list(self._repositories.in_repository(reference.name))

    def search(self, term: str) -> str | None:
        """The id that is, or alone begins with, `term`."""
        with self._lock:
            return self._repositories.search(term)

    def config_bytes(self, image_id: str) -> bytes:
        """An image's configuration, byte for byte as its id says.

        Raises:
            NotFound: there is no such image.
        """
        return self.blobs.read(image_id)

    def manifest(self, image_id: str) -> Descriptor | None:
        """The manifest that an image was pulled or loaded with, if it came with one; it is among `blobs`."""
        with self._lock:
            record = self._repositories.images.get(image_id)
            return None if record is None else record.manifest

    # --- new images --------------------------------------------------------------------------------------------------

    def create(
        self,
        config: dict[str, Any] | bytes,
        *,
        parent: str = "",
        manifest: bytes | None = None,
        manifest_media_type: str = OCI_MANIFEST,
    ) -> Image:
        """Make an image of layers that are here, or take the one that is there already.

        `config` as bytes is kept as it is, since the id depends on it. `manifest` is what it was pulled with.

        Raises:
            InvalidParameter: it is no configuration of an image.
            NotFound: a layer that it names isn't here.
            OSError: no room.
        """
        data = config if isinstance(config, bytes) else json.dumps(config, ensure_ascii=False).encode()
        identifier = digest_of(data)
        loaded = self._load(data)
        described = None if manifest is None else Descriptor(manifest_media_type, digest_of(manifest), len(manifest))
        try:
            if manifest is not None:
                self.blobs.put(data, durable=False)
                self.blobs.put(manifest, durable=False)
                self.blobs.sync()  # with it the layers' blobs, which a pull doesn't flush one by one
            else:
                self.blobs.put(data)
            return self._add(data, identifier, loaded, parent, manifest, described)
        except BaseException:
            with self._lock:
                self._remove_undescribed({identifier, *([described.digest] if described is not None else [])})
            raise

    def _add(
        self,
        data: bytes,
        identifier: str,
        loaded: _Loaded,
        parent: str,
        manifest: bytes | None,
        described: Descriptor | None,
    ) -> Image:
        """Make an image, whose configuration and manifest are stored, known."""
        with self._lock:
            old = self._repositories.images.get(identifier)
            record = replace(old) if old is not None else ImageRecord()
            if parent and parent != identifier and parent in self._repositories.images:
                record.parent = parent
            if described is not None:
                record.manifest = described
            self._loaded[identifier] = loaded
            if old != record:
                self.blobs.put(data)  # again, in case it was removed with an equal image in the meantime
                if manifest is not None:
                    self.blobs.put(manifest)
                self._repositories.add(identifier, record)
                self._require_layers(identifier, loaded, old)
                self._save()
            for diff_id in loaded.diff_ids:
                self.layers.claim(diff_id)
            return self._image(identifier)

    def commit(
        self,
        parent: Image | None,
        upper: Path,
        *,
        container_config: dict[str, Any],
        config: dict[str, Any] | None = None,
        container_id: str = "",
        author: str = "",
        comment: str = "",
        changes: Iterable[str] = (),
        engine_version: str = "",
    ) -> Image:
        """Make an image of a container: its upper directory becomes a layer upon those of `parent`.

        `changes` are instructions for the configuration, by default `container_config`.

        Raises:
            InvalidParameter: a change that is wrong.
            EngineError: the upper directory holds what no layer can say.
        """
        changed = apply_changes(container_config if config is None else config, changes)
        layer = self.layers.commit(upper)
        made = child_configuration(
            parent,
            config=changed,
            container_config=container_config,
            author=author,
            diff_id=None if layer.diff_id == EMPTY_DIFF_ID else layer.diff_id,
            container_id=container_id,
            engine_version=engine_version,
        )
        if comment:
            made["history"][-1]["comment"] = comment
            made = dict(sorted({**made, "comment": comment}.items()))
        return self.create(made, parent=parent.id if parent is not None else "")

    def tag(self, image: Image, reference: Reference) -> Image:
        """Give an image a name (`latest` where there is no tag), or a digest; the name leaves the image that had it.

        Raises:
            NotFound: the image has been removed.
        """
        reference = reference.with_default_tag()
        if reference.digest:
            reference = reference.with_digest(check_digest(reference.digest))
        with self._lock:
            record = self._repositories.images.get(image.id)
            if record is None:
                raise NotFound(f"No such image: {image.id}")
            if not reference.digest:
                record.last_tagged = time.time_ns()
            elif self._repositories.references.get(reference) == image.id:
                return self._image(image.id)
            self._repositories.name(reference, image.id)
            self._save()
            self._write_index()
            return self._image(image.id)

    def ensure_builtin(self, candidates: Sequence[Path] = busybox.CANDIDATES) -> Image:
        """The image `onggi/busybox:latest`, made of the host's static busybox where it isn't there.

        It is the same on every machine with the same busybox: no time goes into it.

        Raises:
            EngineError: this machine has no static busybox.
        """
        reference = Reference.parse(BUILTIN)
        content = busybox.find_busybox(candidates).read_bytes()
        found = self.find(reference)
        if found is not None and found.labels.get(busybox.RECIPE_LABEL) == busybox.recipe_digest(content):
            return found
        with busybox.assembled(self.root.parent, candidates) as root:
            layer = self.layers.apply(IteratorReader(write_tar(root, mtime_ns=0, owner=(0, 0))))
        config = busybox.image_configuration(content, layer.diff_id, _BUILTIN_COMMENT)
        return self.tag(self.create(config), reference)

    # --- removal -----------------------------------------------------------------------------------------------------

    def remove(
        self,
        name: str,
        *,
        force: bool = False,
        prune: bool = True,
        used_by: UsedBy = lambda _: (),
        happened: Callable[[str, str], None] = lambda _action, _image: None,
    ) -> list[dict[str, str]]:
        """Remove a name, and the image with its last name; an image by its id, with all names in one repository.

        `prune` removes the images below that have neither a name nor a child any more. `used_by` gives, for an image's
        id, the containers of it as (id, whether it runs). `happened` is told ("untag" or "delete", image id). Returns
        `{"Untagged": name}` and `{"Deleted": digest}` in order: an image's id, then the chain ids of layers.

        Raises:
            NotFound, InvalidParameter: as `resolve`.
            Conflict: it is used, or has several names.
        """
        with self._lock:
            image = self.resolve(name)
            removal = Removal(self._repositories, self._diff_ids, used_by, happened)
            try:
                removal.run(image.id, name, force=force, prune=prune)
            finally:
                if removal.changed:
                    self._save()
                    self._write_index()
            for gone in removal.deleted:
                self._remove_blobs(gone)
            candidates = {diff_id for gone in removal.deleted for diff_id in gone.diff_ids}
        self._collect_layers(candidates)
        return removal.records

    def add_layer_user(self, users: Callable[[], Iterable[str | Path]]) -> None:
        """Let `users` name, whenever it is asked, the layers' directories that are in use besides those of images.

        A container whose image was removed by force stands on them still.
        """
        self._layer_users.append(users)

    @contextlib.contextmanager
    def held(self, diff_ids: Iterable[str]) -> Iterator[None]:
        """Keep these layers for as long as the block lasts, also if their images are removed meanwhile."""
        missed: set[str] = set()
        try:
            with self.layers.held(diff_ids) as missed:
                yield
        finally:
            self._collect_layers(missed)

    def collect(self) -> int:
        """Remove the layers that neither an image nor a container uses; returns the bytes that this gives back."""
        return self._collect_layers(set(self.layers.diff_ids()))

    def recover(self) -> None:
        """Put in order what a crash has left; for when the engine starts, before anybody else uses the store.

        Raises:
            OSError: something can't be removed.
        """
        with self._lock:
            self.blobs.remove_abandoned()
            self.layers.remove_abandoned()
            damaged = [identifier for identifier in self._repositories.images if not self._is_whole(identifier)]
            for identifier in damaged:
                _log.error("image %s has lost its configuration or a layer, and is removed", identifier)
                self._repositories.drop(identifier)
                self._loaded.pop(identifier, None)
            if damaged:
                self._save()
            self._collect_layers(set(self.layers.diff_ids()), recovering=True)
            wanted = self._described()
            for diff_id in self.layers.diff_ids():
                wanted |= {archive.digest for archive in self.layers.archives(diff_id)}
            for digest in list(self.blobs.digests()):
                if digest not in wanted:
                    self.blobs.remove(digest)
            self._write_index()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _require_layers(self, identifier: str, loaded: _Loaded, before: ImageRecord | None) -> None:
        """See that all layers of an image that is known from now on are still here; if not, it isn't known again.

        Who removes layers asks, after he has moved one away, whether an image has it: so one of the two notices.
        """
        try:
            for diff_id in loaded.diff_ids:
                self.layers.get(diff_id)
        except NotFound:
            if before is None:
                self._repositories.drop(identifier)
                self._loaded.pop(identifier, None)
            raise

    def _save(self) -> None:
        """Write the names down; if they can't be, what the disk has counts."""
        try:
            self._repositories.save()
        except OSError:
            self._repositories = Repositories.load(self._repositories.path)
            raise

    def _find(self, text: str) -> tuple[str | None, Reference | None]:
        """The id that `text` stands for, and what it is as a reference (None: it is a digest)."""
        if not text:
            raise InvalidParameter("invalid reference format")
        digest = text if ":" in text else f"sha256:{text}"
        if is_sha256(digest):
            return (digest if digest in self._repositories.images else None), None
        reference = Reference.parse(text)
        return self._named(reference) or self._repositories.search(text), reference

    def _named(self, reference: Reference) -> str | None:
        if reference.digest:
            reference = reference.with_digest(reference.digest)  # the digest counts: a tag may have moved since
        return self._repositories.references.get(reference.with_default_tag())

    def _image(self, identifier: str) -> Image:
        loaded = self._loaded.get(identifier)
        if loaded is None:
            loaded = self._loaded[identifier] = self._load(self.blobs.read(identifier))
        record = self._repositories.images[identifier]
        names = self._repositories.names(identifier)
        return Image(
            identifier,
            loaded.config,
            loaded.layers,
            loaded.diff_ids,
            tuple(name.familiar for name in names if not name.digest),
            tuple(name.familiar for name in names if name.digest),
            loaded.size,
            record.parent,
            record.last_tagged,
        )

    def _load(self, data: bytes) -> _Loaded:
        config = parse_object(data, "the image's configuration")
        rootfs = config.get("rootfs")
        if not isinstance(rootfs, dict):
            raise InvalidParameter("invalid image JSON, no RootFS key")
        diff_ids = rootfs.get("diff_ids") or []
        if not isinstance(diff_ids, list) or not all(isinstance(one, str) and is_sha256(one) for one in diff_ids):
            raise InvalidParameter("invalid image JSON: rootfs.diff_ids must be a list of digests")
        if not isinstance(config.get("config") or {}, dict):
            raise InvalidParameter("invalid image JSON: config must be an object")
        layers = [self.layers.get(diff_id) for diff_id in diff_ids]
        return _Loaded(
            config, tuple(diff_ids), tuple(layer.directory for layer in layers), sum(layer.size for layer in layers)
        )

    def _diff_ids(self, identifier: str) -> tuple[str, ...]:
        return self._image(identifier).diff_ids

    def _is_whole(self, identifier: str) -> bool:
        try:
            self._image(identifier)
        except (NotFound, InvalidParameter):
            return False
        return True

    def _remove_blobs(self, gone: Gone) -> None:
        """Remove a removed image's configuration and manifest, unless another image has the same."""
        self._loaded.pop(gone.id, None)
        manifest = gone.record.manifest
        self._remove_undescribed({gone.id, *([manifest.digest] if manifest is not None else [])})

    def _remove_undescribed(self, digests: set[str]) -> None:
        for digest in digests - self._described():
            self.blobs.remove(digest)

    def _described(self) -> set[str]:
        """The digests of all configurations and manifests of images."""
        manifests = (record.manifest for record in self._repositories.images.values())
        return {*self._repositories.images, *(manifest.digest for manifest in manifests if manifest is not None)}

    def _collect_layers(self, candidates: set[str], *, recovering: bool = False) -> int:
        """Remove those of `candidates` that nobody uses; none that was asked for or made a short while ago."""
        if not candidates:
            return 0
        reclaimed = 0
        for diff_id in candidates - self._used_layers():
            still_used = partial(self._is_used, diff_id)
            reclaimed += self.layers.remove(diff_id, though_new=recovering, is_used=still_used)
        return reclaimed

    def _is_used(self, diff_id: str) -> bool:
        return diff_id in self._used_layers()

    def _used_layers(self) -> set[str]:
        """Those of images, and those that containers stand on."""
        with self._lock:
            used = {diff_id for identifier in self._repositories.images for diff_id in self._diff_ids(identifier)}
        for users in self._layer_users:
            used |= {f"sha256:{Path(directory).parent.name}" for directory in users()}
        return used

    def _write_index(self) -> None:
        """Name the images in `index.json`, sorted."""

        def named() -> Iterator[tuple[Reference, Descriptor]]:
            for reference, identifier in sorted(references, key=lambda item: item[0].canonical):
                if reference.tag:
                    config = Descriptor(OCI_CONFIG, identifier, self.blobs.size(identifier))
                    archives = [self.layers.archives(diff_id)[0] for diff_id in self._diff_ids(identifier)]
                    yield reference, self._index.manifest(images[identifier].manifest, config, archives)

        references, images = self._repositories.references.items(), self._repositories.images
        self._index.write(named(), self._described())
