"""COPY and ADD as steps of a build: where the files come from, and the layer that they make."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from real_engine.container.users import look_up
from real_engine.errors import EngineError, InvalidParameter, NotImplementedHere
from real_engine.images.archive import InvalidArchive, Policy, extract
from real_engine.images.build import instructions as ins
from real_engine.images.build.configuration import no_operation
from real_engine.images.build.context import GivenFiles
from real_engine.images.build.copying import (
    ROOT_OWNER,
    CopySource,
    FileSource,
    copy_into,
    destination,
    digest_of,
    find_sources,
)
from real_engine.images.build.downloads import fetch, is_address, is_git
from real_engine.images.build.trees import Tree
from real_engine.images.compression import Decompressed
from real_engine.images.tar_reader import TarReader

if TYPE_CHECKING:
    from real_engine.images.build.build import Build
    from real_engine.images.build.stage import StageState

_GIT_ONLY = ("git://", "git@", "ssh://")
_LARGEST_ACCOUNT_FILE = 4 << 20  # bytes
_CHUNK = 1 << 20


class CopyStep:
    """One COPY or ADD of a build."""

    def __init__(self, build: "Build", state: "StageState", instruction: ins.Copy) -> None:
        self.build = build
        self.state = state
        self.instruction = instruction

    def do(self) -> None:
        """Take it from the cache, or copy the files and commit.

        Raises:
            EngineError: a source isn't there, an owner isn't known, a file can't be written.
        """
        build, state, instruction = self.build, self.state, self.instruction
        mode = parse_mode(instruction.mode) if instruction.mode else None
        sources = self._sources()
        if len(sources) > 1 and not instruction.destination.endswith("/"):
            raise InvalidParameter(
                f"When using {instruction.command} with more than one source file, the destination must be a directory "
                "and end with a /"
            )
        # Docker sets no space behind --chown. It knows no --chmod here.
        flags = f"--chmod={instruction.mode} " if instruction.mode else ""
        flags += f"--chown={instruction.owner}" if instruction.owner else ""
        comment = f"{instruction.command} {flags}{digest_of(sources)} in {instruction.destination} "
        container_config = no_operation(state.config, comment)
        if build.use_cached(state, container_config):
            return
        target = destination(state.config.get("WorkingDir") or "", instruction.destination)
        with build.changed_root(state.image) as (upper, root):
            owner: tuple[int, int] | None = ROOT_OWNER
            if instruction.owner:
                owner = find_owner(root, instruction.owner)
            elif instruction.origin:
                owner = None  # from another image they keep theirs
            unpack = _Unpacker(owner if instruction.owner else None).unpack if instruction.command == "ADD" else None
            for source in sources:
                build.check_cancelled()
                copy_into(root, source, target, owner, mode, unpack)
        build.commit(state, container_config, build.layer(upper, take=True))

    def _sources(self) -> list[CopySource]:
        build, instruction = self.build, self.instruction
        tree: FileSource = build.context
        if instruction.origin:
            try:
                tree = build.files_of(build.origin(instruction.origin, self.state.platform))
            except EngineError as error:
                raise error.reworded(f"invalid from flag value {instruction.origin}: {error}") from error
        found: list[CopySource] = []
        try:
            for name in instruction.sources:
                if is_address(name) or name.startswith(_GIT_ONLY):
                    found.append(self._fetched(name))
                else:
                    found += find_sources(tree, name)
            found += self._documents()
            if not found:
                raise InvalidParameter("no source files were specified")
        except EngineError as error:
            raise error.reworded(f"{instruction.command} failed: {error}") from error
        return found

    def _fetched(self, address: str) -> CopySource:
        if self.instruction.command == "COPY":
            raise InvalidParameter("source can't be a URL for COPY")
        if is_git(address):
            raise NotImplementedHere(f"{address}: a git repository can't be added here; COPY its files instead")
        directory = self.build.fresh("fetched")
        download = fetch(address, directory / "download", self.instruction.checksum, self.build.cancelled)
        name = download.name
        if not name:
            if self.instruction.destination.endswith("/"):
                raise InvalidParameter(f"cannot determine filename for source {address}")
            name = "__unnamed__"
        download.path.rename(directory / name)
        return self._given(directory, name)

    def _documents(self) -> Iterator[CopySource]:
        """Files that stand in the Dockerfile itself."""
        for document in self.instruction.documents:
            directory = self.build.fresh("document")
            name = document.name.rpartition("/")[2]
            path = directory / name
            path.write_bytes(document.text.encode("utf-8", "surrogateescape"))
            path.chmod(0o644)
            os.utime(path, (0, 0))
            yield self._given(directory, name)

    def _given(self, directory: Path, name: str) -> CopySource:
        tree = GivenFiles(self.build.hold(directory))
        return CopySource(tree, name, "file:" + tree.digest(name), unpack=False)


class _Unpacker:
    """Unpacks what ADD finds to be an archive; owners as in the archive, unless `--chown` says another."""

    def __init__(self, owner: tuple[int, int] | None) -> None:
        self._owner = owner

    def unpack(self, file: BinaryIO, place: int) -> bool:
        """Whether the file is an archive; with a directory at `place` (not -1), unpack it there."""
        file.seek(0)
        try:
            stream = io.BufferedReader(Decompressed(file), _CHUNK)
            if place < 0:
                # Nothing but zeros is an archive without entries for tar, and for Docker a file like others.
                return next(iter(TarReader(stream)), None) is not None
        except InvalidParameter:
            return False
        try:
            extract(stream, place, Policy(owner=self._owner))
        except InvalidArchive as error:
            raise InvalidParameter(f"failed to copy files: Error processing tar file: {error}") from error
        return True


def parse_mode(text: str) -> int:
    """The permissions of `--chmod`, in octal.

    Raises:
        InvalidParameter: something else.
    """
    if not (text.isascii() and text.isdigit() and not set(text) & {"8", "9"} and int(text, 8) <= 0o7777):
        raise InvalidParameter(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
    return int(text, 8)


def find_owner(root: Tree, text: str) -> tuple[int, int]:
    """The user and group of `--chown`, by the image's own files; a user alone is the group's name too.

    Raises:
        InvalidParameter: a name that is in neither file.
    """
    user, colon, group = text.partition(":")
    if ":" in group:
        raise InvalidParameter(f"invalid chown string format: {text}")
    if not colon:
        group = user
    failed = "unable to convert uid/gid chown string to host mapping: can't find"
    passwd, groups = _account_file(root, "etc/passwd"), _account_file(root, "etc/group")
    try:
        uid = look_up(user, passwd, groups).uid
    except LookupError as error:
        raise InvalidParameter(f"{failed} uid for user {user}: no such user: {user}") from error
    try:
        return uid, look_up(f"{uid}:{group}", passwd, groups).gid
    except LookupError as error:
        raise InvalidParameter(f"{failed} gid for group {group}: no such group: {group}") from error


def _account_file(root: Tree, path: str) -> bytes:
    try:
        with root.opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            return os.read(descriptor, _LARGEST_ACCOUNT_FILE)
    except OSError:
        return b""  # then numbers alone will do
