"""What one replication leaves behind."""

from dataclasses import dataclass, field

from simulator.control.autoscaler import Decision
from simulator.control.blast_radius import BlastRadius, Recovery
from simulator.control.machines import MachineDecision
from simulator.datacenter.costs import Consumption
from simulator.datacenter.instance import Instance
from simulator.scenario import Scenario
from simulator.traffic.plane import Counts
from simulator.traffic.tally import Tally


@dataclass(frozen=True)
class FaultFelt:
    """One fault: what it took, and how long until as many instances were ready again.

    Attributes:
        blast: what it took.
        recovery: of the instances.
    """

    blast: BlastRadius
    recovery: Recovery


@dataclass(frozen=True)
class RunRecord:
    """Everything that one replication left behind.

    Attributes:
        scenario: what was asked.
        platform: name of the profile.
        replication: which.
        counts: requests, at the end.
        in_flight: requests that were waiting or in service when the last had arrived; they were still served.
        tally: what became of the requests, added up.
        instances: every instance that ever was, with its history.
        decisions: all of the autoscaler's, in order.
        machine_decisions: all of the machine autoscaler's that changed something, in order.
        machines: (from, until) of each machine in seconds; inf for one that was there at the end.
        faults: all that came, in order.
        consumption: what the run used from the end of the warm-up on.
        knows_energy: whether the machines' power was given; without it, no energy is counted.
    """

    scenario: Scenario
    platform: str
    replication: int
    counts: Counts
    in_flight: int
    tally: Tally
    instances: tuple[Instance, ...]
    decisions: tuple[Decision, ...]
    machine_decisions: tuple[MachineDecision, ...] = ()
    machines: tuple[tuple[float, float], ...] = ()
    faults: tuple[FaultFelt, ...] = ()
    consumption: Consumption = field(default_factory=Consumption)
    knows_energy: bool = False
