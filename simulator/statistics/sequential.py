"""How many replications are enough: until the interval of a metric is narrow enough, and no fewer than a few.

Source: Law, Simulation Modeling and Analysis (5th ed.), section 9.4.1, the sequential procedure for a relative error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.errors import SimulatorError
from simulator.statistics.intervals import t_interval


@dataclass(frozen=True)
class StoppingRule:
    """Replicate until a metric is known to within a fraction of its true mean.

    The half-width can only be held against the estimated mean. If it is at most g / (1 + g) of that, the estimate is
    within g of the true mean wherever the interval holds it, which the plain g would not give (Law, section 9.4.1).

    Attributes:
        metric: see `simulator.metrics.UNITS`.
        relative_half_width: the wanted relative error g, such as 0.05.
        confidence: of the interval.
        least, most: replications that are run in any case, and at most.

    Raises:
        SimulatorError: a width, confidence or number of replications that cannot be.
    """

    metric: str
    relative_half_width: float
    confidence: float = 0.95
    least: int = 5
    most: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.relative_half_width < 1:
            raise SimulatorError(
                f"precision {self.relative_half_width}: give the half-width as a fraction of the mean, such as 0.05"
            )
        if not 0 < self.confidence < 1:
            raise SimulatorError(f"confidence {self.confidence}: give a fraction between 0 and 1, such as 0.95")
        if not 2 <= self.least <= self.most:
            raise SimulatorError(
                f"replications from {self.least} to {self.most}: at least 2, and no more than the most"
            )

    @property
    def largest_half_width(self) -> float:
        """At which it stops, as a fraction of the estimated mean."""
        return self.relative_half_width / (1 + self.relative_half_width)

    def decide(self, samples: Sequence[float]) -> tuple[bool, int, str]:
        """Whether `samples`, one a replication, are enough; how many more seem to be needed; and why, in words."""
        count = len(samples)
        if count < self.least:
            return False, self.least - count, f"{count} of at least {self.least} replications"
        interval = t_interval(samples, self.confidence)
        wanted = self.largest_half_width * abs(interval.value)
        asked = f"{wanted:.3g}, which a relative error of {100 * self.relative_half_width:.3g} % asks for"
        if interval.half_width <= wanted:
            return True, 0, f"half-width {interval.half_width:.3g} is within {asked}, after {count} replications"
        still = f"half-width {interval.half_width:.3g} is above {asked}"
        if count >= self.most:
            return True, 0, f"{still}, but {count} replications are the most allowed"
        # The half-width falls as one over the square root of the number, once the spread is known well enough. No more
        # than doubling guards against a spread that was overrated by chance.
        needed = math.ceil(count * (interval.half_width / wanted) ** 2) if wanted else 2 * count
        more = max(min(needed, 2 * count, self.most) - count, 1)
        return False, more, f"{still}, after {count} replications"
