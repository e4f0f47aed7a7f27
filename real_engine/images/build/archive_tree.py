"""The files of a tar archive as a tree in memory, so that a build whose steps are all cached writes none of them.

Only for archives that leave no doubt what comes of them: each path once, directories before what is in them or not at
all, no hard links or devices, nothing that leads out. All others are extracted at once, and looked at on the disk.
"""

import errno
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from real_engine.images.archive import file_time
from real_engine.images.build.copier import Dress, copy_range, directory_to_fill, file_to_fill, make_room
from real_engine.images.build.trees import check_depth
from real_engine.images.tar_reader import DIRECTORY, REGULAR, SYMLINK, Entry

_MOST_LINKS = 40
_KINDS = {REGULAR: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}


@dataclass(slots=True)
class Node:
    """A file of the tree: its kind and permissions, owner, time, and where in the archive its data begins."""

    mode: int
    link: str = ""
    size: int = 0
    owner: tuple[int, int] = (0, 0)
    mtime_ns: int = 0
    attributes: dict[str, bytes] = field(default_factory=dict)
    offset: int = 0
    children: "dict[str, Node]" = field(default_factory=dict)

    @property
    def status(self) -> os.stat_result:
        """What stat(2) would say of it on the disk."""
        seconds = self.mtime_ns // 1_000_000_000
        times = {"st_atime_ns": self.mtime_ns, "st_mtime_ns": self.mtime_ns}
        return os.stat_result((self.mode, 0, 0, 1, *self.owner, self.size, seconds, seconds, seconds), times)


class ArchiveCopier:
    """Copies nodes of the tree of the open file `archive`, without extracting it."""

    def __init__(self, archive: int, dress: Dress) -> None:
        self._archive = archive
        self._dress = dress

    def content(self, node: Node, place: int, level: int = 0) -> None:
        """Copy what is in a directory, which is so many below the first, into the open `place`.

        Raises:
            OSError: no room.
            InvalidParameter: directories are nested too deeply.
        """
        for name, child in node.children.items():
            check_depth(level, name)
            self.entry(child, place, name, level)

    def entry(self, node: Node, place: int, name: str, level: int = 0) -> None:
        """Copy a file to `name` in the open `place`; what was there goes, unless both are directories.

        Raises:
            OSError: no room.
            InvalidParameter: directories are nested too deeply.
        """
        if stat.S_ISDIR(node.mode):
            with directory_to_fill(name, place) as copied:
                self.content(node, copied, level + 1)
                self._dress.put_on(copied, node.status, node.attributes)
        elif stat.S_ISLNK(node.mode):
            make_room(place, name)
            os.symlink(node.link, name, dir_fd=place)
            self._dress.put_on_name(name, place, node.status)
        else:
            with file_to_fill(name, place) as copied:
                if copy_range(self._archive, node.offset, copied, node.size) < node.size:
                    raise OSError(errno.EIO, "the build context has become shorter", name)
                self._dress.put_on(copied, node.status, node.attributes)


class Doubtful(Exception):
    """What comes of the archive can't be told without extracting it."""


class ArchiveTree:
    """The tree of an archive's entries, which `add` takes in their order. Paths are as in `trees.Tree`."""

    def __init__(self) -> None:
        self._root = _implied()

    def add(self, entry: Entry, member: tarfile.TarInfo) -> str:
        """Take an entry, read by both readers of archives; returns its path.

        Raises:
            Doubtful: see the module.
        """
        kind = _KINDS.get(entry.kind)
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        if (
            kind is None
            or entry.name.startswith("/")
            or ".." in parts
            or "\0" in entry.name
            or member.issparse()
            or member.size != entry.size
            or [part for part in member.name.split("/") if part not in ("", ".")] != parts
        ):
            raise Doubtful
        if not parts:
            if kind != stat.S_IFDIR:
                raise Doubtful
            return ""
        directory = self._root
        for part in parts[:-1]:
            directory = directory.children.setdefault(part, _implied())
            if not stat.S_ISDIR(directory.mode):
                raise Doubtful
        if parts[-1] in directory.children:
            raise Doubtful
        directory.children[parts[-1]] = Node(
            kind | (0o777 if kind == stat.S_IFLNK else entry.mode),
            entry.link,
            entry.size,
            (entry.uid, entry.gid),
            file_time(entry),
            entry.xattrs,
            member.offset_data,
        )
        return "/".join(parts)

    def status(self, path: str) -> os.stat_result:
        """What kind of file `path` leads to.

        Raises:
            OSError: it isn't there.
        """
        return self._find(path)[1].status

    def resolve(self, path: str) -> str:
        """Where `path` leads to.

        Raises:
            OSError: it isn't there.
        """
        return self._find(path)[0]

    def walk(self, path: str = "", depth: int | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """All beneath the directory `path`, names in the order of their bytes, parents first.

        Raises:
            OSError: it isn't there.
            InvalidParameter: directories are nested too deeply.
        """
        found, node = self._find(path)
        yield from _walk(node, found, depth)

    def remove(self, path: str) -> None:
        """Take a file out.

        Raises:
            OSError: it isn't there.
        """
        parent, name = os.path.split(self.resolve(path))
        del self._find(parent)[1].children[name]

    def node(self, path: str) -> Node:
        """What `path` leads to.

        Raises:
            OSError: it isn't there.
        """
        return self._find(path)[1]

    def _find(self, path: str) -> tuple[str, Node]:
        """The node that `path` leads to, links followed as if the root were `/`, and its path."""
        waiting = path.split("/")[::-1]
        at: list[tuple[str, Node]] = []
        links = 0
        while waiting:
            part = waiting.pop()
            directory = at[-1][1] if at else self._root
            if part in ("", "."):
                continue
            if not stat.S_ISDIR(directory.mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if part == "..":
                del at[-1:]
                continue
            node = directory.children.get(part)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if stat.S_ISLNK(node.mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if node.link.startswith("/"):
                    at = []
                waiting += node.link.split("/")[::-1]
                continue
            at.append((part, node))
        return "/".join(part for part, _ in at), at[-1][1] if at else self._root


def _implied() -> Node:
    """A directory that the archive has no entry for."""
    return Node(stat.S_IFDIR | 0o755, mtime_ns=time.time_ns())


def _walk(node: Node, prefix: str, depth: int | None, level: int = 0) -> Iterator[tuple[str, os.stat_result]]:
    if depth == 0:
        return
    check_depth(level, prefix)
    if not stat.S_ISDIR(node.mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), prefix)
    for name in sorted(node.children, key=os.fsencode):
        child = node.children[name]
        path = f"{prefix}/{name}" if prefix else name
        yield path, child.status
        if stat.S_ISDIR(child.mode):
            yield from _walk(child, path, None if depth is None else depth - 1, level + 1)
