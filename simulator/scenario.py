"""What is asked: the scenario, a TOML file that a person writes and edits, as strict records.

An unknown key is refused with the nearest known one, an impossible value with the key that holds it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from simulator.control.policies import Autoscalers
from simulator.datacenter.machine import MachineSpec
from simulator.datafiles import named_file
from simulator.records import NonNegative, Positive, StrictModel, read_record
from simulator.traffic.arrivals import Arrivals, ClosedLoop
from simulator.traffic.balancing.settings import Balancer, PlainBalancer
from simulator.traffic.clients import ClientSettings
from simulator.traffic.demands import Demand

MIB = 2**20
MOST_REQUESTS = 2_000_000_000
"""A replication that expects more is refused: it would take the better part of an hour."""


class Machines(StrictModel):
    """`[machines]`: how many of what, and how instances are placed on them.

    Attributes:
        count: machines of the same kind.
        spec: what one has.
        placement: `first-fit` fills one after the other, `spread` takes the one with the most free cores.
    """

    count: Annotated[int, Field(ge=1, le=10_000)]
    spec: MachineSpec = MachineSpec()
    placement: Literal["first-fit", "spread"] = "spread"


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
        memory_mib: private memory of the program in one instance.
    """

    demand: Demand
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] = 100
    discipline: Literal["first-come", "sharing"] = "first-come"
    ready_seconds: NonNegative = 0.0
    cpu_cores: Positive | None = None
    memory_mib: NonNegative = 64.0

    @property
    def reserved_cores(self) -> float:
        """Cores reserved for one instance."""
        return float(self.workers) if self.cpu_cores is None else self.cpu_cores

    @property
    def placed_cores(self) -> float:
        """Cores that a machine must have left for one more instance: those reserved, and at least one a worker.

        The model gives each worker a core of its own, so a machine must never have more workers than cores.
        """
        return max(self.reserved_cores, float(self.workers))

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
        warm_up_seconds: requests that arrive before this moment are not counted.
        machines, application, arrivals, autoscaler, slo: see their records.
        balancer: which instance gets a request.
        client: time-outs and retries.
        draining_seconds: how long an instance that is taken down may finish its requests before they are cut off;
            without a figure, until the last.
        held_requests: how many may wait while there is no instance at all (scaled to zero); more are rejected.
        replications: independent repetitions, each with its own random numbers.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    about: str = ""
    duration_seconds: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
    warm_up_seconds: NonNegative = 0.0
    replications: Annotated[int, Field(ge=1, le=10_000)] = 10
    machines: Machines
    application: Application
    arrivals: Arrivals
    balancer: Balancer = PlainBalancer(kind="least-connections")
    client: ClientSettings = ClientSettings()
    draining_seconds: NonNegative | None = None
    held_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    autoscaler: Autoscalers
    slo: ServiceLevelObjective

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.warm_up_seconds >= self.duration_seconds:
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
        if self.application.placed_cores > self.machines.spec.cores:
            raise ValueError(
                f"`application` needs {self.application.placed_cores:g} cores (`cpu_cores`, and one a worker), "
                f"more than `machines.spec.cores` {self.machines.spec.cores}"
            )
        return self

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
        """The JSON Schema of a scenario, for editors."""
        return cls.model_json_schema()
