"""COPY and ADD: which files are meant, what digest they have together, and how they get into the image.

The rules are the classic builder's: a directory's content is copied, not the directory; a link given as source is
followed; what is new belongs to root or to `--chown`; ADD unpacks local archives and fetches addresses.
"""

import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from real_engine.errors import InvalidParameter
from real_engine.images.build.patterns import compile_glob, has_wildcards
from real_engine.images.build.tar_sums import combined
from real_engine.images.build.trees import Tree
from real_engine.images.trees import remove_tree

_CHUNK = 1 << 20
_KEPT_ATTRIBUTES = ("user.", "security.capability")

ROOT_OWNER = (0, 0)


class FileSource(Tree):
    """A tree that files are copied from, which knows their digests; `is_context` is the build context."""

    is_context = False

    def digest(self, path: str) -> str:
        """The digest of the file or directory entry that `path` (without links) names."""
        raise NotImplementedError


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
    unpack: Callable[[int, int], bool] | None = None,
) -> None:
    """Copy a source to `target` in the tree of an image. Without `owner`, files keep the one they have.

    `unpack` is tried on the descriptors of a file and of the target directory; it tells whether the file was an
    archive.

    Raises:
        OSError: the target can't be written.
        InvalidParameter: a directory on the way to the target is something else.
    """
    new_owner = owner or ROOT_OWNER
    status = source.tree.status(source.path)
    try:
        if stat.S_ISDIR(status.st_mode):
            _copy_directory_source(root, source, target, owner, mode)
            return
        path = source.tree.resolve(source.path)
        parent, name = posixpath.split(path)
        with source.tree.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory:
            if unpack is not None and source.unpack and stat.S_ISREG(status.st_mode):
                with _opened(name, directory) as file:
                    if _unpack(root, file, target, unpack):
                        return
            into, final = target.rstrip("/"), posixpath.basename(source.path.rstrip("/"))
            if not target.endswith("/") and not _is_directory(root, target):
                into, final = posixpath.split(posixpath.normpath(target))
                into, final = _behind_a_link(root, into, final)
            place, _ = root.make_directory(into, new_owner)
            try:
                _Copier(place, owner, mode).entry(directory, name, place, final)
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


def _unpack(root: Tree, file: int, target: str, unpack: Callable[[int, int], bool]) -> bool:
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
        with source.tree.opened(source.path, os.O_RDONLY | os.O_DIRECTORY) as directory:
            _Copier(place, owner, mode).content(directory, place)
    finally:
        os.close(place)


@dataclass(slots=True)
class _Copier:
    """Copies entries of directories into the open directory `top`, and below it.

    `names` holds the first copy of each file with several names, as a path beneath `top`, so that they stay one file.
    """

    top: int
    owner: tuple[int, int] | None
    mode: int | None
    names: dict[tuple[int, int], str] = field(default_factory=dict)

    def content(self, directory: int, place: int, prefix: str = "") -> None:
        """Copy all that is in the open `directory` into the open `place`, which is `prefix` beneath the top."""
        for name in os.listdir(directory):
            self.entry(directory, name, place, name, prefix)

    def entry(self, directory: int, name: str, place: int, final: str, prefix: str = "") -> None:
        """Copy `name` of `directory` to `final` in `place`; what was there goes, unless both are directories."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return
        _make_room(place, final, for_directory=kind == stat.S_IFDIR)
        if kind == stat.S_IFDIR:
            with _opened(name, directory, os.O_DIRECTORY) as inner, _opened(final, place, os.O_DIRECTORY) as copied:
                self.content(inner, copied, f"{prefix}{final}/")
                self._finish(inner, copied, status)
            return
        if status.st_nlink > 1:
            known = self.names.setdefault((status.st_dev, status.st_ino), prefix + final)
            if known != prefix + final:
                os.link(known, final, src_dir_fd=self.top, dst_dir_fd=place, follow_symlinks=False)
                return
        if kind == stat.S_IFREG:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            with _opened(name, directory) as inner, _opened(final, place, flags) as copied:
                copy_data(inner, copied, status.st_size)
                self._finish(inner, copied, status)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=directory), final, dir_fd=place)
        else:
            os.mknod(final, kind | 0o600, status.st_rdev, dir_fd=place)
        os.chown(final, *self._owner(status), dir_fd=place, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(final, self._permissions(status), dir_fd=place)
        os.utime(final, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=place, follow_symlinks=False)

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        return (status.st_uid, status.st_gid) if self.owner is None else self.owner

    def _permissions(self, status: os.stat_result) -> int:
        return stat.S_IMODE(status.st_mode) if self.mode is None else self.mode

    def _finish(self, source: int, target: int, status: os.stat_result) -> None:
        """Owner before mode and attributes, since a change of owner takes set-user-id bits and capabilities away."""
        os.fchown(target, *self._owner(status))
        os.fchmod(target, self._permissions(status))
        _copy_attributes(source, target)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def _opened(name: str, directory: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_room(place: int, name: str, for_directory: bool) -> None:
    """See that `name` is free in `place`, or with `for_directory` that a directory is there."""
    try:
        status = os.stat(name, dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        status = None
    if status is not None and stat.S_ISDIR(status.st_mode):
        if for_directory:
            return
        remove_tree(name, place)
    elif status is not None:
        os.unlink(name, dir_fd=place)
    if for_directory:
        os.mkdir(name, 0o700, dir_fd=place)


def copy_data(source: int, target: int, size: int) -> None:
    """Copy `size` bytes between descriptors, in the kernel; holes stay holes.

    Raises:
        OSError: no room.
    """
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            begin = os.lseek(source, position, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: nothing but a hole is left
        end = os.lseek(source, begin, os.SEEK_HOLE)
        os.lseek(target, begin, os.SEEK_SET)
        while begin < end:
            sent = os.sendfile(target, source, begin, min(end - begin, _CHUNK << 6))
            if not sent:
                return  # somebody made it shorter
            begin += sent
        position = end


def _copy_attributes(source: int, target: int) -> None:
    try:
        names: Iterable[str] = os.listxattr(source)
    except OSError:
        return  # a file system without extended attributes
    for name in names:
        if name.startswith(_KEPT_ATTRIBUTES):
            os.setxattr(target, name, os.getxattr(source, name))
