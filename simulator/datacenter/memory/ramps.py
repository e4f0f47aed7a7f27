"""Amounts that change in straight lines, and the exact moment at which their sum passes a level."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """An amount that is constant until `start`, then follows `pieces`, one straight line after the other.

    Attributes:
        start: when the first piece begins, seconds.
        value: the amount until then.
        pieces: (until when, slope per second), in order; after the last, it is constant.
    """

    start: float
    value: float
    pieces: tuple[tuple[float, float], ...] = ()

    def at(self, seconds: float) -> float:
        """The amount at `seconds`."""
        value, begin = self.value, self.start
        for end, slope in self.pieces:
            if seconds <= begin:
                break
            value += slope * (min(seconds, end) - begin)
            begin = end
        return value

    def slopes_from(self, now: float) -> Iterator[tuple[float, float]]:
        """(when, by how much the slope changes), from `now` on; what it is at `now` counts as a change at `now`."""
        begin, before = self.start, 0.0
        for end, slope in self.pieces:
            if end > now:
                yield max(begin, now), slope - before
                before = slope
            begin = end
        if before and not math.isinf(begin):
            yield begin, -before


def rising(start: float, slope: float, most: float) -> Ramp:
    """From 0 at `start`, `slope` per second, up to `most`."""
    if slope <= 0 or most <= 0:
        return Ramp(start, 0.0)
    return Ramp(start, 0.0, ((start + most / slope, slope),))


def negative(ramp: Ramp) -> Ramp:
    """The same, subtracted."""
    return Ramp(ramp.start, -ramp.value, tuple((end, -slope) for end, slope in ramp.pieces))


def seconds_until_above(level: float, constant: float, ramps: Iterable[Ramp], now: float) -> float:
    """Seconds from `now` until `constant` and all `ramps` together pass `level`; 0 if they have, infinite if never.

    The sum is walked from bend to bend; nothing is sampled.
    """
    ramps = list(ramps)
    value = constant + math.fsum(ramp.at(now) for ramp in ramps)
    if value > level:
        return 0.0
    changes = sorted(change for ramp in ramps for change in ramp.slopes_from(now))
    # In the end only what rises for ever has a slope. It is added up by itself, because the sum of all changes leaves
    # a rounding error, which would pass any level some day.
    for_ever = math.fsum(ramp.pieces[-1][1] for ramp in ramps if ramp.pieces and math.isinf(ramp.pieces[-1][0]))
    when, slope = now, 0.0
    for place, (moment, change) in enumerate(changes):
        if slope > 0 and value + slope * (moment - when) > level:
            return when + (level - value) / slope - now
        value += slope * (moment - when)
        when, slope = moment, slope + change
        if place == len(changes) - 1:
            slope = for_ever
    if slope > 0:
        return when + max(level - value, 0.0) / slope - now
    return math.inf
