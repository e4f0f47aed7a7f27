"""What a fault takes with it, and how long it is until the service is whole again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from simulator.control.faults import TimedFault
from simulator.errors import SimulatorError


@dataclass(frozen=True)
class Endangered:
    """One instance at the moment of a fault.

    Attributes:
        number: which.
        machine: where it is.
        zone: of that machine.
        ready: whether it takes requests.
        requests: those that it has, waiting or in service.
    """

    number: int
    machine: str
    zone: str
    ready: bool
    requests: int


@dataclass(frozen=True)
class BlastRadius:
    """What one fault takes.

    Attributes:
        seconds: when.
        kind: of fault.
        target: the machine or the zone that it befell, or nothing.
        lost: numbers of the instances that end.
        slowed: numbers of those that go on, slower.
        requests: requests that are lost with them.
        ready_before: ready instances just before.
        ready_lost: how many of them end.
        reason: one sentence.
    """

    seconds: float
    kind: str
    target: str
    lost: tuple[int, ...]
    slowed: tuple[int, ...]
    requests: int
    ready_before: int
    ready_lost: int
    reason: str

    @property
    def fraction(self) -> float:
        """Part of the ready instances that end; 0 where there were none."""
        return self.ready_lost / self.ready_before if self.ready_before else 0.0


def blast_radius(
    timed: TimedFault, instances: Sequence[Endangered], machines: Mapping[str, str], *, shares_host_kernel: bool
) -> BlastRadius:
    """What `timed` takes.

    Args:
        timed: the fault.
        instances: every instance that is on a machine, in the order of their numbers.
        machines: zone of each machine that is up, by its name, in order.
        shares_host_kernel: whether the platform's instances run on the kernel of their machine, as containers do. A
            virtual machine has a kernel of its own; then a kernel crash takes one of those on the machine.
    """
    kind = timed.fault.kind
    lost: list[Endangered] = []
    slowed: list[Endangered] = []
    target = ""
    if kind == "registry-outage":
        return _blast(timed, "", instances, [], [], "no image can be pulled; what runs goes on")
    if kind == "instance-crash":
        lost = _one(timed, [each for each in instances if each.ready])
        why = f"instance {lost[0].number} ended" if lost else "there was no ready instance to crash"
    elif kind == "zone-loss":
        target = timed.choose(sorted(set(machines.values()))) or ""
        lost = [each for each in instances if target and each.zone == target]
        why = f"all of zone {target}" if target else f"{timed.target or 'no zone'} has no machine that is up"
    else:
        target = timed.choose(list(machines)) or ""
        here = [each for each in instances if target and each.machine == target]
        if not target:
            why = f"{timed.target or 'no machine'} is not up"
        elif kind == "slow-machine":
            slowed, why = here, f"{target} goes on, slower"
        elif kind == "machine-loss":
            lost, why = here, f"all on {target}"
        elif shares_host_kernel:
            lost, why = here, f"all on {target} share its kernel"
        else:
            lost = _one(timed, here)
            number = f"instance {lost[0].number}" if lost else "nothing, for none is there"
            why = f"each on {target} has a kernel of its own: {number}"
    return _blast(timed, target, instances, lost, slowed, why)


def _one(timed: TimedFault, instances: Sequence[Endangered]) -> list[Endangered]:
    """The one that the fault's choice falls on."""
    return [instances[int(timed.choice * len(instances))]] if instances else []


def _blast(
    timed: TimedFault,
    target: str,
    instances: Sequence[Endangered],
    lost: Sequence[Endangered],
    slowed: Sequence[Endangered],
    why: str,
) -> BlastRadius:
    before = sum(each.ready for each in instances)
    ready_lost, requests = sum(each.ready for each in lost), sum(each.requests for each in lost)
    return BlastRadius(
        seconds=timed.seconds,
        kind=timed.fault.kind,
        target=target,
        lost=tuple(each.number for each in lost),
        slowed=tuple(each.number for each in slowed),
        requests=requests,
        ready_before=before,
        ready_lost=ready_lost,
        reason=f"{why}: {ready_lost} of {before} ready instances and {requests} requests lost",
    )


@dataclass(frozen=True)
class Recovery:
    """How long a fault was felt.

    Attributes:
        seconds: from the fault until all was well again, or None if that did not come before the end.
        reason: one sentence.
    """

    seconds: float | None
    reason: str


def instances_recovered(
    fault_seconds: float, ready_before: int, timeline: Sequence[tuple[float, int]], *, wanted: int | None = None
) -> Recovery:
    """From a fault until as many instances are ready again as before it.

    Args:
        fault_seconds: when it came.
        ready_before: ready instances just before.
        timeline: (seconds, ready instances from then on) at every change, in order; that of the fault among them.
        wanted: how many are wanted, where an autoscaler has meanwhile come to want fewer than before.

    Raises:
        SimulatorError: a timeline out of order.
    """
    _in_order(timeline)
    goal = ready_before if wanted is None else min(ready_before, wanted)
    after = [(seconds, ready) for seconds, ready in timeline if seconds >= fault_seconds]
    fell = next((place for place, (_, ready) in enumerate(after) if ready < goal), None)
    if fell is None:
        return Recovery(0.0, f"never fewer than {goal} ready")
    lowest = after[fell][1]
    for seconds, ready in after[fell:]:
        lowest = min(lowest, ready)
        if ready >= goal:
            took = seconds - fault_seconds
            return Recovery(took, f"{goal} ready again after {took:g} s, down to {lowest} meanwhile")
    return Recovery(None, f"not {goal} ready again before the end, down to {lowest}")


def objective_recovered(fault_seconds: float, windows: Sequence[tuple[float, bool]]) -> Recovery:
    """From a fault until the objective holds again.

    Args:
        fault_seconds: when it came.
        windows: (end of a window in seconds, whether the objective held in it), in order. A window that ends after the
            fault has seen it.

    Raises:
        SimulatorError: windows out of order.
    """
    _in_order(windows)
    after = [(seconds, held) for seconds, held in windows if seconds > fault_seconds]
    broken = next((place for place, (_, held) in enumerate(after) if not held), None)
    if broken is None:
        return Recovery(0.0, "the objective was never missed")
    for seconds, held in after[broken:]:
        if held:
            took = seconds - fault_seconds
            return Recovery(took, f"the objective held again after {took:g} s")
    return Recovery(None, "the objective did not hold again before the end")


def _in_order(timeline: Sequence[tuple[float, object]]) -> None:
    if any(after[0] < before[0] for before, after in pairwise(timeline)):
        raise SimulatorError("recovery: the timeline must be in order of time; sort it")
