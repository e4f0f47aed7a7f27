"""How many processes the work is spread over, and what they give."""

import os
import warnings
from collections.abc import Generator, Iterator
from typing import TypeVar

from simulator.errors import SimulatorError

Done = TypeVar("Done")


def count_processes(workers: int, most: int) -> int:
    """How many processes `workers` stands for, at most `most`.

    Raises:
        SimulatorError: neither a positive number nor -1.
    """
    processes = min((os.cpu_count() or 1) if workers == -1 else workers, most)
    if processes < 1:
        raise SimulatorError(f"workers {workers}: give a number of processes, or -1 for one a core")
    return processes


def as_they_come(results: Generator[Done, None, None]) -> Iterator[Done]:
    """What joblib's generator gives. Whoever stops early, as Ctrl-C does, gets no warning of results left unread."""
    try:
        # Not `yield from`, which would close the generator before the warning is silenced.
        for result in results:  # noqa: UP028
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="joblib")
            results.close()
