"""What is in a volume: filled from the image, and a part of it found, always beneath its own directory.

An image and a container may put a link anywhere. So every file is reached from a directory that is open, by its last
name and without following links; only the way to the mount point itself is resolved, with the image's root as root.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from real_engine.errors import EngineError, InvalidParameter
from real_engine.images.trees import open_regular
from real_engine.linux.processes import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 500  # nested directories; each holds two descriptors while it is copied
_CHUNK = 1 << 26
_NO_HOLES = (errno.EINVAL, errno.EOPNOTSUPP)


def copy_up(volume: Path, root: int, path: str) -> bool:
    """Copy what the image has at `path` into an empty volume: owners, modes, times, attributes, links and devices.

    `root` is the open root directory of the image. Returns whether anything was copied: not where the volume holds
    something already, nor where the image has no directory there (moby container/container_unix.go
    CopyImagePathContent, containerd continuity/fs CopyDir).

    Raises:
        OSError: no room, say. What was copied so far stays: the volume counts as filled then.
    """
    try:
        source = openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        target = os.open(volume, _DIRECTORY)
        try:
            if os.listdir(target):
                return False
            _copy_directory(source, target, {}, target, _DEEPEST)
            return True
        finally:
            os.close(target)
    finally:
        os.close(source)


def is_directory_or_missing(root: int, path: str) -> bool:
    """Whether a volume can be mounted at `path` of the image: not over a file."""
    try:
        descriptor = openat2(root, path, os.O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        return stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def open_subpath(volume: Path, subpath: str) -> int:
    """The part `subpath` of a volume, opened (O_PATH) without leaving it, whatever links its containers have made.

    Raises:
        InvalidParameter: it is absolute or leads out.
        EngineError: there is nothing there.
    """
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise InvalidParameter(f"subpath {subpath!r} must be a relative path within the volume")
    directory = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(directory, subpath or ".", os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except FileNotFoundError as error:
        raise EngineError(
            f"failed to mount: cannot access path {volume}/{subpath}: no such file or directory"
        ) from error
    except OSError as error:
        raise InvalidParameter(f"failed to mount: subpath {subpath} leads out of the volume") from error
    finally:
        os.close(directory)


def _copy_directory(
    source: int, target: int, links: dict[tuple[int, int], str], top: int, depth: int, at: str = ""
) -> None:
    """Copy one directory into another, both open. `links` holds the first name of each file that has several."""
    if depth == 0:
        raise OSError(errno.ENAMETOOLONG, "directories are nested too deeply to be copied")
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        place = f"{at}{name}"
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            first = links.setdefault((status.st_dev, status.st_ino), place)
            if first != place:
                os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
                continue
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            inner_source = os.open(name, _DIRECTORY, dir_fd=source)
            try:
                inner_target = os.open(name, _DIRECTORY, dir_fd=target)
                try:
                    _copy_directory(inner_source, inner_target, links, top, depth - 1, f"{place}/")
                finally:
                    os.close(inner_target)
            finally:
                os.close(inner_source)
        elif kind == stat.S_IFREG:
            _copy_file(source, target, name, status)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            _copy_link_status(target, name, status)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            _copy_link_status(target, name, status)
            _set_mode(target, name, status)
        # A socket without the process behind it is of no use: left out, as Docker does.
    _copy_status(source, target, os.fstat(source))


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    reader = open_regular(name, source)
    try:
        writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            for begin, end in _extents(reader, status.st_size):
                _copy_range(reader, writer, begin, end)
            os.ftruncate(writer, status.st_size)
            _copy_status(reader, writer, status)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: holes stay holes."""
    position = 0
    while position < size:
        try:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here to the end
                return
            if error.errno not in _NO_HOLES:
                raise
            begin, end = position, size
        yield begin, end
        position = end


def _copy_range(reader: int, writer: int, begin: int, end: int) -> None:
    """Copy bytes inside the kernel; a file system that can share blocks does so."""
    while begin < end:
        try:
            copied = os.copy_file_range(reader, writer, min(end - begin, _CHUNK), begin, begin)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            os.lseek(writer, begin, os.SEEK_SET)
            copied = os.sendfile(writer, reader, begin, min(end - begin, _CHUNK))
        if copied == 0:  # it has become shorter
            return
        begin += copied


def _copy_status(source: int, target: int, status: os.stat_result) -> None:
    """Owner, attributes, mode and times of an open file or directory. The order matters: chown clears setuid."""
    os.fchown(target, status.st_uid, status.st_gid)
    for name in _attributes(source):
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):  # not on this file system, or not by us
                raise
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _attributes(descriptor: int) -> list[str]:
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise
    # overlayfs's own marks mean nothing, or the wrong thing, elsewhere.
    return [name for name in names if not name.startswith(("trusted.overlay.", "user.overlay."))]


def _copy_link_status(target: int, name: str, status: os.stat_result) -> None:
    """Owner and times of what isn't opened: a link, a device."""
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _set_mode(target: int, name: str, status: os.stat_result) -> None:
    """The mode of what was just made, and of nothing else.

    By a descriptor: chmod(2) follows links, and whoever has the volume already may have put one in its place.
    """
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
    try:
        if stat.S_IFMT(os.fstat(place).st_mode) == stat.S_IFMT(status.st_mode):
            os.chmod(f"/proc/self/fd/{place}", stat.S_IMODE(status.st_mode))
    finally:
        os.close(place)
