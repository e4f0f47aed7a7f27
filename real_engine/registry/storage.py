"""What a registry keeps, as files: contents by digest, and repositories whose entries point at them.

    DIR/blobs/sha256/ab/abcd…              the bytes, once for all repositories
    DIR/repositories/NAME/_blobs/sha256/HEX       this blob may be read here (empty)
    DIR/repositories/NAME/_manifests/sha256/HEX   this manifest is here: {"mediaType", "size"}
    DIR/repositories/NAME/_tags/TAG               the digest of a manifest
    DIR/repositories/NAME/_referrers/sha256/HEX/sha256-HEX   a manifest whose subject is HEX: its descriptor
    DIR/uploads/ID/…                              see `uploads`

A component of a name never begins with an underscore, so no repository can be taken for one of these directories. Each
file appears whole, by a rename, after its bytes are on the disk. Whoever changes what refers to what holds the lock
file, shared or alone, so that a collector of garbage (perhaps another process) never sees half of a push.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from real_engine.errors import Conflict
from real_engine.files import write_durably
from real_engine.registry.errors import RegistryError
from real_engine.registry.manifests import Manifest, parse_manifest
from real_engine.registry.media_types import is_foreign
from real_engine.registry.names import Digest, is_tag, parse_digest, sha256


class Storage:
    """The files of one registry beneath a directory. Safe for threads, and for a collector in another process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for directory in (root, root / "blobs", root / "repositories", root / "uploads"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = root / "lock"
        self._lock.touch(mode=0o600)

    @contextmanager
    def changing(self, alone: bool) -> Iterator[None]:
        """Hold the registry still: `alone` for what looks at several entries, shared for adding a single one."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)  # the lock goes with the last descriptor of this opening

    def serve_alone(self) -> None:
        """Be the only server of this directory until this process ends.

        Raises:
            Conflict: another one serves it.
        """
        self._serving = (self.root / "serving.lock").open("wb")
        try:
            fcntl.flock(self._serving, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another registry serves {self.root}") from None

    # Blobs

    def content_path(self, digest: Digest) -> Path:
        """Where the bytes of `digest` are, if they are anywhere."""
        return self.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex

    def blob_size(self, repository: str, digest: Digest) -> int:
        """Bytes of a blob of the repository.

        Raises:
            RegistryError: BLOB_UNKNOWN.
        """
        link = self._blob_link(repository, digest)
        try:
            link.stat()
            return self.content_path(digest).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise RegistryError("BLOB_UNKNOWN", "blob unknown to registry", str(digest)) from None

    def keep_blob(self, repository: str, digest: Digest) -> None:
        """Note that somebody relies on a blob: it is as young as new to the collector of garbage."""
        with suppress(OSError):  # on a read-only disk there is no collector to fear either
            os.utime(self._blob_link(repository, digest))

    def open_blob(self, repository: str, digest: Digest) -> BinaryIO:
        """The blob's bytes, open for reading; they stay readable even if it is deleted meanwhile.

        Raises:
            RegistryError: BLOB_UNKNOWN.
        """
        self.blob_size(repository, digest)
        try:
            return self.content_path(digest).open("rb")
        except FileNotFoundError:
            raise RegistryError("BLOB_UNKNOWN", "blob unknown to registry", str(digest)) from None

    def adopt_blob(self, repository: str, digest: Digest, written: Path) -> None:
        """Make the file `written`, whose bytes were seen to be `digest`'s and are on the disk, a blob of a repository.

        The file is gone afterwards.
        """
        target = self.content_path(digest)
        with self.changing(alone=False):
            _make_directories(target.parent)
            if target.exists():
                os.utime(target)
                os.unlink(written)
            else:
                os.replace(written, target)
                _sync_directory(target.parent)
            self._link_blob(repository, digest)

    def mount_blob(self, repository: str, digest: Digest, source: str | None) -> bool:
        """Let `repository` have a blob of `source` (None: of any repository); False when it isn't there."""
        with self.changing(alone=False):
            if not self.content_path(digest).exists():
                return False
            if source is not None:
                if not self._blob_link(source, digest).exists():
                    return False
            elif not any(self._blob_link(name, digest).exists() for name in self.repository_directories()):
                return False
            self._link_blob(repository, digest)
        return True

    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Take a blob from a repository. Its bytes go when no repository has it.

        Raises:
            RegistryError: BLOB_UNKNOWN.
        """
        with self.changing(alone=True):
            self.blob_size(repository, digest)
            os.unlink(self._blob_link(repository, digest))

    def _blob_link(self, repository: str, digest: Digest) -> Path:
        return self._repository(repository) / "_blobs" / digest.algorithm / digest.hex

    def _link_blob(self, repository: str, digest: Digest) -> None:
        link = self._blob_link(repository, digest)
        _make_directories(link.parent)
        write_durably(link, b"")

    # Manifests and tags

    def manifest(self, repository: str, reference: str) -> tuple[Digest, str, bytes]:
        """Digest, media type and bytes of the manifest that a tag or a digest names.

        Raises:
            RegistryError: MANIFEST_UNKNOWN.
        """
        digest = parse_digest(reference) or self._tagged(repository, reference)
        if digest is not None:
            try:
                entry = json.loads(self._manifest_entry(repository, digest).read_bytes())
                return digest, entry["mediaType"], self.content_path(digest).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                pass
        raise RegistryError("MANIFEST_UNKNOWN", "manifest unknown", {"name": repository, "reference": reference})

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> tuple[Digest, Manifest]:
        """Store a manifest and let the tag, or only its digest, name it.

        Raises:
            RegistryError: MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN, SIZE_INVALID, DIGEST_INVALID.
        """
        manifest = parse_manifest(content, media_type)
        digest = sha256(content)
        asked = parse_digest(reference)
        if asked is not None:
            if not asked.matches(content):
                raise RegistryError("DIGEST_INVALID", "provided digest did not match uploaded content", str(digest))
            digest = asked
        elif ":" in reference:
            raise RegistryError("DIGEST_INVALID", "no digest that can be checked", reference)
        elif not is_tag(reference):
            raise RegistryError("MANIFEST_INVALID", "no tag that could be given", reference)
        with self.changing(alone=True):
            self._check_references(repository, manifest)
            self._write_content(digest, content)
            entry = self._manifest_entry(repository, digest)
            _make_directories(entry.parent)
            fields = {"mediaType": manifest.media_type, "size": len(content)}
            write_durably(entry, json.dumps(fields).encode())
            if manifest.subject is not None:
                referrer = self._referrer(repository, manifest.subject.digest, digest)
                _make_directories(referrer.parent)
                write_durably(referrer, json.dumps(_referrer_descriptor(manifest, digest)).encode())
            if asked is None:
                tag = self._tag(repository, reference)
                _make_directories(tag.parent)
                write_durably(tag, str(digest).encode())
        return digest, manifest

    def delete_manifest(self, repository: str, reference: str) -> None:
        """Delete a tag, or the manifest of a digest with every tag that names it.

        Raises:
            RegistryError: MANIFEST_UNKNOWN.
        """
        with self.changing(alone=True):
            digest, media_type, content = self.manifest(repository, reference)
            if parse_digest(reference) is None:
                os.unlink(self._tag(repository, reference))
                return
            for tag in self._tags(repository):
                if self._tagged(repository, tag) == digest:
                    os.unlink(self._tag(repository, tag))
            manifest = parse_manifest(content, media_type)
            if manifest.subject is not None:
                self.remove_referrer(repository, manifest.subject.digest, digest)
            os.unlink(self._manifest_entry(repository, digest))

    def tags(self, repository: str) -> list[str]:
        """Every tag of the repository, in lexical order.

        Raises:
            RegistryError: NAME_UNKNOWN.
        """
        if not self.has_repository(repository):
            raise RegistryError("NAME_UNKNOWN", "repository name not known to registry", {"name": repository})
        return sorted(self._tags(repository))

    def referrers(self, repository: str, subject: Digest) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `subject`, which need not exist itself; in a fixed order."""
        directory = self._repository(repository) / "_referrers" / subject.algorithm / subject.hex
        descriptors = []
        for name in sorted(_names(directory)):
            with suppress(FileNotFoundError):  # deleted since
                descriptors.append(json.loads((directory / name).read_bytes()))
        return descriptors

    def remove_referrer(self, repository: str, subject: Digest, digest: Digest) -> None:
        """Forget that a manifest refers to `subject`."""
        self._referrer(repository, subject, digest).unlink(missing_ok=True)

    def manifests(self, repository: str) -> Iterator[tuple[Digest, str]]:
        """Digest and media type of each manifest of the repository, tagged or not."""
        directory = self._repository(repository) / "_manifests"
        for algorithm in _names(directory):
            for digits in _names(directory / algorithm):
                with suppress(FileNotFoundError):
                    entry = json.loads((directory / algorithm / digits).read_bytes())
                    yield Digest(algorithm, digits), entry["mediaType"]

    # Repositories

    def has_repository(self, repository: str) -> bool:
        """Whether a manifest was ever put there."""
        return (self._repository(repository) / "_manifests").is_dir()

    def repositories(self) -> list[str]:
        """Names of the repositories that hold a manifest, in lexical order."""
        return sorted(name for name in self.repository_directories() if next(self.manifests(name), None) is not None)

    def repository_directories(self) -> Iterator[str]:
        """Names of all repositories that hold anything."""
        top = self.root / "repositories"
        for directory, children, _ in os.walk(top):
            if any(child.startswith("_") for child in children):
                yield os.path.relpath(directory, top)
            children[:] = [child for child in children if not child.startswith("_")]

    def _repository(self, repository: str) -> Path:
        return self.root / "repositories" / repository

    def _manifest_entry(self, repository: str, digest: Digest) -> Path:
        return self._repository(repository) / "_manifests" / digest.algorithm / digest.hex

    def _tag(self, repository: str, tag: str) -> Path:
        return self._repository(repository) / "_tags" / tag

    def _tags(self, repository: str) -> list[str]:
        return [name for name in _names(self._repository(repository) / "_tags") if is_tag(name)]

    def _tagged(self, repository: str, tag: str) -> Digest | None:
        if not is_tag(tag):
            return None
        try:
            return parse_digest(self._tag(repository, tag).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _referrer(self, repository: str, subject: Digest, digest: Digest) -> Path:
        directory = self._repository(repository) / "_referrers" / subject.algorithm / subject.hex
        return directory / f"{digest.algorithm}-{digest.hex}"

    def _check_references(self, repository: str, manifest: Manifest) -> None:
        """See that all is here that the manifest refers to, but for its subject, which may come later."""
        for blob in manifest.blobs:
            if blob.urls and is_foreign(blob.media_type):
                continue
            try:
                size = self.blob_size(repository, blob.digest)
            except RegistryError:
                raise _unknown_reference(blob.digest) from None
            if size != blob.size:
                detail = {"digest": str(blob.digest), "said": blob.size, "is": size}
                raise RegistryError("SIZE_INVALID", "provided length did not match content length", detail)
        for child in manifest.manifests:
            if not self._manifest_entry(repository, child.digest).exists():
                raise _unknown_reference(child.digest)

    def _write_content(self, digest: Digest, content: bytes) -> None:
        target = self.content_path(digest)
        _make_directories(target.parent)
        if target.exists():
            os.utime(target)
        else:
            write_durably(target, content)


def _referrer_descriptor(manifest: Manifest, digest: Digest) -> dict[str, Any]:
    """What the list of referrers says of a manifest (distribution-spec v1.1, "Listing referrers")."""
    descriptor: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "size": len(manifest.content),
        "digest": str(digest),
    }
    if manifest.artifact_type:
        descriptor["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        descriptor["annotations"] = manifest.annotations
    return descriptor


def _unknown_reference(digest: Digest) -> RegistryError:
    return RegistryError("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", {"digest": str(digest)})


def _names(directory: Path) -> list[str]:
    """Entries of a directory that may be missing, without what is still being written there (`.name.…`)."""
    try:
        return [name for name in os.listdir(directory) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make_directories(directory: Path) -> None:
    """Make a directory with its parents so that a crash can't lose them: each is synced into its parent."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
