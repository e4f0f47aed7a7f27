"""What the machine under the daemon is: its system, memory, file system, and what its kernel can limit."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path

from real_engine.images.marks import may_be_root
from real_engine.linux import cgroups

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
# The names that moby gives to file systems (daemon/graphdriver FsNames) where they differ from the kernel's.
_FILE_SYSTEMS = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "overlay": "overlayfs"}


def architecture() -> str:
    """The processor's architecture, by the name that Go and images have for it."""
    machine = platform.machine()
    return _GO_ARCHITECTURES.get(machine, machine)


@cache
def system_release() -> tuple[str, str]:
    """The name and version of the operating system, as os-release(5) has them."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system(), ""
    return release.get("PRETTY_NAME", release.get("NAME", "")), release.get("VERSION_ID", "")


def memory_bytes(root: Path = Path("/")) -> int:
    """The machine's memory."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def file_system(path: Path) -> str:
    """The kind of file system that `path` is on."""
    best, kind = -1, "unknown"
    real = os.path.realpath(path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount_point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        prefix = mount_point.rstrip("/") + "/"
        if (real + "/").startswith(prefix) and len(prefix) >= best:
            best, kind = len(prefix), after.split(" ", 1)[0]
    return _FILE_SYSTEMS.get(kind, kind)


def switched_on(name: str) -> bool:
    """Whether the kernel's switch /proc/sys/NAME is on; one that isn't there is off."""
    try:
        return Path("/proc/sys", name).read_text().strip() != "0"
    except OSError:
        return False


@cache
def limits() -> dict[str, bool]:
    """Which limits the cgroups of this machine know, under the names of the API's SystemInfo."""
    kinds = usable_controllers()
    memory = kinds.get("memory")
    unified = memory is not None and (memory / "cgroup.controllers").exists()
    return {
        "MemoryLimit": memory is not None,
        "SwapLimit": memory is not None and (unified or (memory / "memory.memsw.limit_in_bytes").exists()),
        "CpuCfsPeriod": "cpu" in kinds,
        "CpuCfsQuota": "cpu" in kinds,
        "CPUShares": "cpu" in kinds,
        "CPUSet": "cpuset" in kinds,
        "PidsLimit": "pids" in kinds,
        # v2 has no such switch: what is out of memory there is killed, or thaws when more is allowed.
        "OomKillDisable": memory is not None and (memory / "memory.oom_control").exists(),
    }


@cache
def usable_controllers() -> dict[str, Path]:
    """Each cgroup controller by which containers can be limited, and where it is mounted.

    To root that is all that are mounted; to root of a user namespace, what was delegated to that user.
    """
    mounted = mounted_controllers()
    if may_be_root():
        return mounted
    ours: set[str] = set()
    for hierarchy in cgroups.hierarchies():
        if not hierarchy.unavailable:
            ours |= hierarchy.controllers
    return {name: path for name, path in mounted.items() if name in ours}


@cache
def mounted_controllers() -> dict[str, Path]:
    """Each cgroup controller that is mounted, and where."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount_point = Path(before.split(" ")[4])
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup":
            for name in options.split(" ")[-1].split(","):
                found.setdefault(name, mount_point)
        elif kind == "cgroup2":
            try:
                names = (mount_point / "cgroup.controllers").read_text().split()
            except OSError:
                continue
            for name in names:
                found.setdefault(name, mount_point)
    return found


def limit_warnings() -> list[str]:
    """What `docker info` warns of: limits that this machine doesn't know."""
    words = {
        "MemoryLimit": "memory limit",
        "SwapLimit": "swap limit",
        "OomKillDisable": "oom kill disable",
        "CpuCfsQuota": "cpu cfs quota",
        "CpuCfsPeriod": "cpu cfs period",
        "CPUShares": "cpu shares",
        "CPUSet": "cpuset",
    }
    known = limits()
    version_2 = cgroups.mode() == "v2"
    return [
        f"WARNING: No {word} support"
        for name, word in words.items()
        if not known[name] and not (name == "OomKillDisable" and version_2)
    ]
