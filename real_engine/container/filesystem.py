"""The steps that build a container's file system: its root, what is mounted in it, and the move into it.

The root, and each file system in it, is a descriptor before it has a place (the mount API of Linux 5.2). A place is
opened beneath a mount that we made ourselves and without following links, so an image whose /dev is a link to the
host's /etc gets an error, not a mount on /etc (CVE-2021-30465, CVE-2025-52565 were such cases).
"""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from real_engine.container.steps import Operation, Site
from real_engine.linux import mounts
from real_engine.linux.mounts import (
    ATTRIBUTE_NAMES,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from real_engine.linux.processes import (
    CLONE_NEWNS,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
    setns,
)

_STRICTLY = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_AS_THE_CONTAINER_SEES = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


@dataclass(slots=True)
class HoldMountNamespace(Operation):
    """Open this process's own new mount namespace."""

    why: ClassVar[str] = "to come back to its true root below, in case the engine itself runs in a chroot"

    def execute(self, site: Site) -> None:
        site.namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def describe(self) -> str:
        return 'open("/proc/self/ns/mnt")'


@dataclass(slots=True)
class MountRoot(Operation):
    """Mount the image's layers (the lowest first) and a writable one as one file system."""

    why: ClassVar[str] = "the root: the image's layers below, shared by all, and a layer of its own for what it writes"
    layers: tuple[Path, ...]
    upper: Path
    work: Path
    mountpoint: Path
    rootless: bool

    def execute(self, site: Site) -> None:
        # The upper layer is removed with the container, so nothing in it need ever reach the disk: volatile.
        options: dict[str, str | None] = {"source": "overlay", "volatile": None}
        if self.rootless:
            options["userxattr"] = None  # trusted.* attributes, where overlayfs keeps its marks, are root's alone
        try:
            site.trees["/"] = self._mount(options, one_by_one=True)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            site.trees["/"] = self._mount(options, one_by_one=False)  # before Linux 6.5 there is no lowerdir+
        # A path can lead here only now: the mount namespace is ours already, and our root is still the engine's.
        site.mountpoint = os.open(self.mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _mount(self, options: dict[str, str | None], one_by_one: bool) -> int:
        top_first = self.layers[::-1]
        context = mounts.fsopen("overlay")
        try:
            for key, value in options.items():
                mounts.fsconfig_set(context, key, value)
            if one_by_one:
                for layer in top_first:
                    mounts.fsconfig_set(context, "lowerdir+", str(layer))
                mounts.fsconfig_set(context, "upperdir", str(self.upper))
                mounts.fsconfig_set(context, "workdir", str(self.work))
                mounts.fsconfig_create(context)
            else:
                # An option's value may have 255 bytes: name the layers by descriptors, which makes them short.
                opened = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*top_first, self.upper, self.work)]
                *lower, upper, work = (f"/proc/self/fd/{descriptor}" for descriptor in opened)
                mounts.fsconfig_set(context, "lowerdir", ":".join(lower))
                mounts.fsconfig_set(context, "upperdir", upper)
                mounts.fsconfig_set(context, "workdir", work)
                mounts.fsconfig_create(context)
                for descriptor in opened:
                    os.close(descriptor)
            return mounts.fsmount(context)
        finally:
            os.close(context)

    def describe(self) -> str:
        layers = ", ".join(f"lowerdir+={layer}" for layer in reversed(self.layers))
        extra = ", userxattr" if self.rootless else ""
        return f'fsopen("overlay"), fsconfig({layers}, upperdir={self.upper}, workdir, volatile{extra}), fsmount()'


@dataclass(slots=True)
class CloneTree(Operation):
    """Copy a directory or device of the host as a mount, to be put into the container by its `name` later."""

    why: ClassVar[str] = "a bind mount without a place yet: after the next steps no path leads to the host any more"
    path: str
    name: str
    device: tuple[int, int] | None = None
    recursive: bool = False

    def execute(self, site: Site) -> None:
        descriptor = os.open(self.path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if self.device is not None:
                _check_device(descriptor, self.path, self.device)
            site.binds[self.name] = mounts.open_tree_clone(b"", descriptor, self.recursive)
        finally:
            os.close(descriptor)

    def describe(self) -> str:
        return f'open_tree("{self.path}", OPEN_TREE_CLONE{" | AT_RECURSIVE" if self.recursive else ""})'


@dataclass(slots=True)
class EnterTrueRoot(Operation):
    """Join the mount namespace that we are in, which resets root and working directory to the namespace's own."""

    why: ClassVar[str] = "pivot_root refuses to work from within a chroot: step out of it, if there is one"

    def execute(self, site: Site) -> None:
        setns(site.namespace, CLONE_NEWNS)

    def describe(self) -> str:
        return "setns(own mount namespace, CLONE_NEWNS)"


@dataclass(slots=True)
class MakePrivate(Operation):
    """Cut every mount of this namespace off from its twin on the host."""

    why: ClassVar[str] = "nothing mounted from here on shows on the host, and nothing mounted there shows here"

    def execute(self, site: Site) -> None:
        mounts.make_private("/")
        os.umask(0)  # modes of devices and mount points below are meant as they are written

    def describe(self) -> str:
        return 'mount_setattr("/", AT_RECURSIVE, propagation=MS_PRIVATE), umask(0)'


@dataclass(slots=True)
class AttachRoot(Operation):
    """Give the container's root a place."""

    why: ClassVar[str] = "only a mount that has a place can become the root"
    mountpoint: Path

    def execute(self, site: Site) -> None:
        mounts.move_mount(site.trees["/"], site.mountpoint)

    def describe(self) -> str:
        return f'move_mount(root, "{self.mountpoint}")'


@dataclass(slots=True)
class MountFilesystem(Operation):
    """Make a file system of the kernel's own and mount it at `target`, which is made where it is missing.

    `follow_links` is for places that the owner chose; they are resolved as the container itself would.
    """

    why: str  # type: ignore[misc]  # not of the class: each of these has its own reason
    fstype: str
    target: str
    options: dict[str, str | None] = field(default_factory=dict)
    attributes: int = 0
    follow_links: bool = False

    def execute(self, site: Site) -> None:
        tree = mounts.new_mount(self.fstype, {"source": self.fstype, **self.options}, self.attributes)
        place = _open_directory(site, self.target, _AS_THE_CONTAINER_SEES if self.follow_links else _STRICTLY)
        mounts.move_mount(tree, place)
        os.close(place)
        if not self.follow_links:
            site.trees[self.target] = tree

    def describe(self) -> str:
        options = ", ".join(key if value is None else f"{key}={value}" for key, value in self.options.items())
        attributes = ", ".join(name for bit, name in ATTRIBUTE_NAMES.items() if self.attributes & bit)
        middle = f"fsconfig({options}), " if options else ""
        return f'fsopen("{self.fstype}"), {middle}fsmount({attributes}), move_mount("{self.target}")'


@dataclass(slots=True)
class MakeDevices(Operation):
    """Make character devices in the container's own /dev."""

    why: ClassVar[str] = "the devices that every program may expect, and no others"
    devices: dict[str, tuple[int, int]]

    def execute(self, site: Site) -> None:
        for name, (major, minor) in self.devices.items():
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=site.trees["/dev"])

    def describe(self) -> str:
        return (
            "mknod("
            + ", ".join(f"/dev/{name} c {numbers[0]}:{numbers[1]}" for name, numbers in self.devices.items())
            + ")"
        )


@dataclass(slots=True)
class BindDevice(Operation):
    """Put a device of the host into the container's /dev."""

    why: ClassVar[str] = (
        "without root no device can be made, so the host's is shown; it has been checked to be the right one"
    )
    name: str

    def execute(self, site: Site) -> None:
        place = os.open(self.name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=site.trees["/dev"])
        mounts.move_mount(site.binds[self.name], place)
        os.close(place)

    def describe(self) -> str:
        return f'move_mount("/dev/{self.name}")'


@dataclass(slots=True)
class MakeLinks(Operation):
    """Make symbolic links in one of the container's own mounts."""

    why: ClassVar[str] = "names that programs use for their own descriptors and for new terminals"
    tree: str
    links: dict[str, str]

    def execute(self, site: Site) -> None:
        for name, target in self.links.items():
            os.symlink(target, name, dir_fd=site.trees[self.tree])

    def describe(self) -> str:
        return "symlink(" + ", ".join(f"{self.tree}/{name} -> {target}" for name, target in self.links.items()) + ")"


@dataclass(slots=True)
class AttachTree(Operation):
    """Put a copied mount into the container, read-only."""

    why: str  # type: ignore[misc]
    name: str
    target: str
    recursive: bool = False

    def execute(self, site: Site) -> None:
        place = _open_directory(site, self.target, _STRICTLY)
        tree = site.binds[self.name]
        mounts.move_mount(tree, place)
        os.close(place)
        site.trees[self.target] = tree
        attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
        mounts.set_attributes(tree, attributes, self.recursive)

    def describe(self) -> str:
        return f'move_mount("{self.target}"), mount_setattr(ro, nosuid, nodev, noexec)'


@dataclass(slots=True)
class MakeReadOnly(Operation):
    """Make one of the container's mounts read-only."""

    why: str  # type: ignore[misc]
    target: str

    def execute(self, site: Site) -> None:
        mounts.set_attributes(site.trees[self.target], MOUNT_ATTR_RDONLY)

    def describe(self) -> str:
        return f'mount_setattr("{self.target}", ro)'


@dataclass(slots=True)
class ProtectPath(Operation):
    """Make a part of a mount read-only, by a read-only mount of itself on top; nothing to do if it doesn't exist."""

    why: ClassVar[str] = "settings of the whole machine: to be read, not written"
    path: str

    def execute(self, site: Site) -> None:
        place = _open_if_there(site, self.path)
        if place is None:
            return
        tree = mounts.open_tree_clone(b"", place)
        mounts.move_mount(tree, place)
        mounts.set_attributes(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
        os.close(tree)
        os.close(place)

    def describe(self) -> str:
        return f'open_tree("{self.path}", OPEN_TREE_CLONE), move_mount("{self.path}"), mount_setattr(ro)'


@dataclass(slots=True)
class MaskPath(Operation):
    """Cover a file with the container's /dev/null, or a directory with an empty one, if it exists."""

    why: ClassVar[str] = "it would tell about the machine or its other users, or change them"
    path: str

    def execute(self, site: Site) -> None:
        place = _open_if_there(site, self.path)
        if place is None:
            return
        if stat.S_ISDIR(os.fstat(place).st_mode):
            cover = self._empty_directory(site)
        else:
            # Ours, made or checked above: an image can't have put another file in its place (CVE-2025-31133).
            cover = mounts.open_tree_clone("null", site.trees["/dev"])
        mounts.move_mount(cover, place)
        os.close(place)

    def _empty_directory(self, site: Site) -> int:
        """One empty file system serves for all; a copy can be made of it once it has a place."""
        if "empty" in site.trees:
            return mounts.open_tree_clone(b"", site.trees["empty"])
        attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
        site.trees["empty"] = mounts.new_mount("tmpfs", {"source": "empty", "mode": "755"}, attributes)
        return site.trees["empty"]

    def describe(self) -> str:
        return f'open_tree("/dev/null" or an empty tmpfs, OPEN_TREE_CLONE), move_mount("{self.path}")'


@dataclass(slots=True)
class MountFiles(Operation):
    """Put small files of this container's own over those of the image, which are made where missing."""

    why: ClassVar[str] = "what this machine is called and how names are found, without a copy of the image's files"
    files: dict[str, bytes]

    def execute(self, site: Site) -> None:
        memory = site.trees["/dev"]  # a memory file system of ours; a file there can lose its name once it is mounted
        for path, content in self.files.items():
            name = os.path.basename(path)
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=memory)
            os.write(descriptor, content)
            os.close(descriptor)
            place = _open_file(site, path)
            tree = mounts.open_tree_clone(name, memory)
            mounts.move_mount(tree, place)
            os.close(tree)
            os.close(place)
            os.unlink(name, dir_fd=memory)

    def describe(self) -> str:
        return f"open_tree(OPEN_TREE_CLONE), move_mount({', '.join(self.files)})"


@dataclass(slots=True)
class PivotRoot(Operation):
    """Make the container's root the root of the mount namespace, the old one on top of it, and remove the old one."""

    why: ClassVar[str] = "unlike chroot, it leaves no way back: the host's mounts are gone from this namespace"

    def execute(self, site: Site) -> None:
        os.fchdir(site.trees["/"])
        mounts.pivot_root(".", ".")
        mounts.umount2(".", mounts.MNT_DETACH)
        os.chdir("/")

    def describe(self) -> str:
        return 'fchdir(root), pivot_root(".", "."), umount2(".", MNT_DETACH), chdir("/")'


def _open_directory(site: Site, path: str, resolve: int) -> int:
    """The directory `path` of the container, made with all above it where missing.

    Raises:
        OSError: ELOOP when a link is on the way and `resolve` forbids it, ENOTDIR when it is a file.
    """
    tree, relative = _beneath(site, path)
    try:
        return openat2(tree, relative, os.O_PATH | os.O_DIRECTORY, resolve)
    except FileNotFoundError:
        parent = _open_directory(site, os.path.dirname(path), resolve)
        try:
            os.mkdir(os.path.basename(path), 0o755, dir_fd=parent)
            return openat2(parent, os.path.basename(path), os.O_PATH | os.O_DIRECTORY, _STRICTLY)
        finally:
            os.close(parent)


def _open_file(site: Site, path: str) -> int:
    """The file `path` of the image, resolved as the container itself would, made empty where missing."""
    try:
        return openat2(site.trees["/"], path, os.O_PATH, _AS_THE_CONTAINER_SEES)
    except FileNotFoundError:
        parent = _open_directory(site, os.path.dirname(path), _AS_THE_CONTAINER_SEES)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            os.close(openat2(parent, os.path.basename(path), flags, _STRICTLY, 0o644))
            return openat2(parent, os.path.basename(path), os.O_PATH, _STRICTLY)
        finally:
            os.close(parent)


def _open_if_there(site: Site, path: str) -> int | None:
    """What is at `path` of one of the kernel's file systems in the container, or None."""
    tree, relative = _beneath(site, path)
    try:
        return openat2(tree, relative, os.O_PATH, _STRICTLY)
    except FileNotFoundError:
        return None


def _beneath(site: Site, path: str) -> tuple[int, str]:
    """The innermost of our own mounts that holds `path`, and the path from its root."""
    above = path
    while above not in site.trees:
        above = os.path.dirname(above)
    return site.trees[above], path[len(above) :].lstrip("/") or "."


def _check_device(descriptor: int, path: str, expected: tuple[int, int]) -> None:
    """Raise ENODEV unless the descriptor is the character device with the expected major and minor number."""
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != expected:
        raise OSError(errno.ENODEV, f"not the character device {expected[0]}:{expected[1]}", path)
