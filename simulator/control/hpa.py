"""The Horizontal Pod Autoscaler of Kubernetes (autoscaling/v2, CPU utilisation), rule by rule.

Sources: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ for the rules and defaults, and
pkg/controller/podautoscaler (`replica_calculator.go`, `horizontal.go`) where the text leaves a detail open, such as
that utilisation is cut to whole percent and that a scaling event counts until it is exactly one period old.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.records import NonNegative, Positive, StrictModel


class ScaleUpRules(StrictModel):
    """How fast the number may rise: in each period by `percent` or by `pods`, whichever is more."""

    percent: NonNegative = 100.0
    pods: Annotated[int, Field(ge=0)] = 4
    period_seconds: Positive = 15.0
    stabilization_seconds: NonNegative = 0.0
    """The lowest recommendation of this many seconds is followed."""


class ScaleDownRules(StrictModel):
    """How fast the number may fall: in each period by `percent`."""

    percent: Annotated[float, Field(ge=0, le=100)] = 100.0
    period_seconds: Positive = 15.0
    stabilization_seconds: NonNegative = 300.0
    """The highest recommendation of this many seconds is followed."""


class HpaSettings(StrictModel):
    """`[autoscaler] kind = "hpa"`: the defaults are those of kube-controller-manager."""

    kind: Literal["hpa"]
    min_instances: Annotated[int, Field(ge=1, le=10_000)] = 1
    max_instances: Annotated[int, Field(ge=1, le=10_000)]
    target_utilisation_percent: Annotated[int, Field(ge=1, le=1000)] = 80
    """Of the reserved cores."""
    sync_seconds: Positive = 15.0
    """How often it decides, and the window over which CPU use is averaged."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    cpu_initialization_seconds: NonNegative = 300.0
    """A young instance is counted only once it was ready for a whole metric window."""
    initial_readiness_delay_seconds: NonNegative = 30.0
    """An older instance is left out, rather than taken to lack a sample, if it lost readiness this soon after birth."""
    scale_up: ScaleUpRules = ScaleUpRules()
    scale_down: ScaleDownRules = ScaleDownRules()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"`min_instances` {self.min_instances} must not exceed `max_instances` {self.max_instances}"
            )
        return self

    def build(self) -> "HorizontalPodAutoscaler":
        """The policy with these settings, at its beginning."""
        return HorizontalPodAutoscaler(self)


class _Past(NamedTuple):
    """Something that happened: a recommendation, or by how many the number was changed."""

    seconds: float
    number: int


class _Recommendation(NamedTuple):
    """What the metric alone asks for."""

    number: int
    utilisation: int | None
    reason: str


class HorizontalPodAutoscaler:
    """Follows `desired = ceil(pods * utilisation / target)`, damped as Kubernetes damps it."""

    wakes_on_arrival = False
    """It keeps at least one instance."""

    def __init__(self, settings: HpaSettings) -> None:
        self._settings = settings
        self._recommendations: list[_Past] = []
        self._raised: list[_Past] = []
        self._lowered: list[_Past] = []

    @property
    def initial_instances(self) -> int:
        """The least that it would keep."""
        return self._settings.min_instances

    @property
    def sync_seconds(self) -> float:
        """How often it decides."""
        return self._settings.sync_seconds

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """Recommend from the metric, stabilise over the window, limit by the policies and by min and max."""
        current = len(pods)
        if not self._recommendations:
            # The controller's first sight of the workload counts as a recommendation: nothing falls before a window.
            self._recommendations.append(_Past(now, current))
        recommendation = self._recommend(now, pods)
        if recommendation.utilisation is None:
            # Without a metric the controller gives up until the next sync, and remembers nothing of this one.
            return Decision(now, current, current, current, None, recommendation.reason)
        stabilised, why_stable = self._stabilise(now, current, recommendation.number)
        desired, why_limited = self._limit(now, current, stabilised)
        if desired > current:
            self._raised.append(_Past(now, desired - current))
        elif desired < current:
            self._lowered.append(_Past(now, current - desired))
        reason = "; ".join(part for part in (recommendation.reason, why_stable, why_limited) if part)
        return Decision(now, current, desired, recommendation.number, recommendation.utilisation, reason)

    def _recommend(self, now: float, pods: Sequence[PodMetrics]) -> _Recommendation:
        """`GetResourceReplicas` of replica_calculator.go."""
        current, target = len(pods), self._settings.target_utilisation_percent
        unready = [pod for pod in pods if self._is_unready(now, pod)]
        counted = [pod for pod in pods if not self._is_unready(now, pod)]
        missing = [pod for pod in counted if pod.usage_millicores is None]
        sampled = [pod for pod in counted if pod.usage_millicores is not None]
        if not sampled:
            return _Recommendation(current, None, f"no metrics of ready pods yet ({len(unready)} not ready): {current}")
        uses = [(pod.usage_millicores or 0, pod.request_millicores) for pod in sampled]
        utilisation, ratio = self._ratio(uses)
        seen = f"utilisation {utilisation} % of target {target} % over {len(sampled)} pods"
        with_unready = bool(unready) and ratio > 1
        if not with_unready and not missing:
            if self._within_tolerance(ratio):
                return _Recommendation(current, utilisation, f"{seen}: within tolerance, stay at {current}")
            wanted = math.ceil(ratio * len(sampled))
            return _Recommendation(wanted, utilisation, f"{seen}: ceil({len(sampled)} × {ratio:.3f}) = {wanted}")
        if ratio < 1:
            # On the way down, a pod without a sample is taken to use all that it reserved.
            uses += [(pod.request_millicores * max(100, target) // 100, pod.request_millicores) for pod in missing]
        elif ratio > 1:
            # On the way up, it is taken to use nothing.
            uses += [(0, pod.request_millicores) for pod in missing]
        if with_unready:
            uses += [(0, pod.request_millicores) for pod in unready]
        _, damped = self._ratio(uses)
        added = f"{seen}; with {len(uses) - len(sampled)} unready or unsampled pods the ratio is {damped:.3f}"
        if self._within_tolerance(damped) or (ratio < 1 < damped) or (damped < 1 < ratio):
            return _Recommendation(current, utilisation, f"{added}: stay at {current}")
        wanted = math.ceil(damped * len(uses))
        if (damped < 1 and wanted > current) or (damped > 1 and wanted < current):
            return _Recommendation(current, utilisation, f"{added}: the direction would change, stay at {current}")
        return _Recommendation(wanted, utilisation, f"{added}: ceil({len(uses)} × {damped:.3f}) = {wanted}")

    def _is_unready(self, now: float, pod: PodMetrics) -> bool:
        """`groupPods` of replica_calculator.go. Here a pod becomes ready once and stays so until it is taken down."""
        if pod.ready_seconds is not None and pod.usage_millicores is None:
            # A running pod without a sample is missing, however young: that is asked before readiness is.
            return False
        young = pod.created_seconds + self._settings.cpu_initialization_seconds > now
        if pod.ready_seconds is None:
            # Its readiness last changed at its creation, which is within any delay after it: it never was ready.
            return young or self._settings.initial_readiness_delay_seconds > 0
        return young and now < pod.ready_seconds + self._settings.sync_seconds

    def _ratio(self, uses: Sequence[tuple[int, int]]) -> tuple[int, float]:
        """Utilisation in whole percent, and its ratio to the target."""
        utilisation = sum(use for use, _ in uses) * 100 // sum(request for _, request in uses)
        return utilisation, utilisation / self._settings.target_utilisation_percent

    def _within_tolerance(self, ratio: float) -> bool:
        return abs(1 - ratio) <= self._settings.tolerance

    def _stabilise(self, now: float, current: int, wanted: int) -> tuple[int, str]:
        """`stabilizeRecommendationWithBehaviors` of horizontal.go."""
        up, down = self._settings.scale_up.stabilization_seconds, self._settings.scale_down.stabilization_seconds
        floor = min([wanted] + [past.number for past in self._recommendations if past.seconds > now - up])
        ceiling = max([wanted] + [past.number for past in self._recommendations if past.seconds > now - down])
        stable = min(max(current, floor), ceiling)
        kept = max(up, down)
        self._recommendations = [past for past in self._recommendations if past.seconds > now - kept]
        self._recommendations.append(_Past(now, wanted))
        if stable == wanted:
            return stable, ""
        extreme, window = ("lowest", up) if wanted > stable else ("highest", down)
        return stable, f"stabilised to {stable}, the {extreme} recommendation of the last {window:g} s"

    def _limit(self, now: float, current: int, wanted: int) -> tuple[int, str]:
        """`convertDesiredReplicasWithBehaviorRate` of horizontal.go, and the bounds of the specification."""
        lowest, highest = self._settings.min_instances, self._settings.max_instances
        if wanted > current:
            up = self._settings.scale_up
            began = self._at_period_start(now, current, up.period_seconds)
            allowed = max(began + up.pods, math.ceil(began * (1 + up.percent / 100)), current)
            if allowed < highest and wanted > allowed:
                return allowed, (
                    f"limited to {allowed} by max(+{up.percent:g} %, +{up.pods}) "
                    f"each {up.period_seconds:g} s from {began}"
                )
        elif wanted < current:
            down = self._settings.scale_down
            began = self._at_period_start(now, current, down.period_seconds)
            allowed = min(int(began * (1 - down.percent / 100)), current)
            if allowed > lowest and wanted < allowed:
                return (
                    allowed,
                    f"limited to {allowed} by -{down.percent:g} % each {down.period_seconds:g} s from {began}",
                )
        if wanted > highest:
            return highest, f"limited to max_instances {highest}"
        if wanted < lowest:
            return lowest, f"limited to min_instances {lowest}"
        return wanted, ""

    def _at_period_start(self, now: float, current: int, period: float) -> int:
        """The number of instances one period ago, from the scaling events since."""
        raised = sum(past.number for past in self._raised if past.seconds > now - period)
        lowered = sum(past.number for past in self._lowered if past.seconds > now - period)
        return current - raised + lowered
