"""What can be seen of a running container: its processes, what it uses, and what it writes."""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.container.usage import Usage, read_usage
from real_engine.daemon.containers import views
from real_engine.daemon.containers.attaching import frame
from real_engine.daemon.containers.record import Record
from real_engine.errors import Conflict, EngineError, InvalidParameter, NotImplementedHere
from real_engine.http.messages import Request, json_line
from real_engine.http.query import Query
from real_engine.linux import cgroups
from real_engine.supervisor.logs import read_log
from real_engine.times import NEVER, parse_moment, rfc3339

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

Json = dict[str, Any]

_MOST_PS_OUTPUT = 16 << 20
_PS_SECONDS = 10
_SAMPLE_SECONDS = 1.0
_NO_SAMPLE: Json = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


# --- top -------------------------------------------------------------------------------------------------------------


def top(containers: "Containers", record: Record, arguments: str) -> Json:
    """The container's processes as the host's ps(1) shows them.

    Raises:
        Conflict: it does not run.
        InvalidParameter: arguments of ps that would leave out the PID, or that ps refuses.
    """
    if not record.state.running or record.state.restarting:
        raise Conflict(f"Container {record.id} is not running")
    words = arguments.split() or ["-ef"]
    if any(re.fullmatch(r"-?o\s*pid=.*|.*\bpid=.*", word) for word in words):
        raise InvalidParameter('specifying "pid=" in ps arguments would hide the column that is needed')
    try:
        done = subprocess.run(
            ["ps", *words],
            capture_output=True,
            timeout=_PS_SECONDS,
            check=False,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise NotImplementedHere("there is no ps on this machine: apt-get install procps") from error
    if done.returncode != 0:
        told = done.stderr.decode(errors="replace").strip() or "no such processes"
        raise InvalidParameter(f"ps: {told.splitlines()[0]}")  # the rest tells how to use it
    return parse_ps(done.stdout[:_MOST_PS_OUTPUT].decode(errors="replace"), set(process_ids(record)))


def parse_ps(output: str, wanted: set[int]) -> Json:
    """The titles and the lines about the wanted processes; the last column keeps its blanks.

    Raises:
        EngineError: no column is called PID.
    """
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise EngineError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    found = [row for row in rows if len(row) > column and row[column].isdigit() and int(row[column]) in wanted]
    return {"Titles": titles, "Processes": found}


def process_ids(record: Record) -> list[int]:
    """Every process of the container, those in groups that it made itself too."""
    for path in record.groups.values():
        with contextlib.suppress(OSError):  # it ended meanwhile
            return [pid for group, _, _ in os.walk(path) for pid in cgroups.processes(Path(group))]
    return [record.state.pid]


# --- stats -----------------------------------------------------------------------------------------------------------


def stats(
    containers: "Containers", record: Record, request: Request, *, stream: bool, one_shot: bool
) -> Iterator[bytes]:
    """Samples of what the container uses, one a second; without `stream` one, which two readings go into."""
    previous: Json | None = None
    if not stream and not one_shot and record.state.running:
        previous = _sample(record, None)
        if request.poll(None, _SAMPLE_SECONDS) == "gone":
            return
    while True:
        sample = _sample(record, previous)
        yield json_line(sample)
        if not stream or request.poll(None, _SAMPLE_SECONDS) == "gone":
            return
        if containers.table.find(record.id) is None:
            return
        previous = sample


def _sample(record: Record, previous: Json | None) -> Json:
    read = rfc3339(time.time_ns())
    head: Json = {
        "name": f"/{record.name}",
        "id": record.id,
        "read": read,
        "preread": previous["read"] if previous else NEVER,
        "num_procs": 0,
        "storage_stats": {},
    }
    usage = read_usage(record.groups) if record.state.running and not record.state.restarting else None
    cpu = _NO_SAMPLE if usage is None else _cpu(usage)
    return head | {
        "pids_stats": {} if usage is None else _pids(usage),
        "blkio_stats": _blkio(usage),
        "cpu_stats": cpu,
        "precpu_stats": previous["cpu_stats"] if previous else _NO_SAMPLE,
        "memory_stats": {} if usage is None else _memory(usage),
        **({} if usage is None else {"networks": _interfaces(record.state.pid)}),
    }


def _cpu(usage: Usage) -> Json:
    return {
        "cpu_usage": {
            "total_usage": usage.cpu_total_ns,
            **({"percpu_usage": list(usage.cpu_per_core_ns)} if usage.cpu_per_core_ns else {}),
            "usage_in_kernelmode": usage.cpu_system_ns,
            "usage_in_usermode": usage.cpu_user_ns,
        },
        "system_cpu_usage": _system_cpu_nanoseconds(),
        "online_cpus": len(os.sched_getaffinity(0)) if os.cpu_count() is None else os.cpu_count(),
        "throttling_data": {
            "periods": usage.throttling_periods,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_ns,
        },
    }


def _memory(usage: Usage) -> Json:
    found: Json = {
        "usage": usage.memory_bytes,
        "stats": dict(usage.memory_stat),
        "limit": usage.memory_limit_bytes or _host_memory(),
    }
    if usage.memory_peak_bytes is not None:
        found["max_usage"] = usage.memory_peak_bytes
    return found


def _pids(usage: Usage) -> Json:
    return {"current": usage.pids_current} | ({"limit": usage.pids_limit} if usage.pids_limit else {})


_MEASURES = ("service_bytes", "serviced", "queue", "service_time", "wait_time", "merged", "time")


def _blkio(usage: Usage | None) -> Json:
    found: Json = {f"io_{name}_recursive": [] for name in _MEASURES} | {"sectors_recursive": []}
    if usage is not None:
        found["io_service_bytes_recursive"] = [dict(one) for one in usage.io_bytes]
        found["io_serviced_recursive"] = [dict(one) for one in usage.io_operations]
    return found


def _interfaces(pid: int) -> Json:
    """What has come and gone by each interface of the container's network namespace (proc_pid_net(5))."""
    found: Json = {}
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return found  # it ended meanwhile
    for line in lines:
        name, _, numbers = line.partition(":")
        fields = [int(number) for number in numbers.split()]
        if name.strip() == "lo" or len(fields) < 12:
            continue
        found[name.strip()] = {
            f"{direction}_{what}": fields[start + index]
            for direction, start in (("rx", 0), ("tx", 8))
            for index, what in enumerate(("bytes", "packets", "errors", "dropped"))
        }
    return found


def _system_cpu_nanoseconds() -> int:
    """All CPU time of this machine since it booted: the sum of the first line of /proc/stat but for guests'."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(field) for field in fields) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# --- logs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What a client wants to see of a log. `since` and `until` are nanoseconds since 1970, 0 for no bound."""

    stdout: bool
    stderr: bool
    follow: bool
    since: int
    until: int
    tail: int | None
    timestamps: bool
    details: bool

    @classmethod
    def from_query(cls, query: Query) -> "LogOptions":
        """The options of a request.

        Raises:
            InvalidParameter: neither stream is wanted, or a time that is none.
        """
        stdout, stderr = query.flag("stdout"), query.flag("stderr")
        if not stdout and not stderr:
            raise InvalidParameter("Bad parameters: you must choose at least one stream")
        tail = query.get("tail", "all")
        return cls(
            stdout=stdout,
            stderr=stderr,
            follow=query.flag("follow"),
            since=_moment(query.get("since")),
            until=_moment(query.get("until")),
            # What is no number means all, as it does for Docker.
            tail=int(tail) if tail.isascii() and tail.isdigit() else None,
            timestamps=query.flag("timestamps"),
            details=query.flag("details"),
        )


def logs(containers: "Containers", record: Record, options: LogOptions, request: Request) -> Iterator[bytes]:
    """What the container has written, and with `follow` what it writes until it ends.

    Raises:
        NotImplementedHere: its output is kept nowhere.
    """
    if record.host_config["LogConfig"]["Type"] == "none":
        raise NotImplementedHere("configured logging driver does not support reading")
    return _log_lines(containers, record, options, request)


def _log_lines(containers: "Containers", record: Record, options: LogOptions, request: Request) -> Iterator[bytes]:
    def finished() -> bool:
        return not record.state.running

    def wait(descriptor: int, seconds: float) -> bool:
        return request.poll(descriptor, seconds) != "gone"

    entries = read_log(
        views.log_path(record, containers.path(record)),
        stdout=options.stdout,
        stderr=options.stderr,
        since=options.since or None,
        until=options.until or None,
        tail=options.tail,
        finished=finished if options.follow else None,
        wait=wait,
    )
    for entry in entries:
        data = entry.data
        if options.details:
            data = b",".join(f"{key}={value}".encode() for key, value in sorted(entry.attributes.items())) + b" " + data
        if options.timestamps:
            data = f"{_padded(entry.time_ns)} ".encode() + data
        yield data if record.terminal else frame(entry.stream, data)


def _moment(text: str) -> int:
    return 0 if text == "0" else parse_moment(text) or 0


def _padded(nanoseconds: int) -> str:
    """A time as Docker's log lines have it: always nine digits of a second's fraction."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
