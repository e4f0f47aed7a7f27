"""A pull: from a reference to an image in the store.

    name → registry (or a mirror) → manifest → (index → the manifest for this platform) → configuration → layers

Everything but the first manifest is asked for by digest, and compared with it. Layers come three at a time, and each is
extracted while it comes (`layer_stream`). An image exists only when all of it is there; what a broken or cancelled
pull leaves are whole layers and the beginnings of others, with which the next one goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.explain.recorder import carried, span
from real_engine.explain.registry_requests import layer_told
from real_engine.images.blobs import Descriptor as Blob
from real_engine.images.blobs import DigestMismatch
from real_engine.registry import media_types, progress
from real_engine.registry.authentication import NoCredentials
from real_engine.registry.client import RegistryClient
from real_engine.registry.credentials import ANONYMOUS, Credentials
from real_engine.registry.errors import RegistryError
from real_engine.registry.layer_stream import LayerStream
from real_engine.registry.names import parse_digest
from real_engine.registry.platforms import Platform
from real_engine.registry.transport import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from real_engine.images.references import Reference
    from real_engine.images.store import Image, ImageStore
    from real_engine.registry.manifests import Descriptor, Manifest
    from real_engine.registry.origins import Origins
    from real_engine.registry.progress import Line

PARALLEL_LAYERS = 3
"""Layers that come at the same time, as dockerd's max-concurrent-downloads."""

# The last two are those of images that were pushed before there was a type for it (moby distribution/pull_v2.go).
_CONFIGS = (media_types.OCI_CONFIG, media_types.DOCKER_CONFIG, "application/octet-stream", "application/json")
_log = logging.getLogger("onggi.registry")
_SHORT = 12


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull gave: the reference, the image, the digest of the manifest, and whether anything changed here."""

    reference: Reference
    image: Image
    digest: str
    changed: bool


class Pull:
    """One pull. `run` does it; `cancel`, from another thread, breaks it off.

    `emit` gets each progress line, from several threads, one at a time. `mirrors` are addresses that are asked before
    Docker Hub itself.
    """

    def __init__(
        self,
        images: ImageStore,
        origins: Origins,
        reference: Reference,
        credentials: Credentials = ANONYMOUS,
        *,
        platform: str = "",
        all_tags: bool = False,
        mirrors: Sequence[str] = (),
        insecure_registries: Sequence[str] = (),
        emit: Callable[[Line], None] = lambda line: None,
    ) -> None:
        self._images = images
        self._origins = origins
        self._reference = reference
        self._all_tags = all_tags
        self._platform = Platform.parse(platform) if platform else Platform.of_this_machine()
        self._any_platform = not platform
        self._lock = threading.Lock()
        self._emit_line = emit
        domain = reference.domain
        self._clients = []
        if domain == "docker.io":
            self._clients += [
                RegistryClient(domain, insecure_registries=insecure_registries, base_url=url) for url in mirrors
            ]
        self._clients.append(RegistryClient(domain, credentials, insecure_registries=insecure_registries))

    def run(self) -> list[Pulled]:
        """Pull; returns what came, one a tag.

        Raises:
            NotFound: no such image, or no right to know of it.
            EngineError: it can't be had, in Docker's words.
            Cancelled: `cancel` was called.
            OSError: no room.
        """
        try:
            return self._from_one_of(self._clients)
        finally:
            for client in self._clients:
                client.transport.close()

    def cancel(self) -> None:
        """Break it off."""
        for client in self._clients:
            client.transport.abort()

    def _from_one_of(self, clients: Sequence[RegistryClient]) -> list[Pulled]:
        for client in clients[:-1]:
            try:
                return self._pull(client)
            except Cancelled:
                raise
            except EngineError as error:
                _log.info("mirror: %s; the next is asked", error)
        return self._pull(clients[-1])

    def _pull(self, client: RegistryClient) -> list[Pulled]:
        reference = self._reference
        try:
            if self._all_tags:
                references = [reference.with_tag(tag) for tag in client.tags(reference.path)]
            else:
                references = [reference.with_default_tag()]
            pulled = [self._pull_one(client, one) for one in references]
        except (RegistryError, NoCredentials) as error:
            raise _translated(error, reference if self._all_tags else reference.with_default_tag()) from error
        name = reference.familiar_name if self._all_tags else references[0].familiar
        newer = any(one.changed for one in pulled)
        self._emit(
            progress.message(f"Status: {'Downloaded newer image' if newer else 'Image is up to date'} for {name}")
        )
        return pulled

    def _pull_one(self, client: RegistryClient, reference: Reference) -> Pulled:
        wanted = reference.digest or reference.tag
        found = client.resolve(reference.path, wanted)
        if found is not None:
            here = self._here(reference, found[0])
            if here is not None:
                self._announce(reference)
                return self._finish(reference, here, found[0])
            if not reference.digest:
                wanted = found[0]
        digest, manifest = client.manifest(reference.path, wanted)
        self._announce(reference)
        if manifest.is_index:
            with span("registry", "ChoosePlatform") as told:
                chosen = self._platform.choose(manifest.manifests)
                if told.told:
                    told.call = f"{self._platform} of {len(manifest.manifests)} is {chosen.digest if chosen else None}"
            if chosen is None:
                raise EngineError(f"no matching manifest for {self._platform} in the manifest list entries")
            _, manifest = client.manifest(reference.path, str(chosen.digest))
            if manifest.is_index:
                raise EngineError(f"manifest {chosen.digest} is an index inside an index")
        image = self._fetch(client, reference, manifest)
        return self._finish(reference, image, digest)

    def _announce(self, reference: Reference) -> None:
        identity = reference.familiar if reference.digest else reference.tag
        self._emit(progress.message(f"Pulling from {reference.path}", identity))

    def _here(self, reference: Reference, digest: str) -> Image | None:
        """The image, if it was pulled from this repository before, and is for the platform that is wanted."""
        image = self._images.find(reference.with_digest(digest))
        if image is None:
            return None
        config = image.config
        fits = (
            self._any_platform
            or self._platform.rank(
                str(config.get("os", "")), str(config.get("architecture", "")), str(config.get("variant", ""))
            )
            is not None
        )
        return image if fits else None

    def _fetch(self, client: RegistryClient, reference: Reference, manifest: Manifest) -> Image:
        """Configuration and layers, and of them the image."""
        if manifest.config is None or manifest.config.media_type not in _CONFIGS:
            kind = manifest.artifact_type or "of no kind"
            raise EngineError(f"unsupported media type {kind}: it is something else than an image")
        for layer in manifest.layers:
            if media_types.is_foreign(layer.media_type):
                raise EngineError(
                    f"layer {layer.digest} ({layer.media_type}) is not kept in registries, and not fetched"
                )
        with contextlib.suppress(NotFound):
            return self._images.resolve(str(manifest.config.digest))  # it came under another name, or was made here
        content = client.blob(reference.path, manifest.config)
        diff_ids = _diff_ids(content, manifest)
        self._fetch_layers(client, reference.path, list(zip(manifest.layers, diff_ids, strict=True)))
        with span("store", "CreateImage") as told:
            image = self._images.create(content, manifest=manifest.content, manifest_media_type=manifest.media_type)
            told.call = f"image {image.id}"
        digests = [str(layer.digest) for layer in manifest.layers]
        self._origins.remember(digests, reference.domain, reference.path, self._images.blobs.has)
        return image

    def _fetch_layers(self, client: RegistryClient, repository: str, wanted: Sequence[tuple[Descriptor, str]]) -> None:
        layers = self._images.layers
        missing: list[tuple[Descriptor, str]] = []
        for descriptor, diff_id in wanted:
            identity = descriptor.digest.hex[:_SHORT]
            if layers.has(diff_id) or any(diff_id == other for _, other in missing):
                self._emit(progress.update(identity, "Already exists"))
                with span("store", "LayerHere", f"layers/{diff_id[7:19]}"):
                    pass
            else:
                self._emit(progress.update(identity, "Pulling fs layer"))
                missing.append((descriptor, diff_id))
        for descriptor, _ in missing[PARALLEL_LAYERS:]:
            self._emit(progress.update(descriptor.digest.hex[:_SHORT], "Waiting"))
        if not missing:
            return
        with ThreadPoolExecutor(PARALLEL_LAYERS, thread_name_prefix="layer") as pool:
            running = [pool.submit(carried(self._fetch_layer), client, repository, *one) for one in missing]
            done, waiting = wait(running, return_when=FIRST_EXCEPTION)
            failures = [error for one in done if (error := one.exception()) is not None]
            if failures:
                # The others are of no use without this one; what has come of them is kept.
                for one in waiting:
                    one.cancel()
                client.transport.abort()
                raise failures[0]

    def _fetch_layer(self, client: RegistryClient, repository: str, descriptor: Descriptor, diff_id: str) -> None:
        identity = descriptor.digest.hex[:_SHORT]
        layers, blobs = self._images.layers, self._images.blobs
        blob = Blob(descriptor.media_type, str(descriptor.digest), descriptor.size)
        if self._is_here(blob):
            with blobs.open(blob.digest) as file:
                layers.apply(file, expected_diff_id=diff_id, blob=blob)
        else:
            meter = progress.Meter(self._emit, identity, "Downloading", descriptor.size)

            def whole() -> None:
                self._emit(progress.update(identity, "Verifying Checksum"))
                self._emit(progress.update(identity, "Download complete"))
                self._emit(progress.update(identity, "Extracting", descriptor.size, descriptor.size))

            def retrying(seconds: float) -> None:
                whole_seconds = max(1, round(seconds))
                unit = "second" if whole_seconds == 1 else "seconds"
                self._emit(progress.update(identity, f"Retrying in {whole_seconds} {unit}"))

            with LayerStream(blobs, client, repository, descriptor, meter, whole, retrying) as stream:
                try:
                    with layer_told(stream, descriptor, diff_id) as source:
                        layers.apply(source, expected_diff_id=diff_id, blob=blob)
                        if stream.begun:
                            stream.drain()
                except (InvalidParameter, DigestMismatch):
                    # A damaged archive, or not the layer that the configuration names. If its bytes are wrong, then
                    # that is to be said, and they must not be kept for the next pull to go on from.
                    if not stream.failed:
                        stream.drain()
                        blobs.remove(blob.digest)
                    raise
        self._emit(progress.update(identity, "Pull complete"))

    def _is_here(self, blob: Blob) -> bool:
        """Whether the store has the blob; one that the disk has changed is removed."""
        blobs = self._images.blobs
        if not blobs.has(blob.digest):
            return False
        try:
            blobs.open(blob.digest, verify=True).close()
        except DigestMismatch:
            blobs.remove(blob.digest)
            return False
        return True

    def _finish(self, reference: Reference, image: Image, digest: str) -> Pulled:
        """Let the references name the image."""
        before = self._images.find(reference)
        changed = before is None or before.id != image.id
        with span("store", "TagImage", f"{reference.familiar} = {image.id[:19]}…"):
            if changed and not reference.digest:
                image = self._images.tag(image, reference)
            image = self._images.tag(image, reference.with_digest(digest))
        self._emit(progress.message(f"Digest: {digest}"))
        return Pulled(reference, image, digest, changed)

    def _emit(self, line: Line) -> None:
        with self._lock:
            self._emit_line(line)


def _diff_ids(content: bytes, manifest: Manifest) -> list[str]:
    """The layers' diff ids, lowest first, as the configuration has them.

    Raises:
        EngineError: it is none, or doesn't fit the manifest.
    """
    try:
        found = json.loads(content)["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError("invalid image: its configuration names no layers") from error
    if not isinstance(found, list) or any(parse_digest(one) is None for one in found):
        raise EngineError("invalid image: its configuration names layers by what is no digest")
    if len(found) != len(manifest.layers):
        raise EngineError("layers from manifest don't match image configuration")
    return found


def _translated(error: EngineError, reference: Reference) -> EngineError:
    """The error as Docker tells it to who pulls (moby distribution/errors.go)."""
    code = error.code if isinstance(error, RegistryError) else ""
    if code == "DENIED":
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {error}"
        )
    if code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {reference.familiar} not found: {error}")
    if code == "NAME_UNKNOWN":
        return NotFound(f"repository {reference.familiar_name} not found: {error}")
    return EngineError(str(error))
