"""The memory with which one instance begins, part by part: a container's and a virtual machine's."""

from dataclasses import dataclass

from simulator.datacenter.guests import GuestMemory
from simulator.datacenter.memory.settings import MIB, WorkingSet
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError

_STEADY = WorkingSet()


@dataclass(frozen=True)
class InstanceMemory:
    """What one instance asks of memory, beside its platform and the bytes of its program.

    Attributes:
        working_set: how the program's memory changes.
        guest: of a virtual machine; None: a container or a process, which shares the machine's kernel and page cache.
        limit_bytes: of the program, in its control group: beyond it the kernel kills in there and nowhere else. For a
            container its kernel objects count as well, as they do in cgroup v2.
        oom_score_adj: -1000 (never killed) to 1000, as in proc_pid_oom_score_adj(5).
        image: which one; instances of the same share its files, where they share a page cache.
        image_bytes: of the image's files, what is in use: once a machine for containers, once each for guests.
    """

    working_set: WorkingSet = _STEADY
    guest: GuestMemory | None = None
    limit_bytes: float | None = None
    oom_score_adj: int = 0
    image: str = ""
    image_bytes: float = 0.0


PLAIN = InstanceMemory()
"""Nothing beside the platform and the program: what most instances ask."""


@dataclass(frozen=True)
class Parts:
    """The memory of one instance as it begins, in bytes, part by part. Shared parts are not in it.

    Attributes:
        programs: private to the platform: an init, a shim, user space of a guest.
        kernel_objects: the host kernel's, made for it.
        vmm: of the machine monitor.
        guest_kernel: of a guest.
        guest_cache: page cache and free pages of a guest.
        application: the program.
        guest_ram: what a guest was told that it has, or None.
    """

    programs: float
    kernel_objects: float
    vmm: float
    guest_kernel: float
    guest_cache: float
    application: float
    guest_ram: float | None = None

    @property
    def total(self) -> float:
        """All that it holds."""
        return self.programs + self.kernel_objects + self.vmm + self.guest_kernel + self.guest_cache + self.application

    @property
    def promised(self) -> float:
        """What admission counts: all of it, or for a guest all the memory that it was told it has."""
        if self.guest_ram is None:
            return self.total
        return self.kernel_objects + self.vmm + self.guest_ram

    @property
    def guest(self) -> float:
        """What of it is inside a guest."""
        return self.programs + self.guest_kernel + self.guest_cache + self.application


def parts_of(profile: PlatformProfile, application_bytes: float, instance: InstanceMemory) -> Parts:
    """The memory with which an instance begins.

    Raises:
        SimulatorError: a negative size; a guest whose parts exceed the platform's memory; or a limit, or a guest's
            memory, that is too small for what must be in it from the beginning.
    """
    if application_bytes < 0 or instance.image_bytes < 0:
        raise SimulatorError(
            f"{profile.name}: application_bytes ({application_bytes:g}) and image_bytes ({instance.image_bytes:g}) "
            "must be at least 0"
        )
    private, objects = profile.memory.private_bytes.value, profile.memory.kernel_bytes.value
    guest, limit = instance.guest, instance.limit_bytes
    charged = application_bytes + (0.0 if guest else private + objects)
    if limit is not None and charged > limit:
        raise SimulatorError(
            f"{profile.name}: a memory limit of {limit / MIB:g} MiB is below the {charged / MIB:g} MiB that an "
            "instance begins with; raise the limit or give the application less `memory_mib`"
        )
    if guest is None:
        return Parts(private, objects, 0.0, 0.0, 0.0, application_bytes)
    vmm, kernel = guest.vmm_mib * MIB, guest.kernel_mib * MIB
    programs = private - vmm - kernel
    if programs < 0:
        raise SimulatorError(
            f"{profile.name}: `guest.vmm_mib` and `guest.kernel_mib` are {(vmm + kernel) / MIB:g} MiB, more than "
            f"`memory.private_bytes`, {private / MIB:g} MiB, of which they are parts"
        )
    cache = (guest.page_cache_mib + guest.free_mib) * MIB + instance.image_bytes
    if guest.ram_mib is None:
        return Parts(programs, objects, vmm, kernel, cache, application_bytes)
    inside, ram = programs + kernel + application_bytes, guest.ram_mib * MIB
    grows = instance.working_set.mib_per_hour > 0 or instance.working_set.mib_per_request > 0
    if inside > ram or (grows and inside == ram):
        raise SimulatorError(
            f"{profile.name}: a guest of {guest.ram_mib:g} MiB (`guest.ram_mib`) cannot hold the {inside / MIB:g} MiB "
            "of its kernel and programs; give it more"
        )
    # What does not fit is not cached.
    return Parts(programs, objects, vmm, kernel, min(cache, ram - inside), application_bytes, ram)
