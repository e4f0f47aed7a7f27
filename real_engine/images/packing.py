"""Packs a directory into a tar archive: in canonical order, without following links, as a stream."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from real_engine.errors import EngineError
from real_engine.images import tar_writer
from real_engine.images.marks import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Marks, is_whiteout
from real_engine.images.tar_reader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
)
from real_engine.images.trees import open_beneath, open_in_root, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_CHUNK = 1 << 20
_SMALL = 1 << 16  # bytes of a file that goes out in one piece with its header
_JOINED = 1 << 18  # bytes of small files that go out together
_SECOND = 1_000_000_000
_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_MOVED_OR_BARE = ("redirect", "metacopy")


def kept_attribute(name: str) -> bool:
    """Whether an extended attribute goes along with a file: capabilities, access lists, and what users set.

    Security labels and `trusted` attributes belong to a machine, overlayfs's marks to a mount.
    """
    if name.startswith(_OVERLAY):
        return False
    return name == "security.capability" or name.startswith(("user.", "system.posix_acl_"))


def write_tar(
    root: int,
    paths: Mapping[str, str] | None = None,
    *,
    marks: Marks | None = None,
    whole_seconds: bool = False,
    mtime_ns: int | None = None,
    owner: tuple[int, int] | None = None,
    skip: Callable[[str], bool] | None = None,
    settle: bool = False,
    seen: Callable[[Entry], None] | None = None,
) -> Iterator[bytes]:
    """The tar archive of what is beneath the open directory `root`, piece by piece.

    `paths` maps each path (resolved as beneath a root, but for its last part, which is not followed) to the name that
    it gets in the archive; `{".": ""}`, the default, is all that is in the root, without an entry for the root itself.
    With `marks` the root is an overlay's upper directory, and its marks become whiteouts. `whole_seconds` cuts times as
    Docker's layers have them; `mtime_ns` is one time for all, in nanoseconds since 1970. `owner` is (uid, gid) for all.
    What `skip` says of a path is left out, with all in it. `seen` is told of each entry.
    Sockets are left out, as Docker does. `settle` makes the files what their archive says of them: their times are cut
    like those in it, and sockets are removed.
    `root` must stay open until the last piece is out.

    Raises:
        FileNotFoundError: one of `paths` isn't there.
        EngineError: a file became shorter while it was read, or an overlay has what no layer can say.
        OSError: it can't be read.
    """
    pack = _Pack(marks, whole_seconds, mtime_ns, owner, skip, settle, seen)
    for path, name in (paths if paths is not None else {".": ""}).items():
        yield from _joined(pack.tree(root, posixpath.normpath(path), name))
    yield tar_writer.END


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, small pieces together: whoever takes them has something to do for each, such as a system call."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if len(piece) > _SMALL:
            if waiting:
                yield b"".join(waiting)
                waiting, size = [], 0
            yield piece  # not copied
            continue
        waiting.append(piece)
        size += len(piece)
        if size > _JOINED:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


@dataclass(slots=True)
class _Pack:
    marks: Marks | None
    whole_seconds: bool
    mtime_ns: int | None
    owner: tuple[int, int] | None
    skip: Callable[[str], bool] | None
    settle: bool
    seen: Callable[[Entry], None] | None
    links: dict[tuple[int, int], str] = field(default_factory=dict)

    def tree(self, root: int, path: str, name: str) -> Iterator[bytes]:
        """`path` and all that is beneath it, as `name`."""
        above, base = posixpath.split(path.strip("/"))
        if base in ("", "."):
            top = open_in_root(root, ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield from self._directory(top, name)
            finally:
                os.close(top)
            return
        parent = open_in_root(root, above, os.O_PATH | os.O_DIRECTORY)
        try:
            info = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                top = open_beneath(parent, base)
                try:
                    yield from self._directory(top, name)
                finally:
                    os.close(top)
            else:
                yield from self._file(parent, base, name, info)
        finally:
            os.close(parent)

    def _directory(self, top: int, name: str) -> Iterator[bytes]:
        """A directory (without an entry of its own if it has no `name`), the files in it, then its directories.

        All by name, in the order of their bytes. Each directory is opened by its path from the top, so that a deep tree
        doesn't take many descriptors.
        """
        waiting = [("", name)]
        while waiting:
            inside, name = waiting.pop()
            try:
                directory = open_beneath(top, inside)
            except FileNotFoundError:
                continue  # removed since: a live directory may change
            try:
                before = os.fstat(directory)
                if name:
                    yield from self._directory_entry(directory, name, before)
                below = []
                for base in sorted(os.listdir(directory), key=os.fsencode):
                    path = f"{inside}/{base}" if inside else base
                    if self.skip is not None and self.skip(path):
                        continue
                    try:
                        info = os.stat(base, dir_fd=directory, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    entry_name = f"{name}/{base}" if name else base
                    if stat.S_ISDIR(info.st_mode):
                        below.append((path, entry_name))
                    else:
                        yield from self._file(directory, base, entry_name, info)
                waiting += reversed(below)
                if self.settle:
                    os.utime(directory, ns=(before.st_atime_ns, self._time(before)))
            finally:
                os.close(directory)

    def _directory_entry(self, directory: int, name: str, info: os.stat_result) -> Iterator[bytes]:
        entry = self._entry_of(info, DIRECTORY, name)
        entry.xattrs = self._attributes(directory, name)
        yield self._header(entry)
        if self.marks is not None and self.marks.is_opaque(directory):
            mark = Entry(f"{name}/{OPAQUE_WHITEOUT}", mode=0o600, mtime_ns=entry.mtime_ns)
            yield self._header(mark)

    def _file(self, directory: int, base: str, name: str, info: os.stat_result) -> Iterator[bytes]:
        """Anything but a directory."""
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            if self.settle:
                os.unlink(base, dir_fd=directory)
            return  # a socket is nothing without the process that made it
        if self.marks is not None and is_whiteout(info):
            above, slash, _ = name.rpartition("/")
            gone = Entry(f"{above}{slash}{WHITEOUT_PREFIX}{base}", mode=0o600, mtime_ns=self._time(info))
            yield self._header(gone)
            return
        entry = self._entry_of(info, kind, name)
        if info.st_nlink > 1:
            first = self.links.setdefault((info.st_dev, info.st_ino), name)
            if first != name:
                entry.kind, entry.link, entry.size = HARD_LINK, first, 0
                yield self._header(entry)
                return
        if self.settle and info.st_mtime_ns != entry.mtime_ns:
            os.utime(base, ns=(info.st_atime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)
        if kind == REGULAR and info.st_size:
            yield from self._with_data(directory, base, entry, info)
            return
        entry.xattrs = self._attributes(f"/proc/self/fd/{directory}/{base}", name)
        if kind == SYMLINK:
            entry.link = os.readlink(base, dir_fd=directory)
        elif kind in (CHARACTER, BLOCK_DEVICE):
            entry.device = (os.major(info.st_rdev), os.minor(info.st_rdev))
        yield self._header(entry)

    def _with_data(self, directory: int, base: str, entry: Entry, info: os.stat_result) -> Iterator[bytes]:
        try:
            descriptor = open_regular(base, directory, expected=info)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ESTALE):
                raise
            raise EngineError(f"{entry.name} was replaced while it was read") from error
        try:
            entry.xattrs = self._attributes(descriptor, entry.name)
            start = self._header(entry)
            left = entry.size
            while left:
                piece = os.read(descriptor, min(left, _CHUNK))
                if not piece:
                    raise EngineError(f"{entry.name} became shorter while it was read")
                left -= len(piece)
                end = b"" if left else tar_writer.padding(entry.size)
                if len(piece) <= _SMALL:
                    yield start + piece + end
                else:
                    yield from (part for part in (start, piece, end) if part)  # not copied together
                start = b""
        finally:
            os.close(descriptor)

    def _header(self, entry: Entry) -> bytes:
        if self.seen is not None:
            self.seen(entry)
        return tar_writer.header(entry)

    def _entry_of(self, info: os.stat_result, kind: bytes, name: str) -> Entry:
        uid, gid = self.owner or (info.st_uid, info.st_gid)
        size = info.st_size if kind == REGULAR else 0
        return Entry(name, kind, stat.S_IMODE(info.st_mode), uid, gid, size, self._time(info))

    def _time(self, info: os.stat_result) -> int:
        if self.mtime_ns is not None:
            return self.mtime_ns
        return info.st_mtime_ns // _SECOND * _SECOND if self.whole_seconds else info.st_mtime_ns

    def _attributes(self, place: str | int, name: str) -> dict[str, bytes]:
        follow = isinstance(place, int)
        try:
            names = os.listxattr(place, follow_symlinks=follow)
        except OSError:
            return {}  # a file system without attributes, or a file that is gone
        kept = {}
        for attribute in names:
            if self.marks is not None and attribute in (f"{self.marks.prefix}{what}" for what in _MOVED_OR_BARE):
                raise EngineError(
                    f"{name} was moved by overlayfs without a copy ({attribute}), which a layer can't say: "
                    "mount it with redirect_dir=off,metacopy=off"
                )
            if kept_attribute(attribute):
                try:
                    kept[attribute] = os.getxattr(place, attribute, follow_symlinks=follow)
                except OSError:
                    continue  # removed since
        return kept
