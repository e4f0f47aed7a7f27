"""A push: an image of the store, with what the registry doesn't have of it, under a name there.

    image → its layers as compressed blobs → (there already? mounted from another repository? sent) → configuration
          → manifest

An image that was pulled and not changed gets the very manifest that it came with, so its digest stays; another gets a
Docker manifest of schema 2, byte for byte as dockerd would write it, or an OCI manifest if a layer is compressed in a
way that Docker's has no name for.
"""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError
from real_engine.registry import media_types, progress
from real_engine.registry.authentication import NoCredentials
from real_engine.registry.client import RegistryClient
from real_engine.registry.credentials import ANONYMOUS, Credentials
from real_engine.registry.errors import RegistryError
from real_engine.registry.manifests import Manifest, parse_manifest
from real_engine.registry.names import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from real_engine.images.blobs import Descriptor as Blob
    from real_engine.images.references import Reference
    from real_engine.images.store import Image, ImageStore
    from real_engine.registry.origins import Origins
    from real_engine.registry.progress import Line

PARALLEL_LAYERS = 5
"""Layers that go at the same time, as dockerd's max-concurrent-uploads."""

_SHORT = 12
_MOUNTS = 4  # repositories that a layer is tried to be mounted from, as dockerd tries them


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push left at the registry: a tag, and the digest and size in bytes of the manifest that it names."""

    reference: Reference
    digest: str
    size: int


class Push:
    """One push of one or several tags of a repository. `run` does it; `cancel`, from another thread, breaks it off."""

    def __init__(
        self,
        images: ImageStore,
        origins: Origins,
        references: Sequence[Reference],
        credentials: Credentials = ANONYMOUS,
        *,
        insecure_registries: Sequence[str] = (),
        emit: Callable[[Line], None] = lambda line: None,
    ) -> None:
        self._images = images
        self._origins = origins
        self._references = references
        self._lock = threading.Lock()
        self._emit_line = emit
        self._domain, self._repository = references[0].domain, references[0].path
        self._client = RegistryClient(self._domain, credentials, insecure_registries=insecure_registries)

    def run(self) -> list[Pushed]:
        """Push; returns what is there now.

        Raises:
            EngineError: it can't be done, in Docker's words.
            Cancelled: `cancel` was called.
        """
        try:
            self._client.ping()
            return [self._push(reference) for reference in self._references]
        except NoCredentials as error:
            raise EngineError(error.plain) from error
        except RegistryError as error:
            raise EngineError(str(error)) from error
        finally:
            self._client.transport.close()

    def cancel(self) -> None:
        """Break it off."""
        self._client.transport.abort()

    def _push(self, reference: Reference) -> Pushed:
        image = self._images.find(reference)
        if image is None:  # removed since the push began
            raise EngineError(_missing(reference))
        original = self._original(image)
        # The topmost first, as it is the likeliest to be new; and once, however often it is in the image.
        diff_ids = list(dict.fromkeys(reversed(image.diff_ids)))
        for diff_id in diff_ids:
            self._emit(progress.update(_short(diff_id), "Preparing"))
        for diff_id in diff_ids[PARALLEL_LAYERS:]:
            self._emit(progress.update(_short(diff_id), "Waiting"))
        blobs = self._push_layers(diff_ids, original, image)
        config = self._images.config_bytes(image.id)
        digest = str(sha256(config))
        if not self._client.has_blob(self._repository, digest):
            self._client.upload_blob(self._repository, digest, len(config), lambda: io.BytesIO(config))
        content, media_type = self._manifest(image, original, blobs, len(config))
        pushed = self._client.put_manifest(self._repository, reference.tag, content, media_type)
        self._origins.remember(
            [blob.digest for blob in blobs.values()], self._domain, self._repository, self._images.blobs.has
        )
        self._images.tag(image, reference.with_digest(pushed))
        self._emit(progress.message(f"{reference.tag}: digest: {pushed} size: {len(content)}"))
        self._emit(progress.auxiliary({"Tag": reference.tag, "Digest": pushed, "Size": len(content)}))
        return Pushed(reference, pushed, len(content))

    # Layers

    def _push_layers(self, diff_ids: Sequence[str], original: Manifest | None, image: Image) -> dict[str, Blob]:
        came_as = {}
        if original is not None:
            came_as = {
                diff_id: str(layer.digest) for diff_id, layer in zip(image.diff_ids, original.layers, strict=True)
            }
        with ThreadPoolExecutor(PARALLEL_LAYERS, thread_name_prefix="push") as pool:
            running = {
                diff_id: pool.submit(self._push_layer, diff_id, came_as.get(diff_id, "")) for diff_id in diff_ids
            }
            done, waiting = wait(running.values(), return_when=FIRST_EXCEPTION)
            failures = [error for one in done if (error := one.exception()) is not None]
            if failures:
                for one in waiting:
                    one.cancel()
                self._client.transport.abort()
                raise failures[0]
            return {diff_id: one.result() for diff_id, one in running.items()}

    def _push_layer(self, diff_id: str, came_as: str) -> Blob:
        """See to it that the registry has a layer; returns the blob that it is there."""
        identity = _short(diff_id)
        blob = self._archive(diff_id, came_as)
        if self._client.has_blob(self._repository, blob.digest):
            self._emit(progress.update(identity, "Layer already exists"))
            return blob
        meter = progress.Meter(self._emit, identity, "Pushing", blob.size)
        sources = self._origins.repositories(blob.digest, self._domain, self._repository)[:_MOUNTS]
        mounted = self._client.upload_blob(
            self._repository,
            blob.digest,
            blob.size,
            lambda: self._images.blobs.open(blob.digest),
            meter,
            mount_from=sources[0] if sources else "",
        )
        self._emit(progress.update(identity, f"Mounted from {sources[0]}" if mounted else "Pushed"))
        return blob

    def _archive(self, diff_id: str, came_as: str) -> Blob:
        """The blob that the layer came as, or else a compressed one that is known or made now."""
        layers = self._images.layers
        for blob in layers.archives(diff_id):
            if blob.digest == came_as:
                return blob
        return layers.compressed(diff_id, media_types.DOCKER_LAYER)

    # Manifests

    def _original(self, image: Image) -> Manifest | None:
        """The manifest that the image came with, if all that it names is here."""
        described = self._images.manifest(image.id)
        if described is None or not self._images.blobs.has(described.digest):
            return None
        try:
            manifest = parse_manifest(self._images.blobs.read(described.digest), described.media_type)
        except RegistryError:
            return None  # of a kind that is no image manifest; we make our own
        if manifest.config is None or str(manifest.config.digest) != image.id:
            return None
        if len(manifest.layers) != len(image.diff_ids):
            return None
        for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
            if str(layer.digest) not in {blob.digest for blob in self._images.layers.archives(diff_id)}:
                return None
        return manifest

    def _manifest(
        self, image: Image, original: Manifest | None, blobs: dict[str, Blob], config_size: int
    ) -> tuple[bytes, str]:
        """The manifest's bytes and media type."""
        if original is not None:
            return original.content, original.media_type
        layers = [blobs[diff_id] for diff_id in image.diff_ids]
        return schema2(image.id, config_size, layers)

    def _emit(self, line: Line) -> None:
        with self._lock:
            self._emit_line(line)


def schema2(config_digest: str, config_size: int, layers: Sequence[Blob]) -> tuple[bytes, str]:
    """A manifest of an image, and its media type: Docker's schema 2 with its indent, or OCI's if a layer needs that."""
    is_oci = any(media_types.OCI_LAYER_ZSTD == layer.media_type for layer in layers)
    manifest_type = media_types.OCI_MANIFEST if is_oci else media_types.DOCKER_MANIFEST
    gzip_type = media_types.OCI_LAYER_GZIP if is_oci else media_types.DOCKER_LAYER
    fields: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {
            "mediaType": media_types.OCI_CONFIG if is_oci else media_types.DOCKER_CONFIG,
            "size": config_size,
            "digest": config_digest,
        },
        "layers": [
            {
                "mediaType": layer.media_type if layer.media_type == media_types.OCI_LAYER_ZSTD else gzip_type,
                "size": layer.size,
                "digest": layer.digest,
            }
            for layer in layers
        ],
    }
    return json.dumps(fields, indent=3).encode(), manifest_type


def references_to_push(images: ImageStore, reference: Reference) -> list[Reference]:
    """The tags that a push of `reference` means: its own, or without one all of its repository.

    Raises:
        EngineError: there are none here.
    """
    here = [one for one, _ in images.in_repository(reference) if one.tag and not one.digest]
    found = [one for one in here if not reference.tag or one.tag == reference.tag]
    if not found:
        raise EngineError(f"tag does not exist: {reference.familiar}" if here else _missing(reference))
    return found


def _missing(reference: Reference) -> str:
    return f"An image does not exist locally with the tag: {reference.familiar_name}"


def _short(diff_id: str) -> str:
    return diff_id.removeprefix("sha256:")[:_SHORT]
