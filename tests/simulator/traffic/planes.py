"""What the tests of the data planes share: numbers to run on, and a witness who keeps every outcome."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from simulator.traffic.plane import DataPlane, Service
from simulator.traffic.processes import ProcessPlane
from simulator.traffic.windows import WindowedPlane

KINDS = ("python", "numba", "processes")


class Numbers:
    """Poisson arrivals and exponential or equal demands, the same for the same seed."""

    def __init__(self, *, rate: float, count: int, mean: float = 0.05, seed: int = 0, equal: bool = False) -> None:
        streams = np.random.SeedSequence(seed).spawn(4)
        self._arrivals, self._demands, self._lots, self._thinks = (np.random.default_rng(each) for each in streams)
        self._rate, self._count, self._mean, self._equal = rate, count, mean, equal

    def arrivals(self) -> Iterator[np.ndarray]:
        times = np.cumsum(self._arrivals.exponential(1 / self._rate, self._count))
        yield from (times[first : first + 999] for first in range(0, self._count, 999))

    def close(self) -> None:
        self._count = 0

    def demands(self, count: int) -> np.ndarray:
        return np.full(count, self._mean) if self._equal else self._demands.exponential(self._mean, count)

    def lots(self, count: int) -> np.ndarray:
        return self._lots.random(count)

    def thinks(self, count: int) -> np.ndarray:
        return self._thinks.exponential(1.0, count)


class Witness:
    """Keeps what became of each request, in the order in which that was decided."""

    def __init__(self) -> None:
        self.ended: list[tuple[float, float, int]] = []

    def record(self, arrived: np.ndarray, seconds: np.ndarray, state: np.ndarray) -> None:
        self.ended += zip(arrived.tolist(), seconds.tolist(), state.tolist(), strict=True)


def make_plane(kind: str, numbers: Numbers, witness: Witness, closing: float = np.inf, **service: Any) -> DataPlane:
    if service.get("users"):
        # In a closed loop nobody comes from outside.
        numbers.close()
    if kind == "processes":
        return ProcessPlane(Service(**service), numbers, witness, closing_seconds=closing)
    return WindowedPlane(Service(**service), numbers, witness, closing_seconds=closing, compiled=kind == "numba")
