"""What removing an image means: which names go, which images, and what stands against it.

The rules, their order and their messages are moby's (daemon/images/image_delete.go, v24).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from real_engine.errors import Conflict
from real_engine.images.references import Reference
from real_engine.images.repositories import ImageRecord, Repositories

UsedBy = Callable[[str], Iterable[tuple[str, bool]]]
"""For an image's id, the containers of it: (id, whether it runs)."""

_SHORT = 12


@dataclass(frozen=True, slots=True)
class Gone:
    """An image that has been removed."""

    id: str
    record: ImageRecord
    diff_ids: tuple[str, ...]


class _ImageConflict(Conflict):
    """Something stands against removing an image; `used`: a container does."""

    def __init__(self, identifier: str, reason: str, *, hard: bool, used: bool) -> None:
        super().__init__(
            f"conflict: unable to delete {_short(identifier)} ({'cannot' if hard else 'must'} be forced) - {reason}"
        )
        self.used = used


@dataclass(slots=True)
class Removal:
    """One removal, with what came of it. It works on `repositories` alone: files are removed afterwards."""

    repositories: Repositories
    diff_ids: Callable[[str], tuple[str, ...]]
    used_by: UsedBy
    happened: Callable[[str, str], None]
    records: list[dict[str, str]] = field(default_factory=list)
    deleted: list[Gone] = field(default_factory=list)
    changed: bool = False

    def run(self, identifier: str, name: str, *, force: bool, prune: bool) -> None:
        """Remove `name`, which was found to mean the image `identifier`.

        Raises:
            Conflict: it is used, or has several names.
        """
        named = not _is_prefix(identifier, name)
        if named:
            if self._unname(identifier, name, force):
                return
        elif _is_single(self.repositories.names(identifier)):
            self._check(identifier, force, references=False)
            for reference in self.repositories.names(identifier):
                self._untag(identifier, reference)
        self._delete(identifier, force=force, prune=prune, quiet=named)

    def _unname(self, identifier: str, name: str, force: bool) -> bool:
        """Take one name from the image; whether others are left."""
        if not force and _is_single(self.repositories.names(identifier)):
            for container, _ in self.used_by(identifier):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{name}" (must force) - '
                    f"container {_short(container)} is using its referenced image {_short(identifier)}"
                )
        reference = Reference.parse(name)
        if reference.digest:
            reference = reference.with_digest(reference.digest)
        reference = reference.with_default_tag()
        self._untag(identifier, reference)
        left = self.repositories.names(identifier)
        if not reference.digest and not any(one.tag and one.name == reference.name for one in left):
            # With its last tag in a repository go the digests that it had there.
            for digest in [one for one in left if one.name == reference.name]:
                self.repositories.unname(digest)
                self.records.append({"Untagged": digest.familiar})
        return bool(self.repositories.names(identifier))

    def _untag(self, identifier: str, reference: Reference) -> None:
        self.repositories.unname(reference)
        self.changed = True
        self.records.append({"Untagged": reference.familiar})
        self.happened("untag", identifier)

    def _delete(self, identifier: str, *, force: bool, prune: bool, quiet: bool) -> None:
        """Remove the image, and if asked those below it that nobody needs any more."""
        while True:
            try:
                self._check(identifier, force)
            except _ImageConflict as conflict:
                dangling = not self.repositories.names(identifier) and not self.repositories.children(identifier)
                if quiet and (conflict.used or not dangling):
                    return
                raise
            for reference in self.repositories.names(identifier):
                self.repositories.unname(reference)
                self.records.append({"Untagged": reference.familiar})
            parent = self._forget(identifier)
            if not prune or not parent:
                return
            identifier, force, quiet = parent, False, True

    def _forget(self, identifier: str) -> str:
        """Drop the image; returns its parent."""
        record = self.repositories.images[identifier]
        gone = Gone(identifier, record, self.diff_ids(identifier))
        parent = record.parent
        kept_by_container = any(True for _ in self.used_by(identifier))
        self.repositories.drop(identifier)
        self.changed = True
        self.deleted.append(gone)
        self.happened("delete", identifier)
        self.records.append({"Deleted": identifier})
        if not kept_by_container:
            kept = {chain for other in self.repositories.images for chain in chain_ids(self.diff_ids(other))}
            self.records += [{"Deleted": chain} for chain in reversed(chain_ids(gone.diff_ids)) if chain not in kept]
        return parent

    def _check(self, identifier: str, force: bool, *, references: bool = True) -> None:
        """Refuse if something stands against it; what can be forced doesn't, with `force`."""
        containers = list(self.used_by(identifier))
        if self.repositories.children(identifier):
            raise _ImageConflict(identifier, "image has dependent child images", hard=True, used=False)
        for container, running in containers:
            if running:
                reason = f"image is being used by running container {_short(container)}"
                raise _ImageConflict(identifier, reason, hard=True, used=True)
        if force:
            return
        if references and self.repositories.names(identifier):
            raise _ImageConflict(identifier, "image is referenced in multiple repositories", hard=False, used=False)
        for container, _ in containers:
            reason = f"image is being used by stopped container {_short(container)}"
            raise _ImageConflict(identifier, reason, hard=False, used=True)


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain id of each layer: a digest that depends on all layers below too (OCI image-spec v1.1 config.md)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        below = chain[-1] if chain else ""
        chain.append(f"sha256:{hashlib.sha256(f'{below} {diff_id}'.encode()).hexdigest()}" if below else diff_id)
    return chain


def _is_single(references: Sequence[Reference]) -> bool:
    """Whether an image has one name, or several that are one tag and digests of the same repository."""
    if len(references) <= 1:
        return True
    tags = [reference for reference in references if not reference.digest]
    digests = {reference.name for reference in references if reference.digest}
    if len(tags) > 1:
        return False
    one = tags[0] if tags else references[0]
    return digests == {one.name}


def _is_prefix(identifier: str, text: str) -> bool:
    return identifier.startswith(text) or identifier.partition(":")[2].startswith(text)


def _short(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:_SHORT]
