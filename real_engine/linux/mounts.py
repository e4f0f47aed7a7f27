"""Mounts: the mount API of Linux 5.2 (a mount is a descriptor first, and gets a place later), and the older mount(2).

Flags are named as in `linux/mount.h`. Paths are bytes or str; a descriptor that is returned is close-on-exec.
"""

import ctypes
import errno
import os

from real_engine.linux.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, fail, function, syscall

MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 0x2

FSOPEN_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 0x1

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
ATTRIBUTE_NAMES = {
    MOUNT_ATTR_RDONLY: "ro",
    MOUNT_ATTR_NOSUID: "nosuid",
    MOUNT_ATTR_NODEV: "nodev",
    MOUNT_ATTR_NOEXEC: "noexec",
}

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

_LONGEST_MESSAGE = 4096  # bytes of a line in a file system context's log


class _MountAttr(ctypes.Structure):
    """`struct mount_attr`."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_fsopen = syscall("fsopen", ctypes.c_char_p, ctypes.c_uint)
_fsconfig = syscall("fsconfig", ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_fsmount = syscall("fsmount", ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_move_mount = syscall("move_mount", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_open_tree = syscall("open_tree", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_mount_setattr = syscall(
    "mount_setattr", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.POINTER(_MountAttr), ctypes.c_size_t
)
_pivot_root = syscall("pivot_root", ctypes.c_char_p, ctypes.c_char_p)
_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)


def fsopen(fstype: str) -> int:
    """Begin to make a file system of type `fstype`; returns the descriptor of its context."""
    context = _fsopen(fstype.encode(), FSOPEN_CLOEXEC)
    if context < 0:
        fail(fstype)
    return context


def fsconfig_set(context: int, key: str, value: str | bytes | None = None) -> None:
    """Set the option `key` of a file system context to `value`, or as a flag when there is none.

    Raises:
        OSError: EINVAL for an option that this kernel doesn't know. The kernel's own message is in `strerror`.
    """
    if value is None:
        result = _fsconfig(context, FSCONFIG_SET_FLAG, key.encode(), None, 0)
    else:
        result = _fsconfig(context, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
    if result < 0:
        _fail_with_log(context, key)


def fsconfig_create(context: int) -> None:
    """Make the file system that the context describes."""
    if _fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
        _fail_with_log(context, None)


def fsmount(context: int, attributes: int = 0) -> int:
    """Mount the file system of the context with `MOUNT_ATTR_…` attributes, in no place yet; returns the mount."""
    tree = _fsmount(context, FSMOUNT_CLOEXEC, attributes)
    if tree < 0:
        _fail_with_log(context, None)
    return tree


def new_mount(fstype: str, options: dict[str, str | None], attributes: int = 0) -> int:
    """Make a file system and mount it in no place yet: fsopen, fsconfig for each option, fsmount; returns the mount."""
    context = fsopen(fstype)
    try:
        for key, value in options.items():
            fsconfig_set(context, key, value)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def move_mount(tree: int, target: int) -> None:
    """Give the mount `tree` (from `fsmount` or `open_tree`) a place: on the file or directory open at `target`."""
    if _move_mount(tree, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0:
        fail()


def open_tree_clone(path: str | bytes, directory: int = AT_FDCWD, recursive: bool = False) -> int:
    """Copy the mount that `path` is on, rooted at `path` (a bind mount in no place yet); returns the copy.

    An empty path copies what `directory` itself is open at. `recursive` copies the mounts beneath too.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    flags |= (0 if path else AT_EMPTY_PATH) | (AT_RECURSIVE if recursive else 0)
    tree = _open_tree(directory, os.fsencode(path), flags)
    if tree < 0:
        fail(path)
    return tree


def set_attributes(tree: int, attributes: int, recursive: bool = False) -> None:
    """Add `MOUNT_ATTR_…` attributes to the mount open at `tree`, which has a place, and if asked to all beneath it.

    Before Linux 5.12 only the one mount can be changed; there, recursive raises `OSError` with ENOSYS.
    """
    if _setattr(tree, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), _MountAttr(attr_set=attributes)):
        return
    if recursive:
        raise OSError(errno.ENOSYS, "mount_setattr needs Linux 5.12")
    # The attributes that we use have the values of their MS_ counterparts.
    flags = MS_REMOUNT | MS_BIND | attributes
    mount(None, f"/proc/self/fd/{tree}", None, flags)


def set_propagation(tree: int, propagation: int, recursive: bool = False) -> None:
    """Make the mount open at `tree`, which has a place, MS_PRIVATE, MS_SLAVE or MS_SHARED; if asked to, all beneath."""
    if not _setattr(tree, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), _MountAttr(propagation=propagation)):
        mount(None, f"/proc/self/fd/{tree}", None, propagation | (MS_REC if recursive else 0))


def make_private(path: str) -> None:
    """Make the mount at `path` and all beneath it private: nothing mounted here shows elsewhere, or the reverse."""
    if not _setattr(AT_FDCWD, os.fsencode(path), AT_RECURSIVE, _MountAttr(propagation=MS_PRIVATE)):
        mount(None, path, None, MS_REC | MS_PRIVATE)


def _setattr(directory: int, path: bytes, flags: int, attributes: _MountAttr) -> bool:
    """mount_setattr(2); False where the kernel (before 5.12) doesn't have it."""
    if _mount_setattr(directory, path, flags, ctypes.byref(attributes), ctypes.sizeof(attributes)) == 0:
        return True
    if ctypes.get_errno() != errno.ENOSYS:
        fail(path or None)
    return False


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2), whose `data` may be at most one page long."""
    encoded = (
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if fstype is None else fstype.encode(),
        flags,
        None if data is None else os.fsencode(data),
    )
    if _mount(*encoded) < 0:
        fail(target)


def umount2(path: str, flags: int = 0) -> None:
    """Unmount what is on top at `path`."""
    if _umount2(os.fsencode(path), flags) < 0:
        fail(path)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace and put the old one at `put_old`."""
    if _pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        fail(new_root)


def _fail_with_log(context: int, option: str | None) -> None:
    """Raise the errno of the last call with what the kernel wrote in the context's log about it."""
    number = ctypes.get_errno()
    message = os.strerror(number)
    try:
        message += f" ({os.read(context, _LONGEST_MESSAGE).decode(errors='replace').removeprefix('e ').strip()})"
    except OSError as error:
        if error.errno != errno.ENODATA:  # ENODATA: the kernel had nothing to say
            raise
    raise OSError(number, message, option)
