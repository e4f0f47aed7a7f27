"""A container's root directory with its volumes in it, as a descriptor: of one that runs, and of one that does not.

What is seen is what the container keeps: its root file system, its volumes and binds, and the files with its names.
What the kernel makes up in it is not there (/proc, /sys, /dev), nor is what lives in memory, or was mounted by itself.
Docker shows none of that either, and root of the host has no business with files that a container could arrange so.

Where it does not run, its root is mounted. Where it runs, the mount of its root is copied, for two overlays must not
write to one upper directory. The others are put onto that in a mount namespace that a thread makes and nothing lives
in. It goes with its last descriptor, also when the engine is killed.
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
from real_engine.daemon.containers.translate import NAME_FILES
from real_engine.errors import NotFound
from real_engine.images.rootfs import mounted
from real_engine.images.trees import remove_tree
from real_engine.linux import mounts
from real_engine.linux.processes import CLONE_NEWNS, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2, setns, unshare
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
        running = _running_root(containers, record)
        if running is None:
            (stack if writable else setup).enter_context(record.lock)
            running = _running_root(containers, record)  # it may have been started while we waited
        if running is None:
            root = stack.enter_context(_stopped_root(containers, record, writable=writable))
        else:
            for descriptor in running:
                setup.callback(os.close, descriptor)
            root = stack.enter_context(_copied_root(containers, record, *running))
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


@contextlib.contextmanager
def _copied_root(containers: "Containers", record: Record, true_root: int, true_namespace: int) -> Iterator[int]:
    """The root of a container that runs, where only that is mounted in it which it keeps."""
    directory = containers.path(record)
    with contextlib.ExitStack() as stack:
        points = [point for point in stack.enter_context(containers.storage.borrowed(record)) if point.type != "tmpfs"]
        taken = {point.destination for point in points}
        for name, target in NAME_FILES.items():
            if target not in taken and (directory / name).exists():
                points.append(MountPoint("bind", target, str(directory / name)))
        copies: list[int] = []

        def copy() -> None:
            with contextlib.ExitStack() as opened:
                # Only who is in a mount namespace may copy its mounts. Who comes back is at the top of his own, and we
                # may have been in a chroot.
                own = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
                opened.callback(os.close, own)
                top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, top)
                setns(true_namespace, CLONE_NEWNS)
                copies.append(mounts.open_tree_clone(b"", true_root))
                stack.callback(os.close, copies[0])
                setns(own, CLONE_NEWNS)
                os.fchdir(top)
                os.chroot(".")
            _furnish(copies[0], directory, points)

        stack.callback(os.close, _in_a_namespace(copy))
        yield copies[0]


def _running_root(containers: "Containers", record: Record) -> tuple[int, int] | None:
    """The root of a container that runs, and its mount namespace."""
    with record.lock:
        if not record.state.running or record.state.restarting or not record.state.pid:
            return None
        opened: list[int] = []
        try:
            opened.append(os.open(f"/proc/{record.state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            opened.append(os.open(f"/proc/{record.state.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just ended, and the report of that is on its way
    if len(opened) == 2 and is_still(containers, record):
        return opened[0], opened[1]
    for descriptor in opened:
        os.close(descriptor)
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
            _make_private()
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


def _make_private() -> None:
    """See that nothing of what is mounted in this thread's own namespace spreads to the host.

    That is done at the top, since in a chroot `/` need not be a mount.
    """
    with contextlib.ExitStack() as opened:
        own = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, own)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, root)
        setns(own, CLONE_NEWNS)
        mounts.make_private("/")
        os.fchdir(root)
        os.chroot(".")


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
