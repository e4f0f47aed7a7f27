"""The loop of `simulator.traffic.requests`, compiled by Numba. The only module that imports Numba.

Compiling takes a few seconds once. Numba keeps the result beside `requests.py`, or in the user's cache directory where
that one cannot be written, and the next process loads it.
"""

import zlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from inspect import getsource
from typing import Any

from simulator.errors import SimulatorError
from simulator.traffic.balancing import BALANCERS
from simulator.traffic.requests import make_kernel


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
def compiled_kernel(balancer: str) -> Callable[..., None]:
    """The loop for `balancer`, compiled when it is first called.

    Raises:
        SimulatorError: Numba is not installed, or does not work here.
    """
    if not numba_works():
        raise SimulatorError('the data plane `numba` needs Numba: install "onggi[fast]", or leave the choice to `auto`')
    from numba import njit
    from numba.extending import overload

    policy = BALANCERS[balancer]
    # In compiled code, a call of the plain function becomes a call of the one over arrays. The heap needs no such
    # thing: Numba knows heapq, and (time, request) compares there as in Python, so both pop in the same order.
    overload(policy.plain, strict=False)(lambda load, draw, turn: policy.array)
    kernel = make_kernel(policy.plain)
    # Numba finds its cache by this name and looks no further than the file of the loop, so an edited balancer must
    # change the name, or the old one would go on running.
    kernel.__qualname__ += f"_{zlib.crc32(getsource(policy.array).encode()):08x}"
    try:
        return _as_callable(njit(cache=True)(kernel))
    except RuntimeError:
        # There is no directory to cache in that can be written: compile anew in each process.
        return _as_callable(njit(kernel))


def departure_heap(entries: list[tuple[float, int]]) -> Any:
    """`entries` (already a heap) as a list that compiled code can change."""
    from numba.typed import List

    return List([(float(time), int(request)) for time, request in entries])


def _as_callable(kernel: Any) -> Callable[..., None]:
    return kernel  # type: ignore[no-any-return]
