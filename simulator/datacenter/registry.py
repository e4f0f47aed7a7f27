"""A registry in the simulation: its uplink, its outages, and the download of one layer."""

from collections.abc import Generator
from typing import Any

from simpy import Environment, Event

from simulator.datacenter.images import ImageLayer, RegistrySettings
from simulator.datacenter.links import Link, Links


class Registry:
    """Where machines pull from. All of them share its uplink.

    Args:
        env: the SimPy environment.
        network: to which the machines' links belong too.
        settings: what it is like.

    Attributes:
        uplink: the link that all downloads use.
        failed_attempts: downloads that gave up, each to be tried again.
    """

    def __init__(self, env: Environment, network: Links, settings: RegistrySettings | None = None) -> None:
        self.settings = settings or RegistrySettings()
        self.network = network
        self.uplink = network.link("registry", self.settings.bandwidth_mib_per_second)
        self.failed_attempts = 0
        self._env = env
        self._speed = 1.0
        self._changed: Event = env.event()

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        return self._speed > 0

    def set_speed(self, factor: float) -> None:
        """From now on its uplink carries `factor` times what the settings say: 0 is an outage, 0.1 a slow registry."""
        self._speed = factor
        self.network.set_capacity(self.uplink, factor * self.settings.bandwidth_mib_per_second)
        changed, self._changed = self._changed, self._env.event()
        changed.succeed()

    def download(self, layer: ImageLayer, link: Link) -> Generator[Any, Any, None]:
        """Download `layer` over `link` (`yield from` it in a process), however many attempts that takes.

        What has arrived is kept from one attempt to the next, as containerd resumes a download at its offset.

        Args:
            layer: what.
            link: of the machine, in the same network.
        """
        left = layer.compressed_mib
        failures = 0
        while True:
            if self.settings.latency_seconds and (self.is_up or self.settings.during_outage == "wait"):
                yield self._env.timeout(self.settings.latency_seconds)
            transfer = self.network.transfer(left, self.uplink, link)
            try:
                if self.settings.during_outage == "wait":
                    yield transfer
                else:
                    yield from self._until_it_stalls(transfer)
            finally:
                self.network.cancel(transfer)
            if transfer.triggered:
                return
            left = self.network.left(transfer)
            failures += 1
            self.failed_attempts += 1
            yield self._env.timeout(self.settings.back_off.seconds(failures))

    def _until_it_stalls(self, transfer: Event) -> Generator[Any, Any, None]:
        """Wait for the end of `transfer`, or until it has stood still for as long as a client puts up with."""
        while not transfer.triggered:
            if self.is_up:
                yield transfer | self._changed
            else:
                patience = self._env.timeout(self.settings.timeout_seconds)
                yield transfer | self._changed | patience
                if patience.processed and not self.is_up:
                    return
