"""From a finished step to an image: its layer, its history, its configuration."""

import os
import platform
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.images.build.configuration import complete
from real_engine.images.build.options import Platform
from real_engine.images.build.trees import Tree

if TYPE_CHECKING:
    from real_engine.images.store import Image

ENGINE_MOUNTPOINTS = (
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab",
    ".dockerenv",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "dev",
    "proc",
    "sys",
)
"""What an engine makes in a container's root to mount things on (docker keeps it in a layer of its own, "init")."""


def child_configuration(
    parent: "Image | None",
    *,
    config: Mapping[str, Any],
    container_config: Mapping[str, Any],
    author: str,
    diff_id: str | None,
    container_id: str = "",
    engine_version: str = "",
    target: Platform | None = None,
) -> dict[str, Any]:
    """The configuration of the image that a step makes upon `parent`; without `diff_id` the step changed no files.

    Its fields and their order are those of Docker (moby image.NewChildImage).
    """
    below: Mapping[str, Any] = parent.config if parent is not None else {}
    host = target or Platform.host()
    created = timestamp()
    entry: dict[str, Any] = {"created": created}
    if author:
        entry["author"] = author
    entry["created_by"] = " ".join(container_config.get("Cmd") or ())
    if diff_id is None:
        entry["empty_layer"] = True
    layers = list((below.get("rootfs") or {}).get("diff_ids") or [])
    result: dict[str, Any] = {"architecture": below.get("architecture") or host.architecture}
    variant = below.get("variant") or ("" if below else host.variant)
    if author:
        result["author"] = author
    result["config"] = complete(config)
    if container_id:
        result["container"] = container_id
    result["container_config"] = complete(container_config)
    result["created"] = created
    result["docker_version"] = engine_version or platform.release()
    result["history"] = [*(below.get("history") or []), entry]
    result["os"] = below.get("os") or host.os
    for name in ("os.version", "os.features"):
        if below.get(name):
            result[name] = below[name]
    result["rootfs"] = {"type": "layers", "diff_ids": [*layers, *([diff_id] if diff_id else [])]}
    if variant:
        result["variant"] = variant
    return result


def timestamp(nanoseconds: int | None = None) -> str:
    """A moment (by default now) as RFC 3339 has it, with nanoseconds, in UTC."""
    moment = time.time_ns() if nanoseconds is None else nanoseconds
    fraction = f".{moment % 10**9:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment // 10**9)) + f"{fraction}Z"


def remove_mountpoints(upper: Path, lower: tuple[Path, ...], paths: Iterable[str]) -> None:
    """Take the empty files and directories out of an upper directory that were only made to mount something on.

    What the layers below have, or what a program has put something in, stays. A directory that is in the upper one
    only because such a mount point was made in it goes too.

    Raises:
        OSError: the directory can't be changed.
    """
    with _tree(upper) as tree:
        for path in sorted(paths, key=lambda path: path.count("/"), reverse=True):
            parts = path.strip("/").split("/")
            while parts and _remove_if_nothing(tree, "/".join(parts), lower):
                parts.pop()


def is_empty(directory: Path) -> bool:
    """Whether there is nothing in a directory."""
    with os.scandir(directory) as entries:
        return next(entries, None) is None


@contextmanager
def _tree(directory: Path) -> Iterator[Tree]:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Tree(root)
    finally:
        os.close(root)


def _remove_if_nothing(upper: Tree, path: str, lower: tuple[Path, ...]) -> bool:
    parent, name = os.path.split(path)
    try:
        with upper.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_size == 0 and _below(path, lower) is None:
                os.unlink(name, dir_fd=directory)
                return True
            if not stat.S_ISDIR(status.st_mode):
                return False
            below = _below(path, lower)
            if below is not None and not _same_directory(below, status):
                return False
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                if os.listdir(inner) or _is_opaque(inner):
                    return False
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=directory)
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def _below(path: str, lower: tuple[Path, ...]) -> os.stat_result | None:
    """What the layers have at that path; a whiteout counts, since then the step's own file hides it."""
    for layer in reversed(lower):
        with _tree(layer) as tree:
            parent, name = os.path.split(path)
            try:
                with tree.opened(parent, os.O_RDONLY | os.O_DIRECTORY) as directory:
                    return os.stat(name, dir_fd=directory, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
    return None


def _same_directory(below: os.stat_result, status: os.stat_result) -> bool:
    return stat.S_ISDIR(below.st_mode) and (below.st_mode, below.st_uid, below.st_gid) == (
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )


def _is_opaque(directory: int) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(directory, name) == b"y":
                return True
        except OSError:
            continue  # it isn't set, or not ours to see
    return False
