"""Images: layers that several images can share, and the registry from which machines pull them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from simulator.datacenter.failures import BackOff
from simulator.records import NonNegative, Positive, StrictModel


class ImageLayer(StrictModel):
    """One layer: what a machine that has it need not pull again, whichever image it belongs to.

    Attributes:
        name: stands for its digest: the same name is the same content.
        compressed_mib: what goes over the network.
        unpacked_mib: what it takes on a machine's disk.
    """

    name: str
    compressed_mib: NonNegative
    unpacked_mib: NonNegative


class ImageSpec(StrictModel):
    """`[application.image]`: what an instance is started from: a container's layers, or one layer as a VM's disk image.

    Attributes:
        name: of the image.
        layers: the lowest first.
        unpack_cpu_seconds_per_mib: work of one core for each unpacked MiB. The default is a judgement: about 190 MiB/s,
            what zlib needs to inflate programs; containers' layers are gzip by default. 0: they come as they are.
        read_fraction: of the unpacked image, what a start reads. Default: 6.4 % (Slacker, abstract; 57 images).
        read_operation_mib: in pieces of this size. Default: 128 KiB, which Linux reads ahead (VM_READAHEAD_PAGES).
    """

    name: str = "image"
    layers: Annotated[tuple[ImageLayer, ...], Field(min_length=1, max_length=128)]
    unpack_cpu_seconds_per_mib: NonNegative = 0.005
    read_fraction: Annotated[float, Field(ge=0, le=1)] = 0.064
    read_operation_mib: Positive = 0.125

    @model_validator(mode="after")
    def _each_layer_once(self) -> "ImageSpec":
        names = [layer.name for layer in self.layers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(
                f"layer {twice!r} is there twice: a layer's `name` stands for its content, so give another"
            )
        return self

    @property
    def compressed_mib(self) -> float:
        """What a machine that has none of the layers pulls."""
        return sum(layer.compressed_mib for layer in self.layers)

    @property
    def unpacked_mib(self) -> float:
        """What it takes on a disk."""
        return sum(layer.unpacked_mib for layer in self.layers)


class RegistrySettings(StrictModel):
    """`[registry]`: where images are pulled from, over one uplink that all machines share.

    Attributes:
        bandwidth_mib_per_second: of the uplink. Default: what a 10 Gb/s link carries, 9.35 Gb/s (Felter, bulk TCP).
        latency_seconds: from asking for a layer until its first byte.
        during_outage: `retry`: a download that stalls for `timeout_seconds` fails and is tried again after `back_off`,
            and goes on where it was; `wait`: it stands still until the registry is back.
        timeout_seconds: how long a download may stand still before it fails.
        back_off: between attempts.
    """

    bandwidth_mib_per_second: Positive = 9.35e9 / 8 / 2**20
    latency_seconds: NonNegative = 0.0
    during_outage: Literal["retry", "wait"] = "retry"
    timeout_seconds: Positive = 30.0
    back_off: BackOff = BackOff()
