"""What of a platform's memory is a virtual machine's: the guest, and the machine monitor around it."""

from typing import Self

from simulator.datacenter.kinds import Kind
from simulator.records import NonNegative, Positive, StrictModel


class GuestMemory(StrictModel):
    """`[guest]` of a platform: what of its memory is a virtual machine's, and what a guest keeps beside it.

    The first two say what the profile's `private_bytes` consists of; the rest of it is programs in the guest. The next
    two come on top of it.

    Attributes:
        vmm_mib: of `private_bytes`, what is the VMM's own: outside the guest, and never merged or given back.
        kernel_mib: of `private_bytes`, what is the guest's kernel.
        page_cache_mib: files that the guest keeps in memory; each guest has its own copy.
        free_mib: pages that the guest has used once, at boot or later, and that are free again.
        ram_mib: what the guest was promised; programs in it that need more are killed inside it. None: all they ask.
        kind: where these figures come from.
        source: which measurement or publication, and what of it is a judgement.
    """

    vmm_mib: NonNegative = 0.0
    kernel_mib: NonNegative = 0.0
    page_cache_mib: NonNegative = 0.0
    free_mib: NonNegative = 0.0
    ram_mib: Positive | None = None
    kind: Kind = "published"
    source: str = ""

    def for_private(self, private_bytes: float, described_bytes: float) -> Self:
        """The same guest where its platform's `private_bytes` are other than those that its parts were written for.

        Where the parts no longer fit, both become smaller in the same proportion as the whole; else nothing changes.

        Args:
            private_bytes: of which the parts must be parts.
            described_bytes: the `private_bytes` beside which the parts were written.
        """
        if (self.vmm_mib + self.kernel_mib) * _MIB <= private_bytes or described_bytes <= 0:
            return self
        factor = private_bytes / described_bytes
        parts = {name: float(f"{getattr(self, name) * factor:.6g}") for name in ("vmm_mib", "kernel_mib")}
        source = self.source if self.source.endswith(_SCALED) else self.source + _SCALED
        return self.model_copy(update={**parts, "source": source})


_MIB = 2**20
_SCALED = ". Both made smaller in the proportion in which the private memory is, or they would not fit in it"
