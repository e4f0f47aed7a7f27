"""Being told when a file changes: inotify(7)."""

import ctypes
import os
import sys

from real_engine.linux.libc import fail, function

IN_MODIFY = 0x00000002
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200

_MOST_BYTES = 65536
_EVENT_BYTES = 16  # struct inotify_event, before the name

_inotify_init1 = function("inotify_init1", ctypes.c_int)
_inotify_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_inotify_rm_watch = function("inotify_rm_watch", ctypes.c_int, ctypes.c_int)


class Inotify:
    """One inotify instance; its descriptor is readable when something has happened, and close-on-exec.

    Raises:
        OSError: EMFILE when this user has as many instances as allowed (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        self.descriptor = _inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.descriptor < 0:
            fail("inotify_init1")

    def __enter__(self) -> "Inotify":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self.descriptor

    def add(self, path: str | os.PathLike[str], events: int) -> int:
        """Watch `path` for the `IN_…` events; returns the watch's number.

        Raises:
            OSError: ENOENT, or ENOSPC when this user has as many watches as allowed.
        """
        watch = _inotify_add_watch(self.descriptor, os.fsencode(path), events)
        if watch < 0:
            fail(path)
        return watch

    def remove(self, watch: int) -> None:
        """Watch no more; nothing if what was watched has gone."""
        _inotify_rm_watch(self.descriptor, watch)

    def take(self) -> list[int]:
        """The watches at which something has happened since the last call, each once; empty if at none."""
        found: dict[int, None] = {}
        while True:
            try:
                data = os.read(self.descriptor, _MOST_BYTES)
            except BlockingIOError:
                return list(found)
            offset = 0
            while offset < len(data):
                found[int.from_bytes(data[offset : offset + 4], sys.byteorder, signed=True)] = None
                offset += _EVENT_BYTES + int.from_bytes(data[offset + 12 : offset + 16], sys.byteorder)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
