"""The options of an engine that concern its networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_DEFAULT_ROOT = Path("/var/lib/onggi/daemon")


class PoolOption(Protocol):
    """Where networks that name no subnet get one."""

    @property
    def base(self) -> str:
        """A block of addresses."""

    @property
    def size(self) -> int:
        """The prefix length of the subnets that are cut from it."""


class NetworkOptions(Protocol):
    """The options of the engine that its networks read."""

    @property
    def bridge(self) -> str:
        """The default network's interface on the host; empty: the usual name; `none`: no such network."""

    @property
    def default_address_pools(self) -> Sequence[PoolOption]:
        """Pools in the place of Docker's."""

    @property
    def userland_proxy(self) -> bool:
        """Whether a program carries what the packet filter doesn't."""

    @property
    def mtu(self) -> int:
        """The MTU of the default network; 0 for the kernel's own."""


@dataclass(frozen=True, slots=True)
class DefaultOptions:
    """Those of an engine that was told nothing."""

    bridge: str = ""
    default_address_pools: tuple[PoolOption, ...] = ()
    userland_proxy: bool = True
    mtu: int = 0


def default_bridge_name(root: Path, tag: str) -> str:
    """`onggi0` for the data root that root's engine has by itself; for another one a name of its own."""
    return "onggi0" if root.absolute() == _DEFAULT_ROOT else f"og-{tag}"
