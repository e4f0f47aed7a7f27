"""The cores of one machine, shared among all work in progress: processor sharing, exact, by virtual time.

n jobs on c cores each run at `min(1, c/n)` of a core, as a fair scheduler with a short time slice would give them, and
never faster than one core. Cores slow each other down (shared caches, hyper-threads, contended kernel paths), and do so
differently for arithmetic than for creating processes, so a job says which kind of work it is.

Instead of re-timing every job whenever one comes or goes, each kind of work keeps a *virtual clock* that runs at the
speed that a job of this kind gets. A job then ends at a virtual time known when it arrives, and a heap gives the next
one: O(log n) for each arrival and departure. (The idea is that of Parekh and Gallager's generalised processor sharing,
IEEE/ACM ToN 1993.)
"""

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Protocol, Self

from simpy import Environment, Event

from simulator.errors import SimulatorError


class Job(Event):
    """Work in progress on the cores. Triggers when the work is done; its value is the seconds that it took."""

    def __init__(self, env: Environment, work: str) -> None:
        super().__init__(env)
        self.work = work
        self.began = env.now
        self.cancelled = False

    @classmethod
    def of(cls, env: Environment, cpu_seconds: float, work: str) -> Self:
        """A job of `cpu_seconds`, which is done already if that is nothing.

        Raises:
            SimulatorError: the work is negative or not a number.
        """
        if not 0 <= cpu_seconds < float("inf"):
            raise SimulatorError(f"{cpu_seconds} CPU seconds: work must be finite and not negative")
        job = cls(env, work)
        if cpu_seconds == 0:
            job.succeed(0.0)
        return job


def speed_of_work(speed: Sequence[float], jobs: int) -> float:
    """The speed of a core while so many jobs want to run, relative to when one does.

    Args:
        speed: with 1, 2, … jobs; beyond the last, the speed stays; empty: always 1.
        jobs: at least 1.
    """
    return speed[min(jobs, len(speed)) - 1] if speed else 1.0


class Cores(Protocol):
    """The cores of one machine, whoever shares them."""

    def used_core_seconds(self) -> float:
        """Integral over time of the number of busy cores, until now."""

    def submit(self, cpu_seconds: float, work: str = "compute", *, after: Job | None = None) -> Job:
        """Begin `cpu_seconds` of single-threaded work; the returned event triggers when it is done."""

    def cancel(self, job: Job) -> None:
        """Take an unfinished job off the cores. A finished job is left alone."""


class _Kind:
    """One kind of work: its virtual clock, in CPU seconds per job, and its jobs by the virtual time of their end."""

    def __init__(self, speed: Sequence[float]) -> None:
        self.speed = speed
        self.clock = 0.0
        self.active = 0
        self.heap: list[tuple[float, int, Job]] = []

    def next_end(self) -> float | None:
        """Virtual time at which the first job of this kind ends, or None if there is no job."""
        while self.heap and self.heap[0][2].cancelled:
            heappop(self.heap)
        return self.heap[0][0] if self.heap else None


class SharedCores:
    """`count` cores under processor sharing.

    Args:
        env: the SimPy environment whose clock is used, in seconds.
        count: number of cores, at least 1.
        speed_when_busy: for a kind of work, the relative speed of a core when 1, 2, … jobs want to run. A kind that is
            not named runs at speed 1.

    Attributes:
        work_done: CPU seconds of work worked off so far, cancelled jobs included, as of the last change.
        busy_core_seconds: integral over time of the number of busy cores, as of the last change.
    """

    def __init__(
        self, env: Environment, count: int, speed_when_busy: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        if count < 1:
            raise SimulatorError(f"{count} cores: a machine has at least one")
        self.env = env
        self.count = count
        self.work_done = 0.0
        self.busy_core_seconds = 0.0
        self._speeds = dict(speed_when_busy or {})
        self._kinds: dict[str, _Kind] = {}
        self._changed_at: float = env.now
        self._arrivals = 0
        self._generation = 0

    @property
    def active(self) -> int:
        """How many jobs are in progress."""
        return sum(kind.active for kind in self._kinds.values())

    def rate(self, work: str = "compute") -> float:
        """CPU seconds per second that each job of this kind gets now (or would, if it came alone)."""
        active = max(self.active, 1)
        return min(1.0, self.count / active) * speed_of_work(self._kind(work).speed, active)

    def submit(self, cpu_seconds: float, work: str = "compute", *, after: Job | None = None) -> Job:
        """Begin `cpu_seconds` of single-threaded work; the returned event triggers when it is done.

        `after`, the job that the same thread did before, makes no difference here, where nobody waits for a turn.
        A process that stops waiting must `cancel` the job; `Machine.compute` does so by itself.

        Raises:
            SimulatorError: the work is negative or not a number.
        """
        job = Job.of(self.env, cpu_seconds, work)
        if job.triggered:
            return job
        self._advance()
        kind = self._kind(work)
        kind.active += 1
        self._arrivals += 1  # ties end in order of arrival
        heappush(kind.heap, (kind.clock + cpu_seconds, self._arrivals, job))
        self._schedule_next_end()
        return job

    def cancel(self, job: Job) -> None:
        """Take an unfinished job off the cores; the others speed up at once. A finished job is left alone."""
        if job.triggered or job.cancelled:
            return
        self._advance()
        job.cancelled = True
        self._leave(self._kinds[job.work])
        self._schedule_next_end()

    def used_core_seconds(self) -> float:
        """`busy_core_seconds` until now."""
        self._advance()
        return self.busy_core_seconds

    def _kind(self, work: str) -> _Kind:
        if work not in self._kinds:
            self._kinds[work] = _Kind(self._speeds.get(work, ()))
        return self._kinds[work]

    def _leave(self, kind: _Kind) -> None:
        kind.active -= 1
        if kind.active == 0:
            # Starting the clock again at zero keeps it small, and so exact, however long the run is.
            kind.clock = 0.0
            kind.heap.clear()

    def _advance(self) -> None:
        """Let the virtual clocks run up to now."""
        elapsed = self.env.now - self._changed_at
        self._changed_at = self.env.now
        if elapsed <= 0:
            return
        self.busy_core_seconds += min(self.active, self.count) * elapsed
        for work, kind in self._kinds.items():
            if kind.active:
                step = self.rate(work) * elapsed
                kind.clock += step
                self.work_done += kind.active * step

    def _schedule_next_end(self) -> None:
        """Wake up when the next job ends, if nothing changes before; an earlier wake-up call is then out of date."""
        self._generation += 1
        generation = self._generation
        ends = [
            ((end - kind.clock) / self.rate(work), work, end)
            for work, kind in self._kinds.items()
            if kind.active and (end := kind.next_end()) is not None
        ]
        if not ends:
            return
        delay, work, end = min(ends)

        def wake(_: Event) -> None:
            if generation == self._generation:
                self._advance()
                self._finish(work, end)

        self.env.timeout(max(delay, 0.0)).callbacks.append(wake)

    def _finish(self, work: str, end: float) -> None:
        """End all jobs of this kind that are due at virtual time `end`."""
        kind = self._kinds[work]
        # The clock was advanced by a product and may be off by a rounding error; the end is exact.
        kind.clock = end
        while (due := kind.next_end()) is not None and due <= end:
            _, _, job = heappop(kind.heap)
            self._leave(kind)
            job.succeed(self.env.now - job.began)
        self._schedule_next_end()
