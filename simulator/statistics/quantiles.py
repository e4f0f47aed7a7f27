"""Quantiles of as many values as there are, in memory that does not grow with them.

Up to a bound the values themselves are kept and quantiles are exact. Beyond it they are counted in the buckets of a
DDSketch (Masson, Rim and Lee, DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees, VLDB
2019), whose quantiles are off by at most a given fraction of their value. There are at most so many buckets: where
values spread further, the lowest are counted in one, as in section 3 of the paper, and only quantiles that lie among
those are lost. The buckets are those of the library `ddsketch`. Its store takes one value at a time, in plain Python,
which would take longer than the whole simulation; so the counts are an array here.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.errors import SimulatorError

EXACT = 100_000
"""Values that are kept as they are."""

RELATIVE_ACCURACY = 0.001
"""Of a quantile beyond that, unless another is asked for: a tenth of a percent."""

MOST_BUCKETS = 16_384
"""Of a sketch. With the accuracy above, the highest value may be 10^14 times the lowest before any is lost."""


class Latencies:
    """Values that are not negative, such as latencies in seconds, and their quantiles.

    Args:
        exact: how many values are kept before the sketch takes over.
        accuracy: of the sketch's quantiles, relative, above 0 and below 1.
        buckets: of the sketch, at most, at least 1; 8 bytes each. It is accurate from the highest value down to that
            value times `exp(-2 accuracy buckets)`, about.

    Raises:
        SimulatorError: the accuracy is not between 0 and 1, or there is no bucket.
    """

    def __init__(self, exact: int = EXACT, accuracy: float = RELATIVE_ACCURACY, buckets: int = MOST_BUCKETS) -> None:
        if not 0 < accuracy < 1:
            raise SimulatorError(f"accuracy {accuracy} of quantiles: give a fraction above 0 and below 1")
        if buckets < 1:
            raise SimulatorError(f"{buckets} buckets for quantiles: give at least 1")
        self._bound = exact
        self._sketch = accuracy, buckets
        self._kept: list[NDArray[np.float64]] = []
        self._count = 0
        self._total = 0.0
        self._lost = 0.0
        self._buckets: _Buckets | None = None
        self._lowest, self._highest = math.inf, -math.inf

    @property
    def count(self) -> int:
        """How many values there are."""
        return self._count

    @property
    def mean(self) -> float:
        """Their mean; NaN of none."""
        return (self._total + self._lost) / self._count if self._count else math.nan

    @property
    def is_exact(self) -> bool:
        """Whether quantiles are exact."""
        return self._buckets is None

    def add(self, values: ArrayLike) -> None:
        """Take up values, shape (n,).

        Raises:
            SimulatorError: one is negative or not finite.
        """
        numbers = np.asarray(values, dtype=np.float64).ravel()
        if not numbers.size:
            return
        low, high = float(numbers.min()), float(numbers.max())
        if not (low >= 0 and math.isfinite(high)):
            raise SimulatorError("latencies: every value must be a finite number of seconds, at least 0")
        self._lowest, self._highest = min(self._lowest, low), max(self._highest, high)
        self._count += numbers.size
        self._add_to_total(float(numbers.sum()))
        if self._buckets is None and self._count <= self._bound:
            self._kept.append(numbers.copy())
            return
        self._in_buckets().add(numbers)

    def merge(self, other: "Latencies") -> None:
        """Take up all values of `other`, which is left as it was.

        Raises:
            SimulatorError: its sketch has another accuracy, or another number of buckets.
        """
        if other._sketch != self._sketch:
            raise SimulatorError("latencies with sketches of two kinds: to be merged, both need the same accuracy")
        self._lowest, self._highest = min(self._lowest, other._lowest), max(self._highest, other._highest)
        self._count += other._count
        self._add_to_total(other._total + other._lost)
        if self._buckets is None and other._buckets is None and self._count <= self._bound:
            self._kept += other._kept
            return
        buckets = self._in_buckets()
        if other._buckets is not None:
            buckets.merge(other._buckets)
        for numbers in other._kept:
            buckets.add(numbers)

    def quantile(self, fraction: float) -> float:
        """The value that a `fraction` of the values do not exceed; NaN of none.

        Raises:
            SimulatorError: the fraction is not between 0 and 1.
        """
        if not 0 <= fraction <= 1:
            raise SimulatorError(f"quantile {fraction}: give a fraction from 0 to 1")
        if not self._count:
            return math.nan
        if self._buckets is None:
            return float(np.quantile(np.concatenate(self._kept), fraction))
        return min(max(self._buckets.quantile(fraction), self._lowest), self._highest)

    def _add_to_total(self, number: float) -> None:
        """Neumaier's sum: what rounding loses is carried along."""
        total = self._total + number
        if abs(self._total) >= abs(number):
            self._lost += (self._total - total) + number
        else:
            self._lost += (number - total) + self._total
        self._total = total

    def _in_buckets(self) -> "_Buckets":
        """The buckets, into which all that was kept goes at first."""
        if self._buckets is None:
            self._buckets = _Buckets(*self._sketch)
            for numbers in self._kept:
                self._buckets.add(numbers)
            self._kept = []
        return self._buckets


class _Buckets:
    """How many values lie in each bucket: those of key k are above `gamma^(k - 1)` and at most `gamma^k`."""

    def __init__(self, accuracy: float, most: int) -> None:
        from ddsketch.mapping import LogarithmicMapping

        self._mapping = LogarithmicMapping(accuracy)
        self._most = most
        self._zeros = 0
        self._lowest_key = 0
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, numbers: NDArray[np.float64]) -> None:
        positive = numbers[numbers > 0]
        self._zeros += numbers.size - positive.size
        if positive.size:
            keys = np.ceil(np.log(positive) / math.log(self._mapping.gamma)).astype(np.int64)
            lowest = int(keys.min())
            self._add_counts(lowest, np.bincount(keys - lowest))

    def merge(self, other: "_Buckets") -> None:
        self._zeros += other._zeros
        if other._counts.size:
            self._add_counts(other._lowest_key, other._counts)

    def quantile(self, fraction: float) -> float:
        """The middle of the bucket in which the value of that rank lies."""
        ranks = self._zeros + np.cumsum(self._counts)
        rank = fraction * (int(ranks[-1]) - 1 if ranks.size else self._zeros - 1)
        if rank < self._zeros or not ranks.size:
            return 0.0
        return float(self._mapping.value(self._lowest_key + int(np.searchsorted(ranks, rank, side="right"))))

    def _add_counts(self, lowest: int, counts: NDArray[np.int64]) -> None:
        """Counts of the keys from `lowest` on; the array grows to hold them, as far as it may."""
        if not self._counts.size:
            self._lowest_key = lowest
        last = max(lowest + counts.size, self._lowest_key + self._counts.size)
        first = max(min(lowest, self._lowest_key), last - self._most)
        if first != self._lowest_key or last > self._lowest_key + self._counts.size:
            before, before_key = self._counts, self._lowest_key
            self._counts, self._lowest_key = np.zeros(last - first, dtype=np.int64), first
            self._put(before_key, before)
        self._put(lowest, counts)

    def _put(self, lowest: int, counts: NDArray[np.int64]) -> None:
        """Add counts of the keys from `lowest` on; those of keys that there are no more go to the lowest there is."""
        below = max(self._lowest_key - lowest, 0)
        if below:
            self._counts[0] += counts[:below].sum()
        here = max(lowest - self._lowest_key, 0)
        self._counts[here:][: max(counts.size - below, 0)] += counts[below:]
