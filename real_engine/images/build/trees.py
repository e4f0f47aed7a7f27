"""Trees of files beneath an open directory: found and walked with links that can't lead outside.

The directory may be a build context or the (detached) mount of an image. Paths are relative to it, with slashes.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from real_engine.errors import InvalidParameter
from real_engine.images.trees import open_in_root

DEEPEST = 300
"""Directories in each other that are looked at or copied: each takes descriptors, and room on the stack."""

_MOST_LINKS = 40


class Tree:
    """A tree whose root is open at `root`, which stays its maker's to close."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._prefix = os.readlink(f"/proc/self/fd/{root}").rstrip("/")

    @contextmanager
    def opened(self, path: str, flags: int = os.O_PATH) -> Iterator[int]:
        """A descriptor of what `path` leads to, links followed as if the root were `/`.

        Raises:
            OSError: it isn't there.
        """
        descriptor = open_in_root(self.root, path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def status(self, path: str) -> os.stat_result:
        """What kind of file `path` leads to.

        Raises:
            OSError: it isn't there.
        """
        with self.opened(path) as descriptor:
            return os.fstat(descriptor)

    def resolve(self, path: str) -> str:
        """Where `path` leads to, as a path without links; "" for the root.

        Raises:
            OSError: it isn't there.
        """
        with self.opened(path) as descriptor:
            return self._path_of(descriptor)

    def walk(self, path: str = "", depth: int | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """All beneath the directory `path` to that depth, names in the order of their bytes, parents first.

        No link is followed.

        Raises:
            InvalidParameter: they are nested more than `DEEPEST` deep.
        """
        with self.opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            yield from _walk(descriptor, self._path_of(descriptor), depth)

    def _path_of(self, descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(self._prefix).strip("/")

    def make_directory(self, path: str, owner: tuple[int, int], mode: int = 0o755) -> tuple[int, bool]:
        """Open the directory `path`, made with all above it where missing; the new ones belong to `owner`.

        Returns the descriptor, the caller's to close, and whether the last one was made.

        Raises:
            OSError: something on the way is no directory.
        """
        made = False
        for _ in range(_MOST_LINKS):
            parts = [part for part in path.split("/") if part not in ("", ".")]
            try:
                return open_in_root(self.root, "/".join(parts), os.O_RDONLY | os.O_DIRECTORY), made
            except FileNotFoundError:
                path = self._make_first_missing(parts, owner, mode)
                made = True
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _make_first_missing(self, parts: list[str], owner: tuple[int, int], mode: int) -> str:
        """Make the directories that are missing; returns the path, without a dangling link that was met on the way."""
        directory = os.dup(self.root)
        try:
            for index, part in enumerate(parts):
                try:
                    following = open_in_root(self.root, "/".join(parts[: index + 1]), os.O_RDONLY | os.O_DIRECTORY)
                except FileNotFoundError:
                    if part == "..":
                        raise
                    try:
                        os.mkdir(part, mode, dir_fd=directory)
                    except FileExistsError:
                        target = os.readlink(part, dir_fd=directory)  # a link to what isn't there
                        before = [] if target.startswith("/") else parts[:index]
                        return "/".join([*before, *target.split("/"), *parts[index + 1 :]])
                    following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                    os.fchown(following, *owner)
                    os.fchmod(following, mode)
                os.close(directory)
                directory = following
        finally:
            os.close(directory)
        return "/".join(parts)


def check_depth(depth: int, path: str) -> None:
    """See that directories are not nested too deeply to be looked at.

    Raises:
        InvalidParameter: `depth` is more than `DEEPEST`.
    """
    if depth > DEEPEST:
        raise InvalidParameter(f"directories are nested more than {DEEPEST} deep, at {path[:100]}…")


def _walk(directory: int, prefix: str, depth: int | None, level: int = 0) -> Iterator[tuple[str, os.stat_result]]:
    if depth == 0:
        return
    check_depth(level, prefix)
    for name in sorted(os.listdir(directory), key=os.fsencode):
        path = f"{prefix}/{name}" if prefix else name
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                yield from _walk(descriptor, path, None if depth is None else depth - 1, level + 1)
            finally:
                os.close(descriptor)
