"""How much work a request is: distributions of the service demand, in seconds of one core on bare metal."""

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simulator.records import Positive, StrictModel


class ExponentialDemand(StrictModel):
    """Memoryless demand: the M in M/M/c. Its coefficient of variation is 1."""

    kind: Literal["exponential"]
    mean_seconds: Positive

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent demands in seconds, shape (count,)."""
        return random.exponential(self.mean_seconds, count)


class LognormalDemand(StrictModel):
    """Many small demands and a tail of large ones, as measured web services have."""

    kind: Literal["lognormal"]
    mean_seconds: Positive
    coefficient_of_variation: Positive = 1.0
    """Standard deviation over mean."""

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent demands in seconds, shape (count,)."""
        variance = math.log1p(self.coefficient_of_variation**2)
        return random.lognormal(math.log(self.mean_seconds) - variance / 2, math.sqrt(variance), count)


class DeterministicDemand(StrictModel):
    """Every request is the same work: the D in M/D/1."""

    kind: Literal["deterministic"]
    mean_seconds: Positive

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` equal demands in seconds, shape (count,)."""
        return np.full(count, self.mean_seconds)


Demand = Annotated[ExponentialDemand | LognormalDemand | DeterministicDemand, Field(discriminator="kind")]
"""Any distribution of the service demand; `kind` says which."""
