"""Limits as files of a cgroup: one table for v1 and v2. Source: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.

What is asked for is a `Wanted` in numbers of the kernel's own units. What a hierarchy has no file for is left out; the
caller knows which controllers are missing.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from real_engine.linux.cgroups import Hierarchy, Setting, write_setting

CPU_PERIOD_MICROSECONDS = 100_000  # the kernel's default and Docker's
UNLIMITED = -1

Rates = tuple[tuple[str, int], ...]  # ("8:0", bytes or operations a second, or a weight)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Limits for a group; None leaves the kernel's value. -1 is without limit where it makes sense.

    `memory_swap_bytes` is memory and swap together; the quota is CPU time in each period.
    """

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_quota_microseconds: int | None = None
    cpu_period_microseconds: int | None = None
    cpu_realtime_period_microseconds: int | None = None
    cpu_realtime_runtime_microseconds: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None
    blkio_weight: int | None = None
    blkio_weight_devices: Rates = ()
    read_bytes: Rates = ()
    write_bytes: Rates = ()
    read_operations: Rates = ()
    write_operations: Rates = ()

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers that this needs, by the names of v1."""
        return _controllers(self)

    def _find_controllers(self) -> frozenset[str]:
        memory = (self.memory_bytes, self.memory_swap_bytes, self.memory_reservation_bytes, self.memory_swappiness)
        cpu = (
            self.cpu_shares,
            self.cpu_quota_microseconds,
            self.cpu_period_microseconds,
            self.cpu_realtime_period_microseconds,
            self.cpu_realtime_runtime_microseconds,
        )
        rates = (self.read_bytes, self.write_bytes, self.read_operations, self.write_operations)
        needed = {
            "memory": self.oom_kill_disable or any(value is not None for value in memory),
            "cpu": any(value is not None for value in cpu),
            "cpuset": bool(self.cpuset_cpus or self.cpuset_mems),
            "pids": self.pids is not None,
            "blkio": bool(self.blkio_weight or self.blkio_weight_devices or any(rates)),
        }
        return frozenset(name for name, is_needed in needed.items() if is_needed)


@lru_cache(maxsize=64)
def _controllers(wanted: Wanted) -> frozenset[str]:
    return wanted._find_controllers()


def limit_settings(hierarchy: Hierarchy, wanted: Wanted) -> list[Setting]:
    """What to write to the files of a new group in `hierarchy`, in order."""
    if not wanted.controllers:
        return []
    table = _unified_settings(wanted) if hierarchy.version == 2 else _v1_settings(wanted)
    return [
        setting
        for controller, setting, optional in table
        if controller in hierarchy.controllers and not (optional and not _has_file(hierarchy, setting.file))
    ]


def apply(hierarchy: Hierarchy, group: Path, wanted: Wanted) -> None:
    """Change the limits of a group that is in use.

    Raises:
        OSError: the kernel doesn't take one: EBUSY for less memory than is used.
    """
    settings = limit_settings(hierarchy, wanted)
    # Memory may never be more than memory with swap: when both grow, the second has to go first.
    both = "memory.memsw.limit_in_bytes"
    if wanted.memory_bytes is not None and any(setting.file == both for setting in settings):
        present = int((group / both).read_text())
        if wanted.memory_bytes == UNLIMITED or wanted.memory_bytes > present:
            settings.sort(key=lambda setting: setting.file != both)
    for setting in settings:
        write_setting(group, setting)


def shares_to_weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for v1's cpu.shares (2 to 262144).

    Linear, as runc has it (libcontainer/cgroups/utils.go, ConvertCPUSharesToCgroupV2Value), so that 1024 is 39.
    """
    return 1 + (max(2, min(shares, 262_144)) - 2) * 9999 // 262_142


def blkio_to_io_weight(weight: int) -> int:
    """io.weight (1 to 10000) for v1's blkio.weight (10 to 1000); runc's ConvertBlkIOToIOWeightValue."""
    return 1 + (weight - 10) * 9999 // 990


# Each entry: the controller, what to write, and whether a kernel may lack the file, so that it is left out then.
_Table = Iterator[tuple[str, Setting, bool]]


def _v1_settings(wanted: Wanted) -> _Table:
    if wanted.memory_bytes is not None:
        yield "memory", Setting("memory.limit_in_bytes", str(wanted.memory_bytes)), False
    if wanted.memory_swap_bytes is not None:
        yield "memory", Setting("memory.memsw.limit_in_bytes", str(wanted.memory_swap_bytes)), True
    if wanted.memory_reservation_bytes is not None:
        yield "memory", Setting("memory.soft_limit_in_bytes", str(wanted.memory_reservation_bytes)), False
    if wanted.memory_swappiness is not None:
        yield "memory", Setting("memory.swappiness", str(wanted.memory_swappiness)), False
    if wanted.oom_kill_disable:
        yield "memory", Setting("memory.oom_control", "1"), False
    if wanted.cpu_shares is not None:
        yield "cpu", Setting("cpu.shares", str(wanted.cpu_shares)), False
    if wanted.cpu_period_microseconds is not None:
        yield "cpu", Setting("cpu.cfs_period_us", str(wanted.cpu_period_microseconds)), False
    if wanted.cpu_quota_microseconds is not None:
        yield "cpu", Setting("cpu.cfs_quota_us", str(wanted.cpu_quota_microseconds)), False
    # Those who ask have been told where a kernel has no such group scheduling; v2 has none in any kernel.
    if wanted.cpu_realtime_period_microseconds is not None:
        yield "cpu", Setting("cpu.rt_period_us", str(wanted.cpu_realtime_period_microseconds)), True
    if wanted.cpu_realtime_runtime_microseconds is not None:
        yield "cpu", Setting("cpu.rt_runtime_us", str(wanted.cpu_realtime_runtime_microseconds)), True
    yield from _cpuset_and_pids(wanted)
    if wanted.blkio_weight is not None:
        for file in ("blkio.weight", "blkio.bfq.weight"):
            yield "blkio", Setting(file, str(wanted.blkio_weight)), True
    for device, weight in wanted.blkio_weight_devices:
        for file in ("blkio.weight_device", "blkio.bfq.weight_device"):
            yield "blkio", Setting(file, f"{device} {weight}"), True
    for name, rates in (
        ("read_bps", wanted.read_bytes),
        ("write_bps", wanted.write_bytes),
        ("read_iops", wanted.read_operations),
        ("write_iops", wanted.write_operations),
    ):
        for device, rate in rates:
            yield "blkio", Setting(f"blkio.throttle.{name}_device", f"{device} {rate}"), True


def _unified_settings(wanted: Wanted) -> _Table:
    if wanted.memory_bytes is not None:
        yield "memory", Setting("memory.max", _or_max(wanted.memory_bytes)), False
    if wanted.memory_swap_bytes is not None:
        swap = wanted.memory_swap_bytes
        if swap != UNLIMITED:
            swap -= max(0, wanted.memory_bytes or 0)  # swap alone here
        # Both this file and its like on v1 are missing where the kernel doesn't count swap; the first limit has to do.
        yield "memory", Setting("memory.swap.max", _or_max(swap)), True
    if wanted.memory_reservation_bytes is not None:
        yield "memory", Setting("memory.low", str(wanted.memory_reservation_bytes)), False
    if wanted.cpu_shares is not None:
        yield "cpu", Setting("cpu.weight", str(shares_to_weight(wanted.cpu_shares))), False
    if wanted.cpu_quota_microseconds is not None or wanted.cpu_period_microseconds is not None:
        quota = _or_max(UNLIMITED if wanted.cpu_quota_microseconds is None else wanted.cpu_quota_microseconds)
        period = wanted.cpu_period_microseconds or CPU_PERIOD_MICROSECONDS
        yield "cpu", Setting("cpu.max", f"{quota} {period}"), False
    yield from _cpuset_and_pids(wanted)
    if wanted.blkio_weight is not None:
        yield "io", Setting("io.bfq.weight", str(wanted.blkio_weight)), True
        yield "io", Setting("io.weight", str(blkio_to_io_weight(wanted.blkio_weight))), True
    for device, weight in wanted.blkio_weight_devices:
        yield "io", Setting("io.bfq.weight", f"{device} {weight}"), True
    for name, rates in (
        ("rbps", wanted.read_bytes),
        ("wbps", wanted.write_bytes),
        ("riops", wanted.read_operations),
        ("wiops", wanted.write_operations),
    ):
        for device, rate in rates:
            yield "io", Setting("io.max", f"{device} {name}={rate}"), False


def _cpuset_and_pids(wanted: Wanted) -> _Table:
    if wanted.cpuset_cpus:
        yield "cpuset", Setting("cpuset.cpus", wanted.cpuset_cpus), False
    if wanted.cpuset_mems:
        yield "cpuset", Setting("cpuset.mems", wanted.cpuset_mems), False
    if wanted.pids is not None:
        yield "pids", Setting("pids.max", _or_max(wanted.pids)), False


def _or_max(number: int) -> str:
    return "max" if number == UNLIMITED else str(number)


def _has_file(hierarchy: Hierarchy, name: str) -> bool:
    """Whether groups of `hierarchy` have the file `name`, asked of our parent group (the top one lacks some)."""
    return os.path.exists(hierarchy.parent / name)
