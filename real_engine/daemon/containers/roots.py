"""A container's root directory with its volumes in it, as a descriptor: of one that runs, and of one that does not.

Where it runs, `/proc/PID/root` leads into its mount namespace. Where it does not, the same mounts are made in a mount
namespace that a thread makes and nothing lives in. It goes with its last descriptor, also when the engine is killed.
"""

import contextlib
import errno
import os
import posixpath
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from real_engine.daemon.containers.record import Record
from real_engine.errors import NotFound
from real_engine.images.rootfs import mounted
from real_engine.images.trees import remove_tree
from real_engine.linux import mounts
from real_engine.linux.processes import CLONE_NEWNS, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2, unshare
from real_engine.volumes.mounts import MountPoint

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_OWN_NAMESPACE = "/proc/thread-self/ns/mnt"


@contextlib.contextmanager
def root_of(containers: "Containers", record: Record, *, writable: bool = False) -> Iterator[int]:
    """The container's root directory, its volumes in their places.

    One that does not run is held by its lock while it may be written to, for no two mounts may write to the same upper
    directory. One that runs is not held: an archive comes as slowly as its sender likes.

    Raises:
        OSError: no right to mount, say.
        EngineError: a volume's driver is away.
    """
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as setup:
        root = _running_root(containers, record)
        if root is None:
            (stack if writable else setup).enter_context(record.lock)
            root = _running_root(containers, record)  # it may have been started while we waited
        if root is None:
            root = stack.enter_context(_stopped_root(containers, record, writable=writable))
        else:
            stack.callback(os.close, root)
        setup.close()
        yield root


@contextlib.contextmanager
def _stopped_root(containers: "Containers", record: Record, *, writable: bool) -> Iterator[int]:
    directory = containers.path(record)
    layers = [Path(layer) for layer in record.layers]
    upper, work = directory / "upper", directory / "work"
    # Left by a volatile mount, and keeps overlayfs from a next one (Documentation/filesystems/overlayfs.rst).
    remove_tree(work / "work" / "incompat")
    with contextlib.ExitStack() as stack:
        points = [point for point in stack.enter_context(containers.storage.borrowed(record)) if point.type != "tmpfs"]
        if points and not writable:
            # The places of mounts may have to be made first, as the start of a container would.
            with mounted(layers, upper, work) as root:
                os.close(_in_a_namespace(lambda: _furnish(root, directory, points)))
        root = stack.enter_context(mounted(layers, upper, work, read_only=not writable))
        if points:
            namespace = _in_a_namespace(lambda: _furnish(root, directory, points))
            stack.callback(os.close, namespace)
        yield root


def _running_root(containers: "Containers", record: Record) -> int | None:
    with record.lock:
        if not record.state.running or record.state.restarting or not record.state.pid:
            return None
        try:
            root = os.open(f"/proc/{record.state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return None  # it has just ended, and the report of that is on its way
    if is_still(containers, record):
        return root
    os.close(root)
    return None


def is_still(containers: "Containers", record: Record) -> bool:
    """Whether the container's process is there still, so that what was opened by its number was its own.

    The number of a process that has ended may be another's by now, with the host's files as its root. The supervisor
    holds the process by a descriptor: until it has taken note of the end, nobody else can have had the number.
    """
    try:
        containers.supervisor.signal(record.id, 0)
    except NotFound:
        return False
    return True


def _in_a_namespace(work: Callable[[], None]) -> int:
    """Do the work in a new mount namespace; returns a descriptor, by which that lives on.

    Raises:
        OSError: what went wrong.
    """
    outcome: list[int | OSError] = []

    def run() -> None:
        try:
            unshare(CLONE_NEWNS)
            mounts.make_private("/")  # nothing of what is mounted here spreads to the host
            work()
            outcome.append(os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            outcome.append(error)

    # A thread of its own: a mount namespace is a thread's, once it shares its root and working directory with none.
    thread = threading.Thread(target=run, name="mounts")
    thread.start()
    thread.join()
    if not outcome:
        raise OSError(errno.EIO, "the mounts could not be made")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def _furnish(root: int, directory: Path, points: list[MountPoint]) -> None:
    """Give the root a place, for only there others can be mounted on it, and mount the volumes, the outermost first."""
    trees = [(point, mounts.open_tree_clone(point.source, recursive=point.recursive)) for point in points]
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts.move_mount(root, place)
        finally:
            os.close(place)
        for point, tree in sorted(trees, key=lambda one: one[0].destination.count("/")):
            if not point.writable:
                mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY)
            target = _place(root, point.destination, directory=os.path.isdir(point.source))
            try:
                mounts.move_mount(tree, target)
            finally:
                os.close(target)
    finally:
        for _, tree in trees:
            os.close(tree)


def _place(root: int, path: str, *, directory: bool) -> int:
    """A descriptor of what is at `path`, made if it is missing, each part beneath the root."""
    parts = [part for part in posixpath.normpath(path).split("/") if part]
    above = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    done = ""
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        try:
            with contextlib.suppress(FileExistsError):
                if directory or not last:
                    os.mkdir(part, 0o755, dir_fd=above)
                else:
                    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=above))
            done = f"{done}/{part}"
            flags = os.O_PATH | os.O_CLOEXEC | (0 if last and not directory else os.O_DIRECTORY)
            found = openat2(root, done, flags, _IN_ROOT)
        finally:
            os.close(above)
        above = found
    return above
