"""Images as an archive: `docker save`.

The archive is two things at once, as Docker's own are since version 25: an OCI image layout (index.json, oci-layout,
blobs/sha256/…), and what every Docker loads (manifest.json, whose paths lead to the same blobs). Layers are plain tars,
byte for byte. No time goes in, so the same images make the same archive.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from real_engine.errors import InvalidParameter, NotFound
from real_engine.images import tar_writer
from real_engine.images.blobs import Descriptor, digest_of
from real_engine.images.layout_index import manifest_of
from real_engine.images.references import Reference, is_sha256
from real_engine.images.streams import pieces
from real_engine.images.tar_reader import DIRECTORY, Entry
from real_engine.registry.media_types import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from real_engine.images.store import Image, ImageStore

_BLOBS = "blobs/sha256"


@dataclass(slots=True)
class Selected:
    """An image to be saved, and the tags that it is saved with."""

    image: Image
    tags: list[Reference]


def select(store: ImageStore, names: Sequence[str]) -> list[Selected]:
    """The images that `names` mean: a name with a tag, a name alone for all its tags, or an id without any name.

    Raises:
        NotFound: there is no such image.
        InvalidParameter: something that can be no name.
    """
    selected: dict[str, Selected] = {}

    def add(image: Image, reference: Reference | None) -> None:
        one = selected.setdefault(image.id, Selected(image, []))
        if reference is not None and reference.tag and reference not in one.tags:
            one.tags.append(reference)

    for name in names:
        if is_sha256(name) or is_sha256(f"sha256:{name}"):
            add(store.resolve(name), None)
            continue
        if name.startswith("sha256:"):
            add(_of_id(store, name), None)
            continue
        reference = Reference.parse(name)
        if reference.tag or reference.digest:
            found = store.find(reference)
            if found is None:
                raise NotFound("reference does not exist")
            add(found, None if reference.digest else reference)
            continue
        tags = store.in_repository(reference)
        for tag, identifier in tags:
            add(store.resolve(identifier), tag)
        if not tags:
            add(_of_id(store, name), None)
    if not selected:
        raise InvalidParameter("no image was named to save")
    return list(selected.values())


def _of_id(store: ImageStore, name: str) -> Image:
    identifier = store.search(name)
    if identifier is None:
        raise NotFound(f"No such image: {name}")
    return store.resolve(identifier)


def save(store: ImageStore, selected: Sequence[Selected]) -> Iterator[bytes]:
    """The archive of these images, piece by piece; a layer or configuration that several have is in it once.

    An image that is removed meanwhile is saved whole, and its layers go afterwards.

    Raises:
        NotFound: an image was removed before, or the archive of a layer has been changed on the disk.
    """
    with store.held({diff_id for one in selected for diff_id in one.image.diff_ids}):
        configs = {one.image.id: store.config_bytes(one.image.id) for one in selected}
        yield from _archive(store, selected, configs)


def _archive(store: ImageStore, selected: Sequence[Selected], configs: dict[str, bytes]) -> Iterator[bytes]:
    yield from _directory("blobs")
    yield from _directory(_BLOBS)
    written: set[str] = set()
    docker: list[dict[str, Any]] = []
    index: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for one in selected:
        image = one.image
        config = configs[image.id]
        layers = [Descriptor(OCI_LAYER, diff_id, store.layers.tar_size(diff_id)) for diff_id in image.diff_ids]
        manifest = manifest_of(Descriptor(OCI_CONFIG, image.id, len(config)), layers)
        for layer in layers:
            if layer.digest not in written:
                written.add(layer.digest)
                yield from _layer(store, layer)
        for digest, data in ((image.id, config), (digest_of(manifest), manifest)):
            if digest not in written:
                written.add(digest)
                yield _file(_path(digest), data)
        docker.append(
            {
                "Config": _path(image.id),
                "RepoTags": [tag.familiar for tag in one.tags] or None,
                "Layers": [_path(layer.digest) for layer in layers],
                "LayerSources": {layer.digest: layer.to_json() for layer in layers},
            }
        )
        for tag in one.tags:
            if layers:
                repositories.setdefault(tag.familiar_name, {})[tag.tag] = layers[-1].digest[7:]
        index += _described(Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest)), one.tags)
    whole = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}
    yield _file("index.json", json.dumps(whole).encode())
    yield _file("manifest.json", json.dumps(docker).encode())
    yield _file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    if repositories:
        yield _file("repositories", json.dumps(repositories).encode())
    yield tar_writer.END


def _described(manifest: Descriptor, tags: Sequence[Reference]) -> Iterator[dict[str, Any]]:
    """The index's entries for a manifest: one a tag, in the words of containerd and of the OCI."""
    if not tags:
        yield manifest.to_json()
    for tag in tags:
        names = {"io.containerd.image.name": tag.canonical, "org.opencontainers.image.ref.name": tag.tag}
        yield {**manifest.to_json(), "annotations": names}


def _layer(store: ImageStore, layer: Descriptor) -> Iterator[bytes]:
    yield tar_writer.header(Entry(_path(layer.digest), size=layer.size))
    size = 0
    with store.layers.tar(layer.digest) as file:
        for piece in pieces(file):
            size += len(piece)
            yield piece
    if size != layer.size:
        raise NotFound(f"the archive of layer {layer.digest} has {size} bytes instead of {layer.size}")
    yield tar_writer.padding(layer.size)


def _directory(name: str) -> Iterator[bytes]:
    yield tar_writer.header(Entry(name, DIRECTORY, mode=0o755))


def _file(name: str, data: bytes) -> bytes:
    return tar_writer.header(Entry(name, size=len(data))) + data + tar_writer.padding(len(data))


def _path(digest: str) -> str:
    return f"{_BLOBS}/{digest[7:]}"
