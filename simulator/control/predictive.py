"""Predictive scaling: as many instances as the load will need when those that are ordered now are ready.

    instances = ceil(largest forecast rate within the horizon × demand / (cores of one × target utilisation))

The rate comes from a forecast of past rates only (`simulator.control.forecast`). The demand of a request, in seconds
of a core, is given, or measured by the utilisation law `busy = rate × demand` (Denning and Buzen, The Operational
Analysis of Queueing Network Models, 1978). The idea of a horizon as long as an instance takes to start, and of the
largest forecast in it, is that of Amazon EC2 Auto Scaling, "Predictive scaling" (its scheduling buffer).
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.control.bounds import BoundedSettings, sentence
from simulator.control.forecast import Forecast, HoltWinters, LinearTrend, SeasonalNaive
from simulator.records import NonNegative, Positive

_ROUNDING = 1e-9
"""Keeps 3 × 0.1 / 0.1 from asking for a fourth instance."""

Weight = Annotated[float, Field(gt=0, le=1)]


class PredictiveSettings(BoundedSettings):
    """`[autoscaler] kind = "predictive"`.

    Attributes:
        method: `trend` (Holt's linear), `holt-winters` (a season and a trend) or `seasonal-naive` (as a season ago).
        horizon_seconds: how far ahead; as long as an instance takes from the order until it is ready. 0 reacts only.
        season_seconds: length of a season (86400: a day), for the two methods that know one.
        demand_seconds: of a core for one request, or None to measure it.
        target_utilisation_percent: of the reserved cores.
        sync_seconds: how often it looks, and the interval of the forecast.
        level_weight, trend_weight, season_weight: of the newest value in each. Our choice, not a published one.
        scale_down_delay_seconds: the highest number wanted in so long is followed. The default is that of the
            Horizontal Pod Autoscaler.
    """

    kind: Literal["predictive"]
    method: Literal["trend", "holt-winters", "seasonal-naive"] = "trend"
    horizon_seconds: Annotated[float, Field(ge=0, le=86400)]
    season_seconds: Positive | None = None
    demand_seconds: Positive | None = None
    target_utilisation_percent: Annotated[float, Field(gt=0, le=1000)] = 70.0
    sync_seconds: Positive = 15.0
    level_weight: Weight = 0.5
    trend_weight: Weight = 0.3
    season_weight: Weight = 0.3
    scale_down_delay_seconds: NonNegative = 300.0

    @model_validator(mode="after")
    def _has_its_season(self) -> Self:
        if self.method == "trend":
            if self.season_seconds is not None:
                raise ValueError("`season_seconds` means nothing to `method` trend: leave it out, or take another")
        elif self.season_seconds is None:
            raise ValueError(f"`season_seconds` is missing, and `method` {self.method} needs it: 86400 is a day")
        elif not 2 <= self.season_steps <= 100_000:
            raise ValueError(
                f"`season_seconds` {self.season_seconds:g} is {self.season_steps} looks of `sync_seconds` "
                f"{self.sync_seconds:g}: choose them so that there are 2 to 100000"
            )
        return self

    @property
    def season_steps(self) -> int:
        """Looks in one season."""
        return round((self.season_seconds or 0) / self.sync_seconds)

    def build(self) -> "Predictive":
        """The policy with these settings, at its beginning."""
        return Predictive(self)

    def forecast(self) -> Forecast:
        """The forecast that `method` names, at its beginning."""
        if self.method == "trend":
            return LinearTrend(self.level_weight, self.trend_weight)
        if self.method == "holt-winters":
            return HoltWinters(self.level_weight, self.trend_weight, self.season_weight, self.season_steps)
        return SeasonalNaive(self.season_steps)


class Predictive:
    """Orders now what will be needed then."""

    wakes_on_arrival = False

    def __init__(self, settings: PredictiveSettings) -> None:
        self._settings = settings
        self._forecast = settings.forecast()
        self._busy = 0.0  # core-seconds
        self._arrived = 0.0  # requests let in
        self._last_look: float | None = None
        self._wanted: deque[tuple[float, int]] = deque()

    @property
    def initial_instances(self) -> int:
        """The least that it would keep."""
        return self._settings.min_instances

    @property
    def sync_seconds(self) -> float:
        """How often it decides."""
        return self._settings.sync_seconds

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """Learn the rate, look ahead, and order for the most that is expected within the horizon."""
        settings, current = self._settings, len(pods)
        if fleet is None:
            return Decision(now, current, current, current, None, f"no figures of requests: stay at {current}")
        self._forecast.learn(fleet.requests_per_second)
        demand = self._demand(now, pods, fleet)
        if demand is None or not pods:
            return Decision(now, current, current, current, None, f"nothing served yet: stay at {current}")
        rate, steps = self._most_expected()
        cores = sum(pod.request_millicores for pod in pods) / len(pods) / 1000
        each = cores * settings.target_utilisation_percent / 100
        recommended = math.ceil(rate * demand / each - _ROUNDING)
        held, why_delayed = self._delay(now, recommended)
        desired, why_limited = settings.within(held)
        ahead = steps * settings.sync_seconds
        reason = sentence(
            f"{settings.method} expects {rate:.4g} requests/s in {ahead:g} s, now {fleet.requests_per_second:.4g}: "
            f"ceil({rate:.4g} × {demand:.4g} s / {each:.4g}) = {recommended}",
            why_delayed,
            why_limited,
        )
        return Decision(now, current, desired, recommended, None, reason)

    def _demand(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet) -> float | None:
        """Seconds of a core for one request."""
        if self._settings.demand_seconds is not None:
            return self._settings.demand_seconds
        since = self._settings.sync_seconds if self._last_look is None else now - self._last_look
        self._last_look = now
        self._busy += since * sum(pod.usage_millicores or 0 for pod in pods) / 1000
        self._arrived += since * (fleet.requests_per_second - fleet.rejected_per_second)
        # Those that wait have been let in and have not been worked on.
        served = self._arrived - fleet.queued
        return self._busy / served if served > 0 and self._busy > 0 else None

    def _most_expected(self) -> tuple[float, float]:
        """The largest rate from now until the horizon, and how many intervals ahead it is."""
        horizon = self._settings.horizon_seconds / self._settings.sync_seconds
        steps = [float(step) for step in range(math.floor(horizon) + 1)]
        if horizon > steps[-1]:
            steps.append(horizon)
        return max(((self._forecast.ahead(step), step) for step in steps), key=lambda pair: (pair[0], -pair[1]))

    def _delay(self, now: float, wanted: int) -> tuple[int, str]:
        """The highest number wanted within the delay."""
        delay = self._settings.scale_down_delay_seconds
        self._wanted.append((now, wanted))
        while self._wanted[0][0] <= now - delay and len(self._wanted) > 1:
            self._wanted.popleft()
        highest = max(number for _, number in self._wanted)
        return highest, "" if highest == wanted else f"kept at {highest}, wanted within the last {delay:g} s"
