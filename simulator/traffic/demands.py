"""How much work a request is: distributions of the service demand, in seconds of one core on bare metal.

Also used for think times and delays. Drawing n numbers and then m gives the same as drawing n + m.
"""

import csv
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from simulator.datafiles import data_directory
from simulator.records import NonNegative, Positive, StrictModel

_MOST_SAMPLES = 1_000_000
_WIDEST = 1e100  # a bounded tail's largest over its smallest: its square is still a number


class Distribution(StrictModel, ABC):
    """A distribution of seconds that are not negative."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """Its mean, seconds."""

    @property
    @abstractmethod
    def variation(self) -> float:
        """Its coefficient of variation: standard deviation over mean; may be infinite."""

    @abstractmethod
    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent values in seconds, shape (count,)."""


class ExponentialDemand(Distribution):
    """Memoryless demand: the M in M/M/c. Its coefficient of variation is 1."""

    kind: Literal["exponential"]
    mean_seconds: Positive
    """The mean."""

    @property
    def mean(self) -> float:
        """As given."""
        return self.mean_seconds

    @property
    def variation(self) -> float:
        """Always 1."""
        return 1.0

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent demands in seconds, shape (count,)."""
        return random.exponential(self.mean_seconds, count)


class LognormalDemand(Distribution):
    """Many small demands and a tail of large ones, as measured web services have."""

    kind: Literal["lognormal"]
    mean_seconds: Positive
    """The mean."""
    coefficient_of_variation: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Standard deviation over mean."""

    @property
    def mean(self) -> float:
        """As given."""
        return self.mean_seconds

    @property
    def variation(self) -> float:
        """As given."""
        return self.coefficient_of_variation

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent demands in seconds, shape (count,)."""
        variance = math.log1p(self.coefficient_of_variation**2)
        return random.lognormal(math.log(self.mean_seconds) - variance / 2, math.sqrt(variance), count)


class DeterministicDemand(Distribution):
    """Every request is the same work: the D in M/D/1."""

    kind: Literal["deterministic"]
    mean_seconds: Positive
    """Of each."""

    @property
    def mean(self) -> float:
        """As given."""
        return self.mean_seconds

    @property
    def variation(self) -> float:
        """There is none."""
        return 0.0

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` equal demands in seconds, shape (count,)."""
        return np.full(count, self.mean_seconds)


class ParetoDemand(Distribution):
    """A heavy tail without end: the density falls as `x^-(shape + 1)` from the minimum on."""

    kind: Literal["pareto"]
    shape: Positive
    """The smaller, the heavier the tail. The mean is infinite at 1 and below, the variance at 2 and below."""
    minimum_seconds: Positive
    """The smallest demand."""

    @model_validator(mode="after")
    def _has_a_mean(self) -> Self:
        if self.shape <= 1:
            raise ValueError(
                f"`shape` {self.shape:g} of `pareto` has an infinite mean, which no number of instances can serve; "
                'take a shape above 1, or the kind "bounded-pareto"'
            )
        if not math.isfinite(self.mean):
            raise ValueError(f"`minimum_seconds` {self.minimum_seconds:g}: the mean is too large a number; take less")
        return self

    @property
    def mean(self) -> float:
        """`shape minimum / (shape - 1)`."""
        return self.shape * self.minimum_seconds / (self.shape - 1)

    @property
    def variation(self) -> float:
        """`1 / sqrt(shape (shape - 2))`, infinite at a shape of 2 and below."""
        return 1 / math.sqrt(self.shape * (self.shape - 2)) if self.shape > 2 else math.inf

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent demands in seconds, by inversion, shape (count,)."""
        drawn: NDArray[np.float64] = self.minimum_seconds * (1 - random.random(count)) ** (-1 / self.shape)
        return drawn


class BoundedParetoDemand(Distribution):
    """A heavy tail that ends: a Pareto distribution, given that it lies between a minimum and a maximum.

    Source of the moments: Harchol-Balter, Performance Modeling and Design of Computer Systems (2013), section 20.3.
    """

    kind: Literal["bounded-pareto"]
    shape: Positive
    """The smaller, the heavier the tail; measured job sizes have 0.9 to 1.3 (Harchol-Balter 2013, section 20.2)."""
    minimum_seconds: Positive
    """The smallest demand."""
    maximum_seconds: Positive
    """The largest demand."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.maximum_seconds <= self.minimum_seconds:
            raise ValueError(
                f"`maximum_seconds` {self.maximum_seconds:g} must be above `minimum_seconds` {self.minimum_seconds:g}"
            )
        if self.maximum_seconds / self.minimum_seconds > _WIDEST:
            raise ValueError(f"`maximum_seconds` is more than {_WIDEST:g} times `minimum_seconds`; take less")
        return self

    def _moment(self, order: int) -> float:
        """The mean of (demand / minimum) to the power of `order`: relative, so that no power is too large or small."""
        ratio = math.log(self.minimum_seconds) - math.log(self.maximum_seconds)
        gap = self.shape - order
        # (1 - (low / high)^gap) / gap, and its limit where the gap closes.
        part = -math.expm1(gap * ratio) / gap if gap else -ratio
        return self.shape * part / -math.expm1(self.shape * ratio)

    @property
    def mean(self) -> float:
        """The first moment."""
        return self.minimum_seconds * self._moment(1)

    @property
    def variation(self) -> float:
        """From the first two moments."""
        return math.sqrt(max(self._moment(2) / self._moment(1) ** 2 - 1, 0.0))

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent demands in seconds, by inversion, shape (count,)."""
        # By logarithms, since a shape near 0 leaves hardly a digit of `1 - (low / high)^shape`.
        mass = -math.expm1(self.shape * (math.log(self.minimum_seconds) - math.log(self.maximum_seconds)))
        drawn: NDArray[np.float64] = self.minimum_seconds * np.exp(-np.log1p(-random.random(count) * mass) / self.shape)
        return np.minimum(drawn, self.maximum_seconds)


class EmpiricalDemand(Distribution):
    """Demands as measured: drawn from the samples of a file, each equally likely."""

    kind: Literal["empirical"]
    path: str
    """A CSV file with a column `value` (as `data/measurements` has) in seconds, or one number a line; or
    `HOST/EXPERIMENT` of a recorded set, such as `reference/startup`."""
    metric: str | None = None
    """Only the lines whose `metric` this is."""
    platform: str | None = None
    """Only the lines whose `platform` this is."""
    scale: Positive = 1.0
    """Each sample is multiplied by it."""
    _samples: NDArray[np.float64] = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Read the samples."""
        self._samples = self._read() * self.scale

    def _read(self) -> NDArray[np.float64]:
        path = Path(self.path)
        recorded = data_directory() / "measurements" / f"{self.path}.csv"
        path = recorded if not path.exists() and recorded.exists() else path
        try:
            with path.open(encoding="utf-8", newline="") as file:
                lines = [line for line, _ in zip(file, range(_MOST_SAMPLES + 1), strict=False)]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"`path` {path}: {error}; name a CSV file of seconds that exists") from error
        if len(lines) > _MOST_SAMPLES:
            raise ValueError(f"`path` {path}: more than {_MOST_SAMPLES} lines; take fewer samples")
        values = self._values(path, [line for line in lines if line.strip() and not line.startswith("#")])
        if not values:
            raise ValueError(f"`path` {path}: no sample fits; leave out `metric` or `platform`, or name others")
        samples = np.array(values)
        if not (np.isfinite(samples) & (samples >= 0)).all() or not samples.any():
            raise ValueError(f"`path` {path}: samples must be finite seconds, none negative and not all 0")
        return samples

    def _values(self, path: Path, lines: list[str]) -> list[float]:
        tidy = bool(lines) and "value" in next(csv.reader(lines[:1]))
        wanted = {name: text for name, text in (("metric", self.metric), ("platform", self.platform)) if text}
        try:
            if not tidy:
                return [float(line) for line in lines]
            rows = [row for row in csv.DictReader(lines) if all(row.get(name) == text for name, text in wanted.items())]
            return [float(row["value"]) for row in rows if row.get("unit", "seconds") == "seconds"]
        except (TypeError, ValueError) as error:
            raise ValueError(f"`path` {path}: not numbers of seconds: {error}") from error

    @property
    def mean(self) -> float:
        """Of the samples."""
        return float(self._samples.mean())

    @property
    def variation(self) -> float:
        """Of the samples."""
        return float(self._samples.std() / self._samples.mean())

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` of the samples, with replacement, shape (count,)."""
        return self._samples[(random.random(count) * len(self._samples)).astype(np.int64)]


class UniformDelay(Distribution):
    """Anything between two bounds, all equally likely; for delays."""

    kind: Literal["uniform"]
    low_seconds: NonNegative
    """The least."""
    high_seconds: Positive
    """The most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high_seconds <= self.low_seconds:
            raise ValueError(f"`high_seconds` {self.high_seconds:g} must be above `low_seconds` {self.low_seconds:g}")
        return self

    @property
    def mean(self) -> float:
        """The middle."""
        return (self.low_seconds + self.high_seconds) / 2

    @property
    def variation(self) -> float:
        """`(high - low) / (sqrt(12) mean)`."""
        return (self.high_seconds - self.low_seconds) / math.sqrt(12) / self.mean

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent values in seconds, shape (count,)."""
        return random.uniform(self.low_seconds, self.high_seconds, count)


Demand = Annotated[
    ExponentialDemand
    | LognormalDemand
    | DeterministicDemand
    | ParetoDemand
    | BoundedParetoDemand
    | EmpiricalDemand
    | UniformDelay,
    Field(discriminator="kind"),
]
"""Any distribution of the service demand; `kind` says which."""
