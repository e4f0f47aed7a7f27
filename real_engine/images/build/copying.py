"""COPY and ADD: which files are meant, what digest they have together, and how they get into the image.

The rules are the classic builder's: a directory's content is copied, not the directory; a link given as source is
followed; what is new belongs to root or to `--chown`; ADD unpacks local archives and fetches addresses.
"""

import os
import posixpath
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from real_engine.errors import InvalidParameter
from real_engine.images.build.copier import Copier, Dress, opened
from real_engine.images.build.patterns import compile_glob, has_wildcards
from real_engine.images.build.tar_sums import combined
from real_engine.images.build.trees import Tree

ROOT_OWNER = (0, 0)


class FileSource(Tree, ABC):
    """A tree that files are copied from, which knows their digests; `is_context` is the build context.

    The paths of what is copied or read are without links.
    """

    is_context = False

    def copy_content(self, path: str, place: int, dress: Dress) -> None:
        """Copy all that is in the directory `path` into the open directory `place`.

        Raises:
            OSError: no room.
        """
        with self.opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
            Copier(place, dress).content(directory, place)

    def copy_file(self, path: str, place: int, name: str, dress: Dress) -> None:
        """Copy the file `path` to `name` in the open directory `place`.

        Raises:
            OSError: no room.
        """
        parent, own = posixpath.split(path)
        with self.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory:
            Copier(place, dress).entry(directory, own, place, name)

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        """The regular file `path`, to be read."""
        parent, name = posixpath.split(path)
        with (
            self.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory,
            opened(name, directory) as descriptor,
            os.fdopen(descriptor, "rb", closefd=False) as file,
        ):
            yield file

    @abstractmethod
    def digest(self, path: str) -> str:
        """The digest of the file or directory entry that `path` (without links) names."""


@dataclass(frozen=True, slots=True)
class CopySource:
    """One source as found: its tree, its path there, its digest; ADD may `unpack` it."""

    tree: FileSource
    path: str
    digest: str
    unpack: bool = True


def find_sources(tree: FileSource, name: str) -> list[CopySource]:
    """The files that one source of COPY names: one, or all that its wildcards match.

    Raises:
        InvalidParameter: it leads outside, or isn't there.
    """
    name = name.removeprefix("/").removeprefix("./")
    if tree.is_context and posixpath.normpath(f"./{name}").split("/")[0] == "..":
        raise InvalidParameter(f"forbidden path outside the build context: {name} ()")
    if not has_wildcards(name):
        return [_source(tree, name)]
    # A match has as many slashes as its pattern, so it lies no deeper.
    try:
        expression = compile_glob(posixpath.normpath(name))
    except InvalidParameter:
        return []  # Docker finds nothing for a malformed pattern
    depth = posixpath.normpath(name).count("/") + 1
    return [_source(tree, path) for path, _ in tree.walk(depth=depth) if expression.fullmatch(path)]


def digest_of(sources: Sequence[CopySource]) -> str:
    """The digest that stands for all sources of an instruction."""
    if len(sources) == 1:
        return sources[0].digest
    return combined("multi", (source.digest for source in sources))


def destination(working_directory: str, path: str) -> str:
    """Where in the image `path` is, from the working directory; a slash at the end stays, as it means a directory."""
    if path.startswith("/"):
        return path
    joined = "/" + posixpath.normpath(f"/{working_directory}/{path}").lstrip("/")
    return joined + "/" if path.endswith("/") and joined != "/" else joined


def copy_into(
    root: Tree,
    source: CopySource,
    target: str,
    owner: tuple[int, int] | None,
    mode: int | None,
    unpack: Callable[[BinaryIO, int], bool] | None = None,
) -> None:
    """Copy a source to `target` in the tree of an image. Without `owner`, files keep the one they have.

    `unpack` is tried on a file and the descriptor of the target directory; it tells whether the file was an archive.

    Raises:
        OSError: the target can't be written.
        InvalidParameter: a directory on the way to the target is something else.
    """
    status = source.tree.status(source.path)
    try:
        if stat.S_ISDIR(status.st_mode):
            _copy_directory_source(root, source, target, owner, mode)
            return
        path = source.tree.resolve(source.path)
        if unpack is not None and source.unpack and stat.S_ISREG(status.st_mode):
            with source.tree.reading(path) as file:
                if _unpack(root, file, target, unpack):
                    return
        into, final = target.rstrip("/"), posixpath.basename(source.path.rstrip("/"))
        if not target.endswith("/") and not _is_directory(root, target):
            into, final = posixpath.split(posixpath.normpath(target))
            into, final = _behind_a_link(root, into, final)
        place, _ = root.make_directory(into, owner or ROOT_OWNER)
        try:
            source.tree.copy_file(path, place, final, Dress(owner, mode))
        finally:
            os.close(place)
    except NotADirectoryError as error:
        raise InvalidParameter(f"failed to copy files: {target}: not a directory") from error


def _source(tree: FileSource, path: str) -> CopySource:
    try:
        status = tree.status(path)
        resolved = tree.resolve(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = f"stat {path}: file does not exist"
        prefix = "file not found in build context or excluded by .dockerignore: " if tree.is_context else ""
        raise InvalidParameter(prefix + missing) from error
    except OSError as error:
        raise InvalidParameter(f"stat {path}: {(error.strerror or '').lower()}") from error
    if not stat.S_ISDIR(status.st_mode):
        return CopySource(tree, path, "file:" + tree.digest(resolved))
    sums = [tree.digest(_followed(tree, beneath, status)) for beneath, status in tree.walk(resolved)]
    if resolved:  # the directory itself counts too, unless it is the whole
        sums.append(tree.digest(resolved))
    return CopySource(tree, path, combined("dir", sorted(sums)))


def _followed(tree: FileSource, path: str, status: os.stat_result) -> str:
    """A link counts as what it leads to, as in Docker; one that leads nowhere as itself."""
    if not stat.S_ISLNK(status.st_mode):
        return path
    try:
        return tree.resolve(path) or path
    except OSError:
        return path


def _is_directory(root: Tree, path: str) -> bool:
    try:
        return stat.S_ISDIR(root.status(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _behind_a_link(root: Tree, parent: str, name: str) -> tuple[str, str]:
    """A target that is a link to a file means that file, as in Docker."""
    try:
        resolved = root.resolve(f"{parent}/{name}")
    except OSError:
        return parent, name
    return posixpath.split(resolved)


def _unpack(root: Tree, file: BinaryIO, target: str, unpack: Callable[[BinaryIO, int], bool]) -> bool:
    """Unpack the archive into the target directory, which is made only if it is one."""
    if not unpack(file, -1):
        return False
    place, _ = root.make_directory(target, ROOT_OWNER)
    try:
        return unpack(file, place)
    finally:
        os.close(place)


def _copy_directory_source(
    root: Tree, source: CopySource, target: str, owner: tuple[int, int] | None, mode: int | None
) -> None:
    place, made = root.make_directory(target, ROOT_OWNER)
    try:
        if made and owner is not None:
            os.fchown(place, *owner)
        if made and mode is not None:
            os.fchmod(place, mode)
        source.tree.copy_content(source.tree.resolve(source.path), place, Dress(owner, mode))
    finally:
        os.close(place)
