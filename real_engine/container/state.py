"""What a container leaves on disk while it exists, and how the leftovers of a killed engine are found again.

A container whose writable layer isn't kept has a directory `runs/ID`, on which its engine holds a lock that the kernel
gives back when the engine ends, however it ends. A container whose lock can be had is stale.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOUNTPOINT = "mountpoint"


@dataclass(slots=True)
class StateDirectory:
    """The directory of one container: `upper` holds what it wrote, `work` is overlayfs's own."""

    directory: Path
    lock: int = -1

    @property
    def upper(self) -> Path:
        """The upper directory of the container's root."""
        return self.directory / "upper"

    @property
    def work(self) -> Path:
        """The work directory of overlayfs."""
        return self.directory / "work"

    @property
    def mountpoint(self) -> Path:
        """Where the root is mounted until it becomes the root. Each has a mount namespace, so all share this place."""
        return self.directory.parent.parent / _MOUNTPOINT

    @property
    def id(self) -> str:
        """The container's id."""
        return self.directory.name

    def make(self) -> None:
        """Make the directories and lock them.

        Raises:
            OSError: EEXIST when a container of that id exists.
        """
        while self.lock < 0:
            os.mkdir(self.directory, 0o700)
            try:
                lock = _lock(self.directory)
            except FileNotFoundError:
                continue  # the sweep of another engine took it before we had the lock: begin again
            if lock is not None:
                self.lock = lock
        os.mkdir(self.upper)
        os.chmod(self.upper, 0o755)  # noqa: S103 -- it becomes the container's root directory, whatever our umask
        os.mkdir(self.work)

    def remove(self) -> None:
        """Remove the directories and give the lock back. Doing it twice, or before `make`, does no harm."""
        if self.lock < 0:
            return
        with contextlib.suppress(FileNotFoundError):
            _remove_tree(self.directory)
        os.close(self.lock)
        self.lock = -1


@dataclass(slots=True)
class KeptDirectories:
    """The directories of a container that somebody else keeps: made if need be, and not removed."""

    root: Path
    id: str
    upper: Path
    work: Path

    @property
    def mountpoint(self) -> Path:
        """See `StateDirectory`."""
        return self.root / _MOUNTPOINT

    def make(self) -> None:
        """Make the directories where they are missing.

        Raises:
            OSError: no right to do so.
        """
        for path in (self.upper, self.work):
            if not path.is_dir():
                path.mkdir(parents=True)
                path.chmod(0o755)
        # Left by a volatile mount, and keeps overlayfs from a next one (Documentation/filesystems/overlayfs.rst).
        with contextlib.suppress(FileNotFoundError):
            _remove_tree(self.work / "work/incompat")

    def remove(self) -> None:
        """Nothing: they stay."""


def prepare_root(root: Path) -> Path:
    """Make what all containers share under the data root, and return the directory of those that leave nothing.

    Raises:
        OSError: no right to do so.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    (root / _MOUNTPOINT).mkdir(exist_ok=True)
    runs = root / "runs"
    runs.mkdir(exist_ok=True, mode=0o700)
    return runs


def stale(runs: Path) -> Iterator[StateDirectory]:
    """The containers whose engine has gone, each locked by us until it is removed."""
    for path in sorted(runs.iterdir()):
        try:
            lock = _lock(path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed by its engine, or by another sweep
        if lock is not None:
            yield StateDirectory(path, lock)


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the lock of a container's directory; None if somebody else has it.

    Raises:
        FileNotFoundError: the directory has been removed, perhaps just before we had the lock.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            raise FileNotFoundError(errno.ENOENT, "replaced by another", str(directory))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_tree(directory: Path) -> None:
    """Remove a directory, even if without root's rights we can't look into all that is beneath it at first.

    Overlayfs makes its work directory with mode 0, and the container may have done so to any of its own.
    """
    try:
        shutil.rmtree(directory)
    except PermissionError:
        for parent, names, _ in os.walk(directory):  # lists a directory only after its parent has been dealt with
            for path in (os.path.join(parent, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(directory)
