"""What the data plane's columns are made of: lists, which plain Python indexes fastest, or arrays for compiled code.

`simulator.traffic.compiled.CompiledColumns` is the same for arrays.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.traffic.balancing.board import Board
from simulator.traffic.balancing.policies import Policy
from simulator.traffic.requests import make_kernel
from simulator.traffic.shares import Cores, settle

Entry = tuple[float, ...]
"""(time, code) of a departure, or (time, serial number, code) of a timer."""


class Columns(Protocol):
    """How columns and heaps are built and changed between two windows.

    Attributes:
        chunk: numbers drawn, and outcomes kept, at a time. No result depends on it.
    """

    chunk: int

    def kernel(self, policy: Policy) -> Callable[..., int]:
        """The loop over the requests of one window."""

    def column(self, kind: type, count: int, value: float) -> Any:
        """So many equal values."""

    def values(self, numbers: Iterable[float] | NDArray[np.float64]) -> Any:
        """A column of these numbers."""

    def longer(self, column: Any, count: int, value: float) -> Any:
        """The column with room for `count` values."""

    def refilled(self, column: Any, used: int, numbers: NDArray[np.float64]) -> Any:
        """What the column holds after its first `used` values, and `numbers` behind that."""

    def first(self, column: Any, count: int, kind: type[np.generic]) -> NDArray[Any]:
        """A copy of the column's first values, as an array of `kind`."""

    def close_gap(self, slots: Any, position: Any, place: int, count: int) -> None:
        """Take what stands at `place` out of the first `count` slots: each one behind it, and its position, moves."""

    def heap(self, entries: Sequence[Entry]) -> Any:
        """A heap of entries that are in the order of one."""

    def entries(self, heap: Any) -> list[Entry]:
        """The entries of a heap, as a list in its order."""

    def with_room(self, heap: Any) -> tuple[Any, float]:
        """The heap, with room for more entries if there was little; and for how many."""

    def settle(self, cores: Any, machine: int, now: float, departures: Any) -> None:
        """`simulator.traffic.shares.settle`."""


class _Slots:
    """A named tuple's columns under the same names, in slots.

    Plain Python finds an attribute in a slot in a third of the time that it takes in a named tuple, and the functions
    of a policy or of shared cores do little else. Numba knows named tuples only.
    """

    __slots__: tuple[str, ...] = ()

    def __init__(self, columns: tuple[Any, ...]) -> None:
        for name, column in zip(self.__slots__, columns, strict=True):
            setattr(self, name, column)


class _BoardSlots(_Slots):
    __slots__ = Board._fields


class _CoresSlots(_Slots):
    __slots__ = Cores._fields


class PlainColumns:
    """Lists."""

    chunk = 8192
    """Each number is an object here, so a large chunk would not stay in the processor's cache until it is used."""

    def kernel(self, policy: Policy) -> Callable[..., int]:
        """The loop in plain Python, which calls the policy's functions directly."""
        loop = make_kernel(policy.choose, policy.took, policy.left)

        def run_window(*given: Any) -> int:
            *others, board, cores, ended = given
            return loop(*others, _BoardSlots(board), _CoresSlots(cores), ended)

        return run_window

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

    def refilled(self, column: Any, used: int, numbers: NDArray[np.float64]) -> Any:
        """A new list."""
        return column[used:] + numbers.tolist()

    def first(self, column: Any, count: int, kind: type[np.generic]) -> NDArray[Any]:
        """An array, read number by number."""
        return np.fromiter(column, kind, count)

    def close_gap(self, slots: Any, position: Any, place: int, count: int) -> None:
        """One by one."""
        slots[place : count - 1] = moved = slots[place + 1 : count]
        for slot in moved:
            position[slot] -= 1

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
