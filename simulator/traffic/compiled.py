"""The loop of `simulator.traffic.requests`, compiled by Numba. The only module that imports Numba.

Compiling takes some seconds once. Numba keeps the result beside `requests.py`, or in the user's cache directory where
that one cannot be written, and the next process loads it.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from inspect import getsource
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SimulatorError
from simulator.traffic import requests, shares
from simulator.traffic.balancing import board, policies
from simulator.traffic.balancing.policies import Policy
from simulator.traffic.columns import Entry


@cache
def numba_works() -> bool:
    """Whether the compiled loop can be used: Numba is installed, and fits the NumPy beside it."""
    if find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401 -- it refuses to be imported beside a NumPy that it does not know
    except ImportError:
        return False
    return True


@cache
def compiled_kernel() -> Callable[..., int]:
    """The loop for any balancer, compiled when it is first called.

    Raises:
        SimulatorError: Numba is not installed, or does not work here.
    """
    check_numba()
    from numba import njit
    from numba.extending import register_jitable

    # What the loop calls stays plain Python for everyone else.
    for function in _called():
        register_jitable(function)
    _teach_heaps()
    kernel = requests.make_kernel(policies.choose_any, policies.took_any, policies.left_any)
    # Numba finds its cache by this name and looks no further than the file of the loop, so an edit of what the loop
    # calls must change the name, or the old one would go on running.
    sources = "".join(getsource(module) for module in (board, policies, shares, requests))
    kernel.__qualname__ += f"_{zlib.crc32(sources.encode()):08x}"
    try:
        return _as_callable(njit(cache=True)(kernel))
    except RuntimeError:
        # There is no directory to cache in that can be written: compile anew in each process.
        return _as_callable(njit(kernel))


@cache
def _compiled_settle() -> Callable[..., None]:
    """`settle`, which the control plane calls between two windows."""
    compiled_kernel()
    from numba import njit

    return njit(shares.settle)  # type: ignore[no-any-return]


def check_numba() -> None:
    """Refuse what needs Numba where there is none.

    Raises:
        SimulatorError: Numba is not installed, or does not work here.
    """
    if not numba_works():
        raise SimulatorError('the data plane `numba` needs Numba: install "onggi[fast]", or leave the choice to `auto`')


class ArrayHeap(NamedTuple):
    """A heap of (time, serial, code) in three columns, which compiled code works on faster than on a list of tuples.

    Where plain Python has a list `heap` of tuples, `heap[0][0]` is the soonest time; so it is here.

    Attributes:
        times, serials, codes: the entries, in the order of a binary heap; the first `size[0]` count.
        size: how many entries there are, one number.
    """

    times: NDArray[np.float64]
    serials: NDArray[np.int64]
    codes: NDArray[np.int64]
    size: NDArray[np.int64]


_FIRST_HEAP = 8192
"""Entries that a heap has room for at first. A window ends when a heap may be full, and each call of compiled code
costs as much as dozens of requests, for what it is handed."""


class CompiledColumns:
    """Arrays.

    Raises:
        SimulatorError: Numba is not installed, or does not work here.
    """

    chunk = 32768
    """Some windows' worth, and no more, since it is what a short run needs most memory for."""

    def __init__(self) -> None:
        check_numba()

    def kernel(self, policy: Policy) -> Callable[..., int]:
        """The compiled loop, the same for each policy."""
        return compiled_kernel()

    def column(self, kind: type, count: int, value: float) -> Any:
        """So many equal values."""
        return np.full(count, value, dtype=np.int64 if kind is int else np.float64)

    def values(self, numbers: Iterable[float] | NDArray[np.float64]) -> Any:
        """An array of these numbers."""
        return numbers if isinstance(numbers, np.ndarray) else np.array(list(numbers))

    def longer(self, column: Any, count: int, value: float) -> Any:
        """A longer array, with the same values first."""
        if count <= len(column):
            return column
        return np.concatenate([column, np.full(count - len(column), value, dtype=column.dtype)])

    def refilled(self, column: Any, used: int, numbers: NDArray[np.float64]) -> Any:
        """A new array."""
        return np.concatenate([column[used:], numbers])

    def first(self, column: Any, count: int, kind: type[np.generic]) -> NDArray[Any]:
        """A new array."""
        return np.array(column[:count], dtype=kind)

    def close_gap(self, slots: Any, position: Any, place: int, count: int) -> None:
        """All at once: ten thousand instances may stand behind it."""
        moved = slots[place + 1 : count].copy()
        slots[place : count - 1] = moved
        position[moved] -= 1

    def heap(self, entries: Sequence[Entry]) -> Any:
        """An `ArrayHeap`."""
        room = max(2 * len(entries), _FIRST_HEAP)
        heap = ArrayHeap(np.zeros(room), np.zeros(room, np.int64), np.zeros(room, np.int64), np.array([len(entries)]))
        for place, entry in enumerate(entries):
            heap.times[place], heap.codes[place] = entry[0], entry[-1]
            # Of two departures at one time, that of the lower code comes first, as tuples compare.
            heap.serials[place] = entry[1]
        return heap

    def entries(self, heap: Any) -> list[Entry]:
        """As tuples of three, in which a departure's code stands twice."""
        size = int(heap.size[0])
        columns = (heap.times, heap.serials, heap.codes)
        return list(zip(*(column[:size].tolist() for column in columns), strict=True))

    def with_room(self, heap: Any) -> tuple[Any, float]:
        """The heap, with room for more entries if there was little; and for how many."""
        room, size = len(heap.times), int(heap.size[0])
        if 2 * size > room:
            times, serials, codes = (np.concatenate([column, np.zeros_like(column)]) for column in heap[:3])
            heap, room = ArrayHeap(times, serials, codes, heap.size), 2 * room
        return heap, room - size

    def settle(self, cores: Any, machine: int, now: float, departures: Any) -> None:
        """`simulator.traffic.shares.settle`, compiled, since it pushes to an `ArrayHeap`."""
        _compiled_settle()(cores, machine, now, departures)


def _push(heap: ArrayHeap, time: float, serial: int, code: int) -> None:
    times, serials, codes = heap.times, heap.serials, heap.codes
    place = heap.size[0]
    heap.size[0] = place + 1
    while place > 0:
        parent = (place - 1) >> 1
        if times[parent] < time or (times[parent] == time and serials[parent] < serial):
            break
        times[place], serials[place], codes[place] = times[parent], serials[parent], codes[parent]
        place = parent
    times[place], serials[place], codes[place] = time, serial, code


def _pop(heap: ArrayHeap) -> tuple[float, int, int]:
    times, serials, codes = heap.times, heap.serials, heap.codes
    first = (times[0], serials[0], codes[0])
    size = heap.size[0] - 1
    heap.size[0] = size
    time, serial, code = times[size], serials[size], codes[size]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            times[other] < times[child] or (times[other] == times[child] and serials[other] < serials[child])
        ):
            child = other
        if time < times[child] or (time == times[child] and serial < serials[child]):
            break
        times[place], serials[place], codes[place] = times[child], serials[child], codes[child]
        place = child
    times[place], serials[place], codes[place] = time, serial, code
    return first


def _teach_heaps() -> None:
    """Let compiled code push to and pop from an `ArrayHeap` by the words of heapq."""
    from heapq import heappop, heappush

    from numba import types
    from numba.extending import overload

    def is_array_heap(heap: Any) -> bool:
        return isinstance(heap, types.NamedTuple) and heap.instance_class is ArrayHeap

    @overload(heappush, strict=False)
    def push(heap: Any, item: Any) -> Any:
        if not is_array_heap(heap):
            return None
        if len(item) == 2:
            return lambda heap, item: _push(heap, item[0], item[1], item[1])
        return lambda heap, item: _push(heap, item[0], item[1], item[2])

    @overload(heappop, strict=False)
    def pop(heap: Any) -> Any:
        if not is_array_heap(heap):
            return None
        return lambda heap: _pop(heap)


def _called() -> list[Callable[..., Any]]:
    """Every function that the compiled loop calls."""
    return [
        _push,
        _pop,
        board.next_lot,
        board.unlink,
        board.append,
        policies.choose_random,
        policies.choose_round_robin,
        policies.choose_weighted,
        policies.choose_least_connections,
        policies.took_least_connections,
        policies.left_least_connections,
        policies.choose_of_some,
        policies.choose_peak_ewma,
        policies.left_peak_ewma,
        policies.choose_idle,
        policies.took_idle,
        policies.left_idle,
        policies.choose_bounded_hash,
        policies.choose_any,
        policies.took_any,
        policies.left_any,
        shares.merge,
        shares.touch,
        shares.add_thread,
        shares.remove_thread,
        shares.begin,
        shares.finish,
        shares.share_out,
        shares.settle,
        requests.expects,
        requests.expects_no_more,
    ]


def _as_callable(kernel: Any) -> Callable[..., int]:
    return kernel  # type: ignore[no-any-return]
