"""Which recorded measurements a command uses: this machine's own, the reference set that ships, or a directory."""

import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.datafiles import data_directory
from simulator.errors import SimulatorError

if TYPE_CHECKING:
    from simulator.evidence.measurements import Measurements

REFERENCE = "reference"
"""The set that ships with onggi."""


def host_name() -> str:
    """This machine's name, as a folder can have it. `reference` is taken by the set that ships."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", platform.node()).strip(".-") or "localhost"
    return f"{name}-host" if name == REFERENCE else name


def recordings_directory() -> Path:
    """Where a person's own measurements are kept: beside the reference set in a checkout, else in the home directory.

    What was installed may be read-only, is replaced by the next version, and belongs to all users.
    """
    data = data_directory()
    packaged = data.parent.name == "simulator" and not os.environ.get("ONGGI_DATA")
    if not packaged and os.access(data / "measurements", os.W_OK):
        return data / "measurements"
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "onggi" / "measurements"


def own_recording() -> Path:
    """The directory of this machine's own measurements, which need not exist yet."""
    return recordings_directory() / host_name()


def find_recording(host_or_directory: str) -> Path:
    """The directory that a person means: one that exists, an own recording's name, or one that ships.

    Raises:
        SimulatorError: there is none; the message lists those that there are.
    """
    from simulator.evidence.measurements import measurements_directory

    own = recordings_directory() / host_or_directory
    if Path(host_or_directory).name == host_or_directory and (own / "provenance.json").is_file():
        return own
    return measurements_directory(host_or_directory)


def _is_whole(directory: Path) -> bool:
    """Whether a session that was not interrupted left its measurements there."""
    try:
        return bool(json.loads((directory / "provenance.json").read_text(encoding="utf-8")).get("complete"))
    except (OSError, ValueError, AttributeError):
        return False


@dataclass(frozen=True)
class Recording:
    """Measurements, and in a line where they are from."""

    measurements: "Measurements"
    origin: str


def read_recording(host_or_directory: str | None) -> Recording:
    """Read the named measurements; without a name, this machine's own where there is a whole set, else the reference.

    Raises:
        SimulatorError: there is no such recording, or a file of it is not as `data/README.md` says.
    """
    from simulator.evidence.measurements import read_measurements

    if host_or_directory is not None:
        directory = find_recording(host_or_directory)
    else:
        own = own_recording()
        directory = own if _is_whole(own) else data_directory() / "measurements" / REFERENCE
    if not directory.is_dir():
        raise SimulatorError(f"{directory}: no measurements are recorded; run `onggi measure` as root on Linux")
    measurements = read_measurements(directory)
    seen = measurements.provenance
    whose = "this machine" if directory == own_recording() else f"the recorded set `{seen.host}`"
    day = seen.recorded_at[:10]
    return Recording(measurements, f"{whose}: {seen.cpu.model}, {seen.cpu.cores} cores, Linux {seen.kernel}, {day}")
