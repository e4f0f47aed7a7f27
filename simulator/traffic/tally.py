"""What became of the requests, added up as they end: memory grows with the time simulated, not with the requests."""

import math

import numpy as np
from numpy.typing import NDArray

from simulator.statistics.quantiles import Latencies
from simulator.traffic.plane import COMPLETED, FAILED, REJECTED, TIMED_OUT

_MOST_BINS = 100_000
"""Fine bins of a run; a second each where that is enough."""

_MOST_PERIODS = 180
"""Coarse bins of a run, each with a sketch of its own; at most 256, since their numbers are sorted as bytes."""

_EXACT_IN_PERIOD = 1_000
_ACCURACY_IN_PERIOD = 0.005
_BUCKETS_IN_PERIOD = 1_024
"""The sketch of a period is coarser than that of the run, since there are so many: half a percent, for values down to
a thirty-thousandth of the highest. Chance alone makes more of the tail of a few thousand requests."""

_AT_ONCE = 16_384
"""Requests that are added up together."""


class Tally:
    """Takes requests that have ended, by `simulator.traffic.plane.Outcomes`.

    Args:
        duration_seconds: during which requests arrive.
        warm_up_seconds: those that arrive before are counted only over time.
        objective_seconds: an answer that takes longer is late.
        path_seconds: added to each answer, for the way to the instance and back on the platform.
        origin_seconds: a moment at which a fine bin begins (a surge).

    Attributes:
        latencies: of the requests answered, from arrival to answer, those of the warm-up left out.
        states: number of those requests that ended as each state, the warm-up left out; shape (5,), by state.
        broken: those that were late or not answered, the warm-up left out.
        arrived_in, broken_in: requests by the fine bin in which they arrived, shape (bins,).
        period_edges: of the coarse bins, shape (periods + 1,).
        answers_in: latencies of the requests that arrived in each coarse bin and were answered.
    """

    def __init__(
        self,
        *,
        duration_seconds: float,
        warm_up_seconds: float,
        objective_seconds: float,
        path_seconds: float = 0.0,
        origin_seconds: float = 0.0,
    ) -> None:
        self._warm_up = warm_up_seconds
        self._objective = objective_seconds
        self._path = path_seconds
        width = max(1.0, math.ceil(duration_seconds / _MOST_BINS))
        self._first = origin_seconds - math.ceil(origin_seconds / width) * width
        self._width = width
        bins = math.ceil((duration_seconds - self._first) / width)
        # Four bytes: these grow with the time simulated, and no second has thousands of millions of requests.
        self.arrived_in = np.zeros(bins, dtype=np.int32)
        self.broken_in = np.zeros(bins, dtype=np.int32)
        self._answered_in = np.zeros(bins, dtype=np.int32)
        self._answer_seconds_in = np.zeros(bins)
        periods = max(1, min(_MOST_PERIODS, int(duration_seconds)))
        self.period_edges = np.linspace(0.0, duration_seconds, periods + 1)
        self.answers_in = [Latencies(_EXACT_IN_PERIOD, _ACCURACY_IN_PERIOD, _BUCKETS_IN_PERIOD) for _ in range(periods)]
        self.latencies = Latencies()
        self.states = np.zeros(TIMED_OUT + 1, dtype=np.int64)
        self.broken = 0
        self._arrived = np.empty(_AT_ONCE)
        self._seconds = np.empty(_AT_ONCE)
        self._state = np.empty(_AT_ONCE, dtype=np.int8)
        self._held = 0

    def record(self, arrived: NDArray[np.float64], seconds: NDArray[np.float64], state: NDArray[np.int8]) -> None:
        """So many requests arrived then, and after `seconds` ended as `state`; all of shape (n,)."""
        # Sums depend on how they are cut up, by their rounding. So they are always cut up alike.
        done = 0
        while done < len(arrived):
            take = min(_AT_ONCE - self._held, len(arrived) - done)
            here, there = slice(self._held, self._held + take), slice(done, done + take)
            self._arrived[here], self._seconds[here], self._state[here] = arrived[there], seconds[there], state[there]
            self._held += take
            done += take
            if self._held == _AT_ONCE:
                self.close()

    def close(self) -> None:
        """Add up what is held back; to be called once at the end."""
        arrived, state = self._arrived[: self._held], self._state[: self._held]
        answered = state == COMPLETED
        latency = self._seconds[: self._held] + self._path
        broken = ~answered | (latency > self._objective)
        counted = arrived >= self._warm_up
        self.states += np.bincount(state[counted], minlength=len(self.states))
        self.broken += int(broken[counted].sum())
        self.latencies.add(latency[answered & counted])
        place = ((arrived - self._first) / self._width).astype(np.int64)
        place = np.clip(place, 0, len(self.arrived_in) - 1)
        # Requests of one time lie together: only the bins that they are in are touched, however long the run is.
        first, last = (int(place.min()), int(place.max())) if len(place) else (0, -1)
        place -= first
        bins, here = last - first + 1, slice(first, last + 1)
        self.arrived_in[here] += np.bincount(place, minlength=bins)
        self.broken_in[here] += np.bincount(place[broken], minlength=bins)
        self._answered_in[here] += np.bincount(place[answered], minlength=bins)
        self._answer_seconds_in[here] += np.bincount(place[answered], weights=latency[answered], minlength=bins)
        self._into_periods(arrived[answered], latency[answered])
        self._held = 0

    def _into_periods(self, arrived: NDArray[np.float64], latency: NDArray[np.float64]) -> None:
        periods = len(self.answers_in)
        place = np.clip((arrived / self.period_edges[-1] * periods).astype(np.int64), 0, periods - 1)
        # Small integers are sorted by counting them (NumPy's radix sort), several times as fast.
        order = np.argsort(place.astype(np.uint8), kind="stable")
        ends = np.cumsum(np.bincount(place, minlength=periods))
        begin = 0
        for period, end in enumerate(ends.tolist()):
            if end > begin:
                self.answers_in[period].add(latency[order[begin:end]])
            begin = end

    @property
    def edges(self) -> NDArray[np.float64]:
        """Of the fine bins, seconds, shape (bins + 1,)."""
        edges: NDArray[np.float64] = self._first + self._width * np.arange(len(self.arrived_in) + 1, dtype=np.float64)
        return edges

    @property
    def answer_means(self) -> NDArray[np.float64]:
        """Mean latency of the requests that arrived in each fine bin and were answered, NaN where none was."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means: NDArray[np.float64] = self._answer_seconds_in / self._answered_in
        return means

    @property
    def counted(self) -> int:
        """Requests that arrived after the warm-up."""
        return int(self.states.sum())

    def fraction(self, state: int) -> float:
        """Of the requests that arrived after the warm-up, those that ended as `state`."""
        return float(self.states[state]) / self.counted


OUTCOMES = {"completed": COMPLETED, "rejected": REJECTED, "failed": FAILED, "timed_out": TIMED_OUT}
"""What a request can end as, by name."""
