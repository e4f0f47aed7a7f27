"""What a platform costs: its start-up phases, its memory, its overheads. Data, read from `data/profiles/*.toml`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from simulator.datafiles import data_directory, named_file
from simulator.records import NonNegative, StrictModel, read_record

Kind = Literal["measured", "simulated", "published"]
"""Where a number comes from. A published one has its source beside it."""


class Quantity(StrictModel):
    """A number with its interval, its kind and its source.

    For a measured quantity `low` and `high` bound a 95 % bootstrap interval of the median; for a published one they
    span the comparable figures in the literature, and `source` names them.
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
        lock: name of a kernel lock of the machine (`rtnl`, `mount`, `cgroup`) that is held while `cpu_seconds` are
            worked off, or None.
        fixed_seconds: a delay that no other start-up lengthens (an RCU grace period, a DHCP answer).
        kind: where the two figures come from.
        source: which measurement or publication.
    """

    name: str
    cpu_seconds: NonNegative = 0.0
    lock: str | None = None
    fixed_seconds: NonNegative = 0.0
    kind: Kind
    source: str


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
    """

    cpu_factor: Quantity
    network_seconds: Quantity


class PlatformProfile(StrictModel):
    """One way to isolate an instance, as data: `data/profiles/NAME.toml`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    label_en: str
    label_ko: str
    about: str
    startup: Startup
    memory: Memory
    overhead: Overhead
    bridge_ports: int | None = Field(default=None, gt=0)
    """How many instances one machine's bridge takes, where the platform needs a port each."""

    @classmethod
    def from_toml(cls, name_or_path: str | Path) -> Self:
        """Read a profile by the name of one that ships, or by its path.

        Raises:
            SimulatorError: no such file, not TOML, an unknown key (with the nearest known one) or a bad value.
        """
        return read_record(cls, named_file("profiles", str(name_or_path)))


def shipped_profiles() -> dict[str, PlatformProfile]:
    """Every profile of `data/profiles/`, by name."""
    profiles = (PlatformProfile.from_toml(path) for path in sorted((data_directory() / "profiles").glob("*.toml")))
    return {profile.name: profile for profile in profiles}
