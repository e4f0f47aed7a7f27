"""The C library, called with the GIL held, and errors raised as real `OSError`s that name the path.

`ctypes.PyDLL` keeps the GIL across a call. That is what makes `clone3` from Python sound: the child is a copy of a
thread that holds the lock, instead of one that has to ask a thread that doesn't exist there for it. The calls of this
package are short, so holding the lock does no harm in the parent; whatever may wait long goes through `os`.
"""

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from typing import Any, NoReturn

libc = ctypes.PyDLL(None, use_errno=True)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# Numbers of the system calls that the C library doesn't wrap everywhere. Since Linux 5.1 a new call has one number on
# all architectures; older ones differ. Source: arch/x86/entry/syscalls/syscall_64.tbl and asm-generic/unistd.h.
_EVERYWHERE = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
_OLDER = {
    "x86_64": {"rt_sigaction": 13, "clone": 56, "pivot_root": 155, "seccomp": 317, "bpf": 321},
    "aarch64": {"rt_sigaction": 134, "clone": 220, "pivot_root": 41, "seccomp": 277, "bpf": 280},
}


def syscall(name: str, *argtypes: Any) -> Callable[..., int]:
    """The system call `name` as a function of arguments of the C types `argtypes`; -1 means failure, see `fail`.

    On an architecture whose numbers are not known, the function raises `OSError` with ENOSYS when it is called.
    """
    number = _EVERYWHERE.get(name) or _OLDER.get(platform.machine(), {}).get(name, -1)
    function = libc["syscall"]  # indexing makes a new function object, so each call has argument types of its own
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_long, *argtypes)

    def call(*arguments: Any) -> int:
        result: int = function(number, *arguments)
        return result

    return call


def function(name: str, *argtypes: Any) -> Callable[..., int]:
    """The C library's function `name`, which returns an int and sets errno, for arguments of the C types `argtypes`."""
    try:
        found = libc[name]
    except AttributeError:  # not Linux: the modules can be imported and read there, and their calls fail

        def refuse(*_: Any) -> NoReturn:
            raise OSError(errno.ENOSYS, f"this system has no {name}")

        return refuse
    found.restype = ctypes.c_int
    found.argtypes = argtypes
    return found


def fail(what: str | bytes | os.PathLike[str] | None = None) -> NoReturn:
    """Raise the errno of the last call as an `OSError` (of its right subclass) about the path or object `what`."""
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fsdecode(what) if what is not None else None)
