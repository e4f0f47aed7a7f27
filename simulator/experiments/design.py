"""Which points of a space of keys are simulated: every combination, or a Latin hypercube."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from simulator.errors import SimulatorError
from simulator.records import StrictModel, validate_record
from simulator.statistics.streams import RandomStreams

DesignName = Literal["grid", "latin-hypercube"]
Finite = Annotated[float, Field(allow_inf_nan=False)]

MOST_POINTS = 100_000
"""A design with more is a slip of the hand: at a tenth of a second each it runs for hours."""


class Range(StrictModel):
    """All values from `low` to `high`, both included: `{ low = 1, high = 8, integer = true }`.

    Attributes:
        low: the least.
        high: the most.
        integer: only whole numbers.
        logarithmic: equal ratios are as likely as one another, and as far apart, not equal differences.
    """

    low: Finite
    high: Finite
    integer: bool = False
    logarithmic: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"`low` {self.low:g} must be less than `high` {self.high:g}")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(
                f"`low` {self.low:g} and `high` {self.high:g} must be whole numbers where `integer` is set"
            )
        if self.logarithmic and self.low <= 0:
            raise ValueError(f"`low` {self.low:g} must be above 0 where `logarithmic` is set")
        return self

    def at(self, part: float) -> float | int:
        """The value `part` of the way along, 0 <= part < 1. Of whole numbers each has an equal part of the way."""
        # A whole number owns the interval up to the next; where the ratios count, an interval's share shrinks with it.
        high = self.high + 1 if self.integer else self.high
        value = min(max(self._along(part, high), self.low), self.high)
        return math.floor(value) if self.integer else value

    def levels(self, count: int | None, key: str) -> tuple[float | int, ...]:
        """`count` values from end to end; of whole numbers all, if it is None.

        Raises:
            SimulatorError: a range of real numbers without a count.
        """
        if count is None and not self.integer:
            raise SimulatorError(f"sweep: `{key}` is a range in a grid: say in how many `points` it is cut")
        if count is None:
            return tuple(range(int(self.low), int(self.high) + 1))
        if count == 1:
            raise SimulatorError(f"sweep: `{key}` is a range in a grid: one point has no two ends, give 2 or more")
        parts = [index / (count - 1) for index in range(count)]
        values = [self._along(part, self.high) for part in parts]
        # Exactly the ends that were asked for, whatever the power rounds to.
        values[0], values[-1] = self.low, self.high
        return tuple(dict.fromkeys(round(value) for value in values)) if self.integer else tuple(values)

    def _along(self, part: float, high: float) -> float:
        if self.logarithmic:
            return self.low * math.exp(math.log(high / self.low) * part)
        return self.low + (high - self.low) * part


Axis = tuple[Any, ...] | Range
"""The values of one key: those that are listed, or a range."""


def read_axis(values: Sequence[Any] | Mapping[str, Any] | Range, key: str) -> Axis:
    """What a person writes for one key, `[1, 2, 3]` or `{ low = 1, high = 8 }`, as an axis.

    Raises:
        SimulatorError: no value, one twice, or a range that is none.
    """
    if isinstance(values, Range):
        return values
    if isinstance(values, Mapping):
        return validate_record(Range, dict(values), f"sweep over `{key}`")
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise SimulatorError(f"sweep over `{key}`: give a list of values or a range, not {values!r}")
    if not values:
        raise SimulatorError(f"sweep over `{key}`: the list is empty; give at least one value")
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise SimulatorError(f"sweep over `{key}`: {repeated[0]!r} is listed twice; name each value once")
    return tuple(value.item() if isinstance(value, np.generic) else value for value in values)


def draw_points(
    axes: Mapping[str, Axis], design: DesignName, points: int | None, seed: int
) -> tuple[dict[str, Any], ...]:
    """The points of a design, in order: each a value for every key.

    Args:
        axes: key to values.
        design: `grid` takes every combination, the last key changing fastest. `latin-hypercube` cuts each axis into
            `points` equal parts and takes each part once (McKay, Beckman and Conover, 1979); a list is cut by its
            places.
        points: of a grid, into how many values a range is cut, ends included (default: all whole numbers); of a Latin
            hypercube, how many.
        seed: of the draw.

    Raises:
        SimulatorError: no key, no such design, too many points, or a number of points that is missing or not positive.
    """
    if not axes:
        raise SimulatorError("sweep: over nothing; name at least one key and its values")
    if points is not None and not 1 <= points <= MOST_POINTS:
        raise SimulatorError(f"sweep: `points` {points}: give a number from 1 to {MOST_POINTS}")
    if design == "grid":
        return tuple(_grid(axes, points))
    if design == "latin-hypercube":
        if points is None:
            raise SimulatorError("sweep: a Latin hypercube has as many points as one asks for: give `points`")
        return tuple(_latin_hypercube(axes, points, seed))
    raise SimulatorError(f"sweep: unknown design `{design}`; choose from grid, latin-hypercube")


def _grid(axes: Mapping[str, Axis], points: int | None) -> Iterator[dict[str, Any]]:
    for key, axis in axes.items():
        if isinstance(axis, Range) and axis.integer and points is None and axis.high - axis.low >= MOST_POINTS:
            raise SimulatorError(f"sweep: `{key}` alone has more than {MOST_POINTS} whole numbers; give `points`")
    levels = [axis.levels(points, key) if isinstance(axis, Range) else axis for key, axis in axes.items()]
    count = math.prod(map(len, levels))
    if count > MOST_POINTS:
        raise SimulatorError(
            f"sweep: the grid has {count} points, more than {MOST_POINTS}; give fewer values, or a Latin hypercube"
        )
    return (dict(zip(axes, values, strict=True)) for values in product(*levels))


def _latin_hypercube(axes: Mapping[str, Axis], points: int, seed: int) -> Iterator[dict[str, Any]]:
    from scipy.stats import qmc

    sampler = qmc.LatinHypercube(len(axes), seed=RandomStreams(seed).stream("sweep design"))
    for row in islice(sampler.random(points).tolist(), points):
        yield {
            key: axis.at(part) if isinstance(axis, Range) else axis[min(int(part * len(axis)), len(axis) - 1)]
            for (key, axis), part in zip(axes.items(), row, strict=True)
        }
