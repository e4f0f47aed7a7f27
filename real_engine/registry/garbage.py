"""Finds what no manifest refers to any more, and removes it: mark, then sweep, with the registry held still."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from real_engine.registry.manifests import Manifest, parse_manifest
from real_engine.registry.names import Digest
from real_engine.registry.storage import Storage

GRACE_SECONDS = 3600.0
"""How long a blob may wait for the manifest that refers to it: a push sends its blobs first."""


@dataclass(slots=True)
class Collected:
    """What a collection removed: contents, their bytes, and manifests that had no tag."""

    blobs: int = 0
    bytes: int = 0
    manifests: int = 0


def collect(storage: Storage, grace_seconds: float = GRACE_SECONDS, untagged: bool = False) -> Collected:
    """Remove blobs that no manifest of their repository refers to, and contents that no repository has.

    `untagged`: remove also the manifests that no tag leads to, by itself, by an index, or as the subject of a referrer.
    What is younger than `grace_seconds` stays. Pushes that end meanwhile wait; pulls don't.
    """
    collected = Collected()
    with storage.changing(alone=True):
        oldest = time.time() - grace_seconds
        live: set[Digest] = set()
        for repository in list(storage.repository_directories()):
            manifests = _read_manifests(storage, repository)
            if untagged:
                for digest in _untagged(storage, repository, manifests):
                    entry = storage.root / "repositories" / repository / "_manifests" / digest.algorithm / digest.hex
                    if entry.stat().st_mtime < oldest:
                        subject = manifests.pop(digest).subject
                        if subject is not None:
                            storage.remove_referrer(repository, subject.digest, digest)
                        entry.unlink()
                        collected.manifests += 1
            wanted = {blob.digest for manifest in manifests.values() for blob in manifest.blobs}
            live |= wanted | manifests.keys()
            links = storage.root / "repositories" / repository / "_blobs"
            for path, digest in _entries(links):
                if digest not in wanted and path.stat().st_mtime < oldest:
                    path.unlink()
                else:
                    live.add(digest)
        contents = storage.root / "blobs"
        for directory in contents.glob("*/*"):
            for path in directory.iterdir():
                digest = Digest(directory.parent.name, path.name)
                status = path.stat()
                if digest not in live and status.st_mtime < oldest:
                    path.unlink()  # or what a write that was cut off left behind (`.name.…`)
                    collected.blobs += 1
                    collected.bytes += status.st_size
        _remove_empty(storage.root / "repositories")
    return collected


def _read_manifests(storage: Storage, repository: str) -> dict[Digest, Manifest]:
    manifests = {}
    for digest, _ in storage.manifests(repository):
        _, media_type, content = storage.manifest(repository, str(digest))
        manifests[digest] = parse_manifest(content, media_type)
    return manifests


def _untagged(storage: Storage, repository: str, manifests: dict[Digest, Manifest]) -> set[Digest]:
    """Manifests to which no way leads from a tag."""
    reached: set[Digest] = set()
    waiting = [storage.manifest(repository, tag)[0] for tag in storage.tags(repository)] if manifests else []
    while waiting:
        digest = waiting.pop()
        if digest in reached or digest not in manifests:
            continue
        reached.add(digest)
        waiting += [child.digest for child in manifests[digest].manifests]
        for other, manifest in manifests.items():
            if manifest.subject is not None and manifest.subject.digest == digest:
                waiting.append(other)
    return manifests.keys() - reached


def _entries(links: Path) -> list[tuple[Path, Digest]]:
    return [(path, Digest(path.parent.name, path.name)) for path in links.glob("*/*") if path.name[0] != "."]


def _remove_empty(top: Path) -> None:
    """Remove directories with nothing in them, the deepest first."""
    for directory, _, _ in os.walk(top, topdown=False):
        if directory != str(top):
            with suppress(OSError):  # it isn't empty
                os.rmdir(directory)
