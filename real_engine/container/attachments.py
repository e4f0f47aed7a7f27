"""The steps for what the owner asked to have in the container: mounts of the host's files, and devices."""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import errno
import os
import stat
from dataclasses import dataclass
from typing import ClassVar

from real_engine.container.places import (
    AS_THE_CONTAINER_SEES,
    STRICTLY,
    open_directory,
    open_file,
    refuse_proc,
)
from real_engine.container.resources import Mount
from real_engine.container.steps import Operation, Site
from real_engine.linux import mounts
from real_engine.linux.devices import DeviceNode
from real_engine.linux.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
)
from real_engine.linux.processes import CLONE_NEWNS, openat2, setns

_PROPAGATIONS = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED}


@dataclass(slots=True)
class AttachMount(Operation):
    """Put a copied mount of the host where the owner wants it; the file or directory is made where it is missing."""

    why: ClassVar[str] = "asked for; the place is found as the container sees it, so that no link leads out of it"
    name: str
    mount: Mount
    is_ours: bool = False

    def execute(self, site: Site) -> None:
        tree, mount = site.binds[self.name], self.mount
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            place = open_directory(site, mount.target, AS_THE_CONTAINER_SEES)
        else:
            place = open_file(site, mount.target)
            if stat.S_ISDIR(os.fstat(place).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), mount.source)
        refuse_proc(site, place, mount.target)
        mounts.move_mount(tree, place)
        os.close(place)
        if self.attributes:
            mounts.set_attributes(tree, self.attributes, mount.recursive)
        propagation = mount.propagation.removeprefix("r")
        mounts.set_propagation(tree, _PROPAGATIONS[propagation], recursive=propagation != mount.propagation)
        if self.is_ours:
            site.trees[mount.target] = tree  # it takes the place of a mount that later steps look for

    @property
    def attributes(self) -> int:
        """`MOUNT_ATTR_…` bits."""
        mount = self.mount
        return (
            (MOUNT_ATTR_RDONLY if mount.read_only else 0)
            | (MOUNT_ATTR_NOSUID if mount.nosuid else 0)
            | (MOUNT_ATTR_NODEV if mount.nodev else 0)
            | (MOUNT_ATTR_NOEXEC if mount.noexec else 0)
        )

    def describe(self) -> str:
        flags = ("ro" if self.mount.read_only else "rw", self.mount.propagation)
        return f'move_mount("{self.mount.target}"), mount_setattr({", ".join(flags)})'


@dataclass(slots=True)
class BorrowSharedMemory(Operation):
    """Copy /dev/shm of the container whose IPC namespace is shared, as a mount."""

    why: ClassVar[str] = "POSIX shared memory is a part of IPC, but lives in a mount and not in the namespace"
    mount_namespace: str
    name: str

    def execute(self, site: Site) -> None:
        theirs = os.open(self.mount_namespace, os.O_RDONLY | os.O_CLOEXEC)
        setns(theirs, CLONE_NEWNS)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        place = openat2(root, "dev/shm", os.O_PATH | os.O_DIRECTORY, STRICTLY)
        site.binds[self.name] = mounts.open_tree_clone(b"", place)
        setns(site.namespace, CLONE_NEWNS)
        for descriptor in (theirs, root, place):
            os.close(descriptor)

    def describe(self) -> str:
        return f'setns("{self.mount_namespace}", CLONE_NEWNS), open_tree("/dev/shm", OPEN_TREE_CLONE), setns(own)'


@dataclass(slots=True)
class MakeDevices(Operation):
    """Make devices in the container."""

    why: str  # type: ignore[misc]  # not of the class: each of these has its own reason
    devices: tuple[DeviceNode, ...]

    def execute(self, site: Site) -> None:
        for device in self.devices:
            parent = _parent(site, device.path)
            name = os.path.basename(device.path)
            try:
                os.mknod(name, device.type_and_mode, os.makedev(device.major, device.minor), dir_fd=parent)
                if device.uid or device.gid:
                    os.chown(name, device.uid, device.gid, dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                continue  # the image has it, or it was asked for twice; what may be opened, the cgroup decides
            finally:
                if parent != site.trees["/dev"]:
                    os.close(parent)

    def describe(self) -> str:
        named = (f"{device.path} {device.kind} {device.major}:{device.minor}" for device in self.devices)
        return f"mknod({', '.join(named)})"


@dataclass(slots=True)
class BindDevice(Operation):
    """Put a device of the host into the container."""

    why: ClassVar[str] = (
        "without root no device can be made, so the host's is shown; it has been checked to be the right one"
    )
    name: str
    target: str

    def execute(self, site: Site) -> None:
        parent = _parent(site, self.target)
        name = os.path.basename(self.target)
        place = os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666, dir_fd=parent)
        mounts.move_mount(site.binds[self.name], place)
        os.close(place)
        if parent != site.trees["/dev"]:
            os.close(parent)

    def describe(self) -> str:
        return f'move_mount("{self.target}")'


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


def _parent(site: Site, path: str) -> int:
    """The directory that holds `path`: the container's own /dev is at hand."""
    directory = os.path.dirname(path)
    if directory == "/dev":
        return site.trees["/dev"]
    return open_directory(site, directory, AS_THE_CONTAINER_SEES)
