"""The points of a sweep as scenarios and profiles: what each point changes, and the warm-ups that are to be found."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.experiments.batches import run_tasks
from simulator.experiments.keys import check_key, with_keys
from simulator.experiments.pilot import FoundWarmUp, is_wanted, pilots_of, settle
from simulator.experiments.processes import count_processes
from simulator.experiments.replications import Progress
from simulator.scenario import Scenario
from simulator.traffic.plane import DataPlaneName

Place = tuple[int, str]
"""The number of a point and the name of a platform."""

Varied = tuple[FoundWarmUp, PlatformProfile]
"""What one point changes: the scenario and a profile."""

PLATFORM = "platform."
"""What the keys of a platform's profile begin with, `platform.overhead.cpu_factor`; all others are the scenario's."""


def check(key: str) -> None:
    """Refuse a key that neither a scenario nor a profile has.

    Raises:
        SimulatorError: there is no such key; the nearest one is named.
    """
    if key.startswith(PLATFORM):
        check_key(PlatformProfile, key.removeprefix(PLATFORM), f"sweep over the platform's key in `{key}`")
    else:
        check_key(Scenario, key, "sweep")


def vary(scenario: Scenario, profile: PlatformProfile, point: Mapping[str, Any], number: int) -> Varied | str:
    """The scenario and the profile of a point, or why there is none."""
    of_platform = {key.removeprefix(PLATFORM): value for key, value in point.items() if key.startswith(PLATFORM)}
    of_scenario = {key: value for key, value in point.items() if not key.startswith(PLATFORM)}
    try:
        return (
            FoundWarmUp(with_keys(scenario, of_scenario, place_of(number, point))),
            with_keys(profile, of_platform, f"{place_of(number, point)} on {profile.name}"),
        )
    except SimulatorError as refusal:
        return str(refusal)


def check_that_some_are_possible(cells: Mapping[Place, Varied | str]) -> None:
    """Refuse a sweep of which nothing can be simulated.

    Raises:
        SimulatorError: every cell is refused.
    """
    if all(isinstance(varied, str) for varied in cells.values()):
        raise SimulatorError(f"no point of the sweep is possible; the first: {next(iter(cells.values()))}")


def find_warm_ups(
    cells: Mapping[Place, Varied | str],
    points: Sequence[Mapping[str, Any]],
    seed: int,
    data_plane: DataPlaneName,
    workers: int,
    dask: str | None,
    progress: Progress | None,
) -> tuple[dict[Place, Varied | str], int]:
    """The cells with a warm-up that is a number, the same for all platforms of a point; and how many pilots that took.

    Pilots are not stored: a sweep that goes on finds the same again.
    """
    jobs = [
        (place, pilot)
        for place, varied in cells.items()
        if not isinstance(varied, str) and is_wanted(varied[0].scenario)
        for pilot in pilots_of(varied[0].scenario, varied[1], seed, data_plane)
    ]
    settled = dict(cells)
    if not jobs:
        return settled, 0
    ran: dict[int, Any] = {}
    for group in run_tasks([pilot for _, pilot in jobs], count_processes(workers, len(jobs)), dask):
        ran |= dict(group)
        if progress is not None:
            progress(len(ran), len(jobs))
    means: dict[int, dict[str, list[NDArray[np.float64]]]] = {}
    for index, ((number, name), _) in enumerate(jobs):
        if isinstance(ran[index], str):
            settled[number, name] = f"{place_of(number, points[number])} on {name}: {ran[index]}"
        else:
            means.setdefault(number, {}).setdefault(name, []).append(ran[index])
    for number, on_platforms in means.items():
        possible = {name: cells[number, name] for name in on_platforms if not isinstance(settled[number, name], str)}
        settled |= {(number, name): each for name, each in _settle(possible, on_platforms, number, points).items()}
    return settled, len(jobs)


def _settle(
    possible: Mapping[str, Varied | str],
    means: Mapping[str, Sequence[NDArray[np.float64]]],
    number: int,
    points: Sequence[Mapping[str, Any]],
) -> dict[str, Varied | str]:
    """Each platform of a point with the warm-up that is long enough for all of them, or why there is none."""
    varied = {name: each for name, each in possible.items() if not isinstance(each, str)}
    if not varied:
        return {}
    scenario = next(iter(varied.values()))[0].scenario
    try:
        found = settle(scenario, [(name, means[name]) for name in varied])
    except SimulatorError as refusal:
        return dict.fromkeys(varied, f"{place_of(number, points[number])}: {refusal}")
    return {name: (found, profile) for name, (_, profile) in varied.items()}


def place_of(number: int, point: Mapping[str, Any]) -> str:
    """A point for a message: its number and its values."""
    return f"point {number} ({', '.join(f'{key}={as_text(value)}' for key, value in point.items())})"


def as_text(value: Any) -> Any:
    """A value as a cell of a table has it: a table or a list is JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value
