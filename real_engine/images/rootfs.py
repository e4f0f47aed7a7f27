"""An image's or a container's file system, to be read or written by the engine itself, mounted in no place.

A container that doesn't run has no mount. For copies, exports and `COPY --from` its overlay is mounted as a descriptor
only (fsmount without move_mount): no path leads to it, and it goes with the descriptor, also when the engine is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from real_engine.images.marks import may_be_root
from real_engine.linux import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextlib.contextmanager
def mounted(
    layers: Sequence[Path],
    upper: Path | None = None,
    work: Path | None = None,
    *,
    read_only: bool = False,
    volatile: bool = False,
) -> Iterator[int]:
    """The descriptor of the overlay's root: `layers`, the lowest first, with `upper` (and its `work` directory) on top.

    Without `upper` it can only be read. Nothing else may have the same `upper` mounted. `volatile` is for an upper
    directory that is thrown away soon, or flushed by its owner: unmounting flushes nothing to the disk, and it can't be
    mounted a second time (the kernel's Documentation/filesystems/overlayfs.rst, "Volatile mount").

    Raises:
        OSError: no right to mount, or a directory isn't there.
        ValueError: no directory at all.
    """
    if not layers and upper is None:
        raise ValueError("a root file system needs a layer")
    writable = upper is not None and not read_only
    tree = _mount(list(layers), upper, work, writable, volatile)
    try:
        yield tree
    finally:
        os.close(tree)


def _mount(layers: list[Path], upper: Path | None, work: Path | None, writable: bool, volatile: bool) -> int:
    attributes = mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOSUID | (0 if writable else mounts.MOUNT_ATTR_RDONLY)
    if not writable:
        layers = [*layers, *([upper] if upper is not None else [])]
        if len(layers) == 1:
            # A single directory needs no overlay: a copy of its own mount, rooted there.
            tree = mounts.open_tree_clone(str(layers[0]))
            return _reduced(tree, attributes)
        upper = work = None
    options: dict[str, str | None] = {"source": "overlay", "index": "off"}
    if may_be_root():
        # Renamed directories are copied: a layer can't say where something was moved from.
        options |= {"redirect_dir": "off", "metacopy": "off"}
    else:
        options["userxattr"] = None  # which switches these two off itself, and takes them for a contradiction
    if upper is not None and volatile:
        options["volatile"] = None
    try:
        return _overlay(options, layers, upper, work, attributes, one_by_one=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _overlay(options, layers, upper, work, attributes, one_by_one=False)  # before Linux 6.5


def _reduced(tree: int, attributes: int) -> int:
    """The mount `tree` with attributes, which need mount_setattr (Linux 5.12) while it has no place."""
    try:
        mounts.set_attributes(tree, attributes)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            os.close(tree)
            raise
        # An older kernel: the caller only reads.
    return tree


def _overlay(
    options: dict[str, str | None],
    layers: Sequence[Path],
    upper: Path | None,
    work: Path | None,
    attributes: int,
    *,
    one_by_one: bool,
) -> int:
    context = mounts.fsopen("overlay")
    opened: list[int] = []
    try:
        for key, value in options.items():
            mounts.fsconfig_set(context, key, value)
        if one_by_one:
            for layer in reversed(layers):
                mounts.fsconfig_set(context, "lowerdir+", str(layer))
        else:
            # An option's value may have 255 bytes: name the layers by descriptors, which makes them short.
            opened += (os.open(path, os.O_PATH | os.O_CLOEXEC) for path in reversed(layers))
            mounts.fsconfig_set(context, "lowerdir", ":".join(f"/proc/self/fd/{number}" for number in opened))
        if upper is not None and work is not None:
            mounts.fsconfig_set(context, "upperdir", str(upper))
            mounts.fsconfig_set(context, "workdir", str(work))
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, attributes)
    finally:
        os.close(context)
        for descriptor in opened:
            os.close(descriptor)
