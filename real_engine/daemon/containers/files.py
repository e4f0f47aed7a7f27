"""A container's files, read and written from outside: `docker cp`, `docker export` and `docker diff`.

The container may be hostile and running. So nothing is worked out as a path first and used afterwards: every path is
opened by openat2 with the container's root as the root of the resolution, whatever its links say (CVE-2018-15664).
"""

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.container.users import look_up
from real_engine.daemon.containers.record import Record
from real_engine.daemon.containers.roots import root_of
from real_engine.errors import EngineError, Forbidden, InvalidParameter, NotFound
from real_engine.images import changes as image_changes
from real_engine.images.archive import InvalidArchive, Policy, extract, write_tar
from real_engine.images.compression import Decompressed
from real_engine.images.rootfs import mounted
from real_engine.images.trees import open_regular
from real_engine.linux.processes import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from real_engine.times import rfc3339

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers
    from real_engine.images.compression import Source

Json = dict[str, Any]

_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
# Go's os.FileMode has bits of its own for what is no permission (Go, io/fs.FileMode).
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_SETUID, _GO_SETGID, _GO_STICKY = 1 << 23, 1 << 22, 1 << 20


def path_status(containers: "Containers", record: Record, path: str) -> Json:
    """What is at `path` of the container.

    Raises:
        NotFound: nothing, or the container has been removed.
    """
    with _while_it_exists(record), root_of(containers, record) as root:
        return _status(root, path, record)


def read_archive(containers: "Containers", record: Record, path: str) -> tuple[Json, Iterator[bytes]]:
    """What is at `path`, and a tar archive of it, in which it has its own last name.

    Raises:
        NotFound: nothing is there, or the container has been removed.
    """
    status: Json = {}

    def pieces() -> Iterator[bytes]:
        with root_of(containers, record) as root:
            status.update(_status(root, path, record))
            yield b""
            followed = _followed(root, path)
            name = posixpath.basename(followed) if followed != "." else "/"
            yield from write_tar(root, {followed: name}, whole_seconds=True)

    archive = pieces()
    with _while_it_exists(record):
        next(archive)  # the root is open from now on, before the client learns that there is something
    containers.publish(record, "archive-path")
    return status, archive


def write_archive(
    containers: "Containers", record: Record, path: str, body: "Source", *, keep_kinds: bool, copy_owner: bool
) -> None:
    """Extract an archive, compressed or not, into the directory `path`.

    Raises:
        NotFound: there is no such directory, or the container has been removed.
        InvalidParameter: it is no directory, or the archive is damaged or leads out of it.
        Forbidden: the root file system may only be read.
    """
    with _while_it_exists(record), record.uploading, root_of(containers, record, writable=True) as root:
        try:
            directory = openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, _IN_ROOT)
        except NotADirectoryError as error:
            raise InvalidParameter("extraction point is not a directory") from error
        except OSError as error:
            raise _missing(path, record, error) from error
        try:
            if record.host_config["ReadonlyRootfs"] and not _on_a_volume(record, path):
                raise Forbidden("container rootfs is marked read-only")
            owner = _user(root, record) if copy_owner else None
            with contextlib.closing(Decompressed(body)) as plain:
                extract(plain, directory, Policy(owner=owner, devices="refuse", merge_only=keep_kinds))
        except InvalidArchive as error:
            raise InvalidParameter(str(error)) from error
        except OSError as error:
            raise EngineError(f"cannot write to {shown(path)} of the container: {error.strerror}") from error
        finally:
            os.close(directory)
    containers.publish(record, "extract-to-dir")


def export(containers: "Containers", record: Record) -> Iterator[bytes]:
    """The container's whole file system, without its volumes, as a tar archive.

    Raises:
        NotFound: the container has been removed.
    """

    def pieces() -> Iterator[bytes]:
        with mounted(_layers(record), containers.path(record) / "upper", read_only=True) as root:
            yield b""
            yield from write_tar(root, whole_seconds=True)

    archive = pieces()
    with _while_it_exists(record):
        next(archive)  # as above
    containers.publish(record, "export")
    return archive


def changes(containers: "Containers", record: Record) -> list[Json]:
    """What the container has changed of its image.

    Raises:
        NotFound: the container has been removed.
    """
    with _while_it_exists(record):
        found = image_changes.changes(containers.path(record) / "upper", _layers(record))
    return [{"Path": change.path, "Kind": change.kind} for change in found]


@contextlib.contextmanager
def _while_it_exists(record: Record) -> Iterator[None]:
    """Whatever fails because the container is removed at the same moment is answered so."""
    try:
        yield
    except (EngineError, OSError) as error:
        if record.state.removing or record.state.dead:
            raise NotFound(f"No such container: {record.id}") from error
        raise


def _layers(record: Record) -> list[Path]:
    return [Path(layer) for layer in record.layers]


def _status(root: int, path: str, record: Record) -> Json:
    above, name = posixpath.split(_followed(root, path))
    try:
        parent = openat2(root, above or ".", os.O_PATH | os.O_DIRECTORY, _IN_ROOT)
    except OSError as error:
        raise _missing(path, record, error) from error
    try:
        found = os.stat(name or ".", dir_fd=parent, follow_symlinks=False)
        target = ""
        if stat.S_ISLNK(found.st_mode):
            target = posixpath.normpath(posixpath.join("/", above, os.readlink(name, dir_fd=parent)))
    except OSError as error:
        raise _missing(path, record, error) from error
    finally:
        os.close(parent)
    if path.endswith("/") and not stat.S_ISDIR(found.st_mode) and not target:
        raise InvalidParameter(f"{shown(path)}: not a directory")
    return {
        "name": shown(name) if name not in ("", ".") else "/",
        "size": found.st_size,
        "mode": go_mode(found.st_mode),
        "mtime": rfc3339(found.st_mtime_ns),
        "linkTarget": shown(target),
    }


def shown(path: str) -> str:
    """A path as it can be told in JSON: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def go_mode(mode: int) -> int:
    """A mode of stat(2) as Go's os.FileMode."""
    bits = mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for ours, theirs in ((stat.S_ISUID, _GO_SETUID), (stat.S_ISGID, _GO_SETGID), (stat.S_ISVTX, _GO_STICKY)):
        bits |= theirs if mode & ours else 0
    return bits


def _followed(root: int, path: str) -> str:
    """`path` from the root, without `.` and `..`; a slash or dot at its end means what a link leads to."""
    plain = posixpath.normpath(posixpath.join("/", path)).lstrip("/") or "."
    if not path.endswith(("/", "/.")) or plain == ".":
        return plain
    for _ in range(40):  # links of links; the kernel's own limit (path_resolution(7))
        above, name = posixpath.split(plain)
        try:
            parent = openat2(root, above or ".", os.O_PATH | os.O_DIRECTORY, _IN_ROOT)
        except OSError:
            return plain  # whoever uses it finds out
        try:
            target = os.readlink(name, dir_fd=parent)
        except OSError:
            return plain
        finally:
            os.close(parent)
        plain = posixpath.normpath(posixpath.join("/", above, target)).lstrip("/") or "."
    return plain


def _missing(path: str, record: Record, error: OSError) -> EngineError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return NotFound(f"Could not find the file {shown(path)} in container {record.name}")
    return EngineError(f"cannot open {shown(path)} of the container: {error.strerror}")


def _on_a_volume(record: Record, path: str) -> bool:
    plain = posixpath.normpath(posixpath.join("/", path))
    writable = [one["Destination"] for one in record.mounts if one["RW"]]
    return any(plain == place or plain.startswith(f"{place.rstrip('/')}/") for place in writable)


def _user(root: int, record: Record) -> tuple[int, int]:
    """The container's user, by its own files."""

    def read(path: str) -> bytes:
        try:
            descriptor = open_regular(path, root, resolve_in_root=True)
        except OSError:
            return b""
        with os.fdopen(descriptor, "rb") as file:
            return file.read(1 << 20)

    try:
        found = look_up(record.config["User"] or "0", read("etc/passwd"), read("etc/group"))
    except LookupError as error:
        raise InvalidParameter(str(error.args[0])) from error
    return found.uid, found.gid
