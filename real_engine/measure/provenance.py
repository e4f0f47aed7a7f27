"""Where, when and on what samples were taken: what a reader needs to trust them, and to know when they are stale."""

import hashlib
import json
import os
import platform as python_platform
import re
import subprocess
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

from real_engine.files import write_durably

_CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h: a clock that moves once a tick

BUSY_LOAD = 0.5
"""A one-minute load average, per core, above which a machine is too busy for its figures to be called stable."""


@dataclass(frozen=True)
class Machine:
    """The hardware and the kernel, as far as they decide what is measured."""

    cpu_model: str
    cores: int
    memory_bytes: int
    kernel: str
    cgroup: str

    @classmethod
    def this(cls) -> "Machine":
        """Describe the machine that this runs on."""
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return cls(
            cpu_model=model[1] if model else python_platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            kernel=python_platform.release(),
            cgroup=cgroup_layout(Path("/proc/self/mountinfo").read_text()),
        )

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when the machine or its kernel does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def cgroup_layout(mountinfo: str) -> str:
    """`v1`, `v2`, `hybrid` (v1 controllers, a v2 tree beside them) or `none`, from /proc/self/mountinfo (proc(5))."""
    kinds = {line.split(" - ", 1)[1].split()[0] for line in mountinfo.splitlines() if " - cgroup" in line}
    return {
        frozenset(): "none",
        frozenset({"cgroup"}): "v1",
        frozenset({"cgroup2"}): "v2",
    }.get(frozenset(kinds), "hybrid")


@dataclass
class Provenance:
    """What `provenance.json` beside the samples says."""

    host: str
    command: str
    seed: int
    quick: bool
    runtimes: dict[str, str]
    accelerators: dict[str, str]
    machine: Machine = field(default_factory=Machine.this)
    recorded_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)
    complete: bool = False
    warnings: list[str] = field(default_factory=list)

    def finish(self, complete: bool) -> None:
        """Note how the session ended, and what makes its figures less than stable."""
        self.complete = complete
        if not complete:
            self.warnings.append("interrupted: some conditions have fewer repetitions than planned, or none")
        if self.load_before[0] > BUSY_LOAD * self.machine.cores:
            load, cores = self.load_before[0], self.machine.cores
            self.warnings.append(f"unstable: before it began, the load average was {load:.2f} on {cores} cores")

    def write(self, directory: Path) -> Path:
        """Write `directory/provenance.json`, durably."""
        record = {
            "host": self.host,
            "recorded_at": self.recorded_at,
            "command": self.command,
            "commit": _commit(),
            "onggi_version": onggi_version(),
            "quick": self.quick,
            "complete": self.complete,
            "seed": self.seed,
            "cpu": {"model": self.machine.cpu_model, "cores": self.machine.cores},
            "memory_bytes": self.machine.memory_bytes,
            "kernel": self.machine.kernel,
            "tick_seconds": time.clock_getres(_CLOCK_MONOTONIC_COARSE),
            "cgroup": self.machine.cgroup,
            "accelerators": self.accelerators,
            "runtimes": self.runtimes,
            "load_average": {"before": list(self.load_before), "after": list(os.getloadavg())},
            "fingerprint": self.machine.fingerprint(),
            "warnings": self.warnings,
        }
        path = directory / "provenance.json"
        write_durably(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
        return path


def onggi_version() -> str:
    """The installed version of onggi."""
    try:
        return version("onggi")
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """The commit of the checkout that this file is in, `+` appended if it has changes, or None where there is none."""
    checkout = Path(__file__).resolve().parents[2]
    git = which("git")
    if git is None or not (checkout / ".git").exists():
        return None
    command = [git, "-C", str(checkout), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return answer.stdout.strip() if answer.returncode == 0 else None
