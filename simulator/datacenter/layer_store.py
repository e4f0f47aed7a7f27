"""What a machine has of images: layers on its disk, pulled when they are missing, evicted when room is short."""

from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from simpy import AllOf, Environment, Resource

from simulator.datacenter.images import ImageLayer, ImageSpec
from simulator.datacenter.joint_work import JointWork
from simulator.datacenter.registry import Registry
from simulator.errors import SimulatorError

if TYPE_CHECKING:
    from simulator.datacenter.machine import Machine


@dataclass(eq=False)
class _Held:
    """A layer that is on the disk or for which room is kept while it comes.

    Attributes:
        layer: which.
        users: instances and pulls that need it; it is evicted only when there are none.
        on_disk: whether it is there, unpacked.
        coming: its download and unpacking, while that is in progress.
        downloaded_at: when its download ended.
    """

    layer: ImageLayer
    users: int = 0
    on_disk: bool = False
    coming: JointWork | None = None
    downloaded_at: float = 0.0


class Pulled(NamedTuple):
    """When a pull began, when its last layer had been downloaded, and when all were unpacked; seconds."""

    began: float
    downloaded: float
    unpacked: float


class LayerStore:
    """The layers of one machine.

    Layers that several images share are there once. Two pulls of the same layer share one download. At most
    `parallel_downloads` layers are downloaded at once, for all pulls together. The layers of an image are unpacked in
    their order, the lowest first, while later ones still come. When room is short, the layers that were used longest
    ago go first, and never one that is in use.

    Args:
        env: the SimPy environment.
        machine: whose cores unpack, whose disk is written, and whose link is used.
        capacity_mib: room for unpacked layers; None: no limit.
        parallel_downloads: at most, at once.

    Attributes:
        pulled_mib: compressed, whole layers, so far.
        evicted: how many layers had to make room.
    """

    def __init__(
        self, env: Environment, machine: "Machine", capacity_mib: float | None, parallel_downloads: int
    ) -> None:
        self._env = env
        self._machine = machine
        self._capacity_mib = capacity_mib
        self._slots = Resource(env, capacity=parallel_downloads)
        self._layers: OrderedDict[str, _Held] = OrderedDict()  # the one used longest ago first
        self.pulled_mib = 0.0
        self.evicted = 0

    @property
    def used_mib(self) -> float:
        """Room that is taken, by layers on the disk and by those that are coming."""
        return sum(held.layer.unpacked_mib for held in self._layers.values())

    def has(self, image: ImageSpec) -> bool:
        """Whether all layers of `image` are on the disk."""
        return not self.missing(image)

    def missing(self, image: ImageSpec) -> tuple[ImageLayer, ...]:
        """The layers of `image` that are not on the disk."""
        return tuple(
            layer for layer in image.layers if layer.name not in self._layers or not self._layers[layer.name].on_disk
        )

    def put(self, image: ImageSpec, *, in_memory: bool = False) -> None:
        """Have `image` on the disk, as if it had been there before the simulation began.

        Args:
            image: which.
            in_memory: also in the page cache.

        Raises:
            SimulatorError: it does not fit.
        """
        for layer in image.layers:
            self._hold(layer).on_disk = True
            if in_memory:
                self._machine.page_cache.keep(_pages(layer))
        self.release(image)

    def hold(self, image: ImageSpec) -> None:
        """Keep room for the layers of `image` and evict none of them until `release`: an instance needs them.

        Raises:
            SimulatorError: they do not fit beside the layers that are in use.
        """
        taken = 0
        try:
            for layer in image.layers:
                self._hold(layer)
                taken += 1
        except SimulatorError:
            self._release(image.layers[:taken])
            raise

    def release(self, image: ImageSpec) -> None:
        """Need `image` no longer, once for each `hold`. Its layers stay until another needs their room."""
        self._release(image.layers)

    def pull(self, image: ImageSpec, registry: Registry) -> Generator[Any, Any, Pulled]:
        """Download and unpack what is missing of `image` (`yield from` it in a process).

        A process that is interrupted in here leaves nothing behind but whole layers: a download goes on only while
        another pull waits for it.

        Raises:
            SimulatorError: there is no room.
        """
        began: float = self._env.now
        downloaded = began
        self.hold(image)
        joined: list[_Held] = []
        works: list[JointWork] = []
        try:
            below: JointWork | None = None
            for layer in image.layers:
                held = self._layers[layer.name]
                if held.on_disk:
                    below = None
                    continue
                if held.coming is None or held.coming.over:
                    held.coming = JointWork(self._env, self._fetch(held, below, image, registry))
                held.coming.enter()
                joined.append(held)
                works.append(held.coming)
                below = held.coming
            if works:
                yield AllOf(self._env, [work.done for work in works])
                downloaded = max(began, *(held.downloaded_at for held in joined))
        finally:
            # The last first: an upper layer also waits for the lower one.
            for work in reversed(works):
                work.leave()
            self.release(image)
        return Pulled(began, downloaded, float(self._env.now))

    def read(self, image: ImageSpec) -> Generator[Any, Any, None]:
        """Read what a start needs of `image` from the disk, unless the page cache has it (`yield from` it)."""
        for layer in image.layers:
            mib = image.read_fraction * layer.unpacked_mib
            yield from self._machine.page_cache.read(_pages(layer), mib, mib / image.read_operation_mib)

    def _fetch(
        self, held: _Held, below: JointWork | None, image: ImageSpec, registry: Registry
    ) -> Generator[Any, Any, None]:
        """Download a layer, wait for the one below it, and unpack."""
        layer, machine = held.layer, self._machine
        if below is not None:
            below.enter()
        try:
            with self._slots.request() as slot:
                yield slot
                yield from registry.download(layer, machine.link)
            held.downloaded_at = self._env.now
            self.pulled_mib += layer.compressed_mib
            if below is not None and not below.over:
                yield below.done
            work = machine.cores.submit(image.unpack_cpu_seconds_per_mib * layer.unpacked_mib, "compute")
            write = machine.disk.submit(layer.unpacked_mib)
            try:
                yield work & write
            finally:
                machine.cores.cancel(work)
                machine.disk.cancel(write)
        finally:
            if below is not None:
                below.leave()
        held.on_disk, held.coming = True, None
        # What was just written is still in memory.
        machine.page_cache.keep(_pages(layer))

    def _hold(self, layer: ImageLayer) -> _Held:
        held = self._layers.get(layer.name)
        if held is None:
            self._make_room(layer)
            held = self._layers[layer.name] = _Held(layer)
        elif held.layer != layer:
            raise SimulatorError(
                f"{self._machine.name}: layer {layer.name!r} is there with other sizes; a layer's `name` stands for "
                "its content, so give one of them another"
            )
        held.users += 1
        self._layers.move_to_end(layer.name)
        return held

    def _release(self, layers: tuple[ImageLayer, ...]) -> None:
        for layer in layers:
            held = self._layers[layer.name]
            held.users -= 1
            if not held.users and not held.on_disk:
                del self._layers[layer.name]  # it never came, so its room is free

    def _make_room(self, layer: ImageLayer) -> None:
        if self._capacity_mib is None:
            return
        excess = self.used_mib + layer.unpacked_mib - self._capacity_mib
        idle = [held for held in self._layers.values() if not held.users]
        if excess > sum(held.layer.unpacked_mib for held in idle):
            raise SimulatorError(
                f"{self._machine.name}: layer {layer.name!r} of {layer.unpacked_mib:g} MiB does not fit beside the "
                f"layers in use; raise `image_cache_mib` ({self._capacity_mib:g}) of the machine"
            )
        for held in idle:
            if excess <= 0:
                return
            del self._layers[held.layer.name]
            self._machine.page_cache.forget(_pages(held.layer))
            excess -= held.layer.unpacked_mib
            self.evicted += 1


def _pages(layer: ImageLayer) -> tuple[str, str]:
    return ("layer", layer.name)
