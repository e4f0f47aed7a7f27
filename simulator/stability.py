"""Whether a service can keep up with what is asked of it, before anything is simulated.

By the mean alone: work that arrives, against work that can be done. What a request costs a platform is a factor on it.
Source: any book on queues; a system with a load of 1 or more has no steady state (Harchol-Balter, Performance Modeling
and Design of Computer Systems, 2013, 2.2).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.scenario import Scenario

_MOMENTS = 10_001


@dataclass(frozen=True)
class Load:
    """What arrives, and what can be done.

    Attributes:
        offered_cores: work that arrives, seconds of one core in a second, on average over the scenario.
        peak_cores: the same at its highest.
        most_instances: that the autoscaler may ask for and the machines have cores for.
        most_cores: work that those can do, seconds of one core in a second.
        closed: whether those who ask wait for their answer first, so that no queue outgrows their number.
    """

    offered_cores: float
    peak_cores: float
    most_instances: int
    most_cores: float
    closed: bool = False

    @property
    def has_steady_state(self) -> bool:
        """Whether queues stay finite however long it lasts."""
        return self.closed or self.offered_cores < self.most_cores

    def explain(self) -> str:
        """In a sentence: whether there is a steady state, and if not, why and what to do."""
        instances = f"{self.most_instances} instance{'s' if self.most_instances > 1 else ''}"
        capacity = f"{instances} can do at most {self.most_cores:.4g}"
        if self.closed:
            return f"a closed loop always has a steady state; {capacity} seconds of work in a second"
        if not self.has_steady_state:
            return (
                f"no steady state: {self.offered_cores:.4g} seconds of work arrive in a second and {capacity}, so "
                "queues grow for as long as it lasts, or until they are full and turn requests away; lower the rate, "
                "or allow more instances or workers"
            )
        load = f"load {self.offered_cores / self.most_cores:.2g} of what {instances} can do"
        if self.peak_cores >= self.most_cores:
            return (
                f"{load}; at its peak {self.peak_cores:.4g} seconds of work arrive in a second, more than they can do"
            )
        return load


def load_of(scenario: Scenario, cpu_factor: float = 1.0, added_seconds: float = 0.0) -> Load:
    """The load of a scenario.

    Args:
        scenario: what is asked.
        cpu_factor: what a platform multiplies the work of a request by; 1 is a plain process.
        added_seconds: for how long a request holds its worker besides, see `simulator.model.inputs.io_seconds`.
    """
    arrivals = scenario.arrivals
    work = cpu_factor * scenario.demand_mean + added_seconds
    mean_rate = arrivals.expected(scenario.duration_seconds) / scenario.duration_seconds
    moments = np.linspace(0.0, scenario.duration_seconds, _MOMENTS)
    peak_rate = max(mean_rate, float(np.max(arrivals.rate(moments))))
    machines = scenario.machines
    most = min(_asked_for(scenario.autoscaler), _room(scenario))
    cores = float(most * _cores_of_one(scenario))
    if machines.cores == "shared":
        cores = min(cores, float(_most_machines(scenario) * machines.spec.cores))
    return Load(
        offered_cores=mean_rate * work,
        peak_cores=peak_rate * work,
        most_instances=most,
        most_cores=cores,
        closed=arrivals.kind == "closed",
    )


def _asked_for(autoscaler: Any) -> int:
    """The most instances that an autoscaler ever wants."""
    for key in ("max_instances", "instances"):
        if hasattr(autoscaler, key):
            return int(getattr(autoscaler, key))
    return max(int(count) for _, count in autoscaler.times)


def _room(scenario: Scenario) -> int:
    """The instances for which all machines together have cores."""
    return _most_machines(scenario) * math.floor(scenario.machines.spec.cores / scenario.placed_cores + 1e-9)


def _most_machines(scenario: Scenario) -> int:
    """The machines that there ever are at once."""
    adds = scenario.machine_autoscaler
    return scenario.machines.count if adds is None else max(adds.max_machines, scenario.machines.count)


def _cores_of_one(scenario: Scenario) -> float:
    """The most cores on which one instance can work."""
    application = scenario.application
    if scenario.machines.cores == "shared" and application.cpu_limit is not None:
        return min(float(application.workers), application.cpu_limit)
    return float(application.workers)
