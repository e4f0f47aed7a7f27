"""What a person can say about memory: page merging, ballooning, overcommitment, and working sets that grow."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from simulator.records import NonNegative, Positive, StrictModel

MIB = 2**20
PAGE_BYTES = 4096


class KsmSettings(StrictModel):
    """`[machines.spec.memory.ksm]`: the kernel merges pages of virtual machines that are the same.

    Only what a VMM has offered is looked at, which is guests' memory (Documentation/admin-guide/mm/ksm.rst); so
    containers gain nothing. How merging goes on is told in `simulator.datacenter.memory.merging`. Left out: the 64
    bytes that the kernel keeps for each page that it looks at (ksm.rst), 1.6 % of guests' memory; merged pages that are
    written and so copied again; and that newer kernels look less often at pages that never merge (`smart_scan`).

    Attributes:
        pages_to_scan: looked at in one go (ksm.rst; default 100).
        sleep_milliseconds: between two goes (ksm.rst, `sleep_millisecs`; default 20).
        mergeable_fraction: of a guest's memory, what another guest of the same image has too. Default: 0.3. VMware's
            vSphere Resource Management Guide ("Memory Sharing") gives more than 30 % for many nearly identical
            machines, and less than 5 % for a more diverse load. That is another hypervisor's merging, and how identical
            guests are is a property of theirs: measure yours (`pages_sharing` over all pages).
        max_page_sharing: guests that share one copy of a page; the next begins another copy (mm/ksm.c; default 256).
        cpu_microseconds_per_page: of one core, to look at a page. A judgement: reading 4 KiB for a checksum at 4 GB/s.
    """

    pages_to_scan: Annotated[int, Field(ge=1, le=100_000_000)] = 100
    sleep_milliseconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 20.0
    mergeable_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.3
    max_page_sharing: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    cpu_microseconds_per_page: NonNegative = 1.0

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if not self._go_seconds:
            raise ValueError(
                "`sleep_milliseconds` and `cpu_microseconds_per_page` are both 0, so all is merged in no time: "
                "raise one of them"
            )
        return self

    @property
    def _go_cpu_seconds(self) -> float:
        return self.pages_to_scan * self.cpu_microseconds_per_page * 1e-6

    @property
    def _go_seconds(self) -> float:
        """One go: looking at the pages, and the sleep after it."""
        return self.sleep_milliseconds * 1e-3 + self._go_cpu_seconds

    @property
    def bytes_per_second(self) -> float:
        """How much guest memory is looked at in a second: 19 MiB with the kernel's defaults."""
        return self.pages_to_scan * PAGE_BYTES / self._go_seconds

    @property
    def cores(self) -> float:
        """What part of one core looking takes, for as long as there is anything to look at."""
        return self._go_cpu_seconds / self._go_seconds


class BalloonSettings(StrictModel):
    """`[machines.spec.memory.balloon]`: guests give back memory that they have used once and do not need now.

    What a guest can give back is its page cache and its free pages (`GuestMemory`). Without a balloon the host cannot
    tell that a guest has freed a page: it stays with the guest for as long as that runs. A guest that needs more again
    takes it from the host. A balloon that is emptied in time delays nothing here.

    Attributes:
        mib_per_second: how fast one guest gives back. Default 100: a judgement. No figure is in the sources used here.
        minimum_mib: what a guest keeps in any case.
    """

    mib_per_second: Positive = 100.0
    minimum_mib: NonNegative = 0.0


class MemorySettings(StrictModel):
    """`[machines.spec.memory]`: how a machine's memory is run.

    Attributes:
        overcommit: instances are admitted while what they were promised is within so many times the memory that a
            machine has for them. 1: never more than there is; then nothing ends for lack of memory on the machine,
            unless working sets grow. What is merged or given back helps to admit more only where this is above 1.
        ksm: merging of identical pages of guests, or none.
        balloon: giving back what guests do not need, or none.
    """

    overcommit: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    ksm: KsmSettings | None = None
    balloon: BalloonSettings | None = None


class WorkingSet(StrictModel):
    """`[application.working_set]`: how the memory of the program in an instance changes while it runs.

    Attributes:
        mib_per_hour: by which it grows from its start on: a cache that fills, or a leak.
        growth_mib: after so much it stops growing; None: never, which is a leak.
        mib_per_request: for each request that is waiting or in service.
    """

    mib_per_hour: NonNegative = 0.0
    growth_mib: NonNegative | None = None
    mib_per_request: NonNegative = 0.0

    @property
    def bytes_per_second(self) -> float:
        """How fast it grows."""
        return self.mib_per_hour * MIB / 3600

    @property
    def growth_bytes(self) -> float:
        """How far it grows; infinite for a leak."""
        if not self.mib_per_hour:
            return 0.0
        return float("inf") if self.growth_mib is None else self.growth_mib * MIB
