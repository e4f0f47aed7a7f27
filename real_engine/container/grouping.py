"""The steps that put a container into cgroups of its own, or one more program into those of its container."""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from real_engine.container.steps import Operation, Site
from real_engine.linux import cgroups, device_filter, processes
from real_engine.linux.cgroups import Hierarchy, Setting
from real_engine.linux.processes import CLONE_NEWCGROUP


@dataclass(slots=True)
class MakeCgroup(Operation):
    """Make the container's cgroup in one hierarchy and open what is needed to enter it."""

    why: ClassVar[str] = "what the container uses is counted, and can be limited, in a group of its own"
    hierarchy: Hierarchy
    group: str

    def execute(self, site: Site) -> None:
        os.mkdir(self.group)
        _open(site, self.hierarchy, self.group)

    def describe(self) -> str:
        return f'mkdir("{self.group}")'


@dataclass(slots=True)
class OpenCgroup(Operation):
    """Open what is needed to enter the cgroup of a container that runs."""

    why: ClassVar[str] = "what the new program uses counts as the container's, and is limited with it"
    hierarchy: Hierarchy
    group: str
    first_process: int

    def execute(self, site: Site) -> None:
        group = self.group
        if self.hierarchy.version == 2:
            # A container that shares out its resources may have no process in its group itself: go where its first is.
            with open(f"/proc/{self.first_process}/cgroup") as file:
                own = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
            inner = os.path.normpath(f"{self.hierarchy.mount_point}/{own}")
            group = inner if Path(inner).is_relative_to(group) else group
        _open(site, self.hierarchy, group)

    def describe(self) -> str:
        return f'open("{self.group}")'


@dataclass(slots=True)
class WriteSettings(Operation):
    """Write values to files of the container's cgroup."""

    why: str  # type: ignore[misc]  # not of the class: each of these has its own reason
    group: str
    settings: tuple[Setting, ...]

    def execute(self, site: Site) -> None:
        for setting in self.settings:
            cgroups.write_setting(self.group, setting)

    def describe(self) -> str:
        return "write(" + ", ".join(f"{setting.file} = {setting.value}" for setting in self.settings) + ")"


@dataclass(slots=True)
class FilterDevices(Operation):
    """Attach a program to the v2 cgroup that decides which devices may be used."""

    why: ClassVar[str] = "a device made with mknod, such as the host's disk, must stay useless"
    program: bytes

    def execute(self, site: Site) -> None:
        if site.cgroup_directory is None:
            raise OSError(errno.ENOENT, "the container's cgroup isn't open")
        device_filter.attach_device_program(site.cgroup_directory, self.program)

    def describe(self) -> str:
        return "bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE), bpf(BPF_PROG_ATTACH)"


@dataclass(slots=True)
class JoinCgroups(Operation):
    """Move this process into its v1 cgroups."""

    # A process that moves *itself* by way of `tasks` doesn't take the lock under which others wait for all CPUs.
    why: ClassVar[str] = "from here on what it uses counts as the container's; v1 has no way to be born in a cgroup"

    def execute(self, site: Site) -> None:
        for descriptor in site.cgroup_tasks.values():
            os.write(descriptor, b"0")

    def describe(self) -> str:
        return "write(tasks = 0) in each hierarchy"


@dataclass(slots=True)
class NewCgroupNamespace(Operation):
    """Make a cgroup namespace with the container's own cgroup as its root."""

    why: ClassVar[str] = "apart from clone3, since the namespace's root is the cgroup in which it is made"

    def execute(self, site: Site) -> None:
        processes.unshare(CLONE_NEWCGROUP)

    def describe(self) -> str:
        return "unshare(CLONE_NEWCGROUP)"


def _open(site: Site, hierarchy: Hierarchy, group: str) -> None:
    if hierarchy.version == 2:
        site.cgroup_directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        site.cgroup_tasks[hierarchy.name] = os.open(f"{group}/tasks", os.O_WRONLY | os.O_CLOEXEC)
