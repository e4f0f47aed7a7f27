"""What a container uses, as its cgroups tell it: v1, hybrid and v2 alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NANOSECONDS_A_MICROSECOND = 1000
_NO_LIMIT = 1 << 62  # v1 says the largest number of whole pages where there is no limit


@dataclass(frozen=True, slots=True)
class Usage:
    """Numbers since the container began, and of this moment. None is unknown, or without limit.

    `io_bytes` and `io_operations` are entries of Docker's form: `major`, `minor`, `op` (Read, Write, …) and `value`.
    """

    memory_bytes: int = 0
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_stat: Mapping[str, int] = field(default_factory=dict)
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_per_core_ns: tuple[int, ...] = ()
    throttling_periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    pids_current: int = 0
    pids_limit: int | None = None
    io_bytes: tuple[Mapping[str, int | str], ...] = ()
    io_operations: tuple[Mapping[str, int | str], ...] = ()
    oom_kills: int = 0


def read_usage(groups: Mapping[str, str]) -> Usage:
    """What is used in the cgroups of a container, given by the names of their controllers (v2's own name is empty).

    A file that is not there, since the kernel doesn't count that or the container has ended, counts as nothing.
    """
    paths = {controller: Path(path) for controller, path in groups.items()}
    unified = paths.get("")
    if unified is not None and (unified / "memory.current").exists():
        return _unified_usage(unified)
    return _v1_usage(paths)


def oom_kills(groups: Mapping[str, str]) -> int:
    """How many processes of the container the kernel has killed for want of memory."""
    if "memory" in groups and (Path(groups["memory"]) / "memory.oom_control").exists():
        return _table(Path(groups["memory"]) / "memory.oom_control").get("oom_kill", 0)
    return _table(Path(groups[""]) / "memory.events").get("oom_kill", 0) if "" in groups else 0


def _v1_usage(groups: Mapping[str, Path]) -> Usage:
    nowhere = Path("/proc/self/fd/no such group")
    memory, cpu, accounting, pids, block = (
        groups.get(name, nowhere) for name in ("memory", "cpu", "cpuacct", "pids", "blkio")
    )
    throttling = _table(cpu / "cpu.stat")
    limit = _number(memory / "memory.limit_in_bytes")
    return Usage(
        memory_bytes=_number(memory / "memory.usage_in_bytes") or 0,
        memory_peak_bytes=_number(memory / "memory.max_usage_in_bytes"),
        memory_limit_bytes=limit if limit is not None and limit < _NO_LIMIT else None,
        memory_stat=_table(memory / "memory.stat"),
        cpu_total_ns=_number(accounting / "cpuacct.usage") or 0,
        cpu_user_ns=_number(accounting / "cpuacct.usage_user") or 0,
        cpu_system_ns=_number(accounting / "cpuacct.usage_sys") or 0,
        cpu_per_core_ns=tuple(int(number) for number in _text(accounting / "cpuacct.usage_percpu").split()),
        throttling_periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
        pids_current=_number(pids / "pids.current") or 0,
        pids_limit=_number(pids / "pids.max"),
        io_bytes=_v1_block(block, "io_service_bytes_recursive"),
        io_operations=_v1_block(block, "io_serviced_recursive"),
        oom_kills=_table(memory / "memory.oom_control").get("oom_kill", 0),
    )


def _unified_usage(group: Path) -> Usage:
    cpu = _table(group / "cpu.stat")
    block = [_rates(line) for line in _text(group / "io.stat").splitlines()]
    return Usage(
        memory_bytes=_number(group / "memory.current") or 0,
        memory_peak_bytes=_number(group / "memory.peak"),
        memory_limit_bytes=_number(group / "memory.max"),
        memory_stat=_table(group / "memory.stat"),
        cpu_total_ns=cpu.get("usage_usec", 0) * _NANOSECONDS_A_MICROSECOND,
        cpu_user_ns=cpu.get("user_usec", 0) * _NANOSECONDS_A_MICROSECOND,
        cpu_system_ns=cpu.get("system_usec", 0) * _NANOSECONDS_A_MICROSECOND,
        throttling_periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * _NANOSECONDS_A_MICROSECOND,
        pids_current=_number(group / "pids.current") or 0,
        pids_limit=_number(group / "pids.max"),
        io_bytes=_unified_block(block, {"rbytes": "read", "wbytes": "write"}),
        io_operations=_unified_block(block, {"rios": "read", "wios": "write"}),
        oom_kills=_table(group / "memory.events").get("oom_kill", 0),
    )


def _v1_block(group: Path, name: str) -> tuple[Mapping[str, int | str], ...]:
    """The entries of the first of the files that counts: which one depends on the disk's scheduler."""
    for prefix in ("blkio.bfq", "blkio.throttle", "blkio"):
        found: list[Mapping[str, int | str]] = []
        for line in _text(group / f"{prefix}.{name}").splitlines():
            fields = line.split()
            if len(fields) == 3:  # "8:0 Read 4096"; the last line is the sum of all
                major, minor = fields[0].split(":")
                found.append({"major": int(major), "minor": int(minor), "op": fields[1], "value": int(fields[2])})
        if found:
            return tuple(found)
    return ()


def _rates(line: str) -> tuple[int, int, dict[str, int]]:
    """A line of io.stat: `8:0 rbytes=4096 wbytes=0 …`."""
    device, *pairs = line.split()
    major, minor = device.split(":")
    return (
        int(major),
        int(minor),
        {key: int(value) for key, value in (pair.split("=") for pair in pairs if "=" in pair)},
    )


def _unified_block(
    block: list[tuple[int, int, dict[str, int]]], names: Mapping[str, str]
) -> tuple[Mapping[str, int | str], ...]:
    return tuple(
        {"major": major, "minor": minor, "op": operation, "value": values[key]}
        for major, minor, values in block
        for key, operation in names.items()
        if key in values
    )


def _text(path: Path) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max" on v2


def _table(path: Path) -> dict[str, int]:
    """`key number` lines."""
    found = {}
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found
