"""The cores of one machine as Linux gives them out: a core works on one job for a time slice, then turns to the next.

Processor sharing (`simulator.datacenter.cores`) is the limit of this for slices much shorter than the work. Start-ups
of containers are not: a few milliseconds, where a core turns to the next job only at a timer tick, 1 to 4 ms apart
(CONFIG_HZ; the scheduler's own slice, 0.7 ms times 1 + log2 of the cores at most 8, is shorter, see
kernel/sched/fair.c). Then the first of many that begin at the same moment are done long before the last.

Waiting jobs stand in one queue for all cores: Linux has one for each and moves waiting jobs to a core that falls idle.
A thread that has more to do goes on with its turn; one that sleeps, or waits for another, gives up its core.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simpy import Environment, Event

from simulator.datacenter.cores import Job, speed_of_work
from simulator.errors import SimulatorError

_DONE = 1e-12
"""CPU seconds: what rounding leaves of a job that is done."""


@dataclass
class _Turn:
    """A job, what is left of its work in CPU seconds, and when its present turn on a core ends at the latest."""

    job: Job
    left: float
    ends_at: float = 0.0


class TimeSlicedCores:
    """`count` cores that take turns at jobs, round robin.

    Args:
        env: the SimPy environment whose clock is used, in seconds.
        count: number of cores, at least 1.
        slice_seconds: how long a core works on one job while others wait.
        speed_when_busy: as for `SharedCores`.

    Attributes:
        work_done: CPU seconds of work worked off so far, cancelled jobs included, as of the last change.
        busy_core_seconds: integral over time of the number of busy cores, as of the last change.
    """

    def __init__(
        self,
        env: Environment,
        count: int,
        slice_seconds: float,
        speed_when_busy: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        if count < 1 or not slice_seconds > 0:
            raise SimulatorError(f"{count} cores and slices of {slice_seconds} s: both must be above 0")
        self.env = env
        self.count = count
        self.slice_seconds = slice_seconds
        self.work_done = 0.0
        self.busy_core_seconds = 0.0
        self._speeds = dict(speed_when_busy or {})
        self._running: list[_Turn] = []
        self._waiting: deque[_Turn] = deque()
        self._changed_at: float = env.now
        self._generation = 0

    @property
    def active(self) -> int:
        """How many jobs are in progress, on a core or waiting for their turn."""
        return sum(not turn.job.triggered for turn in self._running) + len(self._waiting)

    def submit(self, cpu_seconds: float, work: str = "compute", *, after: Job | None = None) -> Job:
        """Begin `cpu_seconds` of single-threaded work; the returned event triggers when it is done.

        Args:
            cpu_seconds: at the speed of a core that alone is busy.
            work: which kind.
            after: the job that the same thread did before. If it ended this very moment and the process that waited for
                it goes on without waiting for anything else, the thread keeps its turn on the core.

        Raises:
            SimulatorError: the work is negative or not a number.
        """
        job = Job.of(self.env, cpu_seconds, work)
        if job.triggered:
            return job
        self._advance()
        for turn in self._running:
            if turn.job is after:
                turn.job, turn.left = job, cpu_seconds
                break
        else:
            self._waiting.append(_Turn(job, cpu_seconds))
        self._dispatch()
        return job

    def cancel(self, job: Job) -> None:
        """Take an unfinished job off its core or out of the queue. A finished job is left alone."""
        if job.triggered or job.cancelled:
            return
        self._advance()
        job.cancelled = True
        self._running = [turn for turn in self._running if turn.job is not job]
        self._waiting = deque(turn for turn in self._waiting if turn.job is not job)
        self._dispatch()

    def used_core_seconds(self) -> float:
        """`busy_core_seconds` until now."""
        self._advance()
        return self.busy_core_seconds

    def _speed(self, turn: _Turn) -> float:
        return speed_of_work(self._speeds.get(turn.job.work, ()), len(self._running) + len(self._waiting))

    def _advance(self) -> None:
        """Let the running jobs work up to now."""
        elapsed = self.env.now - self._changed_at
        self._changed_at = self.env.now
        self.busy_core_seconds += len(self._running) * elapsed
        for turn in self._running:
            step = min(self._speed(turn) * elapsed, turn.left)
            turn.left -= step
            self.work_done += step

    def _dispatch(self) -> None:
        """Give free cores to those that wait, and wake up when the next turn or job ends, if nothing changes before."""
        while self._waiting and len(self._running) < self.count:
            turn = self._waiting.popleft()
            turn.ends_at = self.env.now + self.slice_seconds
            self._running.append(turn)
        self._generation += 1
        generation = self._generation
        if not self._running:
            return
        now = self.env.now
        delay = min(turn.left / self._speed(turn) for turn in self._running)
        if self._waiting:
            delay = min(delay, *(turn.ends_at - now for turn in self._running))

        def wake(_: Event) -> None:
            if generation == self._generation:
                self._advance()
                self._take_turns()

        self.env.timeout(max(delay, 0.0)).callbacks.append(wake)

    def _take_turns(self) -> None:
        """End the jobs that are done, and send those whose turn is over to the end of the queue."""
        now = self.env.now
        still, over = [], []
        ended = False
        for turn in self._running:
            # A job whose rest is too short for the clock to move is done too, or it would never be.
            if turn.left <= _DONE or now + turn.left / self._speed(turn) == now:
                turn.left = 0.0
                turn.job.succeed(now - turn.job.began)
                ended = True
            if turn.ends_at <= now and self._waiting and not turn.job.triggered:
                over.append(turn)
            else:
                still.append(turn)
        self._running = still
        self._waiting.extend(over)
        if ended:
            # The jobs' own events come first: whoever waits for one may go on with its turn (see `submit`).
            self.env.timeout(0).callbacks.append(self._give_up_cores)
        else:
            self._dispatch()

    def _give_up_cores(self, _: Event) -> None:
        """Free the cores of threads that have ended, or wait for something."""
        self._advance()
        self._running = [turn for turn in self._running if not turn.job.triggered]
        self._dispatch()
