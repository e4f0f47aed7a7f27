"""Safe archives: a tar archive extracted beneath a directory, entry by entry, and a directory packed into one.

An archive is somebody else's: it may hold `..`, absolute names, links to anywhere and entries through them, devices,
one name as a file and then as a directory, or terabytes of zeros. Nothing here leads out of the root, since each
entry's directory is opened by openat2 as a process would see it whose root that is (CVE-2018-15664 and CVE-2019-14271
were of programs that worked out a path first and used it afterwards), and its last part is never followed.

`write_tar` is in `packing` and is offered here too.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from real_engine.images.marks import AUFS_PREFIX, OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Marks, is_whiteout
from real_engine.images.packing import kept_attribute, write_tar
from real_engine.images.tar_reader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    InvalidArchive,
    TarReader,
)
from real_engine.images.trees import open_in_root, remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from real_engine.images.compression import Source

_Made = TypeVar("_Made")

__all__ = ["Extracted", "InvalidArchive", "Policy", "extract", "file_time", "write_tar"]

MOST_ENTRIES = 4_000_000
MOST_BYTES = 1 << 42
"""4 TiB: what one archive may write unless a policy says otherwise."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_PARENTS = 64  # directories that are held open at once
_SECOND = 1_000_000_000
_LATEST = (1 << 34) * _SECOND  # the year 2514; what a file system has room for (ext4 to 2446) is cut by the kernel
_SPECIAL = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}


@dataclass(frozen=True, slots=True)
class Policy:
    """What an archive may do.

    `owner` is (uid, gid) for all entries, None for those that the archive says. `lenient` is for who isn't root, or is
    root only of a user namespace: owners, devices and attributes that can't be are left out. `marks` turns the
    whiteouts of layers into those of overlayfs; without it, `.wh.` names are names like others. `merge_only` is the
    rule of `docker cp`: a directory and a file never take each other's place. `root_entry` lets an entry for the root
    itself change it. `limit_entries` and `limit_bytes` bound what is written.
    """

    owner: tuple[int, int] | None = None
    devices: Literal["make", "skip", "refuse"] = "make"
    marks: Marks | None = None
    merge_only: bool = False
    root_entry: bool = False
    lenient: bool = False
    limit_entries: int = MOST_ENTRIES
    limit_bytes: int = MOST_BYTES


@dataclass(slots=True)
class Extracted:
    """What came of it: entries, and the bytes of files and links as Docker counts an image's size."""

    entries: int = 0
    size: int = 0


def extract(source: Source, root: int, policy: Policy | None = None) -> Extracted:
    """Extract the plain tar archive that `source` gives beneath the open directory `root`.

    To the end of the archive: what comes after it is left in `source`.

    Raises:
        InvalidArchive: it is damaged, leads out of the root, or breaks a limit; what was extracted stays.
        OSError: no room, no right.
    """
    extraction = _Extraction(root, policy or Policy())
    try:
        reader = TarReader(source)
        for entry in reader:
            extraction.take(entry, reader)
        extraction.finish()
    except OverflowError as error:
        raise InvalidArchive(f"archive/tar: a number is out of range: {error}") from error
    finally:
        extraction.close()
    return extraction.result


class _Extraction:
    """An extraction on its way."""

    def __init__(self, root: int, policy: Policy) -> None:
        self.result = Extracted()
        self._root = root
        self._policy = policy
        self._written = 0
        self._parents: dict[str, int] = {}
        self._times: dict[str, int] = {}  # of directories: what is made in them later would change theirs

    def close(self) -> None:
        """Close what is held open."""
        for descriptor in self._parents.values():
            os.close(descriptor)
        self._parents.clear()

    def finish(self) -> None:
        """Set the times of directories, now that nothing more is made in them."""
        for path, nanoseconds in self._times.items():
            if path == ".":
                os.utime(self._root, ns=(nanoseconds, nanoseconds))
                continue
            directory, name = posixpath.split(path)
            try:
                os.utime(
                    name,
                    ns=(nanoseconds, nanoseconds),
                    dir_fd=self._parent(directory, path),
                    follow_symlinks=False,
                )
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry of the archive took its place, or that of a directory above

    def take(self, entry: Entry, reader: TarReader) -> None:
        """Make what the entry says."""
        self.result.entries += 1
        if self.result.entries > self._policy.limit_entries:
            raise InvalidArchive(f"the archive has more than {self._policy.limit_entries} entries, which is the limit")
        if entry.kind == b"g" or entry.kind == b"V":
            return  # records for all that follow, a volume's label: nothing to make
        path = _clean(entry.name, entry.name)
        if path == ".":
            self._take_root(entry)
            return
        directory, name = posixpath.split(path)
        marks = self._policy.marks
        if marks is not None and name.startswith(WHITEOUT_PREFIX):
            self._white_out(directory, name, path, marks)
            return
        parent = self._parent(directory, path)
        try:
            self._make(entry, reader, parent, name, path)
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
                raise InvalidArchive(f"{_shown(path)}: {error.strerror}") from error
            raise

    def _take_root(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise InvalidArchive("the archive would put something other than a directory in place of its root")
        if self._policy.root_entry:
            self._dress(self._root, entry)
            self._times["."] = file_time(entry)

    def _make(self, entry: Entry, reader: TarReader, parent: int, name: str, path: str) -> None:
        kind = entry.kind
        if kind == REGULAR:
            self._make_file(entry, reader, parent, name, path)
        elif kind == DIRECTORY:
            self._make_directory(entry, parent, name, path)
        elif kind == SYMLINK:
            self._replacing(lambda: os.symlink(entry.link, name, dir_fd=parent), entry, parent, name, path)
            self.result.size += len(os.fsencode(entry.link))
            self._dress_by_name(entry, parent, name)
        elif kind == HARD_LINK:
            self._make_link(entry, parent, name, path)
        elif kind in _SPECIAL:
            self._make_special(entry, parent, name, path)
        else:
            raise InvalidArchive(f"unhandled tar header type {kind[0]} of {_shown(path)}")

    def _make_file(self, entry: Entry, reader: TarReader, parent: int, name: str, path: str) -> None:
        self._written += entry.size
        if self._written > self._policy.limit_bytes:
            raise InvalidArchive(f"the archive has more than {self._policy.limit_bytes} bytes, which is the limit")
        descriptor = self._replacing(lambda: os.open(name, _CREATE, 0o600, dir_fd=parent), entry, parent, name, path)
        try:
            end = 0
            for offset, piece in reader.pieces():
                if offset != end:
                    os.lseek(descriptor, offset, os.SEEK_SET)  # a hole is left
                end = offset + len(piece)
                written = os.write(descriptor, piece)
                while written < len(piece):
                    written += os.write(descriptor, memoryview(piece)[written:])
            if end != entry.size:
                os.ftruncate(descriptor, entry.size)
            self._dress(descriptor, entry)
            os.utime(descriptor, ns=(file_time(entry), file_time(entry)))
        finally:
            os.close(descriptor)
        self.result.size += entry.size

    def _make_directory(self, entry: Entry, parent: int, name: str, path: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                if self._policy.merge_only:
                    raise InvalidArchive(
                        f'cannot overwrite non-directory "{_shown(path)}" with directory "{_shown(path)}"'
                    ) from None
                remove_tree(name, parent)
                os.mkdir(name, 0o700, dir_fd=parent)
                if self._policy.marks is not None and is_whiteout(info):
                    self._mark_opaque(parent, name, self._policy.marks)
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._dress(descriptor, entry)
        finally:
            os.close(descriptor)
        self._times[path] = file_time(entry)

    def _make_link(self, entry: Entry, parent: int, name: str, path: str) -> None:
        target = _clean(entry.link, entry.name)
        directory, base = posixpath.split(target)
        if target == path:
            return  # to itself: the file is there already, or there is none to link to
        if target == ".":
            raise InvalidArchive(f"{_shown(path)} is a hard link to a directory")
        holder = -1  # held apart from the cache of parents, which might close `parent` to make room
        try:
            holder = open_in_root(self._root, directory, os.O_PATH | os.O_DIRECTORY)
            info = os.stat(base, dir_fd=holder, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                raise InvalidArchive(f"{_shown(path)} is a hard link to a directory")
            self._replacing(
                lambda: os.link(base, name, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False),
                entry,
                parent,
                name,
                path,
            )
        except FileNotFoundError as error:
            raise InvalidArchive(f"{_shown(path)} is a hard link to {_shown(target)}, which isn't there") from error
        except NotADirectoryError as error:
            raise self._unusable(error, directory, path) from error
        finally:
            if holder >= 0:
                os.close(holder)

    def _make_special(self, entry: Entry, parent: int, name: str, path: str) -> None:
        kind = _SPECIAL[entry.kind]
        if entry.kind != FIFO:
            if self._policy.devices == "refuse":
                raise InvalidArchive(f"{_shown(path)} is a device, which isn't allowed here")
            if self._policy.devices == "skip" or (entry.kind == CHARACTER and entry.device == (0, 0)):
                return  # a character device 0:0 is no device, and for overlayfs a whiteout: not an archive's to make
        major, minor = entry.device
        try:
            number = os.makedev(major, minor) if entry.kind != FIFO else 0
            self._replacing(lambda: os.mknod(name, kind | 0o600, number, dir_fd=parent), entry, parent, name, path)
        except PermissionError:
            if self._policy.lenient:
                return  # without the right to make devices, a container gets along without those of its image
            raise
        self._dress_by_name(entry, parent, name)

    # --- attributes --------------------------------------------------------------------------------------------------

    def _dress(self, descriptor: int, entry: Entry) -> None:
        """Give an open file or directory its owner, then its mode (a new owner drops setuid bits), then the rest."""
        uid, gid = self._policy.owner or (entry.uid, entry.gid)
        try:
            os.fchown(descriptor, uid, gid)
        except OSError as error:
            self._forgive(error)
        os.fchmod(descriptor, entry.mode)
        for attribute, value in entry.xattrs.items():
            self._set_attribute(descriptor, attribute, value)

    def _dress_by_name(self, entry: Entry, parent: int, name: str) -> None:
        """The same for what can't be opened."""
        uid, gid = self._policy.owner or (entry.uid, entry.gid)
        try:
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            self._forgive(error)
        if entry.kind != SYMLINK:
            # By a descriptor of the very file: the name may have become a link to elsewhere in the meantime.
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                if not stat.S_ISLNK(os.fstat(place).st_mode):
                    os.chmod(f"/proc/self/fd/{place}", entry.mode)
            finally:
                os.close(place)
        for attribute, value in entry.xattrs.items():
            self._set_attribute(f"/proc/self/fd/{parent}/{name}", attribute, value)
        os.utime(name, ns=(file_time(entry), file_time(entry)), dir_fd=parent, follow_symlinks=False)

    def _set_attribute(self, place: str | int, attribute: str, value: bytes) -> None:
        if not kept_attribute(attribute):
            return  # security labels and overlayfs's own marks are this machine's to set
        try:
            os.setxattr(place, attribute, value, follow_symlinks=isinstance(place, int))
        except OSError as error:
            # As Docker: a file system without such attributes is no reason to refuse the file.
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise

    def _forgive(self, error: OSError) -> None:
        if not (self._policy.lenient and error.errno in (errno.EPERM, errno.EINVAL)):
            raise error

    # --- whiteouts ---------------------------------------------------------------------------------------------------

    def _white_out(self, directory: str, name: str, path: str, marks: Marks) -> None:
        if name == OPAQUE_WHITEOUT:
            if directory:
                above, base = posixpath.split(directory)
                self._parent(directory, path)  # made, if it isn't there
                self._mark_opaque(self._parent(above, path), base, marks)
            return  # of the root itself: nothing is below that a layer could hide but all of the image
        if name.startswith(AUFS_PREFIX):
            return
        gone = name[len(WHITEOUT_PREFIX) :]
        if gone in ("", ".", ".."):
            raise InvalidArchive(f"{_shown(path)} is no name of a whiteout")
        parent = self._parent(directory, path)
        try:
            os.mknod(gone, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # A whiteout is for the layers below; what this layer itself has stays, and hides what is below.
            if stat.S_ISDIR(os.stat(gone, dir_fd=parent, follow_symlinks=False).st_mode):
                self._mark_opaque(parent, gone, marks)

    def _mark_opaque(self, parent: int, name: str, marks: Marks) -> None:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.setxattr(descriptor, marks.opaque, b"y")
        finally:
            os.close(descriptor)

    # --- places ------------------------------------------------------------------------------------------------------

    def _replacing(self, make: Callable[[], _Made], entry: Entry, parent: int, name: str, path: str) -> _Made:
        """Call `make`; where something has the name already, in its place."""
        try:
            return make()
        except FileExistsError:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if self._policy.merge_only and stat.S_ISDIR(info.st_mode):
                raise InvalidArchive(
                    f'cannot overwrite directory "{_shown(path)}" with non-directory "{_shown(path)}"'
                ) from None
            if entry.kind == HARD_LINK and stat.S_ISDIR(info.st_mode):
                raise InvalidArchive(f"{_shown(path)} is a hard link in place of a directory") from None
            if stat.S_ISDIR(info.st_mode):
                self._forget(path)
            remove_tree(name, parent)
            return make()

    def _forget(self, path: str) -> None:
        """A directory goes: no descriptor of it, or of what is beneath, may be used any more."""
        for known in [known for known in self._parents if known == path or known.startswith(f"{path}/")]:
            os.close(self._parents.pop(known))
        for known in [known for known in self._times if known == path or known.startswith(f"{path}/")]:
            del self._times[known]

    def _parent(self, directory: str, path: str) -> int:
        """The open directory of that path beneath the root, made where it is missing."""
        if not directory:
            return self._root
        found = self._parents.get(directory)
        if found is not None:
            return found
        try:
            descriptor = open_in_root(self._root, directory, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            descriptor = self._make_directories(directory, path)
        except OSError as error:
            raise self._unusable(error, directory, path) from error
        while len(self._parents) >= _MOST_PARENTS:
            os.close(self._parents.pop(next(iter(self._parents))))
        self._parents[directory] = descriptor
        return descriptor

    def _make_directories(self, directory: str, path: str) -> int:
        """Make `directory` and those above it that are missing, as 0755 of the owner; returns it, open."""
        parts = directory.split("/")
        above = os.dup(self._root)
        try:
            for number in range(1, len(parts) + 1):
                part = "/".join(parts[:number])
                try:
                    below = open_in_root(self._root, part, os.O_PATH | os.O_DIRECTORY)
                except FileNotFoundError:
                    os.mkdir(parts[number - 1], 0o755, dir_fd=above)
                    below = os.open(
                        parts[number - 1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above
                    )
                    os.fchmod(below, 0o755)  # whatever our umask
                    if self._policy.owner is not None:
                        os.fchown(below, *self._policy.owner)
                os.close(above)
                above = below
        except OSError as error:
            os.close(above)
            raise self._unusable(error, directory, path) from error
        return above

    def _unusable(self, error: OSError, directory: str, path: str) -> OSError | InvalidArchive:
        """What it means that an entry's directory can't be opened or made."""
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENAMETOOLONG, errno.EXDEV, errno.EINVAL):
            return InvalidArchive(f"{_shown(path)}: {_shown(directory)} is no directory ({error.strerror})")
        return error


def _clean(name: str, entry: str) -> str:
    """`name` as a path beneath the root: `./a//b/` is `a/b`, `/etc` is `etc`, and the root itself is `.`.

    Raises:
        InvalidArchive: it leads out, or can't be a path.
    """
    if "\0" in name or not name:
        raise InvalidArchive("archive/tar: invalid tar header: an empty name")
    clean = posixpath.normpath(name)
    if clean.startswith("/"):
        return clean.lstrip("/") or "."  # and `/..` is `/`, as for a process whose root it is
    if clean == ".." or clean.startswith("../"):
        raise InvalidArchive(f'"{_shown(entry)}" is outside of the directory that it is extracted to')
    return clean


def file_time(entry: Entry) -> int:
    """The time that an entry's file gets, in nanoseconds since 1970: what it says, if the kernel can take it."""
    return max(-_LATEST, min(entry.mtime_ns, _LATEST))


def _shown(path: str) -> str:
    """A path as it can stand in a message."""
    return path.encode("utf-8", "backslashreplace").decode() if len(path) <= 200 else f"{_shown(path[:200])}…"
