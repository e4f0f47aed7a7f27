"""Writes cpio archives of the `newc` form, in which Linux takes its initramfs.

The form is described in Documentation/driver-api/early-userspace/buffer-format.rst of the Linux sources: a header of
110 ASCII characters, the name and the data, each padded to four bytes, and a last entry called `TRAILER!!!`.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_LARGEST_FIELD = 0xFFFFFFFF  # a header field is eight hexadecimal digits


@dataclass(frozen=True)
class Entry:
    """One file of the archive, owned by root.

    Attributes:
        name: its path without a leading slash, such as `bin/busybox`.
        mode: type and permissions, as in `st_mode`.
        data: the contents of a regular file, the target of a symbolic link, else empty.
        device: major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("/") or "\0" in self.name or self.name == _TRAILER:
            raise ValueError(f"cpio entry {self.name!r}: a name is relative, not empty, without NUL and not {_TRAILER}")
        if len(self.data) > _LARGEST_FIELD:
            raise ValueError(f"cpio entry {self.name!r}: {len(self.data)} bytes do not fit, the form ends at 4 GiB")


def directory(name: str) -> Entry:
    """A directory that everyone may enter."""
    return Entry(name, stat.S_IFDIR | 0o755)


def program(name: str, data: bytes) -> Entry:
    """A regular file that everyone may execute."""
    return Entry(name, stat.S_IFREG | 0o755, data)


def character_device(name: str, major: int, minor: int) -> Entry:
    """A character device node that only root may use."""
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`, in their order. A directory must come before what it holds.

    The same entries give the same bytes: no time of modification is recorded.
    """
    written = [_encode(entry, inode) for inode, entry in enumerate(entries, start=1)]
    # Built by hand, since Entry refuses this name to everyone else.
    trailer = _header(inode=0, mode=0, size=0, device=(0, 0), name=_TRAILER)
    return b"".join([*written, trailer])


def _encode(entry: Entry, inode: int) -> bytes:
    header = _header(inode, entry.mode, len(entry.data), entry.device, entry.name)
    return header + _padded(entry.data)


def _header(inode: int, mode: int, size: int, device: tuple[int, int], name: str) -> bytes:
    encoded = name.encode() + b"\0"
    owner = group = modified = checksum = 0
    links = 2 if stat.S_ISDIR(mode) else 1
    # `newc` knows two device numbers: of the file system that held the file (meaningless here), and of a device node.
    fields = (inode, mode, owner, group, links, modified, size, 0, 0, *device, len(encoded), checksum)
    return _padded(_MAGIC + b"".join(b"%08X" % field for field in fields) + encoded)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
