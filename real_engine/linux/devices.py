"""Devices of the host, and the rules by which a cgroup lets its processes use them."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

# Beneath /dev a container has these of its own (runc, libcontainer/devices: GetDevices).
_OWN_IN_A_CONTAINER = frozenset(("pts", "shm", "fd", "mqueue", "ptmx", "console", ".lxc", ".lxd-mounts", ".udev"))


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Devices that may be used: `kind` c or b, a for both; None is any number; `access` of r, w, and m to make one."""

    kind: str
    major: int | None
    minor: int | None
    access: str = "rwm"

    @classmethod
    def parse(cls, text: str) -> "DeviceRule":
        """A rule as Docker and cgroup v1 write it: `c 1:3 rwm`, `b *:* m`.

        Raises:
            ValueError: it isn't one.
        """
        kind, numbers, access = text.split(" ")
        major, minor = (None if number == "*" else int(number) for number in numbers.split(":"))
        return cls(kind, major, minor, access)

    def __str__(self) -> str:
        numbers = ":".join("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{self.kind} {numbers} {self.access}"


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device as it stands in a directory of the host: where, what it is, and whose."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int

    @property
    def type_and_mode(self) -> int:
        """What mknod(2) wants."""
        return (stat.S_IFCHR if self.kind == "c" else stat.S_IFBLK) | self.mode


def device_node(path: str) -> DeviceNode:
    """The device at `path`; links are followed.

    Raises:
        OSError: there is nothing, or ENODEV: it is no device.
    """
    status = os.stat(path)
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise OSError(errno.ENODEV, "not a device node", path)
    return DeviceNode(
        path,
        "c" if stat.S_ISCHR(status.st_mode) else "b",
        os.major(status.st_rdev),
        os.minor(status.st_rdev),
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
    )


def device_nodes(directory: str) -> Iterator[DeviceNode]:
    """Every device in `directory` and beneath it, but for those that a container has of its own.

    Raises:
        OSError: the directory can't be read.
    """
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name in _OWN_IN_A_CONTAINER or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from device_nodes(entry.path)
        elif not entry.is_file():
            try:
                yield device_node(entry.path)
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENOENT):  # a socket or pipe, or gone meanwhile
                    raise
