"""What a daemon is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

API_VERSION = (1, 43)
"""The newest version of Docker's Engine API that is spoken: what Docker Engine 24 speaks."""
OLDEST_API_VERSION = (1, 24)
"""Older ones are refused; a command line that finds no version at all falls back to this one."""


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Where networks that name no subnet get one: subnets of `size` bits out of `base`."""

    base: str
    size: int


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Options of the daemon that its services read.

    `data_root` holds everything that it writes. `bridge` is the host interface of the default network: a name, "none"
    for no such network, or "" for the usual name. `mtu` is in bytes, 0 for the kernel's own. `warnings` are what
    `docker info` is to warn of beside what the machine lacks.
    """

    data_root: Path
    bridge: str = ""
    default_address_pools: tuple[AddressPool, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    userland_proxy: bool = True
    mtu: int = 0
    labels: tuple[str, ...] = ()
    trace: Path | None = None
    hosts: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = ()
