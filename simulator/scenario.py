"""What is asked: the scenario, a TOML file that a person writes and edits, as strict records.

An unknown key is refused with the nearest known one, an impossible value with the key that holds it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from simulator.control.faults import Fault
from simulator.control.health import HealthCheckSettings
from simulator.control.machines import MachineAutoscalerSettings
from simulator.control.policies import Autoscalers
from simulator.datacenter.costs import CostSettings
from simulator.datacenter.failures import StartFailures
from simulator.datacenter.images import ImageSpec, RegistrySettings
from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.memory import WorkingSet
from simulator.datacenter.neighbours import Neighbour
from simulator.datacenter.warmth import PoolSettings, Warmth
from simulator.datafiles import named_file
from simulator.errors import SimulatorError
from simulator.record_docs import described_schema
from simulator.records import NonNegative, Positive, StrictModel, read_record
from simulator.traffic.arrivals import Arrivals, ClosedLoop
from simulator.traffic.balancing.settings import Balancer, PlainBalancer
from simulator.traffic.clients import ClientSettings
from simulator.traffic.demands import Demand

MIB = 2**20
MOST_REQUESTS = 2_000_000_000
"""A replication that expects more is refused: it would take the better part of an hour."""
MOST_FAULTS = 100_000
"""Of one kind, on one thing."""


class Machines(StrictModel):
    """`[machines]`: how many of what, and how instances are placed on them.

    Attributes:
        count: machines of the same kind, at the beginning.
        spec: what one has.
        zones: where they stand, in turns: the first machine in the first zone, and so on. Default: all in one.
        placement: `first-fit` fills one after the other; `best-fit` takes the one with the fewest free cores that has
            room, `worst-fit` (or `spread`) the one with the most; `zone-spread` first looks for the zone with the
            fewest instances.
        cores: `dedicated`: each worker has a core of its own, so that no instance feels another. `shared`: a machine's
            instances, start-ups and neighbours share its cores by weight and limit, as Linux does it.
        neighbours: who else runs there, where cores are shared.
    """

    count: Annotated[int, Field(ge=1, le=10_000)]
    spec: MachineSpec = MachineSpec()
    zones: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    placement: Literal["first-fit", "best-fit", "worst-fit", "spread", "zone-spread"] = "spread"
    cores: Literal["dedicated", "shared"] = "dedicated"
    neighbours: tuple[Neighbour, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.neighbours and self.cores != "shared":
            raise ValueError('`neighbours` share a machine\'s cores: set `cores` to "shared", or leave them out')
        if self.cores == "shared" and (self.spec.speed_when_busy or self.spec.time_slice_seconds):
            raise ValueError(
                '`spec.speed_when_busy` and `spec.time_slice_seconds` are for `cores` = "dedicated": leave them out '
                "where cores are shared with requests"
            )
        names = {f"machine-{number}" for number in range(self.count)}
        for neighbour in self.neighbours:
            if neighbour.machine is not None and neighbour.machine not in names:
                raise ValueError(
                    f"`neighbours`: there is no {neighbour.machine}; the machines are machine-0 to "
                    f"machine-{self.count - 1}"
                )
        return self

    def zone_of(self, number: int) -> str:
        """Where the machine of this number stands."""
        return self.zones[number % len(self.zones)] if self.zones else self.spec.zone


class Application(StrictModel):
    """`[application]`: what runs in every instance, the same on each platform.

    Attributes:
        demand: distribution of a request's work, seconds of one core.
        workers: requests that one instance serves at the same time, each on a core of its own.
        queue_limit: how many more may wait at an instance; the next is rejected.
        discipline: `first-come`: a worker takes the request that has waited longest; `sharing`: all requests in the
            instance are worked on at once, and share its workers' cores.
        ready_seconds: from the start of the program, which ends the platform's start-up, until it takes requests.
        cpu_cores: reserved for one instance (Kubernetes: the CPU request); the autoscaler's utilisation is relative to
            it and exceeds 100 % where more workers than that are busy. Default: one a worker.
        cpu_weight: of one instance, where machines' cores are shared (cgroup v2: `cpu.weight` over 100).
        cpu_limit: the most cores that one instance gets, where they are shared (Kubernetes: the CPU limit).
        io_operations: of a disk, that a request waits for, one after the other. Each takes the machine's
            `disk_operation_seconds` and what the platform adds; the worker is busy meanwhile.
        memory_mib: private memory of the program in one instance.
        memory_limit_mib: beyond it the program is killed, in its container (Kubernetes: the memory limit).
        oom_score_adj: -1000 (never killed) to 1000, where a machine runs out of memory.
        working_set: how the program's memory changes while it runs.
        image: what an instance is started from; only a start that is colder than `memory-warm` needs it.
    """

    demand: Demand
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] = 100
    discipline: Literal["first-come", "sharing"] = "first-come"
    ready_seconds: NonNegative = 0.0
    cpu_cores: Positive | None = None
    cpu_weight: Positive = 1.0
    cpu_limit: Positive | None = None
    io_operations: NonNegative = 0.0
    memory_mib: NonNegative = 64.0
    memory_limit_mib: Positive | None = None
    oom_score_adj: Annotated[int, Field(ge=-1000, le=1000)] = 0
    working_set: WorkingSet = WorkingSet()
    image: ImageSpec | None = None

    @property
    def reserved_cores(self) -> float:
        """Cores reserved for one instance."""
        return float(self.workers) if self.cpu_cores is None else self.cpu_cores

    @property
    def memory_bytes(self) -> float:
        """Private memory of the program in one instance."""
        return self.memory_mib * MIB


class ServiceLevelObjective(StrictModel):
    """`[slo]`: at least `quantile` of all requests are answered within `latency_seconds`."""

    latency_seconds: Positive
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.99


class Scenario(StrictModel):
    """Everything that a simulation is asked, except the platform, the seed and how it is run.

    Attributes:
        name: for titles and records.
        about: what a reader should know.
        duration_seconds: how long requests arrive; those in flight then are still served.
        warm_up_seconds: requests that arrive before this moment are not counted; `auto` finds the moment in a
            replication of its own, by MSER-5.
        machines, application, arrivals, autoscaler, slo: see their records.
        balancer: which instance gets a request.
        client: time-outs and retries.
        health_check: how late the balancer learns of what comes and goes; None: at once.
        draining_seconds: how long an instance that is taken down may finish its requests before they are cut off;
            without a figure, until the last.
        held_requests: how many may wait while there is no instance at all (scaled to zero); more are rejected.
        warmth: from where start-ups begin: `cold` pulls the image, `disk-warm` reads it, `memory-warm` has it in
            memory, `snapshot` wakes an instance that was saved (where the platform can).
        start_variation: coefficient of variation of start-up times about the platform's, lognormal, median 1; 0: all
            starts take as long.
        start_failures: how often a start fails, and what follows.
        pool: instances that have started and wait to be handed out.
        registry: from where a cold start pulls.
        machine_autoscaler: adds and removes machines; None: there are always `machines.count`.
        faults: what goes wrong, and when.
        costs: prices; None: what a run costs is not asked.
        replications: independent repetitions, each with its own random numbers.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    about: str = ""
    duration_seconds: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
    warm_up_seconds: NonNegative | Literal["auto"] = 0.0
    replications: Annotated[int, Field(ge=1, le=10_000)] = 10
    machines: Machines
    application: Application
    arrivals: Arrivals
    balancer: Balancer = PlainBalancer(kind="least-connections")
    client: ClientSettings = ClientSettings()
    health_check: HealthCheckSettings | None = None
    draining_seconds: NonNegative | None = None
    held_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    warmth: Warmth = "memory-warm"
    start_variation: Annotated[float, Field(ge=0, le=10)] = 0.0
    start_failures: StartFailures = StartFailures()
    pool: PoolSettings = PoolSettings()
    registry: RegistrySettings = RegistrySettings()
    autoscaler: Autoscalers
    machine_autoscaler: MachineAutoscalerSettings | None = None
    faults: Annotated[tuple[Fault, ...], Field(max_length=1000)] = ()
    costs: CostSettings | None = None
    slo: ServiceLevelObjective

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.warm_up_seconds != "auto" and self.warm_up_seconds >= self.duration_seconds:
            raise ValueError(
                f"`warm_up_seconds` {self.warm_up_seconds:g} must be less than "
                f"`duration_seconds` {self.duration_seconds:g}, or nothing is counted"
            )
        expected = self.arrivals.expected(self.duration_seconds)
        if isinstance(self.arrivals, ClosedLoop):
            # Users wait for their answers, so that many only come if there is no wait at all.
            expected = self.arrivals.users * self.duration_seconds / (self.arrivals.think.mean + self.demand_mean)
        if expected > MOST_REQUESTS:
            raise ValueError(
                f"`arrivals` would be about {expected:.0f} requests in `duration_seconds` {self.duration_seconds:g}, "
                f"more than {MOST_REQUESTS}; lower the rate or the duration"
            )
        if self.placed_cores > self.machines.spec.cores:
            raise ValueError(
                f"`application` needs {self.placed_cores:g} cores (`cpu_cores`, and one a worker where cores are "
                f"dedicated), more than `machines.spec.cores` {self.machines.spec.cores}"
            )
        if self.warmth == "cold" and self.application.image is None:
            raise ValueError('`warmth` is "cold", which pulls an image: describe one in `application.image`')
        image, room = self.application.image, self.machines.spec.image_cache_mib
        if image is not None and room is not None and image.unpacked_mib > room:
            raise ValueError(
                f"`application.image` takes {image.unpacked_mib:g} MiB unpacked, more than "
                f"`machines.spec.image_cache_mib` {room:g}"
            )
        shared = self.machines.cores == "shared" or self.application.discipline == "sharing"
        if self.application.io_operations and shared:
            raise ValueError(
                "`application.io_operations` are waited for, not worked on: leave them out where cores are "
                "shared (`machines.cores`, `application.discipline`)"
            )
        self._faults_are_possible()
        return self

    def _faults_are_possible(self) -> None:
        names = {f"machine-{number}" for number in range(self.machines.count)}
        zones = set(self.machines.zones) or {self.machines.spec.zone}
        for fault in self.faults:
            mean = fault.mean_seconds_between
            if mean is not None and self.duration_seconds / (mean + fault.lasts_seconds) > MOST_FAULTS:
                raise ValueError(
                    f"`faults`: a {fault.kind} every {mean:g} s is more than {MOST_FAULTS} in `duration_seconds`; "
                    "raise `mean_seconds_between`"
                )
            if fault.kind == "slow-machine" and self.machines.cores != "shared":
                raise ValueError(
                    '`faults`: a slow-machine slows what shares the machine\'s cores: set `machines.cores` to "shared"'
                )
            if fault.kind == "registry-outage" and self.warmth != "cold":
                raise ValueError(
                    '`faults`: nobody would feel a registry-outage, for only a `warmth` of "cold" pulls images'
                )
            there = zones if fault.scope == "zone" else names
            # A machine that the autoscaler adds may have a higher number.
            if fault.named is not None and fault.named not in there and self.machine_autoscaler is None:
                raise ValueError(f"`faults`: there is no {fault.named}; there are {', '.join(sorted(there)[:5])}, …")

    @property
    def placed_cores(self) -> float:
        """Cores that a machine must have left for one more instance: those reserved.

        Where each worker has a core of its own, also at least one a worker: a machine never has more workers than
        cores.
        """
        application = self.application
        if self.machines.cores == "shared":
            return application.reserved_cores
        return max(application.reserved_cores, float(application.workers))

    @property
    def counted_from_seconds(self) -> float:
        """`warm_up_seconds` as a number.

        Raises:
            SimulatorError: it is still to be found.
        """
        if self.warm_up_seconds == "auto":
            raise SimulatorError(
                f'scenario {self.name}: `warm_up_seconds` is "auto", which `simulator.run` finds before it runs; '
                "give a number to whoever builds a model alone"
            )
        return self.warm_up_seconds

    @property
    def demand_mean(self) -> float:
        """Mean demand of a request, seconds of one core on bare metal."""
        return self.application.demand.mean

    @classmethod
    def from_toml(cls, name_or_path: str | Path) -> Self:
        """Read a scenario by the name of one that ships, or by its path.

        Raises:
            SimulatorError: no such file, not TOML, an unknown key (with the nearest known one) or an impossible value.
        """
        return read_record(cls, named_file("scenarios", str(name_or_path)))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of a scenario with what each key means, for editors."""
        return described_schema(cls)
