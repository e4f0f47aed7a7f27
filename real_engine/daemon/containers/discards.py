"""Limits that were asked for and can't be set here: they are left out, and the client is told so, as Docker does it.

So is what can do harm or nothing. A limit can't be set where a kernel lacks
a controller or a file of its groups, and for an engine of an ordinary user to whom its cgroup isn't delegated.
"""

from collections.abc import Callable, Collection, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from real_engine.linux.cgroups import Hierarchy

HasFile = Callable[[str, tuple[str, ...]], bool]
"""Whether groups of a controller (by its name of v1) have one of these files."""

# Messages: moby, daemon/daemon_unix.go, verifyPlatformContainerResources.
_NOT = "Your kernel does not support"
_OR = "or the cgroup is not mounted"
_ALL_MEMORY = (
    "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out "
    "of resources."
)
# The controller; files of which its groups have one where the limit is known (none are named: always); the fields, and
# what they are without the limit; the end of the message.
_LIMITS: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, Any], ...], str], ...] = (
    (
        "memory",
        (),
        (("Memory", 0), ("MemorySwap", 0)),
        f"memory limit capabilities {_OR}. Limitation discarded.",
    ),
    (
        "memory",
        ("memory.swappiness",),
        (("MemorySwappiness", None),),
        f"memory swappiness capabilities {_OR}. Memory swappiness discarded.",
    ),
    ("memory", (), (("MemoryReservation", 0),), f"memory soft limit capabilities {_OR}. Limitation discarded."),
    (
        "memory",
        ("memory.kmem.limit_in_bytes",),
        (("KernelMemory", 0),),
        f"kernel memory limit capabilities {_OR}. Limitation discarded.",
    ),
    (
        "memory",
        ("memory.oom_control",),
        (("OomKillDisable", False),),
        "OomKillDisable. OomKillDisable discarded.",
    ),
    ("pids", (), (("PidsLimit", None),), f"PIDs limit capabilities {_OR}. PIDs limit discarded."),
    ("cpu", (), (("NanoCpus", 0),), f"CPU CFS scheduler {_OR}. NanoCPUs discarded."),
    ("cpu", (), (("CpuShares", 0),), f"CPU shares {_OR}. Shares discarded."),
    ("cpu", (), (("CpuPeriod", 0), ("CpuQuota", 0)), "CPU CFS scheduler. CPU period/quota discarded."),
    ("cpuset", (), (("CpusetCpus", ""), ("CpusetMems", "")), f"cpuset {_OR}. Cpuset discarded."),
    (
        "blkio",
        ("blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"),
        (("BlkioWeight", 0),),
        f"Block I/O weight {_OR}. Weight discarded.",
    ),
    (
        "blkio",
        ("blkio.weight_device", "blkio.bfq.weight_device", "io.bfq.weight"),
        (("BlkioWeightDevice", None),),
        f"Block I/O weight_device {_OR}. Weight-device discarded.",
    ),
    *(
        (
            "blkio",
            (f"blkio.throttle.{file}_device", "io.max"),
            ((field, None),),
            f"{what} limit {_OR}. Block I/O {short} limit discarded.",
        )
        for file, field, what, short in (
            ("read_bps", "BlkioDeviceReadBps", "BPS Block I/O read", "BPS read"),
            ("write_bps", "BlkioDeviceWriteBps", "BPS Block I/O write", "BPS write"),
            ("read_iops", "BlkioDeviceReadIOps", "IOPS Block read", "IOPS read"),
            ("write_iops", "BlkioDeviceWriteIOps", "IOPS Block write", "IOPS write"),
        )
    ),
)


def files_of(hierarchies: Collection[Hierarchy]) -> HasFile:
    """Looks at the groups that hold those of the containers: the top ones lack some files that all others have."""

    def has(controller: str, names: tuple[str, ...]) -> bool:
        places = [
            each.parent
            for each in hierarchies
            if {controller, "io" if controller == "blkio" else controller} & each.controllers
        ]
        return any(not place.exists() or any((Path(place) / name).exists() for name in names) for place in places)

    return has


def discard_limits(
    host_config: MutableMapping[str, Any], controllers: Collection[str], has: HasFile = lambda controller, names: True
) -> list[str]:
    """Take limits out of a HostConfig that the kernel doesn't know here; returns a warning for each.

    `controllers` are those that there are, by their names of v1; `has` tells what files their groups have. What Docker
    warns of besides comes with them, in its order: limits that are kept, but can do harm or nothing.
    """
    warnings = []
    for controller, files, fields, text in _LIMITS:
        known = controller in controllers and (not files or has(controller, files))
        asked = [name for name, _ in fields if _is_asked(host_config.get(name))]
        if asked and not known:
            warnings.append(f"{_NOT} {text}")
            host_config.update((name, nothing) for name, nothing in fields if name in asked)
        if fields[0][0] == "Memory":
            warnings += _without_swap(host_config, has)
        elif fields[0][0] == "KernelMemory" and _is_asked(host_config.pop("KernelMemory", 0)):
            # Kernels of today take such a limit and do nothing with it, so that this is all there is to do.
            warnings.append("Specifying a kernel memory limit is deprecated and will be removed in a future release.")
        elif fields[0][0] == "OomKillDisable" and host_config["OomKillDisable"] and not host_config["Memory"]:
            warnings.append(_ALL_MEMORY)
    return warnings


def useless_ports(host_config: Mapping[str, Any]) -> list[str]:
    """Docker's warning of ports that cannot be published, for they are the host's already."""
    if host_config["NetworkMode"] == "host" and host_config["PortBindings"]:
        return ["Published ports are discarded when using host network mode"]
    return []


def _without_swap(host_config: MutableMapping[str, Any], has: HasFile) -> list[str]:
    if not host_config["Memory"] or host_config["MemorySwap"] == -1:
        return []
    if has("memory", ("memory.memsw.limit_in_bytes", "memory.swap.max")):
        return []
    host_config["MemorySwap"] = -1
    return [f"{_NOT} swap limit capabilities {_OR}. Memory limited without swap."]


def _is_asked(value: Any) -> bool:
    return bool(value) and value != -1  # -1: no limit, or the kernel's own
