"""The Knative Pod Autoscaler: two windows, a panic mode, and down to nothing where nobody asks.

Sources: https://knative.dev/docs/serving/autoscaling/ (concepts, KPA-specific settings, scale to zero) and the defaults
of `config/core/configmaps/autoscaler.yaml` in knative/serving; `pkg/autoscaler/scaling/autoscaler.go` and
`pkg/reconciler/autoscaling/kpa/scaler.go` for the arithmetic:

- wanted = ceil(mean over the window / (target × target utilisation)), once over the stable window and once over the
  panic window, each held between ready / max_scale_down_rate and ready × max_scale_up_rate;
- panic begins when the panic window wants at least `panic_threshold_percent` of the ready instances, and ends when that
  has not been so for a whole stable window. In it the larger of both counts, and the number never falls;
- the last instance goes when a stable window has seen nothing, and then only after requests have been led past the
  activator for a grace period, so that none is lost at the change. Where the spare capacity is below the target burst
  capacity, they are led past it already.

One thing is decided by the documentation and not by the source: panic never goes below what is wanted when it begins.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.control.bounds import Instances, sentence
from simulator.control.signals import ready_instances
from simulator.records import NonNegative, Positive, StrictModel


class KpaSettings(StrictModel):
    """`[autoscaler] kind = "kpa"`: the defaults are Knative's.

    Attributes:
        min_instances: it never wants fewer; 0 lets the service sleep.
        max_instances: it never wants more.
        initial_scale: instances that run when the simulation begins.
        metric: `concurrency` (requests inside the service) or `requests-per-second`.
        target: of one instance. Default: 100 requests at once, or 200 a second.
        target_utilisation_percent: part of the target that it aims for, so that there is room for more.
        tick_seconds: how often it decides.
        stable_window_seconds, panic_window_percent: over how long the figure is averaged, and over which part of that
            in panic.
        panic_threshold_percent: of the ready instances; where the panic window wants so many, panic begins.
        max_scale_up_rate, max_scale_down_rate: in one tick the number of the ready is at most multiplied by the one
            and divided by the other.
        scale_to_zero: whether the last instance may go.
        scale_to_zero_grace_seconds: see the module.
        scale_down_delay_seconds: the highest number wanted in so long is followed.
        target_burst_capacity: requests at once to be ready for beyond those inside. -1: the activator is always in the
            path; 0: only where there is no instance.
    """

    kind: Literal["kpa"]
    min_instances: Annotated[int, Field(ge=0, le=10_000)] = 0
    max_instances: Instances
    initial_scale: Annotated[int, Field(ge=0, le=10_000)] = 1
    metric: Literal["concurrency", "requests-per-second"] = "concurrency"
    target: Positive | None = None
    target_utilisation_percent: Annotated[float, Field(gt=0, le=100)] = 70.0
    tick_seconds: Positive = 2.0
    stable_window_seconds: Annotated[float, Field(ge=6, le=3600)] = 60.0
    panic_window_percent: Annotated[float, Field(ge=1, le=100)] = 10.0
    panic_threshold_percent: Annotated[float, Field(ge=110, le=1000)] = 200.0
    max_scale_up_rate: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1000.0
    max_scale_down_rate: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    scale_to_zero: bool = True
    scale_to_zero_grace_seconds: NonNegative = 30.0
    scale_down_delay_seconds: NonNegative = 0.0
    target_burst_capacity: Annotated[float, Field(ge=-1, allow_inf_nan=False)] = 200.0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"`min_instances` {self.min_instances} must not exceed `max_instances` {self.max_instances}"
            )
        if self.initial_scale > self.max_instances:
            raise ValueError(
                f"`initial_scale` {self.initial_scale} must not exceed `max_instances` {self.max_instances}"
            )
        if self.panic_window_seconds < self.tick_seconds:
            raise ValueError(
                f"`panic_window_percent` gives {self.panic_window_seconds:g} s, less than one tick of "
                f"{self.tick_seconds:g} s: raise it, or lower `tick_seconds`"
            )
        return self

    @property
    def panic_window_seconds(self) -> float:
        """Over how long the figure is averaged in panic."""
        return self.stable_window_seconds * self.panic_window_percent / 100

    @property
    def whole_target(self) -> float:
        """What one instance is taken to bear: requests at once, or requests a second."""
        if self.target is not None:
            return self.target
        return 100.0 if self.metric == "concurrency" else 200.0

    @property
    def aimed_target(self) -> float:
        """What it aims to give to one instance."""
        return self.whole_target * self.target_utilisation_percent / 100

    def build(self) -> "KnativePodAutoscaler":
        """The policy with these settings, at its beginning."""
        return KnativePodAutoscaler(self)


class _Sample(NamedTuple):
    """The mean of the figure between two moments."""

    begin: float
    end: float
    mean: float


class _Wanted(NamedTuple):
    """What one look asks for before it is delayed, put to sleep and bounded."""

    recommended: int
    held: int
    stable: float
    panic: float
    reason: str


class KnativePodAutoscaler:
    """Follows the number of requests inside the service."""

    wakes_on_arrival = True

    def __init__(self, settings: KpaSettings) -> None:
        self._settings = settings
        self._samples: deque[_Sample] = deque()
        self._wanted: deque[tuple[float, int]] = deque()
        self._last_look: float | None = None
        self._panic_since: float | None = None
        self._most_in_panic = 0
        self._active_since: float | None = None
        self._activator_since: float | None = None

    @property
    def initial_instances(self) -> int:
        """Those to begin with."""
        return max(self._settings.initial_scale, self._settings.min_instances)

    @property
    def sync_seconds(self) -> float:
        """How often it decides."""
        return self._settings.tick_seconds

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """Average over both windows, panic or not, and let the last one go only after the grace period."""
        current = len(pods)
        if fleet is None:
            return Decision(now, current, current, current, None, f"no figures of requests: stay at {current}")
        settings, ready = self._settings, ready_instances(pods)
        if self._last_look is None:
            self._active_since = now
            if ready > 1:
                # What the windows have not seen must not be taken down: Knative begins in panic with more than one.
                self._panic_since, self._most_in_panic = now, current
        self._look(now, fleet)
        want = self._want(now, current, ready, fleet)
        held, why_delayed = self._delay(now, want.held)
        excess = self._excess_burst(ready, want.panic)
        asleep, why_awake = self._to_zero(now, current, held, excess)
        desired, why_bounded = asleep, ""
        if asleep > settings.max_instances:
            desired, why_bounded = settings.max_instances, f"limited to max_instances {settings.max_instances}"
        elif asleep < settings.min_instances:
            desired, why_bounded = settings.min_instances, f"limited to min_instances {settings.min_instances}"
        mode = "stable" if self._panic_since is None else "panic"
        reason = sentence(want.reason, why_delayed, why_awake, why_bounded)
        return Decision(now, current, desired, want.recommended, None, reason, mode, excess)

    def _look(self, now: float, fleet: Fleet) -> None:
        """Keep the means since the last look, and forget what no window reaches any more."""
        settings = self._settings
        mean = fleet.concurrency if settings.metric == "concurrency" else fleet.requests_per_second
        begin = now - settings.tick_seconds if self._last_look is None else self._last_look
        if now > begin:
            self._samples.append(_Sample(begin, now, mean))
        self._last_look = now
        while self._samples and self._samples[0].end <= now - settings.stable_window_seconds:
            self._samples.popleft()

    def _mean(self, now: float, window: float) -> float:
        """The mean over the last `window` seconds, or over those that have been seen."""
        seen = [(min(each.end - each.begin, each.end - (now - window)), each.mean) for each in self._samples]
        seconds = sum(part for part, _ in seen if part > 0)
        return sum(part * mean for part, mean in seen if part > 0) / seconds if seconds else 0.0

    def _want(self, now: float, current: int, ready: int, fleet: Fleet) -> _Wanted:
        settings = self._settings
        stable = self._mean(now, settings.stable_window_seconds)
        panic = self._mean(now, settings.panic_window_seconds)
        from_stable = math.ceil(stable / settings.aimed_target)
        from_panic = math.ceil(panic / settings.aimed_target)
        if current == 0 and fleet.queued:
            # The activator has just told of a request; no window has seen it yet.
            from_panic = max(from_panic, 1)
        counted = max(ready, 1)
        most = math.ceil(settings.max_scale_up_rate * counted)
        least = math.floor(counted / settings.max_scale_down_rate)
        over = from_panic / counted >= settings.panic_threshold_percent / 100
        if over:
            if self._panic_since is None:
                self._most_in_panic = current
            self._panic_since = now
        elif self._panic_since is not None and now > self._panic_since + settings.stable_window_seconds:
            self._panic_since = None
        held = min(max(from_stable, least), most)
        words = (
            f"{settings.metric} {stable:.4g} over {settings.stable_window_seconds:g} s wants {from_stable}, "
            f"{panic:.4g} over {settings.panic_window_seconds:g} s wants {from_panic}, "
            f"at {settings.aimed_target:g} each, {ready} ready"
        )
        limited = "" if held == from_stable else f"held at {held} by the rates {least} to {most}"
        if self._panic_since is not None:
            self._most_in_panic = max(self._most_in_panic, held, min(max(from_panic, least), most))
            held, limited = self._most_in_panic, f"panic: never fewer than {self._most_in_panic}"
        elif current == 0 and from_panic > held:
            held, limited = 1, "a request waits and there is no instance"
        recommended = from_stable if self._panic_since is None else max(from_stable, from_panic)
        return _Wanted(max(recommended, int(current == 0 and held > 0)), held, stable, panic, sentence(words, limited))

    def _delay(self, now: float, wanted: int) -> tuple[int, str]:
        """The highest number wanted within the delay."""
        delay = self._settings.scale_down_delay_seconds
        if delay == 0:
            return wanted, ""
        self._wanted.append((now, wanted))
        while self._wanted[0][0] <= now - delay:
            self._wanted.popleft()
        highest = max(number for _, number in self._wanted)
        return highest, "" if highest == wanted else f"kept at {highest}, wanted within the last {delay:g} s"

    def _excess_burst(self, ready: int, panic: float) -> int:
        """Spare capacity beyond the burst to be ready for, in units of the metric."""
        burst = self._settings.target_burst_capacity
        if burst == 0:
            return 0
        if burst < 0:
            return -1
        return math.floor(ready * self._settings.whole_target - burst - panic)

    def _to_zero(self, now: float, current: int, wanted: int, excess: int) -> tuple[int, str]:
        """Whether the last instance may go."""
        settings = self._settings
        idle = wanted == 0
        if excess < 0 or current == 0 or (idle and self._active_since is None):
            self._activator_since = now if self._activator_since is None else self._activator_since
        else:
            self._activator_since = None
        if not idle:
            if self._active_since is None:
                self._active_since = now
            return wanted, ""
        if current == 0:
            return 0, ""
        if not settings.scale_to_zero:
            return 1, "scale_to_zero is off: one stays"
        if self._active_since is not None:
            active = now - self._active_since
            if active < settings.stable_window_seconds:
                return 1, f"active for {active:g} of {settings.stable_window_seconds:g} s: one stays"
            # Idle from now on: the activator takes its place in the path.
            self._active_since = None
            if self._activator_since is None:
                self._activator_since = now
        led = now - (self._activator_since if self._activator_since is not None else now)
        if led < settings.scale_to_zero_grace_seconds:
            return current, f"idle: zero after {led:g} of {settings.scale_to_zero_grace_seconds:g} s of grace"
        return 0, "idle, and the grace period is over: none"
