"""The names of images: which image each tag and digest stands for, and what is known of each image besides.

All of it is in one small file, `repositories.json`, written whole: a name never stands for an image that isn't there,
and a change of several names is one change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError
from real_engine.files import write_durably
from real_engine.images.blobs import Descriptor, parse_object
from real_engine.images.references import Reference, is_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_VERSION = 1


@dataclass(slots=True)
class ImageRecord:
    """What is known of an image that isn't in its configuration.

    `parent` is the image that it was made upon here, `last_tagged` when it last got a name (nanoseconds since 1970, 0
    for never), `manifest` the blob of the manifest that it was pulled or loaded with.
    """

    parent: str = ""
    last_tagged: int = 0
    manifest: Descriptor | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        value: dict[str, Any] = {}
        if self.parent:
            value["parent"] = self.parent
        if self.last_tagged:
            value["last_tagged"] = self.last_tagged
        if self.manifest is not None:
            value["manifest"] = self.manifest.to_json()
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ImageRecord:
        """From the file.

        Raises:
            KeyError, TypeError, ValueError: it isn't as `to_json` wrote it.
        """
        manifest = value.get("manifest")
        return cls(
            str(value.get("parent", "")),
            int(value.get("last_tagged", 0)),
            manifest and Descriptor(str(manifest["mediaType"]), str(manifest["digest"]), int(manifest["size"])),
        )


@dataclass(slots=True)
class Repositories:
    """The contents of `repositories.json`: images by id, and canonical references, each with an image's id.

    Not for several threads at once: the store has a lock.
    """

    path: Path
    images: dict[str, ImageRecord] = field(default_factory=dict)
    references: dict[Reference, str] = field(default_factory=dict)
    _names: dict[str, set[Reference]] = field(default_factory=dict)
    _children: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Repositories:
        """Read the file; without one there are no images.

        Raises:
            EngineError: it is damaged.
        """
        found = cls(path)
        try:
            value = parse_object(path.read_bytes(), str(path))
            if value["version"] != _VERSION:
                raise EngineError(f"{path} is of version {value['version']}, and this engine knows {_VERSION}")
            for identifier, record in value["images"].items():
                found.add(identifier, ImageRecord.from_json(record))
            for text, identifier in value["references"].items():
                if identifier in found.images:
                    found.name(Reference.parse(text), identifier)
        except FileNotFoundError:
            return found
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"cannot read {path}: {error!r}") from error
        return found

    def save(self) -> None:
        """Write the file.

        Raises:
            OSError: no room; the old one stays.
        """
        value = {
            "version": _VERSION,
            "images": {identifier: record.to_json() for identifier, record in self.images.items()},
            "references": {
                reference.canonical: identifier
                for reference, identifier in sorted(self.references.items(), key=lambda item: item[0].canonical)
            },
        }
        write_durably(self.path, json.dumps(value, indent=1).encode() + b"\n", mode=0o600)

    def add(self, identifier: str, record: ImageRecord) -> None:
        """Add an image, or change what is known of it."""
        old = self.images.get(identifier)
        if old is not None:
            self._children.get(old.parent, set()).discard(identifier)
        self.images[identifier] = record
        self._children.setdefault(record.parent, set()).add(identifier)

    def drop(self, identifier: str) -> None:
        """Forget an image and its names; images made upon it have no parent any more."""
        for reference in list(self._names.get(identifier, ())):
            self.unname(reference)
        record = self.images.pop(identifier)
        self._children.get(record.parent, set()).discard(identifier)
        for child in self._children.pop(identifier, set()):
            self.images[child].parent = ""
            self._children.setdefault("", set()).add(child)

    def name(self, reference: Reference, identifier: str) -> None:
        """Let a reference stand for an image, and no longer for another."""
        self.unname(reference)
        self.references[reference] = identifier
        self._names.setdefault(identifier, set()).add(reference)

    def unname(self, reference: Reference) -> None:
        """Let a reference stand for nothing."""
        identifier = self.references.pop(reference, None)
        if identifier is not None:
            self._names[identifier].discard(reference)

    def names(self, identifier: str) -> list[Reference]:
        """The references that stand for an image, sorted."""
        return sorted(self._names.get(identifier, ()), key=lambda reference: reference.familiar)

    def children(self, identifier: str) -> set[str]:
        """The images that were made upon an image; those upon none for ""."""
        return self._children.get(identifier, set())

    def search(self, term: str) -> str | None:
        """The image whose id is, or alone begins with, `term`, with or without `sha256:`."""
        if is_sha256(term):
            return term if term in self.images else None
        digits = term.removeprefix("sha256:")
        if not digits or digits.strip("0123456789abcdef"):
            return None
        whole = f"sha256:{digits}"
        found = [identifier for identifier in self.images if identifier.startswith(whole)]
        return found[0] if len(found) == 1 else None

    def in_repository(self, name: str) -> Iterable[tuple[Reference, str]]:
        """The references of a repository, sorted, each with its image's id."""
        found = [item for item in self.references.items() if item[0].name == name]
        return sorted(found, key=lambda item: item[0].familiar)
