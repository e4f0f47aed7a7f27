"""What one run alone can say about chance: the interval of its mean latency by batch means.

It says how near the mean of this run is to that of one without end. That is asked only where nothing changes while it
runs, so that there is one mean to be near to, and believed only where the batches pass as independent.
"""

import numpy as np

from simulator.errors import SimulatorError
from simulator.model import RunRecord
from simulator.scenario import Scenario
from simulator.statistics.batch_means import batch_means


def mean_half_width(record: RunRecord) -> float | None:
    """Half the 95 % interval of `mean_seconds` within a run, or None where it cannot be told honestly.

    The mean latency is a ratio: the latencies of all seconds over the requests of all seconds, of which a busy second
    has more. So the batches are of what each second's latencies exceed the mean by, summed over its requests; and their
    interval is divided by the requests of a second. Source of the ratio's variance: Cochran, Sampling Techniques (3rd
    ed., 1977), section 2.11.

    Args:
        record: of the run.
    """
    scenario, counts, tally = record.scenario, record.counts, record.tally
    # Every request was answered: then those of a second are those that arrived in it.
    if not _changes_nothing(scenario) or counts.completed != counts.arrived:
        return None
    edges = tally.edges
    first = int(np.searchsorted(edges, scenario.counted_from_seconds - 1e-9))
    last = int(np.searchsorted(edges, scenario.duration_seconds + 1e-9, side="right")) - 1
    requests = tally.arrived_in[first:last].astype(np.float64)
    if not requests.any():
        return None
    seconds = np.nan_to_num(tally.answer_means[first:last]) * requests
    try:
        found = batch_means(seconds - requests * (seconds.sum() / requests.sum()))
    except SimulatorError:  # too short for ten batches
        return None
    return float(found.interval.half_width / requests.mean()) if found.trustworthy else None


def _changes_nothing(scenario: Scenario) -> bool:
    """Whether all that the scenario sets stays as it is for the whole run, so that there can be a steady state."""
    machines, working_set = scenario.machines, scenario.application.working_set
    return (
        scenario.arrivals.kind in ("poisson", "closed")
        and scenario.autoscaler.kind == "fixed"
        and scenario.machine_autoscaler is None
        and not scenario.faults
        and not working_set.mib_per_hour
        and not any(each.from_seconds or each.until_seconds is not None for each in machines.neighbours)
    )
