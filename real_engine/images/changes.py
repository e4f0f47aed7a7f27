"""What a container has changed: its upper directory compared with the layers below.

As `docker diff` tells it (moby pkg/archive/changes.go, `addChanges`): added, modified, deleted, and a directory as
modified when something in it was. Docker walks both whole file systems for that; here only the upper directory is
walked, since overlayfs puts there all that differs, and a directory's times and size don't count, as with Docker.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from real_engine.images.marks import Marks, is_whiteout
from real_engine.images.rootfs import mounted
from real_engine.images.trees import open_beneath

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODIFIED, ADDED, DELETED = 0, 1, 2

_SECOND = 1_000_000_000
_CAPABILITY = "security.capability"


@dataclass(frozen=True, slots=True)
class Change:
    """A path (absolute, as the container sees it) and what became of it: 0 modified, 1 added, 2 deleted."""

    kind: int
    path: str


def changes(upper: Path, lower: Sequence[Path], marks: Marks | None = None) -> list[Change]:
    """What the overlay's `upper` directory changes of `lower`, the lowest first; sorted by path.

    Raises:
        OSError: it can't be read, or the layers can't be mounted to look at them.
    """
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with mounted(lower) as below:
            comparison = _Comparison(root, below, marks or Marks.for_this_process())
            comparison.walk()
    finally:
        os.close(root)
    return sorted(comparison.found.values(), key=lambda change: os.fsencode(change.path))


class _Comparison:
    def __init__(self, root: int, below: int, marks: Marks) -> None:
        self.found: dict[str, Change] = {}
        self._root = root
        self._below = below
        self._marks = marks

    def walk(self) -> None:
        """Compare all that is in the upper directory, each directory before what is in it."""
        waiting = [("/", True)]
        while waiting:
            inside, was_directory = waiting.pop()
            directory = open_beneath(self._root, inside.lstrip("/"))
            below = open_beneath(self._below, inside.lstrip("/")) if was_directory else -1
            try:
                waiting += self._directory(inside, directory, below)
            finally:
                os.close(directory)
                if below >= 0:
                    os.close(below)

    def _directory(self, inside: str, directory: int, below: int) -> list[tuple[str, bool]]:
        """Compare the entries of one directory; returns those that are directories, and whether they were before."""
        deeper = []
        names = os.listdir(directory)
        for name in names:
            path = posixpath.join(inside, name)
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            old = None if below < 0 else _status(name, below)
            if is_whiteout(info):
                if old is not None:
                    self._tell(DELETED, path)
                continue
            if old is None:
                self._tell(ADDED, path)
            elif _differ(old, info) or _capability(name, below) != _capability(name, directory):
                self._tell(MODIFIED, path)
            if stat.S_ISDIR(info.st_mode):
                deeper.append((path, old is not None and stat.S_ISDIR(old.st_mode)))
        if below >= 0 and inside != "/" and self._marks.is_opaque(directory):
            for name in set(os.listdir(below)) - set(names):
                self._tell(DELETED, posixpath.join(inside, name))
        return deeper

    def _tell(self, kind: int, path: str) -> None:
        """Note a change, and that the directories above, as far as nothing is told of them, have been modified."""
        self.found[path] = Change(kind, path)
        above = posixpath.dirname(path)
        while above != "/" and above not in self.found:
            self.found[above] = Change(MODIFIED, above)
            above = posixpath.dirname(above)


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _differ(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return old.st_size != new.st_size or not _same_time(old.st_mtime_ns, new.st_mtime_ns)


def _same_time(one: int, other: int) -> bool:
    """Whether two times are the same, as far as both are known: a layer's archive may hold whole seconds alone."""
    if one % _SECOND and other % _SECOND:
        return one == other
    return one // _SECOND == other // _SECOND


def _capability(name: str, directory: int) -> bytes:
    try:
        return os.getxattr(f"/proc/self/fd/{directory}/{name}", _CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise
