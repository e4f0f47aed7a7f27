"""What a volume driver is: the engine's own (`local`), or a program that speaks the plugin protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class DriverVolume:
    """A volume as its driver tells of it. `mountpoint` is empty where it is nowhere yet."""

    name: str
    mountpoint: str = ""
    created_at: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)


class VolumeDriver(Protocol):
    """Where volumes are kept. Each call may take long, and raises `EngineError` with the driver's own words."""

    name: str

    @property
    def scope(self) -> str:
        """`local`, or `global` for a driver whose volumes are there on every machine."""
        ...

    def create(self, name: str, options: Mapping[str, str]) -> None:
        """Make a volume, if there is none of that name yet."""
        ...

    def remove(self, name: str) -> None:
        """Remove a volume and what is in it."""
        ...

    def get(self, name: str) -> DriverVolume:
        """The volume of that name; raises `NotFound` if the driver has none."""
        ...

    def list(self) -> Sequence[DriverVolume]:
        """Every volume that the driver has."""
        ...

    def mount(self, name: str, identifier: str) -> Path:
        """Make the content available to the user `identifier`; returns the directory."""
        ...

    def unmount(self, name: str, identifier: str) -> None:
        """The user `identifier` needs the content no more."""
        ...
