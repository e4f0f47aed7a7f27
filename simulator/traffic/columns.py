"""What the data plane's columns are made of: lists, which plain Python indexes fastest, or arrays for compiled code.

`simulator.traffic.compiled.CompiledColumns` is the same for arrays.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.traffic.balancing.policies import Policy
from simulator.traffic.requests import make_kernel
from simulator.traffic.shares import settle

Entry = tuple[float, ...]
"""(time, code) of a departure, or (time, serial number, code) of a timer."""


class Columns(Protocol):
    """How columns and heaps are built and changed between two windows."""

    def kernel(self, policy: Policy) -> Callable[..., int]:
        """The loop over the requests of one window."""

    def column(self, kind: type, count: int, value: float) -> Any:
        """So many equal values."""

    def values(self, numbers: Iterable[float] | NDArray[np.float64]) -> Any:
        """A column of these numbers."""

    def longer(self, column: Any, count: int, value: float) -> Any:
        """The column with room for `count` values."""

    def heap(self, entries: Sequence[Entry]) -> Any:
        """A heap of entries that are in the order of one."""

    def entries(self, heap: Any) -> list[Entry]:
        """The entries of a heap, as a list in its order."""

    def with_room(self, heap: Any) -> tuple[Any, float]:
        """The heap, with room for more entries if there was little; and for how many."""

    def settle(self, cores: Any, machine: int, now: float, departures: Any) -> None:
        """`simulator.traffic.shares.settle`."""


class PlainColumns:
    """Lists."""

    def kernel(self, policy: Policy) -> Callable[..., int]:
        """The loop in plain Python, which calls the policy's functions directly."""
        return make_kernel(policy.choose, policy.took, policy.left)

    def column(self, kind: type, count: int, value: float) -> Any:
        """So many equal values."""
        return [value] * count

    def values(self, numbers: Iterable[float] | NDArray[np.float64]) -> Any:
        """A list of these numbers."""
        return numbers.tolist() if isinstance(numbers, np.ndarray) else list(numbers)

    def longer(self, column: Any, count: int, value: float) -> Any:
        """The same list, longer."""
        column.extend([value] * (count - len(column)))
        return column

    def heap(self, entries: Sequence[Entry]) -> Any:
        """A list for heapq."""
        return list(entries)

    def entries(self, heap: Any) -> list[Entry]:
        """A copy."""
        return list(heap)

    def with_room(self, heap: Any) -> tuple[Any, float]:
        """A list always has room."""
        return heap, math.inf

    def settle(self, cores: Any, machine: int, now: float, departures: Any) -> None:
        """`simulator.traffic.shares.settle`."""
        settle(cores, machine, now, departures)
