"""What goes wrong, and when: loss of an instance, a kernel, a machine, a zone; a slow machine; a registry that is away.

A fault comes at a moment that the scenario names, or again and again with exponential times between. Each fault, and
each thing that it can befall, has a random stream of its own, found by name. So platforms that are compared meet the
same faults, and a fault that is added disturbs no other. An instance that is asked for as the n-th on both platforms
lives as long on both; what no stream can keep equal is which instances there are.

A crash takes a kernel with all that runs on it. How much that is depends on the platform, and is what isolation means:
containers of a machine share one kernel, a virtual machine has its own (`blast_radius`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from simulator.records import NonNegative, Positive, StrictModel
from simulator.statistics.streams import RandomStreams

Scope = Literal["instance", "machine", "zone", "whole"]
"""What has a stream of faults of its own: each instance, each machine, each zone, or the whole service once."""


class _FaultRecord(StrictModel, ABC):
    """What every fault has: when it comes.

    Attributes:
        at_seconds: once, at this moment.
        mean_seconds_between: again and again: from the repair (at first: from the beginning) until the next, on
            average, exponentially distributed; for each thing of the kind's scope on its own.
    """

    scope: ClassVar[Scope]

    at_seconds: NonNegative | None = None
    mean_seconds_between: Positive | None = None

    @model_validator(mode="after")
    def _comes_somehow(self) -> Self:
        if (self.at_seconds is None) == (self.mean_seconds_between is None):
            raise ValueError("give a fault either `at_seconds` (once) or `mean_seconds_between` (again and again)")
        return self

    @property
    @abstractmethod
    def lasts_seconds(self) -> float:
        """From the fault until what it befell is whole again, instances not counted."""

    @property
    def named(self) -> str | None:
        """The one thing that it befalls, if the scenario names it."""
        return None


class InstanceCrash(_FaultRecord):
    """The program of one instance ends; its requests are lost. Scope of the mean: each instance, from ready on.

    Attributes:
        repair_seconds: until another is asked for, which then starts as any other does, and at least until the
            balancer has noticed (`health_check`).
    """

    kind: Literal["instance-crash"]
    repair_seconds: NonNegative = 0.0
    scope: ClassVar[Scope] = "instance"

    @property
    def lasts_seconds(self) -> float:
        """Until another is asked for."""
        return self.repair_seconds


class _MachineFault(_FaultRecord):
    """A fault of one machine.

    Attributes:
        machine: its name (`machine-0`), or None for any.
    """

    scope: ClassVar[Scope] = "machine"
    machine: str | None = None

    @property
    def named(self) -> str | None:
        """The machine."""
        return self.machine


class KernelCrash(_MachineFault):
    """A kernel panics. Where it is the host's, every container of the machine goes and the machine boots again; where
    each instance has its own, one instance goes. Scope of the mean: each machine, so that both meet the same crashes.

    Attributes:
        repair_seconds: until the machine has booted again. What was lost is asked for again as soon as that is noticed.
    """

    kind: Literal["kernel-crash"]
    repair_seconds: NonNegative

    @property
    def lasts_seconds(self) -> float:
        """Until the kernel is up again."""
        return self.repair_seconds


class MachineLoss(_MachineFault):
    """A machine goes with all that is on it, whatever the platform. Scope of the mean: each machine.

    Attributes:
        repair_seconds: until it is back, with nothing running. What was on its disk is still there.
    """

    kind: Literal["machine-loss"]
    repair_seconds: NonNegative

    @property
    def lasts_seconds(self) -> float:
        """Until it is back."""
        return self.repair_seconds


class SlowMachine(_MachineFault):
    """A machine works on, slower: heat, a failing disk, a neighbour. Scope of the mean: each machine.

    Attributes:
        speed_factor: of its usual speed.
        duration_seconds: for how long.
    """

    kind: Literal["slow-machine"]
    speed_factor: Annotated[float, Field(gt=0, lt=1)]
    duration_seconds: Positive

    @property
    def lasts_seconds(self) -> float:
        """For how long it is slow."""
        return self.duration_seconds


class RegistryOutage(_FaultRecord):
    """No image can be pulled. What has its image runs and starts as before. Scope of the mean: the one registry.

    Attributes:
        duration_seconds: for how long.
    """

    kind: Literal["registry-outage"]
    duration_seconds: Positive
    scope: ClassVar[Scope] = "whole"

    @property
    def lasts_seconds(self) -> float:
        """For how long it is away."""
        return self.duration_seconds


class ZoneLoss(_FaultRecord):
    """Every machine of a zone goes at once. Scope of the mean: each zone.

    Attributes:
        zone: its name, or None for any.
        repair_seconds: until its machines are back, empty.
    """

    kind: Literal["zone-loss"]
    zone: str | None = None
    repair_seconds: NonNegative
    scope: ClassVar[Scope] = "zone"

    @property
    def lasts_seconds(self) -> float:
        """Until its machines are back."""
        return self.repair_seconds

    @property
    def named(self) -> str | None:
        """The zone."""
        return self.zone


Fault = Annotated[
    InstanceCrash | KernelCrash | MachineLoss | SlowMachine | RegistryOutage | ZoneLoss, Field(discriminator="kind")
]
"""`[[faults]]`: any fault; `kind` says which."""


@dataclass(frozen=True)
class TimedFault:
    """One fault at its moment.

    Attributes:
        seconds: when it comes.
        ends_seconds: when what it befell is whole again.
        fault: which, as the scenario has it.
        target: the machine or the zone that it befalls; empty where that is chosen when it comes.
        choice: uniform in [0, 1): chooses where there is more than one, such as the instance that crashes.
    """

    seconds: float
    ends_seconds: float
    fault: Fault
    target: str
    choice: float

    def choose(self, names: Sequence[str]) -> str | None:
        """The one of `names` that it befalls, in their order: the target, or the one that `choice` falls on."""
        if self.target:
            return self.target if self.target in names else None
        return names[int(self.choice * len(names))] if names else None


@dataclass(frozen=True)
class Crash:
    """The end of one instance.

    Attributes:
        age_seconds: how long after it became ready; infinite if it never crashes.
        fault: by which fault, or None.
    """

    age_seconds: float
    fault: Fault | None


def draw(
    faults: Sequence[Fault],
    streams: RandomStreams,
    duration: float,
    *,
    machines: Sequence[str] = (),
    zones: Sequence[str] = (),
) -> tuple[TimedFault, ...]:
    """Every fault that can be known before the run: all but crashes of instances by a mean, which come with each.

    Args:
        faults: of the scenario.
        streams: of the replication.
        duration: seconds; a fault at or after it does not come.
        machines: names of those there are at the beginning. For one that comes later: `draw_machine`.
        zones: names of all.

    Returns:
        Sorted by time; faults at the same moment in the order of the scenario.
    """
    found: list[TimedFault] = []
    for fault, stream in _with_streams(faults):
        if fault.at_seconds is not None:
            choice = float(streams.stream(stream).random())
            if fault.at_seconds < duration:
                ends = fault.at_seconds + fault.lasts_seconds
                found.append(TimedFault(fault.at_seconds, ends, fault, fault.named or "", choice))
            continue
        names: Sequence[str] = {"instance": (), "machine": machines, "zone": zones, "whole": ("",)}[fault.scope]
        for name in names:
            if fault.named in (None, name):
                found += _again_and_again(fault, name, streams.stream(f"{stream} {name}"), 0.0, duration)
    return tuple(sorted(found, key=lambda each: each.seconds))


def draw_machine(
    faults: Sequence[Fault], streams: RandomStreams, duration: float, *, machine: str, since: float
) -> tuple[TimedFault, ...]:
    """The faults by a mean of a machine that came at `since`; its name must be new."""
    found: list[TimedFault] = []
    for fault, stream in _with_streams(faults):
        if fault.scope == "machine" and fault.mean_seconds_between is not None and fault.named in (None, machine):
            found += _again_and_again(fault, machine, streams.stream(f"{stream} {machine}"), since, duration)
    return tuple(sorted(found, key=lambda each: each.seconds))


def draw_crash(faults: Sequence[Fault], streams: RandomStreams, instance: int) -> Crash:
    """How long instance number `instance` will live, by the crashes with a mean: the first of them.

    The time is counted from ready on, so that a platform that starts slower does not see its instances die younger.
    """
    ages = [
        (float(streams.stream(f"{stream} {instance}").exponential(fault.mean_seconds_between)), fault)
        for fault, stream in _with_streams(faults)
        if fault.scope == "instance" and fault.mean_seconds_between is not None
    ]
    if not ages:
        return Crash(math.inf, None)
    age, fault = min(ages, key=lambda each: each[0])
    return Crash(age, fault)


def _with_streams(faults: Sequence[Fault]) -> Iterator[tuple[Fault, str]]:
    """Each fault with the name of its stream: its kind, and which of that kind. Other kinds do not count."""
    seen: dict[str, int] = {}
    for fault in faults:
        number = seen.get(fault.kind, 0)
        seen[fault.kind] = number + 1
        yield fault, f"fault {fault.kind} {number}"


def _again_and_again(
    fault: Fault, target: str, random: np.random.Generator, since: float, duration: float
) -> Iterator[TimedFault]:
    now, mean = since, fault.mean_seconds_between or math.inf
    while True:
        now += float(random.exponential(mean))
        choice = float(random.random())
        if now >= duration:
            return
        yield TimedFault(now, now + fault.lasts_seconds, fault, target, choice)
        now += fault.lasts_seconds
