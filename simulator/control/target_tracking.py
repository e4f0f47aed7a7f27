"""Target tracking, as Amazon EC2 Auto Scaling does it: keep a figure at its target, quick to add and slow to remove.

Sources: Amazon EC2 Auto Scaling user guide, "Target tracking scaling policies" (scale out as soon as possible, scale in
more gradually and usually only where the figure is more than 10 % below its target), "Set the default instance warmup"
(what a young instance counts for; without a warm-up the default cooldown stands in for it), "Scaling cooldowns" (300 s)
and "Configure monitoring" (a sample each minute if detailed, else every 5 minutes). The two alarms that it makes ask
for 3 samples of a minute above the target and for 15 below.

The service does not publish by how much it moves. Here it is the number that would bring the figure to its target if
the work were shared evenly: `ceil(instances * figure / target)`, the rule of its proportional idea.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.control.bounds import BoundedSettings, sentence
from simulator.control.signals import SignalName, WarmUp, read_signal
from simulator.records import NonNegative, Positive

_ROUNDING = 1e-9
"""Keeps 3 × 0.1 / 0.1 from asking for a fourth instance."""


class TargetTrackingSettings(BoundedSettings):
    """`[autoscaler] kind = "target-tracking"`.

    Attributes:
        metric: what is held at the target: `utilisation` of the reserved cores, or `requests-per-instance`.
        target: in percent, or in requests a second for each instance.
        sync_seconds: how often a sample comes. 60 is detailed monitoring, 300 the basic one.
        scale_out_samples: in a row above the target before any is added.
        scale_in_samples: in a row below `scale_in_below` times the target before any is removed.
        scale_in_below: part of the target.
        cooldown_seconds: after an activity none is removed for so long. Adding never waits.
        instance_warmup_seconds: a ready instance counts for the utilisation only after so long. Until then none is
            removed either. Default: as long as the cooldown.
    """

    kind: Literal["target-tracking"]
    metric: SignalName = "utilisation"
    target: Positive
    sync_seconds: Positive = 60.0
    scale_out_samples: Annotated[int, Field(ge=1, le=1000)] = 3
    scale_in_samples: Annotated[int, Field(ge=1, le=1000)] = 15
    scale_in_below: Annotated[float, Field(gt=0, le=1)] = 0.9
    cooldown_seconds: NonNegative = 300.0
    instance_warmup_seconds: NonNegative | None = None

    def build(self) -> "TargetTracking":
        """The policy with these settings, at its beginning."""
        return TargetTracking(self)


class _Move(NamedTuple):
    """What the alarms let happen."""

    wanted: int
    why: str


class TargetTracking:
    """Holds a figure at its target."""

    wakes_on_arrival = False

    def __init__(self, settings: TargetTrackingSettings) -> None:
        self._settings = settings
        warm_up = settings.instance_warmup_seconds
        self._warm_up = WarmUp(settings.cooldown_seconds if warm_up is None else warm_up)
        self._above = 0
        self._below = 0
        self._last_activity = -math.inf

    @property
    def initial_instances(self) -> int:
        """The least that it would keep."""
        return self._settings.min_instances

    @property
    def sync_seconds(self) -> float:
        """How often it decides."""
        return self._settings.sync_seconds

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """Count the samples on either side of the target, and move where there were enough."""
        settings, current = self._settings, len(pods)
        warm = self._warm_up.warm(now, pods)
        # Requests are counted at the balancer, which sends them to young instances too.
        counted = warm if settings.metric == "utilisation" else pods
        signal = read_signal(settings.metric, counted, fleet)
        if signal is None:
            # A missing sample breaks a row of samples, and is no reason to move.
            self._above = self._below = 0
            return Decision(now, current, current, current, None, f"no sample of {settings.metric}: stay at {current}")
        self._above = self._above + 1 if signal.value > settings.target else 0
        self._below = self._below + 1 if signal.value < settings.scale_in_below * settings.target else 0
        ratio = signal.value / settings.target
        recommended = math.ceil(signal.instances * ratio - _ROUNDING)
        move = self._move(now, current, recommended, len(warm))
        desired, why_limited = settings.within(move.wanted)
        if desired != current:
            self._last_activity = now
        reason = sentence(
            f"{signal.words}, target {settings.target:g}: ceil({signal.instances} × {ratio:.3f}) = {recommended}",
            move.why,
            why_limited,
        )
        utilisation = int(signal.value) if settings.metric == "utilisation" else None
        return Decision(now, current, desired, recommended, utilisation, reason)

    def _move(self, now: float, current: int, recommended: int, warm: int) -> _Move:
        settings = self._settings
        if self._above:
            if self._above < settings.scale_out_samples:
                return _Move(current, f"{self._above} of {settings.scale_out_samples} samples above the target")
            if recommended <= current:
                return _Move(current, f"{current - warm} of {current} are not warm yet, which may be enough")
            return _Move(recommended, "")
        if not self._below:
            return _Move(current, f"close enough, stay at {current}")
        if self._below < settings.scale_in_samples:
            return _Move(current, f"{self._below} of {settings.scale_in_samples} samples well below the target")
        if warm < current:
            return _Move(current, f"none is removed while {current - warm} are not warm yet")
        since = now - self._last_activity
        if since < settings.cooldown_seconds:
            return _Move(current, f"none is removed in the cooldown, {since:g} of {settings.cooldown_seconds:g} s over")
        return _Move(min(recommended, current), "")
