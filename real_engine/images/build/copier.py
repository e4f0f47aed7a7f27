"""Copies files into the tree of an image, from a directory: each whole, with permissions, times and attributes."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from real_engine.images.build.trees import check_depth
from real_engine.images.packing import kept_attribute
from real_engine.images.trees import remove_tree

_MOST_AT_ONCE = 64 << 20  # bytes that the kernel is asked to copy
_KEPT_ATTRIBUTES = ("user.", "security.capability")
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL


@dataclass(frozen=True, slots=True)
class Dress:
    """What copies get in place of what their originals have, where it isn't None: (uid, gid), and permissions."""

    owner: tuple[int, int] | None = None
    mode: int | None = None

    def put_on(self, target: int, status: os.stat_result, attributes: Mapping[str, bytes]) -> None:
        """Finish an open file or directory, whose original has this status and these extended attributes.

        Owner before mode and attributes, since a change of owner takes set-user-id bits and capabilities away.
        """
        os.fchown(target, *self._owner(status))
        os.fchmod(target, self._permissions(status))
        for name, value in attributes.items():
            if name.startswith(_KEPT_ATTRIBUTES) and kept_attribute(name):
                _set_attribute(target, name, value)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def put_on_name(self, name: str, place: int, status: os.stat_result) -> None:
        """Finish what can't be opened: a link, a device, a pipe."""
        os.chown(name, *self._owner(status), dir_fd=place, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, self._permissions(status), dir_fd=place)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=place, follow_symlinks=False)

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        return (status.st_uid, status.st_gid) if self.owner is None else self.owner

    def _permissions(self, status: os.stat_result) -> int:
        return stat.S_IMODE(status.st_mode) if self.mode is None else self.mode


@dataclass(slots=True)
class Copier:
    """Copies entries of directories into the open directory `top`, and below it.

    `names` holds the first copy of each file with several names, as a path beneath `top`, so that they stay one file.
    """

    top: int
    dress: Dress
    names: dict[tuple[int, int], str] = field(default_factory=dict)

    def content(self, directory: int, place: int, prefix: str = "") -> None:
        """Copy all that is in the open `directory` into the open `place`, which is `prefix` beneath the top.

        Raises:
            OSError: no room.
            InvalidParameter: directories are nested too deeply.
        """
        check_depth(prefix.count("/"), prefix)
        for name in os.listdir(directory):
            self.entry(directory, name, place, name, prefix)

    def entry(self, directory: int, name: str, place: int, final: str, prefix: str = "") -> None:
        """Copy `name` of `directory` to `final` in `place`; what was there goes, unless both are directories."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return
        if kind == stat.S_IFDIR:
            with opened(name, directory, os.O_DIRECTORY) as inner, directory_to_fill(final, place) as copied:
                self.content(inner, copied, f"{prefix}{final}/")
                self.dress.put_on(copied, status, _attributes(inner))
            return
        if status.st_nlink > 1:
            known = self.names.setdefault((status.st_dev, status.st_ino), prefix + final)
            if known != prefix + final:
                make_room(place, final)
                os.link(known, final, src_dir_fd=self.top, dst_dir_fd=place, follow_symlinks=False)
                return
        if kind == stat.S_IFREG:
            with opened(name, directory) as inner, file_to_fill(final, place) as copied:
                copy_data(inner, copied, status.st_size)
                self.dress.put_on(copied, status, _attributes(inner))
            return
        make_room(place, final)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=directory), final, dir_fd=place)
        else:
            os.mknod(final, kind | 0o600, status.st_rdev, dir_fd=place)
        self.dress.put_on_name(final, place, status)


@contextmanager
def opened(name: str, directory: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    """`name` in an open directory, not followed if it is a link, for as long as the block lasts.

    Raises:
        OSError: as open(2).
    """
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def directory_to_fill(name: str, place: int) -> Iterator[int]:
    """The directory `name` in an open one, made where there is none.

    Raises:
        OSError: no room, no right.
    """
    try:
        os.mkdir(name, 0o700, dir_fd=place)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=place)
            os.mkdir(name, 0o700, dir_fd=place)
    with opened(name, place, os.O_DIRECTORY) as descriptor:
        yield descriptor


@contextmanager
def file_to_fill(name: str, place: int) -> Iterator[int]:
    """The new file `name` in an open directory, in place of what has the name.

    Raises:
        OSError: no room, no right.
    """
    try:
        descriptor = os.open(name, _CREATE | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place)
    except FileExistsError:
        make_room(place, name)
        descriptor = os.open(name, _CREATE | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_room(place: int, name: str) -> None:
    """See that `name` is free in `place`.

    Raises:
        OSError: what is there can't be removed.
    """
    remove_tree(name, place)


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
        if copy_range(source, begin, target, end - begin) < end - begin:
            return  # somebody made it shorter
        position = end


def copy_range(source: int, offset: int, target: int, size: int) -> int:
    """Copy `size` bytes from `offset` on to where `target` is, in the kernel; returns how many there were.

    Raises:
        OSError: no room.
    """
    left = size
    while left and (sent := os.sendfile(target, source, offset, min(left, _MOST_AT_ONCE))):
        offset += sent
        left -= sent
    return size - left


def _attributes(source: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(source, name) for name in os.listxattr(source) if name.startswith(_KEPT_ATTRIBUTES)}
    except OSError:
        return {}  # a file system without extended attributes


def _set_attribute(target: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(target, name, value)
    except OSError as error:
        # As when an archive is extracted: a file system without such attributes is no reason to refuse the file.
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
            raise
