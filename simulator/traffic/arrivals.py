"""When requests arrive. Each kind is a record that a person writes under `[arrivals]`.

Open arrivals come whether or not the service keeps up. They are drawn as a stream of chunks, the same times whatever
the chunks, so that a run needs no memory for the requests that are yet to come. In a closed loop, users send the next
request only when they have the answer to the last. Adding a kind: a class here and its place in `Arrivals`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self, TextIO

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simulator.datafiles import data_directory
from simulator.errors import SimulatorError
from simulator.records import NonNegative, Positive, StrictModel
from simulator.traffic.demands import Demand

Floats = NDArray[np.float64]

CHUNK = 65536
"""Arrival times drawn at a time."""

_LARGEST_TRACE = 256 * 1024 * 1024  # bytes
_LARGEST_LINE = 4096  # characters
_MOST_IN_A_BIN = 1e12  # arrivals: more is no count, and beyond 2^53 it would not be a whole number


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

    def stream(self, random: np.random.Generator, duration: float, chunk: int = CHUNK) -> Iterator[Floats]:
        """Arrival times of the non-homogeneous Poisson process in [0, duration), sorted. Exact.

        The arrivals of a Poisson process of rate 1 are sent through the inverse of the integrated rate. Source: Law,
        Simulation Modeling and Analysis (5th ed.), 8.6.2; Cinlar, Introduction to Stochastic Processes (1975), ch. 4.

        Args:
            random: of the arrivals alone.
            duration: seconds.
            chunk: the most that are given at a time; the times do not depend on it.
        """
        times, rates, integral = self._cumulative(duration)
        # Rounding must neither undo the order, within a chunk or between two, nor put an arrival on the end.
        latest, end = 0.0, np.nextafter(duration, 0.0)
        for wanted in _unit_poisson(random, float(integral[-1]), chunk):
            if len(rates) == 1 and rates[0, 0] == rates[0, 1]:
                yield np.minimum(wanted / rates[0, 0], end)
                continue
            # The last segment that begins at or below what is wanted has a positive rate, or nothing would be wanted.
            segment = np.clip(np.searchsorted(integral, wanted, side="right") - 1, 0, len(times) - 2)
            width = times[segment + 1] - times[segment]
            slope = (rates[segment, 1] - rates[segment, 0]) / width
            rest = wanted - integral[segment]
            # Solve `rate x + slope x^2 / 2 = rest` in the form that does not cancel when the slope is small.
            root = np.sqrt(np.maximum(rates[segment, 0] ** 2 + 2 * slope * rest, 0.0))
            into = 2 * rest / np.maximum(rates[segment, 0] + root, np.finfo(np.float64).tiny)
            drawn: Floats = np.maximum.accumulate(np.clip(times[segment] + np.minimum(into, width), latest, end))
            latest = float(drawn[-1])
            yield drawn

    def draw(self, random: np.random.Generator, duration: float) -> Floats:
        """All that `stream` gives, in one array."""
        return np.concatenate([np.empty(0), *self.stream(random, duration)])

    def _cumulative(self, duration: float) -> tuple[Floats, Floats, Floats]:
        """The segments of [0, duration): their edges, the rate at both ends of each, and the integral at the edges."""
        inside = self._times[(self._times > 0) & (self._times < duration)]
        edges = np.unique(np.concatenate([[0.0], inside, [duration]]))
        begin = self.at(edges[:-1])
        middle = self.at((edges[:-1] + edges[1:]) / 2)
        ends = np.column_stack([begin, 2 * middle - begin])
        integral = np.concatenate([[0.0], np.cumsum(middle * np.diff(edges))])
        return edges, np.maximum(ends, 0.0), integral


def _unit_poisson(random: np.random.Generator, end: float, chunk: int) -> Iterator[Floats]:
    """Arrivals of a Poisson process of rate 1 in [0, end), in chunks of at most `chunk`."""
    reached = 0.0
    while True:
        # One by one from what was reached, so that sums are the same in any chunks.
        gaps = random.standard_exponential(chunk)
        gaps[0] += reached
        drawn = np.cumsum(gaps)
        reached = float(drawn[-1])
        if reached >= end:
            last = drawn[: np.searchsorted(drawn, end, side="left")]
            if last.size:
                yield last
            return
        yield drawn


class OpenArrivals(StrictModel, ABC):
    """What every kind of open arrivals shares."""

    @abstractmethod
    def rate(self, seconds: Floats) -> Floats:
        """Expected arrival rate at each moment, requests per second."""

    @abstractmethod
    def expected(self, duration: float) -> float:
        """Expected number of arrivals in `duration` seconds."""

    @abstractmethod
    def stream(self, random: np.random.Generator, duration: float, chunk: int = CHUNK) -> Iterator[Floats]:
        """Sorted arrival times in [0, duration), in arrays of at most `chunk`, none of them empty."""

    def draw(self, random: np.random.Generator, duration: float) -> Floats:
        """All arrival times in [0, duration) at once, sorted, in seconds."""
        return np.concatenate([np.empty(0), *self.stream(random, duration)])

    @property
    def surge_seconds(self) -> float | None:
        """When the load rises most, or None where there is no such moment."""
        return None


class _LinearArrivals(OpenArrivals):
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

    def stream(self, random: np.random.Generator, duration: float, chunk: int = CHUNK) -> Iterator[Floats]:
        """Sorted arrival times in [0, duration), in arrays of at most `chunk`, none of them empty."""
        return self.curve().stream(random, duration, chunk)


class PoissonArrivals(_LinearArrivals):
    """A Poisson process of constant rate."""

    kind: Literal["poisson"]
    rate_per_second: Positive
    """Requests per second, on average."""

    def curve(self) -> PiecewiseLinearRate:
        """The same rate at all times."""
        return PiecewiseLinearRate([(0.0, self.rate_per_second)])


class StepArrivals(_LinearArrivals):
    """A Poisson process whose rate changes in steps."""

    kind: Literal["steps"]
    steps: tuple[tuple[NonNegative, NonNegative], ...] = Field(min_length=1)
    """`[[0, 50], [120, 500]]`: from which second, how many requests a second."""

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
    """Requests per second before and after."""
    peak_rate: Positive
    """Requests per second while the crowd is there."""
    start_seconds: NonNegative
    """When the ramp begins."""
    ramp_seconds: NonNegative
    """How long the rate rises."""
    hold_seconds: NonNegative
    """How long the peak lasts."""
    fall_seconds: NonNegative
    """How long the rate falls."""

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


class DiurnalArrivals(OpenArrivals):
    """A day: the rate swings as a cosine around its mean. Drawn by thinning (Lewis and Shedler, 1979)."""

    kind: Literal["diurnal"]
    mean_rate: Positive
    """Requests per second, over a whole period."""
    amplitude: Annotated[float, Field(ge=0, le=1)]
    """How far the rate swings, as a fraction of its mean."""
    period_seconds: Positive = 86400.0
    """Length of the day."""
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

    def stream(self, random: np.random.Generator, duration: float, chunk: int = CHUNK) -> Iterator[Floats]:
        """Sorted arrival times in [0, duration), in arrays of at most `chunk`, none of them empty."""
        highest = self.mean_rate * (1 + self.amplitude)
        # The lots that thin are a stream of their own: taken in turns from one, they would depend on the chunks.
        thinning, candidates_of = random.spawn(2)
        for candidates in _unit_poisson(candidates_of, highest * duration, chunk):
            candidates /= highest
            kept = candidates[thinning.random(len(candidates)) * highest < self.rate(candidates)]
            if kept.size:
                yield kept


class MarkovState(StrictModel):
    """One state of a Markov-modulated Poisson process."""

    rate_per_second: NonNegative
    """Requests per second while it lasts."""
    mean_seconds: Positive
    """How long it lasts, on average; exponential."""


class MarkovModulatedArrivals(OpenArrivals):
    """Bursts: a Poisson process whose rate follows a Markov chain that goes from each state to the next in turn.

    With two states it is the MMPP(2). It begins in the first. Source: Fischer and Meier-Hellstern, The Markov-modulated
    Poisson process (MMPP) cookbook, Performance Evaluation 18(2), 1993.
    """

    kind: Literal["mmpp"]
    states: tuple[MarkovState, ...] = Field(min_length=2)
    """Visited one after the other, the first again after the last."""

    @model_validator(mode="after")
    def _offers(self) -> Self:
        if not any(state.rate_per_second for state in self.states):
            raise ValueError("`states` never offer a request; give one a rate above 0")
        return self

    @property
    def mean_rate(self) -> float:
        """Requests per second in the long run."""
        weights = sum(state.mean_seconds for state in self.states)
        return sum(state.rate_per_second * state.mean_seconds for state in self.states) / weights

    def rate(self, seconds: Floats) -> Floats:
        """The long-run rate at each moment: which state it will be in is not known."""
        return np.full(len(seconds), self.mean_rate)

    def expected(self, duration: float) -> float:
        """Expected number of arrivals in `duration` seconds in the long run."""
        return self.mean_rate * duration

    def index_of_dispersion(self, seconds: float) -> float:
        """Variance over mean of the arrivals in a stationary interval of so many seconds; of two states only.

        `1 + 2 a b (x - y)^2 / ((a + b)^2 (x b + y a)) (1 - (1 - e^(-(a + b) t)) / ((a + b) t))` with rates x, y and
        leaving rates a, b of the two states (Fischer and Meier-Hellstern 1993, section 2.2).

        Raises:
            SimulatorError: there are more states than two.
        """
        if len(self.states) != 2:
            raise SimulatorError(f"index of dispersion: known for two states, not for {len(self.states)}")
        (x, a), (y, b) = ((state.rate_per_second, 1 / state.mean_seconds) for state in self.states)
        total = a + b
        settled = 1 - (1 - math.exp(-total * seconds)) / (total * seconds)
        return 1 + 2 * a * b * (x - y) ** 2 / (total**2 * (x * b + y * a)) * settled

    def stream(self, random: np.random.Generator, duration: float, chunk: int = CHUNK) -> Iterator[Floats]:
        """Sorted arrival times in [0, duration), in arrays of at most `chunk`, none of them empty."""
        sojourns, units = random.spawn(2)
        wanted = _unit_poisson(units, math.inf, chunk)
        pending = next(wanted)
        begin = integral = 0.0
        turn = 0
        while begin < duration:
            state = self.states[turn % len(self.states)]
            end = begin + sojourns.exponential(state.mean_seconds)
            until = integral + state.rate_per_second * (min(end, duration) - begin)
            while state.rate_per_second:
                here = pending[: np.searchsorted(pending, until, side="left")]
                pending = pending[len(here) :]
                if here.size:
                    yield begin + (here - integral) / state.rate_per_second
                if pending.size:
                    break
                pending = next(wanted)
            begin, integral = end, until
            turn += 1


class TraceArrivals(OpenArrivals):
    """Arrivals as recorded, from a CSV file."""

    kind: Literal["trace"]
    path: str
    """A file, or the name of a trace that ships in `data/traces`. Its column `seconds` holds arrival times that do not
    fall; or `count` beside it the arrivals from then until the next line, which are spread by chance."""
    scale: Positive = 1.0
    """The trace is played so many times as fast: at 2, twice the rate in half the time."""

    def file(self) -> Path:
        """Where it is."""
        path = Path(self.path)
        shipped = data_directory() / "traces" / f"{self.path}.csv"
        return shipped if not path.exists() and "/" not in self.path and shipped.exists() else path

    @model_validator(mode="after")
    def _is_good(self) -> Self:
        try:
            for _ in self._lines():
                pass
        except SimulatorError as error:
            raise ValueError(str(error)) from error
        return self

    def _lines(self) -> Iterator[tuple[float, float, float | None]]:
        """(from, until, count) of each line; without a column `count`: (time, time, None)."""
        path = self.file()
        try:
            if path.stat().st_size > _LARGEST_TRACE:
                raise SimulatorError(f"{path}: larger than {_LARGEST_TRACE} bytes; cut the trace")
            with path.open(encoding="utf-8") as file:
                yield from self._parsed(path, _rows(path, file))
        except OSError as error:
            known = sorted(found.stem for found in (data_directory() / "traces").glob("*.csv"))
            raise SimulatorError(
                f"`path` {path}: {error.strerror}; shipped are {', '.join(known) or 'none'}"
            ) from error
        except UnicodeDecodeError as error:
            raise SimulatorError(f"`path` {path}: not UTF-8 at byte {error.start}") from error

    def _parsed(self, path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[float, float, float | None]]:
        _, header = next(rows, (1, []))
        if header not in (["seconds"], ["seconds", "count"]):
            raise SimulatorError(f"`path` {path}: the columns must be `seconds`, or `seconds,count`; got {header}")
        before: tuple[float, float | None] | None = None
        width = arrivals = 0.0
        for number, row in rows:
            where = f"`path` {path}:{number}"
            try:
                values = [float(text) for text in row]
            except ValueError:
                values = []
            if len(values) != len(header) or not all(math.isfinite(value) and value >= 0 for value in values):
                raise SimulatorError(f"{where}: {','.join(row)[:60]!r} is not {len(header)} numbers of at least 0")
            if values[-1] > _MOST_IN_A_BIN and len(header) == 2:
                raise SimulatorError(
                    f"{where}: a count of {values[1]:g} is more than {_MOST_IN_A_BIN:g}; take a smaller one"
                )
            arrivals += values[1] if len(header) == 2 else 1
            seconds = values[0] / self.scale
            if before is not None and seconds < before[0]:
                raise SimulatorError(f"{where}: out of order: {values[0]:g} comes after a later time; sort the trace")
            if before is not None and len(header) == 2 and seconds == before[0]:
                raise SimulatorError(f"{where}: the time {values[0]:g} stands twice; add up the counts")
            if before is not None:
                width = seconds - before[0]
                yield before[0], seconds, before[1]
            before = (seconds, values[1] if len(values) == 2 else None)
        if before is None or not arrivals:
            raise SimulatorError(f"`path` {path}: no arrivals; add lines below the header, and a count above 0")
        # The last bin is as wide as the one before it.
        yield before[0], before[0] + width, before[1]

    def rate(self, seconds: Floats) -> Floats:
        """Arrivals per second of the trace's bin at each moment; of single arrivals, over a hundredth of the trace."""
        lines = list(self._lines())
        if lines[0][2] is None:
            times = np.array([begin for begin, _, _ in lines])
            edges = np.linspace(0.0, max(float(times[-1]), 1e-9), 101)
            rates = np.histogram(times, edges)[0] / np.diff(edges)
        else:
            edges = np.array([lines[0][0], *(end for _, end, _ in lines)])
            rates = np.array(
                [count / (end - begin) if end > begin else 0.0 for begin, end, count in lines if count is not None]
            )
        place = np.searchsorted(edges, seconds, side="right") - 1
        inside = (place >= 0) & (place < len(rates))
        found: Floats = np.where(inside, rates[np.clip(place, 0, len(rates) - 1)], 0.0)
        return found

    def expected(self, duration: float) -> float:
        """Arrivals in the first `duration` seconds."""
        return sum(
            1.0 if count is None else count * _part(begin, end, duration)
            for begin, end, count in self._lines()
            if begin < duration
        )

    def stream(self, random: np.random.Generator, duration: float, chunk: int = CHUNK) -> Iterator[Floats]:
        """Sorted arrival times in [0, duration), in arrays of at most `chunk`, none of them empty."""
        pending: list[Floats] = []
        held = 0
        for times in self._times(random, duration):
            pending.append(times)
            held += len(times)
            if held >= chunk:
                ready = np.concatenate(pending)
                full = held - held % chunk
                yield from (ready[first : first + chunk] for first in range(0, full, chunk))
                pending, held = [ready[full:]], held - full
        if held:
            yield np.concatenate(pending)

    def _times(self, random: np.random.Generator, duration: float) -> Iterator[Floats]:
        """Arrival times in [0, duration), one line or a part of it at a time."""
        for begin, end, count in self._lines():
            if begin >= duration:
                return
            if count is None:
                yield np.array([begin])
            else:
                # A part of a request is a request by chance.
                number = int(count) + int(random.random() < count - int(count))
                for times in _spread(random, begin, end, number):
                    yield times[times < duration]


def _rows(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line that is neither a comment nor empty."""
    number = 0
    while line := file.readline(_LARGEST_LINE + 1):
        number += 1
        if len(line) > _LARGEST_LINE:
            raise SimulatorError(f"`path` {path}:{number}: longer than {_LARGEST_LINE} characters, so not a trace")
        if line.strip() and not line.startswith("#"):
            yield number, [field.strip() for field in line.split(",")]


def _spread(random: np.random.Generator, begin: float, end: float, count: int) -> Iterator[Floats]:
    """So many independent uniform times in [begin, end), sorted, of which no more than `CHUNK` are held at a time.

    Of a large number, those in the first half are binomial, and the halves are independent given their numbers.
    """
    if count <= CHUNK:
        yield begin + np.sort(random.random(count)) * (end - begin)
        return
    first, middle = int(random.binomial(count, 0.5)), (begin + end) / 2
    yield from _spread(random, begin, middle, first)
    yield from _spread(random, middle, end, count - first)


def _part(begin: float, end: float, duration: float) -> float:
    """How much of a bin lies before `duration`."""
    return 1.0 if end <= duration or end <= begin else (duration - begin) / (end - begin)


class ClosedLoop(StrictModel):
    """A closed loop: each user thinks, sends a request, and waits for its end before the next thought."""

    kind: Literal["closed"]
    users: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many there are."""
    think: Demand
    """Distribution of the time from an answer to the next request, seconds; each user begins with one such thought."""

    def rate(self, seconds: Floats) -> Floats:
        """The rate that cannot be exceeded: as if each answer came at once."""
        return np.full(len(seconds), self.users / max(self.think.mean, 1e-9))

    def expected(self, duration: float) -> float:
        """The most requests that there can be on average: as if each answer came at once."""
        return self.users * duration / max(self.think.mean, 1e-9)

    @property
    def surge_seconds(self) -> float | None:
        """The load follows the answers."""
        return None


Arrivals = Annotated[
    PoissonArrivals
    | StepArrivals
    | FlashCrowdArrivals
    | DiurnalArrivals
    | MarkovModulatedArrivals
    | TraceArrivals
    | ClosedLoop,
    Field(discriminator="kind"),
]
"""Any kind of arrivals; `kind` says which."""
