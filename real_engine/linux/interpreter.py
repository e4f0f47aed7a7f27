"""This Python's executable, as a program from which nobody can get at the file itself (CVE-2019-5736).

Before a program of a container takes its place, a process is a copy of ours, and /proc/PID/exe leads to our executable.
Who may follow that link could write to it: when it is the host's file, to the program that the host runs next as root.
A check before execve can be raced by what runs in the container already. So long-lived processes that enter containers
are started from a read-only mount of the executable: the link leads to that mount, on which nothing can be written.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from typing import NoReturn

from real_engine.linux.mounts import MOUNT_ATTR_RDONLY, open_tree_clone, set_attributes

_OWN = "/proc/self/exe"


class _Refuse(importlib.abc.MetaPathFinder):
    """Finds nothing, and lets nobody else look."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        self._refuse(fullname)

    @staticmethod
    def _refuse(name: str) -> NoReturn:
        raise ImportError(f"{name} is not imported any more: it could be the container's file", name=name)


_REFUSE = _Refuse()


def refuse_imports() -> None:
    """From here on this process imports nothing (CVE-2019-14271).

    For a process that is about to enter a container: the files at the paths of our modules are the container's from
    then on, and what is imported is executed, with all rights that the process still has.
    """
    sys.meta_path[:] = [_REFUSE]


def read_only_interpreter() -> int:
    """A close-on-exec descriptor of this Python's executable on a read-only mount that has no place.

    Execute it as /proc/self/fd/N, with the usual path as `argv[0]`, by which Python finds its library:
    `Popen([sys.executable, …], executable=f"/proc/self/fd/{n}", pass_fds=[n])`.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, ENOSYS before Linux 5.12.
    """
    return read_only_file(os.path.realpath(sys.executable))


def read_only_file(path: str) -> int:
    """A close-on-exec descriptor of the file at `path` on a read-only mount that has no place.

    Raises:
        OSError: see `read_only_interpreter`.
    """
    tree = open_tree_clone(path)
    try:
        # Recursive, though there is one mount: older kernels would remount one that has a place instead.
        set_attributes(tree, MOUNT_ATTR_RDONLY, recursive=True)
    except BaseException:
        os.close(tree)
        raise
    return tree


def is_read_only() -> bool:
    """Whether this process's executable is reached through a read-only mount or file system."""
    descriptor = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
    finally:
        os.close(descriptor)
