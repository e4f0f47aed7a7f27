"""Trees of files that somebody else has made: opened, measured and removed without following a link out of them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from real_engine.linux.processes import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

if TYPE_CHECKING:
    from pathlib import Path

_STRICTLY = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 32  # openat2(2): EAGAIN where `..` was followed while something else was renamed; try again
_DEEPEST = 100  # directories that are held open at once


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as a process would whose root is the directory `root`: links are followed, and none leads out.

    Raises:
        OSError: as open(2).
    """
    for _ in range(_ATTEMPTS):
        try:
            return openat2(root, path or ".", flags, _IN_ROOT)
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, "something is being renamed all the time", path)


def open_beneath(root: int, path: str, flags: int = _DIRECTORY) -> int:
    """Open `path` beneath the directory `root`, without following any link.

    Raises:
        OSError: ELOOP where there is a link on the way; else as open(2).
    """
    return openat2(root, path or ".", flags, _STRICTLY)


def open_regular(
    path: str, directory: int, resolve_in_root: bool = False, expected: os.stat_result | None = None
) -> int:
    """Open a regular file of somebody else's tree for reading; its last part is followed only with `resolve_in_root`.

    What it is, is found out before it is opened: to open a device can be an act (a watchdog's timer starts, a tape is
    rewound), and to open a pipe can take for ever.

    Raises:
        OSError: as open(2); EINVAL where it is no regular file; ESTALE where it isn't the `expected` one.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    place = open_in_root(directory, path) if resolve_in_root else os.open(path, flags, dir_fd=directory)
    try:
        info = os.fstat(place)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        if expected is not None and (info.st_dev, info.st_ino) != (expected.st_dev, expected.st_ino):
            raise OSError(errno.ESTALE, "another file", path)
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(place)


def size_bytes(directory: str | Path) -> int:
    """The sizes of the files beneath a directory, each hard-linked file once (moby daemon/internal directory.Size).

    Whoever has it mounted may change it meanwhile. What is deeper than a path can say (4096 bytes) isn't counted.

    Raises:
        OSError: it isn't there.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    top = os.open(directory, _DIRECTORY)
    try:
        waiting = [""]
        while waiting:
            inside = waiting.pop()
            for name, info in _infos(top, inside):
                if stat.S_ISDIR(info.st_mode):
                    waiting.append(f"{inside}/{name}" if inside else name)
                    continue
                if info.st_nlink > 1:
                    if (info.st_dev, info.st_ino) in seen:
                        continue
                    seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    finally:
        os.close(top)
    return total


def _infos(top: int, inside: str) -> list[tuple[str, os.stat_result]]:
    """The entries of a directory beneath `top` and what they are; none where it has gone or lies too deep."""
    try:
        directory = open_beneath(top, inside)
    except OSError:
        return []
    found = []
    try:
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):  # removed while we look
                found.append((name, os.stat(name, dir_fd=directory, follow_symlinks=False)))
    finally:
        os.close(directory)
    return found


def remove_tree(path: str | Path, directory: int | None = None) -> None:
    """Remove a file or a directory with all in it; nothing to do if it isn't there.

    However deep the tree is, little memory and few descriptors are used: what is deeper than 100 directories is moved
    up before it is removed (its maker may have meant it to exhaust the stack of whoever removes it).

    Raises:
        OSError: something in it can't be removed.
    """
    try:
        os.unlink(path, dir_fd=directory)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        if not stat.S_ISDIR(os.stat(path, dir_fd=directory, follow_symlinks=False).st_mode):
            raise
    top = os.open(path, _DIRECTORY, dir_fd=directory)
    try:
        _empty(top, top, 0, [0])
    finally:
        os.close(top)
    os.rmdir(path, dir_fd=directory)


def _empty(directory: int, top: int, depth: int, moved: list[int]) -> None:
    """Remove all that is in `directory`."""
    while True:
        with os.scandir(directory) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        if not names:
            return
        before = moved[0]
        for name, is_directory in names:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
                continue
            if depth >= _DEEPEST:
                moved[0] += 1
                os.rename(name, f".{moved[0]}.{os.getpid()}.removed", src_dir_fd=directory, dst_dir_fd=top)
                continue
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                _empty(inner, top, depth + 1, moved)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=directory)
        if directory != top or before == moved[0]:
            return
