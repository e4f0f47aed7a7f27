"""Where things go in a container: places opened beneath a root that we hold, never by a path of the host.

There are two ways. `STRICTLY` is for the mounts that we make ourselves: no link may be on the way, so an image whose
/dev is a link to the host's /etc gets an error, not a mount on /etc (CVE-2021-30465, CVE-2025-52565 were such cases).
`AS_THE_CONTAINER_SEES` is for places that the owner chose: links are followed as a program inside would, so that they
end in the container whatever they say.
"""

import errno
import os
import stat

from real_engine.container.steps import Site
from real_engine.linux.processes import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

STRICTLY = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
AS_THE_CONTAINER_SEES = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS

_MOST_LINKS = 40  # as many as the kernel follows (path_resolution(7))

# What lxcfs and the like cover, and nothing depends on (runc, libcontainer/rootfs_linux.go: checkProcMount).
MAY_COVER_IN_PROC = frozenset(
    (
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/net/dev",
        "/proc/slabinfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
        "/proc/uptime",
    )
)


def open_directory(site: Site, path: str, resolve: int, links: int = _MOST_LINKS) -> int:
    """The directory `path` of the container, made with all above it where missing.

    Where links are followed, what one leads to is made too: /var/run/x in an image that has no /run yet.

    Raises:
        OSError: ELOOP when a link is on the way and `resolve` forbids it, ENOTDIR when it is a file.
    """
    tree, relative = _start(site, path, resolve)
    try:
        return openat2(tree, relative, os.O_PATH | os.O_DIRECTORY, resolve)
    except FileNotFoundError:
        parent = open_directory(site, os.path.dirname(path), resolve, links)
    name = os.path.basename(path)
    try:
        if name == "..":
            return openat2(tree, relative, os.O_PATH | os.O_DIRECTORY, resolve)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            return open_directory(site, _target(path, parent, resolve, links), resolve, links - 1)
        return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, STRICTLY)
    finally:
        os.close(parent)


def open_file(site: Site, path: str, links: int = _MOST_LINKS) -> int:
    """The file `path`, resolved as the container itself would, made empty where missing."""
    try:
        return openat2(site.trees["/"], path, os.O_PATH, AS_THE_CONTAINER_SEES)
    except FileNotFoundError:
        parent = open_directory(site, os.path.dirname(path), AS_THE_CONTAINER_SEES)
    name = os.path.basename(path)
    try:
        try:
            os.close(openat2(parent, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, STRICTLY, 0o644))
        except FileExistsError:
            return open_file(site, _target(path, parent, AS_THE_CONTAINER_SEES, links), links - 1)
        return openat2(parent, name, os.O_PATH, STRICTLY)
    finally:
        os.close(parent)


def _target(path: str, parent: int, resolve: int, links: int) -> str:
    """Where the link at `path` leads, as a path of the container: it is there, though nothing is where it leads."""
    if resolve == STRICTLY or links == 0:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return os.path.join(os.path.dirname(path), os.readlink(os.path.basename(path), dir_fd=parent))


def open_if_there(site: Site, path: str) -> int | None:
    """What is at `path`, or None. No link is followed in our own mounts, and none out of the root anywhere."""
    tree, relative = beneath(site, path)
    try:
        return openat2(tree, relative, os.O_PATH, AS_THE_CONTAINER_SEES if tree == site.trees["/"] else STRICTLY)
    except (FileNotFoundError, NotADirectoryError):
        return None


def beneath(site: Site, path: str) -> tuple[int, str]:
    """The innermost of our own mounts that holds `path`, and the path from its root."""
    above = path
    while above not in site.trees:
        above = os.path.dirname(above)
    return site.trees[above], path[len(above) :].lstrip("/") or "."


def check_device(descriptor: int, path: str, kind: str, major: int, minor: int) -> None:
    """Raise ENODEV unless the descriptor is the device of this kind (c or b) and these numbers."""
    status = os.fstat(descriptor)
    is_kind = stat.S_ISCHR if kind == "c" else stat.S_ISBLK
    if not is_kind(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != (major, minor):
        raise OSError(errno.ENODEV, f"not the device {kind} {major}:{minor}", path)


def refuse_proc(site: Site, place: int, path: str) -> None:
    """Raise EPERM if something is to be mounted on a part of /proc that the kernel or a runtime relies on."""
    if "/proc" not in site.trees or path in MAY_COVER_IN_PROC:
        return
    if os.fstat(place).st_dev == os.fstat(site.trees["/proc"]).st_dev:
        raise OSError(errno.EPERM, f'"{path}" cannot be mounted because it is inside /proc')


def _start(site: Site, path: str, resolve: int) -> tuple[int, str]:
    if resolve == STRICTLY:
        return beneath(site, path)
    return site.trees["/"], path
