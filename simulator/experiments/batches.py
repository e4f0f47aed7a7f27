"""Many small tasks on many processes: grouped, so that each group is worth sending, and never lost.

A group is measured while it runs. It stops once it has worked for `BATCH_SECONDS` and gives back what it has not begun,
so a guess that was wrong costs nothing. Which tasks make a group changes nothing in what they give.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import import_module
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SimulatorError
from simulator.experiments.pilot import Pilot, run_pilot
from simulator.experiments.processes import as_they_come
from simulator.experiments.replications import Task, run_one
from simulator.fingerprint import model_version
from simulator.results import Replication

BATCH_SECONDS = 0.5
"""As long a group works, if there are tasks enough: sending one costs some milliseconds."""

CONNECT_SECONDS = 5.0
"""As long a scheduler and its first worker may take to answer."""

_LARGEST_BATCH = 1000  # tasks: what a group gives back is sent twice
_REMEMBERED = 50  # tasks whose times tell how long the next will take

Job = Task | Pilot

Outcome = Replication | NDArray[np.float64] | str
"""What a replication or a pilot gave, or in one line why it cannot be."""


class Batch(NamedTuple):
    """Tasks that travel together.

    Attributes:
        number: which group it is.
        version: of the model that must run it, see `simulator.fingerprint.model_version`.
        tasks: in order.
    """

    number: int
    version: str
    tasks: tuple[Job, ...]


class Finished(NamedTuple):
    """What a group has done in its time.

    Attributes:
        number: of the group.
        outcomes: of its first tasks, at least one.
        seconds: that each of them took.
    """

    number: int
    outcomes: tuple[Outcome, ...]
    seconds: tuple[float, ...]


def run_batch(batch: Batch) -> Finished:
    """Run the tasks of a group in order, until its time is over.

    Raises:
        SimulatorError: another version of the model runs here.
    """
    if batch.version != model_version():
        raise SimulatorError(
            f"a worker runs {model_version()} and this process {batch.version}, which need not give the same results; "
            "install the same on both"
        )
    outcomes: list[Outcome] = []
    seconds: list[float] = []
    for task in batch.tasks:
        began = time.monotonic()
        try:
            outcomes.append(run_pilot(task) if isinstance(task, Pilot) else run_one(task))
        except SimulatorError as refusal:
            outcomes.append(str(refusal))
        seconds.append(time.monotonic() - began)
        if sum(seconds) >= BATCH_SECONDS:
            break
    return Finished(batch.number, tuple(outcomes), tuple(seconds))


def run_tasks(tasks: Sequence[Job], processes: int = 1, dask: str | None = None) -> Iterator[list[tuple[int, Outcome]]]:
    """Run all of `tasks`; gives, as each group ends, the place of each finished task in `tasks` and its outcome.

    Args:
        tasks: what to run.
        processes: on this machine; 1 stays in this process.
        dask: the address of a Dask scheduler whose workers run them instead, such as `tcp://10.0.0.1:8786`.

    Raises:
        SimulatorError: `distributed` is not installed, no scheduler or worker answers, or one runs another version.
    """
    queue = _Queue(tasks)
    if dask is not None:
        finished = _on_dask(queue, dask)
    elif processes > 1:
        finished = _on_processes(queue, processes)
    else:
        finished = _here(queue)
    for each in finished:
        yield queue.settle(each)


class _Queue:
    """The tasks that wait, and the groups that are out. Groups are also formed by a thread of joblib, so it locks."""

    def __init__(self, tasks: Sequence[Job]) -> None:
        self._version = model_version()
        self._waiting = deque(enumerate(tasks))
        self._out: dict[int, list[tuple[int, Job]]] = {}
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._formed = 0
        self._lock = threading.Lock()

    def form(self) -> Batch | None:
        """The next group, or None if nothing waits."""
        with self._lock:
            if not self._waiting:
                return None
            taken = [self._waiting.popleft() for _ in range(min(self._size(), len(self._waiting)))]
            self._formed += 1
            self._out[self._formed] = taken
            return Batch(self._formed, self._version, tuple(task for _, task in taken))

    def form_all(self) -> Iterator[Batch]:
        """Groups, each formed when it is asked for, until nothing waits."""
        while (batch := self.form()) is not None:
            yield batch

    def settle(self, finished: Finished) -> list[tuple[int, Outcome]]:
        """Take back what a group left undone; gives what it did."""
        with self._lock:
            sent = self._out.pop(finished.number)
            self._seconds.extend(finished.seconds)
            self._waiting.extendleft(reversed(sent[len(finished.outcomes) :]))
            return [(place, outcome) for (place, _), outcome in zip(sent, finished.outcomes, strict=False)]

    def __len__(self) -> int:
        return len(self._waiting)

    def _size(self) -> int:
        """Tasks for one group: one until some were measured, then twice as many as should be needed."""
        if not self._seconds:
            return 1
        # The first task of a process is slow, since it loads and compiles; the median forgets it.
        each = max(median(self._seconds), 1e-6)
        return min(max(int(2 * BATCH_SECONDS / each), 1), _LARGEST_BATCH)


def _here(queue: _Queue) -> Iterator[Finished]:
    for batch in queue.form_all():
        yield run_batch(batch)


def _on_processes(queue: _Queue, processes: int) -> Iterator[Finished]:
    from joblib import Parallel, delayed

    while len(queue):  # a group may give tasks back after joblib has asked for the last one
        parallel = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        yield from as_they_come(parallel(delayed(run_batch)(batch) for batch in queue.form_all()))


def _on_dask(queue: _Queue, address: str) -> Iterator[Finished]:
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise SimulatorError("Dask is not installed: `pip install 'onggi[cluster]'`, or leave out `--dask`") from error
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SimulatorError(
            f"{address}: no Dask scheduler answered in {CONNECT_SECONDS:g} s; start one with `dask scheduler`"
        ) from error
    with client:
        slots = _slots(client, address)
        try:
            yield from _submit_all(distributed, client, queue, slots)
        except ImportError as error:
            raise SimulatorError(f"{address}: a worker cannot load onggi ({error}); install it there too") from error
        except (distributed.KilledWorker, distributed.CancelledError, OSError) as error:
            raise SimulatorError(
                f"{address}: the cluster was lost ({type(error).__name__}); with a store, the sweep can be resumed"
            ) from error


def _slots(client: Any, address: str) -> int:
    """How many tasks the cluster runs at the same time."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise SimulatorError(f"{address}: the scheduler has no worker; start some: `dask worker {address}`") from error
    return sum(client.nthreads().values())


def _submit_all(distributed: Any, client: Any, queue: _Queue, slots: int) -> Iterator[Finished]:
    running = distributed.as_completed(loop=client.loop)
    while True:
        while running.count() < slots and (batch := queue.form()) is not None:
            # Not pure: a group is run because it was sent, and never taken from what another client computed.
            running.add(client.submit(run_batch, batch, pure=False))
        if running.is_empty():
            return
        future = next(running)
        yield future.result()
        future.release()
