"""The digests by which COPY and ADD know whether a file is the same: its header but for the time, and its content.

They are those of Docker (moby pkg/tarsum, version 1), so that a history reads `COPY file:b5bb9d80... in /x` here too:
each field of the tar header as name and value, then extended attributes by name, then the content.
"""

import hashlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Mapping
from typing import IO

_CHUNK = 1 << 20
_XATTR = "SCHILY.xattr."
_REGULAR, _LINK, _DIRECTORY, _CHARACTER, _BLOCK, _FIFO = "0", "2", "5", "3", "4", "6"


def sum_of_member(member: tarfile.TarInfo, name: str, content: IO[bytes] | None) -> str:
    """The digest of a tar's member, whose name in the header is `name` (a directory's ends in a slash)."""
    attributes = {
        key.removeprefix(_XATTR): value for key, value in member.pax_headers.items() if key.startswith(_XATTR)
    }
    kind = member.type.decode("latin-1")
    hasher = _begin(
        name,
        member.mode,
        member.uid,
        member.gid,
        member.size,
        _REGULAR if kind == "\0" else kind,
        member.linkname,
        member.uname,
        member.gname,
        (member.devmajor, member.devminor),
        attributes,
    )
    if content is not None:
        while data := content.read(_CHUNK):
            hasher.update(data)
    return hasher.hexdigest()


def sum_of_file(directory: int, name: str, path: str) -> str:
    """The digest of a file on disk: `name` in the open `directory`, in a tar it would be `path`. No link is followed.

    Raises:
        OSError: it can't be read.
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    kind, link, device = _REGULAR, "", (0, 0)
    if stat.S_ISDIR(status.st_mode):
        kind, path = _DIRECTORY, path.rstrip("/") + "/"
    elif stat.S_ISLNK(status.st_mode):
        kind, link = _LINK, os.readlink(name, dir_fd=directory)
    elif stat.S_ISFIFO(status.st_mode):
        kind = _FIFO
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        kind = _CHARACTER if stat.S_ISCHR(status.st_mode) else _BLOCK
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    regular = stat.S_ISREG(status.st_mode)
    descriptor = -1
    attributes: dict[str, str] = {}
    try:
        if regular:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            attributes = _capabilities(descriptor)
        hasher = _begin(
            path,
            stat.S_IMODE(status.st_mode) | stat.S_IFMT(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_size if regular else 0,
            kind,
            link,
            _account(status.st_uid),
            _account(status.st_gid),
            device,
            attributes,
        )
        while regular and (data := os.read(descriptor, _CHUNK)):
            hasher.update(data)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return hasher.hexdigest()


def combined(kind: str, sums: Iterable[str]) -> str:
    """One digest of several: `dir:` of what is in a directory, `multi:` of several sources."""
    return f"{kind}:{hashlib.sha256(','.join(sums).encode('utf-8', 'surrogateescape')).hexdigest()}"


def member_path(name: str) -> str:
    """The path of a tar's member beneath the root, however its name is written; "" for the root."""
    return posixpath.normpath("/" + name).strip("/")


def _begin(
    name: str,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    kind: str,
    link: str,
    user: str,
    group: str,
    device: tuple[int, int],
    attributes: Mapping[str, str],
) -> "hashlib._Hash":
    fields = (
        ("name", name),
        ("mode", str(mode)),
        ("uid", str(uid)),
        ("gid", str(gid)),
        ("size", str(size)),
        ("typeflag", kind),
        ("linkname", link),
        ("uname", user),
        ("gname", group),
        ("devmajor", str(device[0])),
        ("devminor", str(device[1])),
        *sorted(attributes.items()),
    )
    text = "".join(key + value for key, value in fields)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape"))


def _account(number: int) -> str:
    """The name that goes with a user's or group's number.

    Docker looks it up on its host. Only root is called so everywhere; a digest should not change with the machine.
    """
    return "root" if number == 0 else ""


def _capabilities(descriptor: int) -> dict[str, str]:
    try:
        value = os.getxattr(descriptor, "security.capability")
    except OSError:
        return {}  # no such attribute, or a file system without any
    return {"security.capability": value.decode("utf-8", "surrogateescape")}
