"""The machine autoscaler beneath the other: adds a machine where instances find no room, removes one that none needs.

Source: FAQ of the Kubernetes Cluster Autoscaler (kubernetes/autoscaler, cluster-autoscaler/FAQ.md): it looks every 10 s
(`--scan-interval`) and has decided within 30 s; a machine takes 3 to 4 minutes; one whose reservations are below
half (`--scale-down-utilization-threshold`) and whose instances fit elsewhere goes after 10 minutes
(`--scale-down-unneeded-time`), yet none within 10 minutes of adding one (`--scale-down-delay-after-add`) or 3 of a
failure (`--scale-down-delay-after-failure`); a machine that has not come within 15 minutes never will
(`--max-node-provision-time`), and then none is ordered for 5 minutes, for 10 after the next failure, up to 30
(`--initial-node-group-backoff-duration`, `--max-node-group-backoff-duration`); at most 10 empty ones go at once
(`--max-empty-bulk-delete`), others one by one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from simulator.errors import SimulatorError
from simulator.records import NonNegative, Positive, StrictModel

Machines = Annotated[int, Field(ge=0, le=10_000)]


class FixedDelay(StrictModel):
    """Always as long."""

    kind: Literal["fixed"]
    seconds: NonNegative

    def draw(self, random: np.random.Generator) -> float:
        """Seconds. One number is drawn and thrown away, so that another kind disturbs no later draw."""
        random.random()
        return self.seconds


class UniformDelay(StrictModel):
    """Any length between two, each as likely."""

    kind: Literal["uniform"]
    low_seconds: NonNegative
    high_seconds: NonNegative

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_seconds > self.high_seconds:
            raise ValueError(f"`low_seconds` {self.low_seconds:g} must not exceed `high_seconds` {self.high_seconds:g}")
        return self

    def draw(self, random: np.random.Generator) -> float:
        """Seconds."""
        return self.low_seconds + (self.high_seconds - self.low_seconds) * float(random.random())


class LognormalDelay(StrictModel):
    """Mostly short, sometimes long."""

    kind: Literal["lognormal"]
    mean_seconds: Positive
    coefficient_of_variation: Positive = 0.3
    """Standard deviation over mean."""

    def draw(self, random: np.random.Generator) -> float:
        """Seconds."""
        variance = math.log1p(self.coefficient_of_variation**2)
        return float(random.lognormal(math.log(self.mean_seconds) - variance / 2, math.sqrt(variance)))


Delay = Annotated[FixedDelay | UniformDelay | LognormalDelay, Field(discriminator="kind")]
"""How long something takes; `kind` says by which distribution."""


@dataclass(frozen=True)
class Provisioning:
    """What became of one order.

    Attributes:
        decided_seconds: from the look that saw the need until the order is given.
        provision_seconds: from the order until the machine takes instances, or until it is given up.
        succeeds: whether it comes at all.
    """

    decided_seconds: float
    provision_seconds: float
    succeeds: bool

    @property
    def seconds(self) -> float:
        """From the look until the end of it."""
        return self.decided_seconds + self.provision_seconds


class MachineAutoscalerSettings(StrictModel):
    """`[machine_autoscaler]`: the defaults are those of the Cluster Autoscaler, see the module.

    Attributes:
        min_machines, max_machines: between which it keeps their number.
        scan_seconds: how often it looks.
        decision: from a look until the order. With the wait for the look it stays below 30 s.
        provision: from the order until the machine takes instances.
        failure_probability: that a machine never comes; found out after `max_provision_seconds`.
        max_provision_seconds: a machine that took longer is given up.
        failure_backoff_seconds, max_failure_backoff_seconds: none is ordered so long after a failure, twice as long
            after the next in a row, and so on up to the second.
        scale_down: whether any is removed.
        scale_down_utilisation: a machine below it, in reserved part of cores or memory, whichever is more, may go.
        unneeded_seconds: it goes when that has been so for so long.
        delay_after_add_seconds, delay_after_failure_seconds: and none goes so soon after these.
        most_empty_at_once: empty machines that may go at one look.
    """

    min_machines: Machines = 0
    max_machines: Annotated[int, Field(ge=1, le=10_000)]
    scan_seconds: Positive = 10.0
    decision: Delay = UniformDelay(kind="uniform", low_seconds=0.0, high_seconds=20.0)
    provision: Delay = UniformDelay(kind="uniform", low_seconds=180.0, high_seconds=240.0)
    failure_probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_provision_seconds: Positive = 900.0
    failure_backoff_seconds: NonNegative = 300.0
    max_failure_backoff_seconds: NonNegative = 1800.0
    scale_down: bool = True
    scale_down_utilisation: Annotated[float, Field(ge=0, le=1)] = 0.5
    unneeded_seconds: NonNegative = 600.0
    delay_after_add_seconds: NonNegative = 600.0
    delay_after_failure_seconds: NonNegative = 180.0
    most_empty_at_once: Annotated[int, Field(ge=1, le=10_000)] = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_machines > self.max_machines:
            raise ValueError(f"`min_machines` {self.min_machines} must not exceed `max_machines` {self.max_machines}")
        return self

    def build(self, instances_per_machine: int) -> "MachineAutoscaler":
        """The policy with these settings, at its beginning.

        Args:
            instances_per_machine: how many fit on an empty one.

        Raises:
            SimulatorError: none fits, so no machine would ever help.
        """
        return MachineAutoscaler(self, instances_per_machine)

    def draw(self, random: np.random.Generator) -> Provisioning:
        """What becomes of one order. Always as many numbers are drawn, so that a change of one setting moves no other.

        Args:
            random: the stream of the machine autoscaler, one order after the other.
        """
        decided = self.decision.draw(random)
        seconds = self.provision.draw(random)
        comes = float(random.random()) >= self.failure_probability and seconds <= self.max_provision_seconds
        return Provisioning(decided, seconds if comes else self.max_provision_seconds, comes)


@dataclass(frozen=True)
class MachineView:
    """What the machine autoscaler knows of one machine.

    Attributes:
        name: which.
        ready: whether it takes instances; False while it is ordered and has not come.
        instances: those that are on it, in whatever state.
        room: how many more would fit.
        utilisation: reserved part of its cores or of its memory, whichever is more, 0 to 1.
    """

    name: str
    ready: bool
    instances: int
    room: int
    utilisation: float


@dataclass(frozen=True)
class MachineDecision:
    """What the machine autoscaler decided, and why.

    Attributes:
        seconds: when.
        pending: instances that had no room.
        machines: those there were, the ordered ones included.
        add: how many to order.
        remove: names of those to take away; what runs there moves elsewhere.
        reason: one sentence.
    """

    seconds: float
    pending: int
    machines: int
    add: int
    remove: tuple[str, ...]
    reason: str


class MachineAutoscaler:
    """Follows the instances without room, and the machines without work.

    Args:
        settings: of the policy.
        instances_per_machine: how many fit on an empty one.

    Raises:
        SimulatorError: none fits.
    """

    def __init__(self, settings: MachineAutoscalerSettings, instances_per_machine: int) -> None:
        if instances_per_machine < 1:
            raise SimulatorError(
                "`machine_autoscaler`: not one instance fits on an empty machine, so more of them never help; "
                "give `machines.spec` more cores or memory, or the application less"
            )
        self._settings = settings
        self._each = instances_per_machine
        self._unneeded: dict[str, float] = {}
        self._last_add = -math.inf
        self._last_failure = -math.inf
        self._failures = 0

    @property
    def scan_seconds(self) -> float:
        """How often it looks."""
        return self._settings.scan_seconds

    def provisioning_failed(self, now: float) -> None:
        """A machine that was ordered was given up."""
        self._last_failure = now
        self._failures += 1

    def provisioning_succeeded(self) -> None:
        """A machine that was ordered has come: the next failure is the first of its row again."""
        self._failures = 0

    def decide(self, now: float, pending: int, machines: Sequence[MachineView]) -> MachineDecision:
        """Order what the instances without room need; where there are none, remove what none needs.

        Args:
            now: simulated seconds.
            pending: instances that no machine has room for.
            machines: all, the ordered ones included; not those that are on their way out.
        """
        self._watch(now, machines)
        count = len(machines)
        add, why = self._add(now, pending, machines)
        if add:
            self._last_add = now
            return MachineDecision(now, pending, count, add, (), why)
        if pending or any(not machine.ready for machine in machines):
            # As there, nothing is taken down while anything is on its way up.
            return MachineDecision(now, pending, count, 0, (), why or "a machine is on its way")
        remove, why_removed = self._remove(now, machines)
        for name in remove:
            del self._unneeded[name]
        return MachineDecision(now, pending, count, 0, remove, why_removed)

    def _add(self, now: float, pending: int, machines: Sequence[MachineView]) -> tuple[int, str]:
        settings = self._settings
        lacking = settings.min_machines - len(machines)
        coming = sum(machine.room for machine in machines if not machine.ready)
        homeless = max(pending - coming, 0)
        wanted = max(math.ceil(homeless / self._each), lacking, 0)
        if not wanted:
            return 0, f"{pending} instances wait for the machines that are on their way" if pending else ""
        if lacking >= wanted:
            why = f"{len(machines)} machines are fewer than min_machines {settings.min_machines}: {wanted} more"
        else:
            why = f"{pending} without room, room for {coming} is coming: ceil({homeless} / {self._each}) = {wanted}"
        pause = self._pause()
        if now < self._last_failure + pause:
            return 0, f"{why}; none is ordered for {pause:g} s after a machine that never came"
        allowed = max(settings.max_machines - len(machines), 0)
        if wanted > allowed:
            return allowed, f"{why}; limited to {allowed} by max_machines {settings.max_machines}"
        return wanted, why

    def _pause(self) -> float:
        """How long nothing is ordered after so many failures in a row."""
        settings = self._settings
        if not self._failures:
            return 0.0
        # The exponent is held, or a long row of failures would overflow.
        doubled = settings.failure_backoff_seconds * 2.0 ** min(self._failures - 1, 60)
        return min(doubled, settings.max_failure_backoff_seconds)

    def _watch(self, now: float, machines: Sequence[MachineView]) -> None:
        """Since when each machine has been unneeded: little used, and with room elsewhere for what is on it."""
        ready = sorted((machine for machine in machines if machine.ready), key=lambda each: each.utilisation)
        # Instances are all of one size, so it is enough to count their places.
        free = sum(machine.room for machine in ready)
        unneeded: dict[str, float] = {}
        for machine in ready:
            elsewhere = free - machine.room
            low = machine.utilisation < self._settings.scale_down_utilisation or machine.instances == 0
            if low and machine.instances <= elsewhere:
                unneeded[machine.name] = self._unneeded.get(machine.name, now)
                free = elsewhere - machine.instances
        self._unneeded = unneeded

    def _remove(self, now: float, machines: Sequence[MachineView]) -> tuple[tuple[str, ...], str]:
        settings = self._settings
        spare = len(machines) - settings.min_machines
        due = [
            machine
            for machine in machines
            if machine.name in self._unneeded and now - self._unneeded[machine.name] >= settings.unneeded_seconds
        ]
        if not self._unneeded:
            return (), "all have room, and every machine is needed"
        if not settings.scale_down:
            return (), f"{len(self._unneeded)} unneeded, but scale_down is off"
        if spare <= 0:
            return (), f"{len(self._unneeded)} unneeded, but min_machines is {settings.min_machines}"
        if now < self._last_add + settings.delay_after_add_seconds:
            return (), f"none is removed within {settings.delay_after_add_seconds:g} s of an order"
        if now < self._last_failure + settings.delay_after_failure_seconds:
            return (), f"none is removed within {settings.delay_after_failure_seconds:g} s of a failure"
        if not due:
            longest = now - min(self._unneeded.values())
            return (), f"unneeded for {longest:g} of {settings.unneeded_seconds:g} s"
        empty = [machine for machine in due if machine.instances == 0]
        chosen = empty[: settings.most_empty_at_once] if empty else due[:1]
        names = tuple(machine.name for machine in chosen[:spare])
        moved = sum(machine.instances for machine in chosen[:spare])
        return names, f"unneeded for {settings.unneeded_seconds:g} s, {moved} instances move: {', '.join(names)}"
