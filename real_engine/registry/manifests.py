"""Manifests: read from bytes, checked for form, and asked what they refer to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from real_engine.registry import media_types
from real_engine.registry.errors import RegistryError
from real_engine.registry.names import Digest, parse_digest


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: what it is, its digest, and its size in bytes (OCI image-spec v1.1 descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The descriptor as a manifest holds it."""
        value: dict[str, Any] = {"mediaType": self.media_type, "size": self.size, "digest": str(self.digest)}
        if self.urls:
            value["urls"] = list(self.urls)
        if self.platform:
            value["platform"] = dict(self.platform)
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest, with the very bytes that its digest stands for."""

    media_type: str
    content: bytes
    fields: Mapping[str, Any]
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None

    @property
    def is_index(self) -> bool:
        """Whether this lists manifests (one a platform, mostly) and is no image itself."""
        return self.media_type in media_types.INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration and the layers: what a registry must hold for this manifest to be worth anything."""
        return (self.config, *self.layers) if self.config else self.layers

    @property
    def artifact_type(self) -> str:
        """What this is an artifact of: its own word for it, or else the type of its configuration."""
        own = self.fields.get("artifactType")
        if isinstance(own, str) and own:
            return own
        return self.config.media_type if self.config else ""

    @property
    def annotations(self) -> dict[str, str]:
        """Key and value, as the manifest's maker wrote them."""
        return _annotations(self.fields.get("annotations"))


def parse_manifest(content: bytes, media_type: str) -> Manifest:
    """Read a manifest that was said to be of `media_type` ("" lets the content speak for itself).

    Raises:
        RegistryError: MANIFEST_INVALID, with what is wrong with it.
    """
    if len(content) > media_types.MANIFEST_LIMIT_BYTES:
        raise _invalid(f"larger than {media_types.MANIFEST_LIMIT_BYTES} bytes")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _invalid("not a JSON object")
    media_type = _agreed_type(media_type, fields)
    if fields.get("schemaVersion") != 2:
        raise _invalid(f"schemaVersion is {fields.get('schemaVersion')!r}, and not 2")
    is_index = media_type in media_types.INDEXES
    # What one reader takes for an image must not be an index to another (CVE-2021-41190).
    strangers = ("config", "layers") if is_index else ("manifests",)
    if any(name in fields for name in strangers):
        raise _invalid(f"{media_type} with {strangers[0]}: an image and an index at once")
    config = None
    if not is_index:
        config = _descriptor(fields.get("config"), "config")
    return Manifest(
        media_type,
        content,
        fields,
        config,
        () if is_index else _descriptors(fields, "layers"),
        _descriptors(fields, "manifests") if is_index else (),
        _descriptor(fields["subject"], "subject") if fields.get("subject") is not None else None,
    )


def _agreed_type(said: str, fields: Mapping[str, Any]) -> str:
    """The media type, on which the header and the manifest itself must not differ."""
    said = said.partition(";")[0].strip().lower()
    own = fields.get("mediaType", "")
    if not isinstance(own, str):
        raise _invalid("mediaType is no string")
    if said in media_types.DOCKER_SCHEMA_1 or own in media_types.DOCKER_SCHEMA_1 or fields.get("schemaVersion") == 1:
        raise _invalid("schema version 1 is not supported any more: push the image again with a client of this decade")
    if said in ("", "application/json", "application/octet-stream", "text/plain"):  # the server knew no better
        said = own or (media_types.OCI_INDEX if "manifests" in fields else media_types.OCI_MANIFEST)
    if said not in media_types.MANIFESTS:
        raise _invalid(f"unknown media type {said!r}")
    if own and own != said:
        raise _invalid(f"mediaType is {own!r}, and Content-Type {said!r}")
    return said


def _descriptors(fields: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    values = fields.get(name)
    if values is None:
        values = []
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise _invalid(f"{name} is no list")
    return tuple(_descriptor(value, f"{name}[{number}]") for number, value in enumerate(values))


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, Mapping):
        raise _invalid(f"{where} is no descriptor")
    digest = parse_digest(value.get("digest"))
    if digest is None:
        raise _invalid(f"{where} has no digest that can be checked: {value.get('digest')!r}")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _invalid(f"{where} has no size")
    urls = value.get("urls") or []
    platform = value.get("platform") or {}
    return Descriptor(
        str(value.get("mediaType", "")),
        digest,
        size,
        tuple(str(url) for url in urls) if isinstance(urls, list) else (),
        platform if isinstance(platform, Mapping) else {},
        _annotations(value.get("annotations")),
    )


def _annotations(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}


def _invalid(reason: str) -> RegistryError:
    return RegistryError("MANIFEST_INVALID", "manifest invalid", reason)
