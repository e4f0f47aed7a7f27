"""When requests arrive: open arrivals, which come whether or not the service keeps up.

Each kind is a record that a person writes under `[arrivals]` and that draws arrival times. Adding a kind: a class here
and its place in `Arrivals`.
"""

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simulator.records import NonNegative, Positive, StrictModel

Floats = NDArray[np.float64]


class PiecewiseLinearRate:
    """An arrival rate that is linear between knots and may jump at one.

    Args:
        knots: (seconds, requests per second) in order of time; two at the same time are a jump. Before the first knot
            and after the last the rate stays as it is there.
    """

    def __init__(self, knots: list[tuple[float, float]]) -> None:
        self._times = np.array([time for time, _ in knots], dtype=np.float64)
        self._rates = np.array([rate for _, rate in knots], dtype=np.float64)

    def at(self, seconds: Floats) -> Floats:
        """The rate at each moment (at a jump: after it), requests per second."""
        after = np.searchsorted(self._times, seconds, side="right")
        left, right = np.clip(after - 1, 0, None), np.clip(after, None, len(self._times) - 1)
        width = self._times[right] - self._times[left]
        with np.errstate(over="ignore"):  # a segment of hardly any width: beyond it is beyond it
            part = np.clip((seconds - self._times[left]) / np.where(width > 0, width, 1.0), 0.0, 1.0)
        rate: Floats = self._rates[left] + (self._rates[right] - self._rates[left]) * part
        return rate

    def expected(self, duration: float) -> float:
        """The expected number of arrivals in `duration` seconds, the integral of the rate."""
        return float(self._cumulative(duration)[2][-1])

    def draw(self, random: np.random.Generator, duration: float) -> Floats:
        """Arrival times of the non-homogeneous Poisson process in [0, duration), sorted. Exact.

        Given their number, the arrivals are independent with density proportional to the rate, so uniform numbers are
        sent through the inverse of its integral. Source: Law, Simulation Modeling and Analysis (5th ed.), 8.6.2;
        Cinlar, Introduction to Stochastic Processes (1975), ch. 4.
        """
        times, rates, integral = self._cumulative(duration)
        total = float(integral[-1])
        if total == 0:
            return np.empty(0)
        wanted = np.sort(random.random(random.poisson(total))) * total
        # The last segment that begins at or below what is wanted has a positive rate, or nothing would be wanted there.
        segment = np.clip(np.searchsorted(integral, wanted, side="right") - 1, 0, len(times) - 2)
        width = times[segment + 1] - times[segment]
        slope = (rates[segment, 1] - rates[segment, 0]) / width
        rest = wanted - integral[segment]
        # Solve `rate x + slope x^2 / 2 = rest` in the form that does not cancel when the slope is small.
        root = np.sqrt(np.maximum(rates[segment, 0] ** 2 + 2 * slope * rest, 0.0))
        into = 2 * rest / np.maximum(rates[segment, 0] + root, np.finfo(np.float64).tiny)
        drawn: Floats = times[segment] + np.minimum(into, width)
        return drawn

    def _cumulative(self, duration: float) -> tuple[Floats, Floats, Floats]:
        """The segments of [0, duration): their edges, the rate at both ends of each, and the integral at the edges."""
        inside = self._times[(self._times > 0) & (self._times < duration)]
        edges = np.unique(np.concatenate([[0.0], inside, [duration]]))
        begin = self.at(edges[:-1])
        middle = self.at((edges[:-1] + edges[1:]) / 2)
        ends = np.column_stack([begin, 2 * middle - begin])
        integral = np.concatenate([[0.0], np.cumsum(middle * np.diff(edges))])
        return edges, np.maximum(ends, 0.0), integral


class _LinearArrivals(StrictModel, ABC):
    """What every kind whose rate is piecewise linear shares."""

    @abstractmethod
    def curve(self) -> PiecewiseLinearRate:
        """The arrival rate over time."""

    def rate(self, seconds: Floats) -> Floats:
        """Offered arrival rate at each moment, requests per second."""
        return self.curve().at(seconds)

    def expected(self, duration: float) -> float:
        """Expected number of arrivals in `duration` seconds."""
        return self.curve().expected(duration)

    def draw(self, random: np.random.Generator, duration: float) -> Floats:
        """Sorted arrival times in [0, duration), in seconds."""
        return self.curve().draw(random, duration)


class PoissonArrivals(_LinearArrivals):
    """A Poisson process of constant rate."""

    kind: Literal["poisson"]
    rate_per_second: Positive

    def curve(self) -> PiecewiseLinearRate:
        """The same rate at all times."""
        return PiecewiseLinearRate([(0.0, self.rate_per_second)])

    @property
    def surge_seconds(self) -> float | None:
        """The load never rises."""
        return None


class StepArrivals(_LinearArrivals):
    """A Poisson process whose rate changes in steps: `steps = [[0, 50], [120, 500]]`: from which second, how many."""

    kind: Literal["steps"]
    steps: tuple[tuple[NonNegative, NonNegative], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = [time for time, _ in self.steps]
        if times[0] != 0:
            raise ValueError(f"the first step of `steps` must be at second 0, not {times[0]:g}")
        if any(late <= early for early, late in pairwise(times)):
            raise ValueError("the times of `steps` must rise")
        if not any(rate for _, rate in self.steps):
            raise ValueError("`steps` never offers a request; give one step a rate above 0")
        return self

    def curve(self) -> PiecewiseLinearRate:
        """Flat from each step to the next."""
        knots = [(0.0, self.steps[0][1])]
        for (_, before), (time, rate) in pairwise(self.steps):
            knots += [(time, before), (time, rate)]
        return PiecewiseLinearRate(knots)

    @property
    def surge_seconds(self) -> float | None:
        """When the rate rises most in one step, or None if it never rises."""
        rises = [(rate - before, -time) for (_, before), (time, rate) in pairwise(self.steps)]
        rise, minus_time = max(rises, default=(0.0, 0.0))
        return -minus_time if rise > 0 else None


class FlashCrowdArrivals(_LinearArrivals):
    """A flash crowd: a base rate, a ramp to the peak, the peak held, and a slower fall back to the base."""

    kind: Literal["flash-crowd"]
    base_rate: NonNegative
    peak_rate: Positive
    start_seconds: NonNegative
    ramp_seconds: NonNegative
    hold_seconds: NonNegative
    fall_seconds: NonNegative

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.peak_rate <= self.base_rate:
            raise ValueError(f"`peak_rate` {self.peak_rate:g} must be above `base_rate` {self.base_rate:g}")
        return self

    def curve(self) -> PiecewiseLinearRate:
        """The trapezium over the base rate."""
        top = self.start_seconds + self.ramp_seconds
        leave = top + self.hold_seconds
        return PiecewiseLinearRate(
            [
                (0.0, self.base_rate),
                (self.start_seconds, self.base_rate),
                (top, self.peak_rate),
                (leave, self.peak_rate),
                (leave + self.fall_seconds, self.base_rate),
            ]
        )

    @property
    def surge_seconds(self) -> float | None:
        """When the crowd begins to come."""
        return self.start_seconds


class DiurnalArrivals(StrictModel):
    """A day: the rate swings as a cosine around its mean. Drawn by thinning (Lewis and Shedler, 1979)."""

    kind: Literal["diurnal"]
    mean_rate: Positive
    amplitude: Annotated[float, Field(ge=0, le=1)]
    """How far the rate swings, as a fraction of its mean."""
    period_seconds: Positive = 86400.0
    peak_seconds: NonNegative = 0.0
    """When the rate is highest."""

    def rate(self, seconds: Floats) -> Floats:
        """Offered arrival rate at each moment, requests per second."""
        phase = 2 * math.pi * (seconds - self.peak_seconds) / self.period_seconds
        return self.mean_rate * (1 + self.amplitude * np.cos(phase))

    def expected(self, duration: float) -> float:
        """Expected number of arrivals in `duration` seconds."""
        turn = 2 * math.pi / self.period_seconds
        swing = math.sin(turn * (duration - self.peak_seconds)) + math.sin(turn * self.peak_seconds)
        return self.mean_rate * (duration + self.amplitude * swing / turn)

    def draw(self, random: np.random.Generator, duration: float) -> Floats:
        """Sorted arrival times in [0, duration), in seconds."""
        highest = self.mean_rate * (1 + self.amplitude)
        candidates = np.sort(random.random(random.poisson(highest * duration))) * duration
        return candidates[random.random(len(candidates)) * highest < self.rate(candidates)]

    @property
    def surge_seconds(self) -> float | None:
        """The load rises slowly, so there is no step to recover from."""
        return None


Arrivals = Annotated[
    PoissonArrivals | StepArrivals | FlashCrowdArrivals | DiurnalArrivals,
    Field(discriminator="kind"),
]
"""Any kind of arrivals; `kind` says which."""
