"""Forecasts of a figure that comes at equal intervals. None sees anything but the past.

Source of all: Hyndman and Athanasopoulos, Forecasting: Principles and Practice (3rd ed.): naive and seasonal naive
methods (5.2), Holt's linear trend (8.2), Holt-Winters' additive method (8.3).
"""

import math
from collections import deque
from typing import Protocol


class Forecast(Protocol):
    """Learns one value after the other, and says what may come."""

    def learn(self, value: float) -> None:
        """The value of one more interval."""

    def ahead(self, steps: float) -> float:
        """What it expects `steps` intervals after the last, 0 for the present; never below 0.

        Before the first value: 0.
        """


class LinearTrend:
    """Holt's method: `level = a y + (1 - a)(level + trend)`, `trend = b (level - before) + (1 - b) trend`.

    `ahead(h) = level + h trend`. On a straight line both find it exactly in the long run.

    Args:
        level_weight: a, of the newest value.
        trend_weight: b, of the newest slope.
    """

    def __init__(self, level_weight: float, trend_weight: float) -> None:
        self._level_weight = level_weight
        self._trend_weight = trend_weight
        self._level: float | None = None
        self._trend = 0.0

    def learn(self, value: float) -> None:
        """The value of one more interval."""
        if self._level is None:
            self._level = value
            return
        before = self._level
        self._level = self._level_weight * value + (1 - self._level_weight) * (before + self._trend)
        self._trend = self._trend_weight * (self._level - before) + (1 - self._trend_weight) * self._trend

    def ahead(self, steps: float) -> float:
        """The line, continued."""
        return max((self._level or 0.0) + steps * self._trend, 0.0)


class HoltWinters:
    """Holt's method beside a season that is added: level and trend are of the figure without the season.

    With `y` the value and `s` what the season added one season ago:
    `level = a (y - s) + (1 - a)(level + trend)`, `trend` as in Holt's, `season = c (y - level' - trend') + (1 - c) s`,
    where `'` marks those of one interval ago. In the first season nothing is known of it, and this is Holt's method.
    Then it begins with the mean of that season as the level, no trend, and what each value was beyond the mean.

    Args:
        level_weight: a.
        trend_weight: b.
        season_weight: c.
        season_steps: intervals in one season.
    """

    def __init__(self, level_weight: float, trend_weight: float, season_weight: float, season_steps: int) -> None:
        self._level_weight = level_weight
        self._trend_weight = trend_weight
        self._season_weight = season_weight
        self._steps = season_steps
        self._first = LinearTrend(level_weight, trend_weight)
        self._season: list[float] = []
        self._count = 0
        self._level = 0.0
        self._trend = 0.0

    def learn(self, value: float) -> None:
        """The value of one more interval."""
        place = self._count % self._steps
        self._count += 1
        if self._count <= self._steps:
            self._first.learn(value)
            self._season.append(value)
            if self._count == self._steps:
                self._level = sum(self._season) / self._steps
                self._season = [each - self._level for each in self._season]
            return
        season, before, trend = self._season[place], self._level, self._trend
        self._level = self._level_weight * (value - season) + (1 - self._level_weight) * (before + trend)
        self._trend = self._trend_weight * (self._level - before) + (1 - self._trend_weight) * trend
        self._season[place] = self._season_weight * (value - before - trend) + (1 - self._season_weight) * season

    def ahead(self, steps: float) -> float:
        """The line, continued, with what the season adds there."""
        if self._count < self._steps:
            return self._first.ahead(steps)
        place = (self._count - 1 + math.ceil(steps)) % self._steps
        return max(self._level + steps * self._trend + self._season[place], 0.0)


class SeasonalNaive:
    """What was one season ago comes again; in the first season, what is now stays.

    Args:
        season_steps: intervals in one season.
    """

    def __init__(self, season_steps: int) -> None:
        self._season: deque[float] = deque(maxlen=season_steps)
        self._steps = season_steps

    def learn(self, value: float) -> None:
        """The value of one more interval."""
        self._season.append(value)

    def ahead(self, steps: float) -> float:
        """The value of one season before that moment."""
        if not self._season:
            return 0.0
        if steps <= 0 or len(self._season) < self._steps:
            return max(self._season[-1], 0.0)
        return max(self._season[(math.ceil(steps) - 1) % self._steps], 0.0)
