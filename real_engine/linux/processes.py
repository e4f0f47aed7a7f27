"""Processes: clone3 into new namespaces, and what a process does to itself before it runs another program.

Fork safety. After `clone3` the child is a copy of the calling thread alone, which holds the GIL (see `libc`). Where
that thread is the only one, the child can run Python without more ado. Where there are others, they may have asked for
the GIL, or hold a lock of the C library's allocator, and a child without them would wait for ever. Then `clone3` goes
by way of `os.fork`, which sets both right, and it is the fork, with its one thread, that clones (CLONE_PARENT makes the
clone the caller's own child all the same). That costs a millisecond: start containers from a process with one thread.
"""

import ctypes
import errno
import os
from collections.abc import Sequence
from signal import SIGCHLD, SIGKILL, SIGSTOP

from real_engine.linux.libc import fail, function, syscall

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_PARENT_SETTID = 0x00100000
CLONE_CLEAR_SIGHAND = 0x1_0000_0000
CLONE_INTO_CGROUP = 0x2_0000_0000
NAMESPACE_NAMES = {
    CLONE_NEWUSER: "CLONE_NEWUSER",
    CLONE_NEWNS: "CLONE_NEWNS",
    CLONE_NEWPID: "CLONE_NEWPID",
    CLONE_NEWNET: "CLONE_NEWNET",
    CLONE_NEWIPC: "CLONE_NEWIPC",
    CLONE_NEWUTS: "CLONE_NEWUTS",
    CLONE_NEWCGROUP: "CLONE_NEWCGROUP",
}

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_LAST_DESCRIPTOR = 0xFFFF_FFFF


class _CloneArgs(ctypes.Structure):
    """`struct clone_args`, version 2 (Linux 5.7)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


class _OpenHow(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_clone3 = syscall("clone3", ctypes.POINTER(_CloneArgs), ctypes.c_size_t)
_clone = syscall("clone", ctypes.c_ulong, *(ctypes.c_void_p,) * 4)
_openat2 = syscall("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_close_range = syscall("close_range", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_pidfd_send_signal = syscall("pidfd_send_signal", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_sethostname = function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)
_execve = function("execve", ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_char_p))
_sigfillset = function("sigfillset", ctypes.c_void_p)
_sigemptyset = function("sigemptyset", ctypes.c_void_p)
_sigprocmask = function("sigprocmask", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_SIGSET_BYTES = 128
_SIG_SETMASK = 2

# `signal` of the C library returns the old handler, so it has a prototype of its own.
_rt_sigaction = syscall("rt_sigaction", ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_SIGNAL_SET_BYTES = 8
_LAST_SIGNAL = 64
_UNCHANGEABLE = (SIGKILL, SIGSTOP)


def clone3(flags: int, cgroup: int | None = None, join: Sequence[tuple[int, int]] = ()) -> tuple[int, int]:
    """Clone this process into the namespaces that `flags` names, and into the v2 cgroup whose directory is open.

    `join` are namespaces that exist, as (descriptor, CLONE_NEW… bit), for the child alone: a PID namespace can be
    entered only by being born in it.

    Returns (pid, pidfd) in the parent and (0, -1) in the child, whose signal handlers are reset to the default.

    Raises:
        OSError: EPERM without the right to make a namespace, ENOSPC when too many are nested or in use.
    """
    if not join and not has_other_threads():
        return _clone3_alone(flags, cgroup)
    return _clone3_by_a_fork(flags, cgroup, join)


def has_other_threads() -> bool:
    """Whether this process has more than one thread."""
    return os.stat("/proc/self/task").st_nlink > 3  # a directory has one link for each one in it, and two more


def _clone3_alone(flags: int, cgroup: int | None) -> tuple[int, int]:
    """`clone3` for a process with one thread."""
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd=ctypes.addressof(pidfd),
        # A child of our parent's ends with the signal that we end with.
        exit_signal=0 if flags & CLONE_PARENT else int(SIGCHLD),
    )
    if cgroup is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    pid = _clone3(ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid < 0:
        fail("clone3")
    return pid, pidfd.value if pid else -1


def clone_sibling(number: ctypes.c_int) -> int:
    """Clone this process, which has one thread, as one more child of its own parent; returns 0 in the new process.

    The kernel itself writes the new process's PID to `number`, before it runs: put that into memory which the parent
    shares, and it knows of its child even if this process is killed at once. This is the older `clone`, since a system
    call filter can look at the flags of that one, and Docker's allows it.
    """
    # What stands after the PID's address differs between architectures, and is of no use here.
    pid = _clone(CLONE_PARENT | CLONE_PARENT_SETTID, None, ctypes.addressof(number), None, None)
    if pid < 0:
        fail("clone")
    return pid


def _clone3_by_a_fork(flags: int, cgroup: int | None, join: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """`clone3` for a process with several threads, or one that must not enter the namespaces that its child enters."""
    receive, send = os.pipe2(os.O_CLOEXEC)
    try:
        fork = os.fork()
        if fork == 0:
            number = 0
            try:
                for descriptor, kind in join:
                    setns(descriptor, kind)
                number, _ = _clone3_alone(flags | CLONE_PARENT, cgroup)
                if number == 0:
                    return 0, -1
            except BaseException as error:  # whatever it is, no copy of the caller may go on from here
                number = -(getattr(error, "errno", None) or errno.EAGAIN)
            os.write(send, str(number).encode())
            os._exit(0)
        os.close(send)
        send = -1
        os.waitid(os.P_PID, fork, os.WEXITED)
        number = int(os.read(receive, 64) or -errno.EAGAIN)  # nothing: the fork was killed
    finally:
        os.close(receive)
        if send >= 0:
            os.close(send)
    if number < 0:
        raise OSError(-number, os.strerror(-number), "clone3")
    return number, open_child(number)


def open_child(pid: int) -> int:
    """A descriptor of our child `pid`, whose number nobody but we can free.

    Raises:
        OSError: no descriptor is free. The child is killed then, since nobody could watch over it.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        raise


class BlockedSignals:
    """A context in which this thread gets no signals, by the C library alone: Python's own handlers stay out of it.

    A child that is cloned inside begins with all signals blocked, so that no handler of Python can run in it.
    """

    def __enter__(self) -> None:
        self._old = ctypes.create_string_buffer(_SIGSET_BYTES)
        every = ctypes.create_string_buffer(_SIGSET_BYTES)
        _sigfillset(every)
        _sigprocmask(_SIG_SETMASK, every, self._old)

    def __exit__(self, *exception: object) -> None:
        _sigprocmask(_SIG_SETMASK, self._old, None)


def unblock_signals() -> None:
    """Let every signal through again."""
    empty = ctypes.create_string_buffer(_SIGSET_BYTES)
    _sigemptyset(empty)
    _sigprocmask(_SIG_SETMASK, empty, None)


def set_default_actions() -> None:
    """Give every signal its default action: an ignored one stays so over execve, a handled one doesn't.

    By the system call: the C library refuses to touch 32 and 33, which it uses itself, and whose own posix_spawn leaves
    them ignored in what it starts.
    """
    default = bytes(32)  # struct kernel_sigaction: SIG_DFL is 0, no flags, an empty mask
    for number in range(1, _LAST_SIGNAL + 1):
        if number not in _UNCHANGEABLE and _rt_sigaction(number, default, None, _SIGNAL_SET_BYTES) < 0:
            fail(f"signal {number}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    if _unshare(flags) < 0:
        fail("unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move this process into the namespace open at `descriptor`, which is of the `CLONE_NEW…` kind."""
    if _setns(descriptor, kind) < 0:
        fail("setns")


def openat2(directory: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` beneath the open `directory`, under the `RESOLVE_…` rules; returns a close-on-exec descriptor.

    Raises:
        OSError: ELOOP or EXDEV when a rule was broken.
    """
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    descriptor = _openat2(directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        fail(path)
    return descriptor


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    if _close_range(first, _LAST_DESCRIPTOR, 0) < 0:
        fail("close_range")


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """prctl(2) for the options that take numbers."""
    if _prctl(option, first, second, 0, 0) < 0:
        fail("prctl")


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    encoded = name.encode()
    if _sethostname(encoded, len(encoded)) < 0:
        fail(name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    encoded = name.encode()
    if _setdomainname(encoded, len(encoded)) < 0:
        fail(name)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send `signal` to the process that `pidfd` stands for, which can't have been replaced by another in the meantime.

    Raises:
        ProcessLookupError: it has ended.
    """
    if _pidfd_send_signal(pidfd, signal, None, 0) < 0:
        fail("pidfd_send_signal")


def strings(items: list[bytes]) -> "ctypes.Array[ctypes.c_char_p]":
    """`items` as the null-terminated array of C strings that execve wants."""
    return (ctypes.c_char_p * (len(items) + 1))(*items, None)


def execve(path: bytes, argv: "ctypes.Array[ctypes.c_char_p]", environment: "ctypes.Array[ctypes.c_char_p]") -> OSError:
    """Become the program at `path`. Returns only on failure, with the error."""
    _execve(path, argv, environment)
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fsdecode(path))
