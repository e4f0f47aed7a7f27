"""Step scaling: the further a figure is beyond its alarm, the larger the step.

Sources: Amazon EC2 Auto Scaling user guide, "Step and simple scaling policies", and Application Auto Scaling user
guide, "Step scaling policies". Steps go by the size of the breach. A change in percent is rounded down beyond one
instance, and up to one below it. What was added in a running cooldown counts towards the next step: a breach of the
same step adds nothing, one of a higher step only the difference. None is removed in a cooldown; its default is 300 s.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.control.bounds import BoundedSettings, sentence
from simulator.control.signals import SignalName, WarmUp, read_signal
from simulator.records import NonNegative, Positive, StrictModel


class Adjustment(StrictModel):
    """One step: from which value of the figure on, and by how much the number changes.

    Attributes:
        at: utilisation in percent, or requests a second for each instance. A step out holds from here upwards, a step
            in from here downwards.
        instances: by so many.
        percent: or by this part of what there is.
    """

    at: NonNegative
    instances: Annotated[int, Field(ge=1, le=10_000)] | None = None
    percent: Annotated[float, Field(gt=0, le=10_000)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.instances is None) == (self.percent is None):
            raise ValueError("give a step either `instances` or `percent`")
        return self

    def count(self, capacity: int) -> int:
        """By how many `capacity` instances change."""
        if self.percent is None:
            return self.instances or 0
        part = capacity * self.percent / 100
        return 1 if part < 1 else math.floor(part)

    @property
    def words(self) -> str:
        """How a person would say it."""
        return f"{self.instances}" if self.percent is None else f"{self.percent:g} %"


class StepSettings(BoundedSettings):
    """`[autoscaler] kind = "step"`.

    Attributes:
        metric: what is looked at: `utilisation` of the reserved cores, or `requests-per-instance`.
        scale_out: steps; of those whose `at` the figure has reached, the highest counts.
        scale_in: steps; of those whose `at` the figure has fallen to, the lowest counts.
        sync_seconds: how often a sample comes. 60 is detailed monitoring, 300 the basic one.
        samples: in a row on the same side before anything happens.
        cooldown_seconds: see the module.
        instance_warmup_seconds: a ready instance counts for the utilisation only after so long. Default: as long as the
            cooldown.
    """

    kind: Literal["step"]
    metric: SignalName = "utilisation"
    scale_out: Annotated[tuple[Adjustment, ...], Field(min_length=1, max_length=20)]
    scale_in: Annotated[tuple[Adjustment, ...], Field(max_length=20)] = ()
    sync_seconds: Positive = 60.0
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    cooldown_seconds: NonNegative = 300.0
    instance_warmup_seconds: NonNegative | None = None

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for name, steps in (("scale_out", self.scale_out), ("scale_in", self.scale_in)):
            places = [step.at for step in steps]
            if len(set(places)) < len(places):
                raise ValueError(f"`{name}` has two steps with the same `at`; keep one")
        lowest_out = min(step.at for step in self.scale_out)
        highest_in = max((step.at for step in self.scale_in), default=-math.inf)
        if highest_in >= lowest_out:
            raise ValueError(
                f"`scale_in` at {highest_in:g} must be below the lowest `scale_out` at {lowest_out:g}, "
                "or the number would never rest"
            )
        return self

    def build(self) -> "StepScaling":
        """The policy with these settings, at its beginning."""
        return StepScaling(self)


class StepScaling:
    """Changes the number in steps."""

    wakes_on_arrival = False

    def __init__(self, settings: StepSettings) -> None:
        self._settings = settings
        warm_up = settings.instance_warmup_seconds
        self._warm_up = WarmUp(settings.cooldown_seconds if warm_up is None else warm_up)
        self._row: tuple[str, int] = ("", 0)
        self._last_activity = -math.inf
        self._last_was_out = False
        self._base: int | None = None

    @property
    def initial_instances(self) -> int:
        """The least that it would keep."""
        return self._settings.min_instances

    @property
    def sync_seconds(self) -> float:
        """How often it decides."""
        return self._settings.sync_seconds

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """Find the step that the figure has reached, and take what of it is not taken yet."""
        settings, current = self._settings, len(pods)
        counted = self._warm_up.warm(now, pods) if settings.metric == "utilisation" else pods
        signal = read_signal(settings.metric, counted, fleet)
        if signal is None:
            self._row = ("", 0)
            return Decision(now, current, current, current, None, f"no sample of {settings.metric}: stay at {current}")
        out = max((step for step in settings.scale_out if signal.value >= step.at), key=_at, default=None)
        into = min((step for step in settings.scale_in if signal.value <= step.at), key=_at, default=None)
        side = "out" if out else "in" if into else ""
        self._row = (side, self._row[1] + 1 if self._row[0] == side else 1)
        cooling = now - self._last_activity < settings.cooldown_seconds
        if not cooling:
            self._base = None
        recommended, why = current, "within the steps"
        if out:
            base = self._base if self._base is not None else current
            recommended = max(base + out.count(base), current)
            why = f"step from {out.at:g} on adds {out.words} to {base}: {base + out.count(base)}"
        elif into:
            recommended = max(current - into.count(current), 0)
            why = f"step from {into.at:g} down takes {into.words} from {current}: {recommended}"
        wanted, why_held = recommended, ""
        if side and self._row[1] < settings.samples:
            wanted, why_held = current, f"{self._row[1]} of {settings.samples} samples"
        elif into and cooling:
            wanted, why_held = current, f"none is removed in the cooldown of {settings.cooldown_seconds:g} s"
        desired, why_limited = settings.within(wanted)
        if desired != current:
            # What is added while a scale-out cools counts from what there was before it began.
            if desired > current and not (cooling and self._last_was_out):
                self._base = current
            elif desired < current:
                self._base = None
            self._last_activity, self._last_was_out = now, desired > current
        utilisation = int(signal.value) if settings.metric == "utilisation" else None
        reason = sentence(f"{signal.words}: {why}", why_held, why_limited)
        return Decision(now, current, desired, recommended, utilisation, reason)


def _at(step: Adjustment) -> float:
    return step.at
