"""Limits that were asked for and can't be set here: they are left out, and the client is told so, as Docker does it.

That is so where a kernel lacks a controller, and for an engine of an ordinary user to whom its cgroup isn't delegated.
"""

from collections.abc import Collection, MutableMapping
from typing import Any

# Messages: moby, daemon/daemon_unix.go, verifyPlatformContainerResources.
_NOT = "Your kernel does not support"
_OR = "or the cgroup is not mounted"
_LIMITS: tuple[tuple[str, tuple[tuple[str, Any], ...], str], ...] = (
    ("memory", (("Memory", 0), ("MemorySwap", 0)), f"memory limit capabilities {_OR}. Limitation discarded."),
    ("memory", (("MemoryReservation", 0),), f"memory soft limit capabilities {_OR}. Limitation discarded."),
    ("memory", (("MemorySwappiness", None),), f"memory swappiness capabilities {_OR}. Memory swappiness discarded."),
    ("memory", (("OomKillDisable", False),), "OomKillDisable. OomKillDisable discarded."),
    ("cpu", (("CpuShares", 0),), f"CPU shares {_OR}. Shares discarded."),
    ("cpu", (("NanoCpus", 0),), f"CPU CFS scheduler {_OR}. NanoCPUs discarded."),
    ("cpu", (("CpuPeriod", 0), ("CpuQuota", 0)), "CPU CFS scheduler. CPU period/quota discarded."),
    ("cpuset", (("CpusetCpus", ""), ("CpusetMems", "")), f"cpuset {_OR}. Cpuset discarded."),
    ("pids", (("PidsLimit", None),), f"PIDs limit capabilities {_OR}. PIDs limit discarded."),
    ("blkio", (("BlkioWeight", 0),), f"Block I/O weight {_OR}. Weight discarded."),
    ("blkio", (("BlkioWeightDevice", None),), "Block I/O weight_device."),
    ("blkio", (("BlkioDeviceReadBps", None),), f"BPS Block I/O read limit {_OR}. Block I/O BPS read limit discarded."),
    (
        "blkio",
        (("BlkioDeviceWriteBps", None),),
        f"BPS Block I/O write limit {_OR}. Block I/O BPS write limit discarded.",
    ),
    (
        "blkio",
        (("BlkioDeviceReadIOps", None),),
        f"IOPS Block read limit {_OR}. Block I/O IOPS read limit discarded.",
    ),
    (
        "blkio",
        (("BlkioDeviceWriteIOps", None),),
        f"IOPS Block write limit {_OR}. Block I/O IOPS write limit discarded.",
    ),
)


def discard_limits(host_config: MutableMapping[str, Any], controllers: Collection[str]) -> list[str]:
    """Take limits out of a HostConfig whose controller (by its name of v1) isn't there; returns a warning for each."""
    warnings = []
    for controller, fields, text in _LIMITS:
        if controller in controllers:
            continue
        if any(_is_asked(host_config.get(name)) for name, _ in fields):
            warnings.append(f"{_NOT} {text}")
        for name, nothing in fields:
            if _is_asked(host_config.get(name)):
                host_config[name] = nothing
    return warnings


def _is_asked(value: Any) -> bool:
    return bool(value) and value != -1  # -1: no limit, or the kernel's own
