"""`index.json` of the content store, by which other programs find its images (OCI image-spec v1.1 image-layout.md).

The engine itself never reads it, and can make it again any time: so no work fails for want of it.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from real_engine.images.blobs import BlobStore, Descriptor, parse_object
from real_engine.registry.media_types import OCI_INDEX, OCI_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from real_engine.images.references import Reference

_log = logging.getLogger("onggi")


class LayoutIndex:
    """The index of the layout at `root`, whose blobs are `blobs`; the caller sees to it that one thread writes it."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._blobs = blobs
        self._made: set[str] = set()  # manifests that are here for the index alone
        self._named: set[str] = set()  # those that it names

    def manifest(self, own: Descriptor | None, config: Descriptor, archives: Sequence[Descriptor]) -> Descriptor:
        """The manifest of an image: its own, if all that it names is here, or one made of what is.

        Raises:
            OSError: no room.
        """
        if own is not None and all(map(self._blobs.has, _named_by(self._blobs.read(own.digest)))):
            return own
        made = self._blobs.put(manifest_of(config, archives), OCI_MANIFEST, durable=False)
        self._made.add(made.digest)
        return made

    def write(self, images: Iterable[tuple[Reference, Descriptor]], kept: set[str]) -> None:
        """Name these manifests, which `images` gives one by one; manifests made for an earlier index go, but `kept`.

        Where there is no room for it, the earlier index stays.
        """
        partial = self._root / ".index.json"
        try:
            entries = [_entry(reference, manifest) for reference, manifest in images]
            partial.write_text(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
            partial.replace(self._root / "index.json")
            self._named = {str(entry["digest"]) for entry in entries}
        except OSError as error:
            _log.warning("index.json is not up to date: %s", error)
            partial.unlink(missing_ok=True)
        for digest in self._made - self._named - kept:
            self._blobs.remove(digest)
        self._made &= self._named


def manifest_of(config: Descriptor, layers: Iterable[Descriptor]) -> bytes:
    """The manifest of an image (OCI image-spec v1.1 manifest.md)."""
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _entry(reference: Reference, manifest: Descriptor) -> dict[str, object]:
    name = reference.canonical
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    return {**manifest.to_json(), "annotations": names}


def _named_by(manifest: bytes) -> list[str]:
    """The digests of the blobs that a manifest names."""
    value = parse_object(manifest, "the manifest")
    return [str(blob["digest"]) for blob in (value["config"], *value["layers"])]
