"""What of a platform's memory is a virtual machine's: the guest, and the machine monitor around it."""

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
    """

    vmm_mib: NonNegative = 0.0
    kernel_mib: NonNegative = 0.0
    page_cache_mib: NonNegative = 0.0
    free_mib: NonNegative = 0.0
    ram_mib: Positive | None = None
