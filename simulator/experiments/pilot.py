"""How much of a run is warm-up, where a scenario says `warm_up_seconds = "auto"`: found in runs that are not counted.

A few pilot replications are run from their first request on. MSER-5 judges the mean over them of the latency in each
second (`simulator.statistics.warm_up`). The pilots have random numbers of their own, so that what is counted did not
choose for itself what to count; and they are the same ones however many replications are counted, so that more
replications leave the first as they were.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.model import Model, new_tally
from simulator.scenario import Scenario
from simulator.statistics.warm_up import mser5
from simulator.traffic.plane import DataPlaneName

PILOTS = 5
"""Of each platform. One is too few: of a well-loaded service its latency wanders so long that the rule takes that for a
warm-up without end. Five are what Law asks for at least (Simulation Modeling and Analysis, 5th ed., 9.5.1, of Welch's
procedure, which judges the same mean)."""

FIRST_PILOT = 1_000_000_000
"""Their numbers as replications: beyond all that anybody counts."""

ADVICE = "lengthen `duration_seconds`, or set `warm_up_seconds` to a number"


class Pilot(NamedTuple):
    """One pilot replication on one platform."""

    scenario: Scenario
    profile: PlatformProfile
    seed: int
    replication: int
    data_plane: DataPlaneName


class FoundWarmUp(NamedTuple):
    """A scenario whose warm-up is a number, and in words how it was found; empty where it was a number before."""

    scenario: Scenario
    reason: str = ""


def is_wanted(scenario: Scenario) -> bool:
    """Whether the scenario leaves its warm-up to be found."""
    return scenario.warm_up_seconds == "auto"


def pilots_of(scenario: Scenario, profile: PlatformProfile, seed: int, data_plane: DataPlaneName) -> list[Pilot]:
    """The pilots of a platform."""
    whole = _from_the_beginning(scenario)
    return [Pilot(whole, profile, seed, FIRST_PILOT + number, data_plane) for number in range(PILOTS)]


def run_pilot(pilot: Pilot) -> NDArray[np.float64]:
    """Mean latency of the requests that arrived in each fine bin of the run, NaN where none was answered.

    Raises:
        SimulatorError: the scenario does not fit on its machines.
    """
    scenario, profile, seed, replication, data_plane = pilot
    model = Model(scenario, profile, seed=seed, replication=replication, data_plane=data_plane)
    return model.run().tally.answer_means


def settle(scenario: Scenario, ran: Sequence[tuple[str, Sequence[NDArray[np.float64]]]]) -> FoundWarmUp:
    """The scenario with a warm-up that is long enough on every platform, so that all are judged by the same requests.

    Args:
        scenario: leaves it to be found.
        ran: each platform, with what its pilots gave.

    Raises:
        SimulatorError: on one of them there are too few answers, or no end of the warm-up in the first half.
    """
    found = {name: _end_of(scenario, name, pilots) for name, pilots in ran}
    longest = max(found.values())
    each = ", ".join(f"{name} {seconds:g} s" for name, seconds in found.items())
    reason = f"warm-up {longest:g} s, found by MSER-5 in {PILOTS} pilot replications"
    return FoundWarmUp(_with_warm_up(scenario, longest), reason if len(found) == 1 else f"{reason} of each: {each}")


def _end_of(scenario: Scenario, name: str, pilots: Sequence[NDArray[np.float64]]) -> float:
    """When the warm-up is over on a platform, at the beginning of a fine bin."""
    where = f'scenario {scenario.name} on {name}: `warm_up_seconds` is "auto", but'
    answered = np.array([~np.isnan(means) for means in pilots])
    kept = np.flatnonzero(answered.any(axis=0))
    series = np.nan_to_num(np.array(pilots))[:, kept].sum(axis=0) / answered[:, kept].sum(axis=0)
    try:
        warm_up = mser5(series)
    except SimulatorError as error:
        raise SimulatorError(f"{where} requests were answered in only {len(kept)} of its bins; {ADVICE}") from error
    edges = new_tally(_from_the_beginning(scenario)).edges
    if not warm_up.observations:
        return 0.0
    seconds = max(float(edges[kept[warm_up.observations]]), 0.0)
    if not warm_up.trustworthy or seconds > scenario.duration_seconds / 2:
        raise SimulatorError(
            f"{where} MSER-5 finds no end of the warm-up in the first half of {scenario.duration_seconds:g} s: latency "
            f"still drifts, as where the load changes or is more than can be served; {ADVICE}"
        )
    return seconds


def _from_the_beginning(scenario: Scenario) -> Scenario:
    return _with_warm_up(scenario, 0.0)


def _with_warm_up(scenario: Scenario, seconds: float) -> Scenario:
    changes: dict[str, Any] = {"warm_up_seconds": seconds}
    return scenario.model_copy(update=changes)
