"""Parts of volumes, each mounted by itself while a container uses it.

A container that shares the volume may put a link in the place of the part at any moment. So the part is opened without
leaving the volume, and what was opened is mounted at a place of our own; the path that a container's start gets leads
there, and can't be led astray (as moby's internal/safepath does).
"""

import contextlib
import os
import stat
import threading
from pathlib import Path

from real_engine.errors import EngineError
from real_engine.linux import mounts
from real_engine.volumes.contents import open_subpath


class Subpaths:
    """The places beneath `directory` at which parts of volumes are mounted. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._mounted: dict[str, list[Path]] = {}

    def acquire(self, volume: Path, subpath: str, container_id: str) -> Path:
        """Mount the part `subpath` of the volume for a container; returns where.

        Raises:
            InvalidParameter: it leads out of the volume.
            EngineError: there is nothing there, or the kernel refuses.
        """
        part = open_subpath(volume, subpath)
        try:
            with self._lock:  # `sweep` must not find it mounted and not yet known
                self._directory.mkdir(exist_ok=True, mode=0o700)
                place = self._directory / f"{container_id[:12]}-{os.urandom(6).hex()}"
                if stat.S_ISDIR(os.fstat(part).st_mode):
                    place.mkdir(mode=0o700)
                else:
                    place.touch(mode=0o600)
                try:
                    self._mount(part, place)
                except OSError as error:
                    _remove(place)
                    raise EngineError(f"cannot mount {subpath} of {volume}: {error.strerror}") from error
                self._mounted.setdefault(container_id, []).append(place)
        finally:
            os.close(part)
        return place

    def release(self, container_id: str) -> None:
        """The container has ended: unmount all of its parts."""
        with self._lock:
            places = self._mounted.pop(container_id, [])
        for place in places:
            _remove(place)

    def sweep(self) -> None:
        """Remove what a crash has left."""
        with self._lock:
            known = {place for places in self._mounted.values() for place in places}
            for place in self._directory.iterdir() if self._directory.is_dir() else ():
                if place not in known:
                    _remove(place)

    @staticmethod
    def _mount(part: int, place: Path) -> None:
        tree = mounts.open_tree_clone(b"", part, recursive=True)
        try:
            target = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                mounts.move_mount(tree, target)
            finally:
                os.close(target)
        finally:
            os.close(tree)


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):  # nothing is mounted there
        mounts.umount2(str(place), mounts.MNT_DETACH)
    # Neither call deletes anything that is in a volume: a directory with content stays, and so does a mount point.
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink(missing_ok=True)
