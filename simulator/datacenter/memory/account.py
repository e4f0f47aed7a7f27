"""Who holds how much of one machine's memory, now and later, and what happens when there is no more.

Two books are kept. *Promised* is what admission counts: an instance's memory as it begins, or the memory that a guest
was told it has. *In use* is what is really there: guests touch less than they were promised, identical pages are
merged, free ones given back, and working sets grow. Between two changes every part of it is a straight line, so the
moment at which it passes what the machine has is solved for.
"""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields

from simulator.datacenter.memory.footprint import marginal
from simulator.datacenter.memory.killing import Candidate, OutOfMemory, Scope, choose_victim
from simulator.datacenter.memory.merging import PageMerging
from simulator.datacenter.memory.parts import PLAIN, InstanceMemory, Parts, parts_of
from simulator.datacenter.memory.ramps import Ramp, negative, rising, seconds_until_above
from simulator.datacenter.memory.settings import MIB, MemorySettings
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError

_ROUNDING = 1e-12
"""Relative; keeps ten tenths of a machine from being more than the machine."""


@dataclass(frozen=True)
class MemoryUse:
    """What a machine's memory is used for at one moment, in bytes. All but the last two are in use.

    Attributes:
        programs: private to the platform's instances, other than what follows.
        shared: page cache that instances share: of their platform, and of their images.
        kernel_objects: of the host's kernel, for its instances.
        vmm: of machine monitors.
        guest_kernel: of guests.
        guest_cache: page cache and free pages of guests, before any is given back.
        application: the programs, as they began.
        growth: what they have grown by since.
        requests: for requests that wait or are served.
        merged: of the above, what is saved because it is there once for several guests.
        given_back: of the above, what guests gave back.
    """

    programs: float
    shared: float
    kernel_objects: float
    vmm: float
    guest_kernel: float
    guest_cache: float
    application: float
    growth: float
    requests: float
    merged: float
    given_back: float

    @property
    def total(self) -> float:
        """All that is in use."""
        every = float(sum(getattr(self, field.name) for field in fields(self)))
        return every - 2 * (self.merged + self.given_back)


@dataclass
class _Resident:
    """One instance in memory. Bytes and seconds."""

    profile: PlatformProfile
    asked: InstanceMemory
    parts: Parts
    admitted_at: float
    program_began_at: float
    can_give_back: float
    mergeable: float
    give_back_rate: float
    left_behind: float = 0.0
    """What the program that ran before had grown to: pages that its guest keeps, until it gives them back."""
    request_bytes: float = 0.0

    @property
    def room(self) -> float:
        """How many bytes of growth the host can see: a guest never has more than its memory."""
        ram = math.inf if self.parts.guest_ram is None else self.parts.guest_ram
        return max(min(self.asked.working_set.growth_bytes, ram - self.parts.guest - self.requests), 0.0)

    @property
    def requests(self) -> float:
        """Bytes of its requests that the host can see."""
        if self.parts.guest_ram is None:
            return self.request_bytes
        return min(self.request_bytes, max(self.parts.guest_ram - self.parts.guest, 0.0))

    def growth(self) -> Ramp:
        """What the program adds in the host's memory: first it takes what another left behind."""
        rate, room, start = self.asked.working_set.bytes_per_second, self.room, self.program_began_at
        left = min(self.left_behind, room)
        if math.isinf(start):
            return Ramp(0.0, left)
        if not left:
            return rising(start, rate, room)
        falling = self.give_back_rate
        if not rate + falling:
            return Ramp(start, left)
        meets = left / (rate + falling)
        grown = room / rate if rate else meets
        return Ramp(start, left, ((start + meets, -falling), (start + max(grown, meets), rate)))

    def needs(self) -> Ramp:
        """What the program itself has grown by, however much of it the host can see."""
        working_set = self.asked.working_set
        if math.isinf(self.program_began_at):
            return Ramp(0.0, 0.0)
        return rising(self.program_began_at, working_set.bytes_per_second, working_set.growth_bytes)

    def giving_back(self) -> Ramp:
        """What of its page cache and free pages a guest has given back."""
        return rising(self.admitted_at, self.give_back_rate, self.can_give_back)

    def ceilings(self) -> Iterator[tuple[Scope, float, float]]:
        """Where it ends by itself: (scope, bytes allowed, bytes needed without growth)."""
        parts, wanted = self.parts, self.parts.application + self.request_bytes
        if self.asked.limit_bytes is not None:
            inside = 0.0 if self.asked.guest else parts.programs + parts.kernel_objects
            yield "container", self.asked.limit_bytes, inside + wanted
        if parts.guest_ram is not None:
            # A guest drops its page cache before it kills.
            yield "guest", parts.guest_ram, parts.programs + parts.guest_kernel + wanted


class MemoryAccount:
    """Who holds how much of one machine's memory: admits an instance only if it fits.

    Every method that takes `now` (simulated seconds) takes the moment of the last change where it is left out. Time
    must not run backwards.

    Args:
        capacity_bytes: what instances can have.
        machine: the machine's name, for messages.
        settings: merging, ballooning and overcommitment.
    """

    def __init__(
        self, capacity_bytes: float, machine: str = "machine", *, settings: MemorySettings | None = None
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.settings = settings or MemorySettings()
        self._machine = machine
        self._held: dict[Hashable, _Resident] = {}
        self._changing: dict[Hashable, _Resident] = {}
        self._limited: dict[Hashable, _Resident] = {}
        self._sharing: dict[Hashable, tuple[int, float]] = {}
        self._promised = 0.0
        self._constant = 0.0
        self._now = 0.0
        self._merging = PageMerging(self.settings.ksm) if self.settings.ksm else None

    # Admission: what was promised.

    @property
    def used_bytes(self) -> float:
        """Bytes promised to the instances admitted and not yet released."""
        return self._promised

    @property
    def free_bytes(self) -> float:
        """Bytes that can still be promised; below zero only by rounding."""
        return self.settings.overcommit * self.capacity_bytes - self._promised

    def needed(
        self, profile: PlatformProfile, application_bytes: float = 0.0, *, instance: InstanceMemory = PLAIN
    ) -> float:
        """Bytes that one more instance would be promised: less where others here already share with it."""
        shared = sum(size for key, size in self._shares(profile, instance) if key not in self._sharing)
        if instance is PLAIN:
            return shared + marginal(profile.memory, application_bytes)
        return shared + parts_of(profile, application_bytes, instance).promised

    def fits(
        self, profile: PlatformProfile, application_bytes: float = 0.0, *, instance: InstanceMemory = PLAIN
    ) -> bool:
        """Whether one more instance can be admitted."""
        return self._has(self.needed(profile, application_bytes, instance=instance))

    def admit(
        self,
        name: Hashable,
        profile: PlatformProfile,
        application_bytes: float = 0.0,
        *,
        instance: InstanceMemory = PLAIN,
        now: float | None = None,
    ) -> None:
        """Give an instance its memory.

        Args:
            name: of the instance; anything hashable.
            profile: its platform.
            application_bytes: private memory of the program in it, as it begins.
            instance: what else it asks of memory.
            now: simulated seconds.

        Raises:
            SimulatorError: it does not fit, it is here already, or what it asks contradicts itself (see `parts_of`).
        """
        if name in self._held:
            raise SimulatorError(f"{self._machine}: instance {name} is admitted already; release it first")
        need = self.needed(profile, application_bytes, instance=instance)
        if not self._has(need):
            raise SimulatorError(
                f"{self._machine}: instance {name} needs {need:.0f} bytes, {self.free_bytes:.0f} are free; "
                "place it on another machine"
            )
        now = self._advance(now)
        resident = self._resident(profile, parts_of(profile, application_bytes, instance), instance, now)
        self._held[name] = resident
        for key, size in self._shares(profile, instance):
            count, there = self._sharing.get(key, (0, size))
            if not count:
                self._constant += there
            self._sharing[key] = (count + 1, there)
        self._promised += need
        self._constant += resident.parts.total
        if resident.can_give_back or instance.working_set.mib_per_hour:
            self._changing[name] = resident
        if any(resident.ceilings()):
            self._limited[name] = resident
        if self._merging and instance.guest:
            offered = resident.parts.guest
            self._merging.add(self._alike(resident), name, offered, resident.mergeable, now)

    def release(self, name: Hashable, *, now: float | None = None) -> None:
        """Take back the memory of an instance, and what it shared if it was the last to.

        Raises:
            SimulatorError: it is not here.
        """
        resident = self._of(name)
        now = self._advance(now)
        del self._held[name]
        self._changing.pop(name, None)
        self._limited.pop(name, None)
        shared = 0.0
        for key, _ in self._shares(resident.profile, resident.asked):
            count, size = self._sharing[key]
            if count > 1:
                self._sharing[key] = (count - 1, size)
            else:
                del self._sharing[key]
                shared += size
        if self._merging and resident.asked.guest:
            self._merging.remove(self._alike(resident), name, resident.mergeable, now)
        # An empty machine uses nothing, whatever the rounding of many additions left behind.
        empty = not self._held
        self._promised = 0.0 if empty else self._promised - resident.parts.promised - shared
        self._constant = 0.0 if empty else self._constant - resident.parts.total - resident.requests - shared

    # What is in use.

    def use(self, now: float | None = None) -> float:
        """Bytes in use at `now`, if nothing is admitted or released until then."""
        now = self._when(now)
        growing = math.fsum(ramp.at(now) for ramp in self._ramps_of_instances())
        return self._constant + growing - (self._merging.saved(now) if self._merging else 0.0)

    def parts(self, now: float | None = None) -> MemoryUse:
        """The same, part by part."""
        now = self._when(now)
        held = list(self._held.values())
        return MemoryUse(
            programs=sum(each.parts.programs for each in held),
            shared=sum(size for _, size in self._sharing.values()),
            kernel_objects=sum(each.parts.kernel_objects for each in held),
            vmm=sum(each.parts.vmm for each in held),
            guest_kernel=sum(each.parts.guest_kernel for each in held),
            guest_cache=sum(each.parts.guest_cache for each in held),
            application=sum(each.parts.application for each in held),
            growth=sum(each.growth().at(now) for each in held),
            requests=sum(each.requests for each in held),
            merged=self._merging.saved(now) if self._merging else 0.0,
            given_back=sum(each.giving_back().at(now) for each in held),
        )

    def requests(self, name: Hashable, count: int, *, now: float | None = None) -> None:
        """From now on the instance has `count` requests, waiting or in service (`working_set.mib_per_request`).

        Raises:
            SimulatorError: it is not here, or there are fewer than no requests.
        """
        resident = self._of(name)
        if count < 0:
            raise SimulatorError(f"{self._machine}: instance {name} cannot have {count} requests")
        self._advance(now)
        before = resident.requests
        resident.request_bytes = count * resident.asked.working_set.mib_per_request * MIB
        self._constant += resident.requests - before

    def restart_program(self, name: Hashable, *, now: float | None = None) -> None:
        """The program in the instance begins anew, e.g. after it was killed in its container or guest.

        A container's memory goes back to the machine at once. A guest keeps what its program has used, as free pages,
        until it gives them back: at the balloon's speed, or never.

        Raises:
            SimulatorError: it is not here.
        """
        resident = self._of(name)
        now = self._advance(now)
        if resident.asked.guest:
            resident.left_behind = resident.growth().at(now)
        self.requests(name, 0, now=now)
        resident.program_began_at = now

    def hold_program(self, name: Hashable, *, now: float | None = None) -> None:
        """The program in the instance has not begun yet, or not again: nothing grows until `restart_program`.

        Raises:
            SimulatorError: it is not here.
        """
        resident = self._of(name)
        self._advance(now)
        resident.program_began_at = math.inf

    # Running out of it.

    def seconds_until_full(self, now: float | None = None) -> float:
        """Seconds from `now` until more is in use than the machine has: 0 if it is so now, infinite if never."""
        now = self._when(now)
        ramps = [*self._ramps_of_instances()]
        if self._merging:
            ramps += (negative(ramp) for ramp in self._merging.ramps(now))
        # What was promised to the last byte does not overflow by a rounding error.
        level = self.capacity_bytes * (1 + _ROUNDING)
        return seconds_until_above(level, self._constant, ramps, now)

    def next_out_of_memory(self, now: float | None = None) -> OutOfMemory | None:
        """The next kill if nothing is admitted, released or restarted before: on the machine, or inside one instance.

        Whoever runs the simulation asks after each change and wakes up then. After a kill on the machine the victim
        must be released, after one in a container or guest its program restarted (or the instance released).
        """
        now = self._when(now)
        first, inside = math.inf, None
        for name, resident in self._limited.items():
            for scope, allowed, needed in resident.ceilings():
                level = allowed * (1 + _ROUNDING)
                seconds = seconds_until_above(level, needed, [resident.needs()], now)
                if seconds < first:
                    first, inside = seconds, (scope, name, allowed)
        full = self.seconds_until_full(now)
        # Of two at the same moment the one inside comes first: it may leave enough for all others.
        if inside is not None and first <= full:
            scope, name, allowed = inside
            limit = "its memory limit" if scope == "container" else "its guest's memory"
            reason = f"instance {name} needs more than {limit}, {allowed / MIB:.1f} MiB: its program is killed in it"
            return OutOfMemory(now + first, scope, name, reason)
        if math.isinf(full):
            return None
        victim, why = self.victim(now + full)
        reason = f"{self._machine} has no memory left, {self.capacity_bytes / MIB:.0f} MiB are in use: {why}"
        return OutOfMemory(now + full, "machine", victim, reason)

    def victim(self, now: float | None = None) -> tuple[Hashable | None, str]:
        """Whom the kernel would kill at `now` for lack of memory on the machine, and why; see `choose_victim`."""
        now = self._when(now)
        candidates = [
            Candidate(name, self._resident_bytes(each, now), each.asked.oom_score_adj)
            for name, each in self._held.items()
        ]
        victim, why = choose_victim(candidates, self.capacity_bytes)
        return (None if victim is None else victim.instance), why

    # What merging costs.

    @property
    def merging_cores(self) -> float:
        """What part of a core looking for identical pages takes now."""
        return self._merging.settings.cores if self._merging and self._merging.rounds_per_second else 0.0

    def merging_cpu_seconds(self, now: float | None = None) -> float:
        """What looking for identical pages has taken so far, in seconds of one core."""
        return self._merging.cpu_seconds(self._when(now)) if self._merging else 0.0

    def merged_in_the_end(self) -> float:
        """Bytes that will be saved by merging, if no instance comes or goes."""
        return self._merging.saved_in_the_end() if self._merging else 0.0

    def _has(self, need: float) -> bool:
        return need <= self.free_bytes

    def _of(self, name: Hashable) -> _Resident:
        if name not in self._held:
            raise SimulatorError(f"{self._machine}: instance {name} holds no memory here")
        return self._held[name]

    def _when(self, now: float | None) -> float:
        if now is None:
            return self._now
        if now < self._now:
            raise SimulatorError(f"{self._machine}: memory is asked for {now:g} s, which is before {self._now:g} s")
        return now

    def _advance(self, now: float | None) -> float:
        self._now = self._when(now)
        return self._now

    def _resident(self, profile: PlatformProfile, parts: Parts, asked: InstanceMemory, now: float) -> _Resident:
        balloon, ksm = self.settings.balloon, self.settings.ksm
        can_give_back, rate, mergeable = 0.0, 0.0, 0.0
        if asked.guest and balloon:
            rate = balloon.mib_per_second * MIB
            can_give_back = max(min(parts.guest_cache, parts.guest - balloon.minimum_mib * MIB), 0.0)
        if asked.guest and ksm:
            # What is given back is nobody's any more, and not there to be merged.
            mergeable = ksm.mergeable_fraction * (parts.guest - can_give_back)
        return _Resident(profile, asked, parts, now, now, can_give_back, mergeable, rate)

    @staticmethod
    def _shares(profile: PlatformProfile, instance: InstanceMemory) -> list[tuple[Hashable, float]]:
        """What the instance shares with others, and its bytes: its platform's files, and its image's."""
        shares: list[tuple[Hashable, float]] = [(profile.name, profile.memory.shared_bytes.value)]
        if instance.image_bytes and instance.guest is None:
            shares.append(((profile.name, instance.image), instance.image_bytes))
        return shares

    @staticmethod
    def _alike(resident: _Resident) -> Hashable:
        return resident.profile.name, resident.asked.image

    def _ramps_of_instances(self) -> Iterator[Ramp]:
        for resident in self._changing.values():
            yield resident.growth()
            if resident.can_give_back:
                yield negative(resident.giving_back())

    def _resident_bytes(self, resident: _Resident, now: float) -> float:
        """As the kernel counts them: shared and merged pages at everyone who maps them, kernel objects at nobody."""
        shared = sum(self._sharing[key][1] for key, _ in self._shares(resident.profile, resident.asked))
        own = resident.parts.total - resident.parts.kernel_objects + resident.requests
        return own + shared + resident.growth().at(now) - resident.giving_back().at(now)
