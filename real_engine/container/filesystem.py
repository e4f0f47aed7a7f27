"""The steps that build a container's file system: its root, what the kernel mounts in it, and the move into it.

The root, and each file system in it, is a descriptor before it has a place (the mount API of Linux 5.2). `places` tells
how a place is found.
"""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from real_engine.container.places import (
    AS_THE_CONTAINER_SEES,
    STRICTLY,
    check_device,
    open_directory,
    open_file,
    open_if_there,
    refuse_proc,
)
from real_engine.container.steps import Operation, Site
from real_engine.linux import mounts
from real_engine.linux.devices import DeviceNode
from real_engine.linux.interpreter import refuse_imports
from real_engine.linux.mounts import (
    ATTRIBUTE_NAMES,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from real_engine.linux.processes import CLONE_NEWNS, openat2, setns


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
    user_namespace: bool
    volatile: bool = True

    def execute(self, site: Site) -> None:
        options: dict[str, str | None] = {"source": "overlay"}
        if self.volatile:
            options["volatile"] = None  # removed with the container: nothing in it need ever reach the disk
        else:
            # What is kept has to tell by itself how it differs from the layers, for whoever makes an image of it.
            # ("off" follows redirections where the kernel was built so, and userxattr allows none.)
            options |= {"redirect_dir": "nofollow" if self.user_namespace else "off", "index": "off"}
        if self.user_namespace:
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
        extra = (", volatile" if self.volatile else "") + (", userxattr" if self.user_namespace else "")
        return f'fsopen("overlay"), fsconfig({layers}, upperdir={self.upper}, workdir{extra}), fsmount()'


@dataclass(slots=True)
class CloneTree(Operation):
    """Copy a directory or device of the host as a mount, to be put into the container by its `name` later."""

    why: ClassVar[str] = "a bind mount without a place yet: after the next steps no path leads to the host any more"
    path: str
    name: str
    device: DeviceNode | None = None
    recursive: bool = False
    follow_links: bool = False

    def execute(self, site: Site) -> None:
        flags = os.O_PATH | os.O_CLOEXEC | (0 if self.follow_links else os.O_NOFOLLOW)
        descriptor = os.open(self.path, flags)
        try:
            if self.device is not None:
                check_device(descriptor, self.path, self.device.kind, self.device.major, self.device.minor)
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
        options = {"source": self.fstype, **self.options}
        if not self.follow_links:
            tree = mounts.new_mount(self.fstype, options, self.attributes)
            place = open_directory(site, self.target, STRICTLY)
        else:
            place = open_directory(site, self.target, AS_THE_CONTAINER_SEES)
            refuse_proc(site, place, self.target)
            if self.fstype == "tmpfs":
                options.setdefault("mode", f"{stat.S_IMODE(os.fstat(place).st_mode):o}")  # as what it covers
            tree = mounts.new_mount(self.fstype, options, self.attributes)
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
class AttachTree(Operation):
    """Put a copied mount into the container."""

    why: str  # type: ignore[misc]
    name: str
    target: str
    recursive: bool = False
    read_only: bool = True

    def execute(self, site: Site) -> None:
        place = open_directory(site, self.target, STRICTLY)
        tree = site.binds[self.name]
        mounts.move_mount(tree, place)
        os.close(place)
        site.trees[self.target] = tree
        attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
        mounts.set_attributes(tree, attributes | (MOUNT_ATTR_RDONLY if self.read_only else 0), self.recursive)

    def describe(self) -> str:
        return f'move_mount("{self.target}"), mount_setattr({"ro, " if self.read_only else ""}nosuid, nodev, noexec)'


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
        place = open_if_there(site, self.path)
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
        place = open_if_there(site, self.path)
        if place is None:
            return
        if stat.S_ISDIR(os.fstat(place).st_mode):
            cover = self._empty_directory(site)
        else:
            # Ours, and checked: an image can't have put another file in its place (CVE-2025-31133).
            cover = mounts.open_tree_clone(b"", self._null_device(site))
        mounts.move_mount(cover, place)
        os.close(place)

    def _null_device(self, site: Site) -> int:
        if "/dev/null" not in site.trees:
            null = openat2(site.trees["/dev"], "null", os.O_PATH, STRICTLY)
            check_device(null, "/dev/null", "c", 1, 3)
            site.trees["/dev/null"] = null
        return site.trees["/dev/null"]

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
    memory: str = "/dev"

    def execute(self, site: Site) -> None:
        # A memory file system of ours; a file there can lose its name once it is mounted.
        memory = site.trees[self.memory]
        for path, content in self.files.items():
            name = os.path.basename(path)
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=memory)
            os.write(descriptor, content)
            os.close(descriptor)
            place = open_file(site, path)
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
        refuse_imports()
        os.fchdir(site.trees["/"])
        mounts.pivot_root(".", ".")
        mounts.umount2(".", mounts.MNT_DETACH)
        os.chdir("/")

    def describe(self) -> str:
        return 'fchdir(root), pivot_root(".", "."), umount2(".", MNT_DETACH), chdir("/")'
