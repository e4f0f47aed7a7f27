"""A machine's cores in the data plane, where its start-ups run beside the requests and slow each other down."""

from simpy import Environment

from simulator.datacenter.cores import Job
from simulator.traffic.windows import WindowedPlane


class PlaneCores:
    """One machine's cores: what `simulator.datacenter.cores.Cores` asks, on cores that requests share.

    Each thread that starts something has the weight of one instance, as a control group of its own would.

    Args:
        env: the SimPy environment.
        plane: where the cores are.
        machine: its number there.
        weight: of each thread.
        working: whose each piece of work in progress is, by its number; of all machines together.
    """

    def __init__(
        self,
        env: Environment,
        plane: WindowedPlane,
        machine: int,
        weight: float,
        working: "dict[int, PlaneCores]",
    ) -> None:
        self._env = env
        self._plane = plane
        self._machine = machine
        self._weight = weight
        self._working = working
        self._pieces: dict[Job, int] = {}
        self._jobs: dict[int, Job] = {}

    def used_core_seconds(self) -> float:
        """Core seconds that all on the machine has used until now: requests, start-ups and neighbours."""
        return self._plane.used_core_seconds(self._machine)

    def submit(self, cpu_seconds: float, work: str = "compute", *, after: Job | None = None) -> Job:
        """Begin `cpu_seconds` of single-threaded work; the returned event triggers when it is done.

        `work` and `after` make no difference here: cores that are shared with requests know one kind of work.
        """
        job = Job.of(self._env, cpu_seconds, work)
        if not job.triggered:
            piece = self._plane.begin_work(self._machine, cpu_seconds, self._weight)
            self._pieces[job], self._jobs[piece] = piece, job
            self._working[piece] = self
        return job

    def cancel(self, job: Job) -> None:
        """Take an unfinished job off the cores. A finished job is left alone."""
        piece = self._pieces.pop(job, None)
        if piece is not None:
            job.cancelled = True
            del self._jobs[piece], self._working[piece]
            self._plane.cancel_work(piece)

    def take_up(self, piece: int) -> None:
        """The data plane has done a piece of work that was begun here."""
        job = self._jobs.pop(piece)
        del self._pieces[job]
        self._plane.end_work(piece)
        job.succeed(self._env.now - job.began)
