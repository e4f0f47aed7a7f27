"""What a platform costs: its start-up phases, its memory, its overheads. Data, read from `data/profiles/*.toml`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from simulator.datacenter.guests import GuestMemory
from simulator.datacenter.kinds import Kind as Kind
from simulator.datafiles import data_directory, named_file
from simulator.records import NonNegative, StrictModel, read_record

Work = Literal["compute", "fork"]
"""A kind of work, as machine.csv measures it: how much busy cores slow each other down depends on it."""


class Quantity(StrictModel):
    """A number with its interval, its kind and its source.

    For a measured quantity `low` and `high` bound a 95 % interval (bootstrap of a median, t of a mean); for a published
    one they span the comparable figures in the literature, and `source` names them.
    """

    value: NonNegative
    low: NonNegative
    high: NonNegative
    kind: Kind
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low {self.low} <= value {self.value} <= high {self.high} must hold")
        return self


class Phase(StrictModel):
    """One step of an instance's start-up and what it consumes.

    Attributes:
        name: as in the measurements, e.g. `clone`, `mounts`, `guest-kernel`.
        cpu_seconds: work on one core; the machine's cores are shared among all start-ups in progress.
        parallel_cpu_seconds: work that a second thread (a guest's CPU beside its device model, a child beside its
            parent) does at the same time; the phase ends when both are done. Never more than `cpu_seconds`.
        work: which work of machine.csv it resembles, for how much busy cores slow each other down: `compute` (a
            program's own instructions) or `fork` (the kernel making processes, namespaces and mounts).
        lock: name of a kernel lock of the machine (`rtnl`, `mount`, `cgroup`) that is held while `cpu_seconds` are
            worked off, or None.
        fixed_seconds: a delay that no other start-up lengthens (an RCU grace period, a DHCP answer).
        read_mib: read from the machine's disk before the work, unless the page cache has it from an earlier start or
            the start is memory-warm: the platform's own files, such as a guest's kernel. The application's image is
            not in it.
        cpu_seconds_per_running: further work for each instance that runs on the machine already, where what starts must
            be entered into a list of all (LightVM, Fig 4 and 9: XenStore).
        cpu_seconds_per_running_squared: further work for each pair of them: every instance in the list makes each
            look-up longer, and there are as many look-ups as instances that watch it. Pairs, not single ones, are what
            the published curves grow with.
        kind: where the figures come from.
        source: which measurement or publication.
    """

    name: str
    cpu_seconds: NonNegative = 0.0
    parallel_cpu_seconds: NonNegative = 0.0
    work: Work = "compute"
    lock: str | None = None
    fixed_seconds: NonNegative = 0.0
    read_mib: NonNegative = 0.0
    cpu_seconds_per_running: NonNegative = 0.0
    cpu_seconds_per_running_squared: NonNegative = 0.0
    kind: Kind
    source: str

    @model_validator(mode="after")
    def _one_main_thread(self) -> Self:
        if self.parallel_cpu_seconds > self.cpu_seconds:
            raise ValueError("parallel_cpu_seconds must not exceed cpu_seconds: the longer of two threads comes first")
        return self

    @model_serializer(mode="wrap")
    def _without_what_few_phases_have(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Measured phases, of which there are many, are written as short as they are.
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if value or name not in _OF_FEW_PHASES}

    def cpu_seconds_beside(self, running: int) -> float:
        """The work of one start while `running` instances run on the machine already."""
        growth = self.cpu_seconds_per_running * running + self.cpu_seconds_per_running_squared * running**2
        return self.cpu_seconds + growth


_OF_FEW_PHASES = ("read_mib", "cpu_seconds_per_running", "cpu_seconds_per_running_squared")
"""Keys that a file leaves out where they are 0."""


class Startup(StrictModel):
    """The whole start-up, as observed at concurrency 1, and the phases that make it up, in order."""

    total_seconds: Quantity
    phases: tuple[Phase, ...] = Field(min_length=1)


class Memory(StrictModel):
    """Memory of N instances of one image on one machine: `shared + N * (private + kernel)`, in bytes."""

    private_bytes: Quantity
    shared_bytes: Quantity
    kernel_bytes: Quantity


class Overhead(StrictModel):
    """What running on the platform costs a request, against the same work in a plain process.

    Attributes:
        cpu_factor: service demand is multiplied by it (1 = native).
        network_seconds: added to every request, for the longer path of its packets.
        io_operation_seconds: added to every operation on a disk, however many bytes it has: what a VM's longer path
            costs is paid per operation, not per byte (Felter). None: not known, and none is added.
    """

    cpu_factor: Quantity
    network_seconds: Quantity
    io_operation_seconds: Quantity | None = None


class PlatformProfile(StrictModel):
    """One way to isolate an instance, as data: `data/profiles/NAME.toml`.

    Attributes:
        name: in kebab-case.
        label_en: for people.
        label_ko: the same in Korean.
        about: what it is, and what of it is a judgement.
        startup: from a request until the instance's own program runs, with its image in memory.
        snapshot: the same from an instance that was paused or saved after its start, or None where none is published.
        memory: of N instances.
        overhead: of requests.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    label_en: str
    label_ko: str
    about: str
    startup: Startup
    snapshot: Startup | None = None
    memory: Memory
    overhead: Overhead
    guest: GuestMemory | None = None
    """What of its memory is a virtual machine's; None where instances have no kernel and page cache of their own."""
    shares_host_kernel: bool = False
    """Whether instances run on the kernel of their machine, so that a crash of it takes all of them."""
    bridge_ports: int | None = Field(default=None, gt=0)
    """How many instances one machine's bridge takes, where the platform needs a port each."""
    pids_per_instance: int = Field(default=1, gt=0)
    """Process and thread identifiers that an idle instance takes from the machine: its init, or a VMM's threads."""

    @classmethod
    def from_toml(cls, name_or_path: str | Path) -> Self:
        """Read a profile by the name of one that ships, or by its path.

        Raises:
            SimulatorError: no such file, not TOML, an unknown key (with the nearest known one) or a bad value.
        """
        return read_record(cls, named_file("profiles", str(name_or_path)))

    def to_toml(self, heading: str = "") -> str:
        """The profile as the text of a TOML file, which `from_toml` reads back to an equal profile.

        Args:
            heading: lines of a comment to begin with.
        """
        comment = "".join(f"# {line}\n" for line in heading.splitlines())
        return comment + "\n".join(_toml_table(self.model_dump(exclude_none=True), ""))


def _toml_table(table: Mapping[str, Any], path: str) -> Iterator[str]:
    """The lines of a TOML table: its own values first, then the tables in it, then its arrays of tables."""
    values = [
        f"{key} = {_toml_value(value)}" for key, value in table.items() if not isinstance(value, (Mapping, tuple))
    ]
    if values:
        yield from [*([f"[{path}]"] if path else []), *values, ""]
    for key, value in table.items():
        inner = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _toml_table(value, inner)
        elif isinstance(value, tuple):
            for item in value:
                yield f"[[{inner}]]"
                yield from (f"{name} = {_toml_value(content)}" for name, content in item.items())
                yield ""


def _toml_value(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # A TOML basic string escapes as JSON does, but for DEL; repr() gives the shortest text of the same float.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)


def shipped_profiles() -> dict[str, PlatformProfile]:
    """Every profile of `data/profiles/`, by name."""
    paths = sorted((data_directory() / "profiles").glob("*.toml"), key=lambda path: path.stem)
    profiles = (PlatformProfile.from_toml(path) for path in paths)
    return {profile.name: profile for profile in profiles}
