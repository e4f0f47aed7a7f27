"""One scenario at many points of a space of its keys, on several platforms that all meet the same requests."""

import csv
import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from simulator.datacenter.platforms import PlatformProfile
from simulator.datafiles import named_file
from simulator.errors import SimulatorError
from simulator.experiments.batches import run_tasks
from simulator.experiments.design import DesignName, Range, draw_points, read_axis
from simulator.experiments.points import (
    Varied,
    as_text,
    check,
    check_that_some_are_possible,
    find_warm_ups,
    place_of,
    vary,
)
from simulator.experiments.processes import count_processes
from simulator.experiments.replications import (
    Progress,
    Task,
    check_seed,
    count_replications,
    gather,
    read_profiles,
    shifted,
)
from simulator.experiments.store import Outcome, SweepStore, Unit
from simulator.files import write_text
from simulator.fingerprint import fingerprint, model_version
from simulator.metrics import UNITS
from simulator.records import StrictModel, read_record
from simulator.results import Comparison, Replication, Result, compare_results, frame_of
from simulator.scenario import Scenario
from simulator.traffic.plane import DataPlaneName

FORMAT = 1
"""Of the JSON, so that a later version can tell."""


@dataclass(frozen=True)
class Cell:
    """One point on one platform.

    Attributes:
        point: its number, from 0.
        platform: name of the profile.
        result: what the simulation gave, or None if it was refused.
        refusal: why this combination is impossible, in one line, or None.
    """

    point: int
    platform: str
    result: Result | None
    refusal: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A scenario at many points.

    Every point and platform meets the same random numbers (common random numbers), so that a difference between two is
    not chance that happened to only one of them.

    Attributes:
        scenario: name of the base scenario.
        seed: root of all random numbers.
        design: `grid` or `latin-hypercube`.
        replications: of each point on each platform.
        keys: dotted, that differ from point to point.
        platforms: in the order that was asked for.
        points: the value of each key.
        cells: of each point, one a platform.
    """

    scenario: str
    seed: int
    design: str
    replications: int
    keys: tuple[str, ...]
    platforms: tuple[str, ...]
    points: tuple[dict[str, Any], ...]
    cells: tuple[Cell, ...]

    @property
    def refused(self) -> tuple[Cell, ...]:
        """The cells whose combination is impossible."""
        return tuple(cell for cell in self.cells if cell.refusal is not None)

    def result(self, point: int, platform: str) -> Result:
        """What the simulation gave at a point on a platform.

        Raises:
            SimulatorError: there is no such cell, or it was refused (the message says why).
        """
        for cell in self.cells:
            if (cell.point, cell.platform) == (point, platform):
                if cell.result is None:
                    raise SimulatorError(str(cell.refusal))
                return cell.result
        raise SimulatorError(f"sweep of {self.scenario}: no point {point} on {platform}")

    def comparison(self, point: int) -> Comparison:
        """The platforms that were not refused at a point, with their paired differences."""
        results = {cell.platform: cell.result for cell in self.cells if cell.point == point and cell.result is not None}
        return Comparison(self.scenario, self.seed, results, compare_results(results))

    def rows(self) -> list[dict[str, Any]]:
        """One record a point, platform and metric: the keys, then platform, metric, value, low, high, unit, kind."""
        return [
            {
                **self.points[cell.point],
                "platform": cell.platform,
                "metric": metric.name,
                "value": metric.value,
                "low": metric.low,
                "high": metric.high,
                "unit": metric.unit,
                "kind": metric.kind,
            }
            for cell in self.cells
            if cell.result is not None
            for metric in (cell.result.metrics[name] for name in UNITS if name in cell.result.metrics)
        ]

    def to_frame(self) -> Any:
        """`rows()` as a pandas frame where pandas is installed, else as they are."""
        return frame_of(self.rows())

    def to_csv(self) -> str:
        """`rows()` as CSV with a header; a value that is a table is JSON, and a missing end of an interval is empty.

        Refused points have no figures and so no row: see `refused`.
        """
        text = io.StringIO()
        columns = (*self.keys, "platform", "metric", "value", "low", "high", "unit", "kind")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows():
            writer.writerow({name: as_text(value) for name, value in row.items()})
        return text.getvalue()

    def to_json(self) -> str:
        """As JSON, the same for the same sweep."""
        tree = {"format": FORMAT, "what": "sweep", **asdict(self)}
        return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write `to_json()` to `path`."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SimulatorError: unreadable, or not a saved sweep.
        """
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if (tree.get("what"), tree.get("format")) != ("sweep", FORMAT):
                raise SimulatorError(f"{path}: not a sweep of format {FORMAT}; simulate it again")
            return cls.from_dict(tree)
        except OSError as error:
            raise SimulatorError(f"{path}: {error.strerror}; name a sweep that was saved before") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SimulatorError(f"{path}: not a saved sweep: {error}; simulate it again") from error

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Self:
        """Back from the object that `to_json` writes."""
        keys = tuple(tree["keys"])
        return cls(
            tree["scenario"],
            tree["seed"],
            tree["design"],
            tree["replications"],
            keys,
            tuple(tree["platforms"]),
            # JSON has its keys sorted; the sweep's own order is that of `keys`.
            tuple({key: point[key] for key in keys} for point in tree["points"]),
            tuple(
                Cell(
                    cell["point"],
                    cell["platform"],
                    None if cell["result"] is None else Result.from_dict(cell["result"]),
                    cell["refusal"],
                )
                for cell in tree["cells"]
            ),
        )


class SweepPlan(StrictModel):
    """`[sweep]`: a sweep as a person writes it in a TOML file.

    Attributes:
        scenario: the base: one that ships, or a path (from the file's own directory).
        platforms: profiles that ship, or paths.
        over: key to its values, `[1, 2, 3]` or `{ low = 1, high = 8, integer = true, logarithmic = false }`.
        design: `grid` or `latin-hypercube`.
        points: see `simulator.experiments.design.draw_points`.
        seed: root of all random numbers.
        replications: of each point on each platform. Default: as the scenario says.
    """

    scenario: str
    platforms: Annotated[tuple[str, ...], Field(min_length=1)] = ("container",)
    over: Annotated[dict[str, Any], Field(min_length=1)]
    design: DesignName = "grid"
    points: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    replications: Annotated[int, Field(ge=1)] | None = None

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read the `[sweep]` of a file.

        Raises:
            SimulatorError: unreadable, not TOML, an unknown key or a bad value.
        """
        plan = read_record(_SweepFile, path).sweep
        beside = {name: str(path.parent / name) for name in (plan.scenario, *plan.platforms)}
        near = {name: there if Path(there).is_file() else name for name, there in beside.items()}
        tree = plan.model_dump(exclude_unset=True) | {
            "scenario": near[plan.scenario],
            "platforms": tuple(near[name] for name in plan.platforms),
            "over": _flat(plan.over),
        }
        return cls.model_validate(tree)

    def run(
        self,
        *,
        workers: int = 1,
        dask: str | None = None,
        store: Path | str | None = None,
        resume: bool = True,
        progress: Progress | None = None,
    ) -> Sweep:
        """Carry it out; arguments and errors as `sweep` has them."""
        return sweep(
            Scenario.from_toml(self.scenario),
            self.platforms,
            over=self.over,
            design=self.design,
            points=self.points,
            seed=self.seed,
            replications=self.replications,
            workers=workers,
            dask=dask,
            store=store,
            resume=resume,
            progress=progress,
        )


class _SweepFile(StrictModel):
    sweep: SweepPlan


def is_sweep_file(name_or_path: str) -> bool:
    """Whether this is a file with a `[sweep]`, and not a scenario."""
    try:
        with named_file("scenarios", name_or_path).open("rb") as file:
            return "sweep" in tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False  # whoever reads it as a scenario says what is wrong


def sweep(
    scenario: Scenario,
    platforms: str | PlatformProfile | Sequence[str | PlatformProfile] = "container",
    *,
    over: Mapping[str, Sequence[Any] | Mapping[str, Any] | Range],
    design: DesignName = "grid",
    points: int | None = None,
    seed: int = 0,
    replications: int | None = None,
    workers: int = 1,
    dask: str | None = None,
    store: Path | str | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    data_plane: DataPlaneName = "auto",
) -> Sweep:
    """Simulate `scenario` at many points, each on every platform.

    A key that there is not is refused before anything runs, since it would be wrong at every point. A combination of
    values that is impossible is only that point's refusal, since the others are worth having, and where the possible
    ends is something a sweep may be meant to find.

    Args:
        scenario: the base; each point changes some of its keys.
        platforms: as in `simulator.compare`.
        over: dotted key to its values: a list (`[10, 20]`, of numbers, names or whole tables), or a range as a
            `Range` or `{"low": 1, "high": 8, "integer": True}`. `arrivals.steps.1.1` is a place in a list,
            `platform.overhead.cpu_factor` a key of every platform's profile.
        design: `grid` or `latin-hypercube`, see `simulator.experiments.design.draw_points`.
        points: of a Latin hypercube, how many; of a grid, into how many values a range is cut.
        seed: root of all random numbers, the same for every point and platform.
        replications: of each point on each platform. Default: as the base scenario says.
        workers: processes on this machine; 1 stays in this one, -1 takes one a core.
        dask: address of a Dask scheduler whose workers run it instead, such as `tcp://10.0.0.1:8786`.
        store: a directory that keeps what is finished, so that a sweep that was interrupted can go on.
        resume: whether to go on with what the store has; otherwise a store that has any is refused.
        progress: called as replications end.
        data_plane: how requests are run, see `simulator.model.Model`.

    Raises:
        SimulatorError: an unknown key, no possible point, no such platform, a store of another sweep, or no cluster.
    """
    profiles = read_profiles([platforms] if isinstance(platforms, str | PlatformProfile) else platforms, "sweep")
    check_seed(seed)
    count = count_replications(scenario, replications)
    axes = {key: read_axis(values, key) for key, values in over.items()}
    for key in axes:
        check(key)
    drawn = draw_points(axes, design, points, seed)
    cells = {
        (number, profile.name): vary(scenario, profile, point, number)
        for number, point in enumerate(drawn)
        for profile in profiles
    }
    check_that_some_are_possible(cells)
    identity = {
        "scenario": f"{scenario.name} {fingerprint(scenario)}",
        "platforms": f"{', '.join(profile.name for profile in profiles)} {fingerprint(*profiles)}",
        "points": f"{', '.join(axes)} {fingerprint(drawn)}",
        "seed": str(seed),
        "version": model_version(),
    }
    with SweepStore(Path(store), identity, resume=resume) if store is not None else nullcontext() as kept:
        cells, pilots = find_warm_ups(cells, drawn, seed, data_plane, workers, dask, progress)
        check_that_some_are_possible(cells)
        tasks = {
            Unit(number, name, replication): Task(
                varied[0].scenario, varied[1], seed, replication, data_plane, with_episode=False
            )
            for (number, name), varied in cells.items()
            if not isinstance(varied, str)
            for replication in range(count)
        }
        finished = _run(tasks, workers, dask, kept, shifted(progress, pilots))
    return Sweep(
        scenario.name,
        seed,
        design,
        count,
        tuple(axes),
        tuple(profile.name for profile in profiles),
        drawn,
        tuple(
            _cell(number, name, varied, [finished.get(Unit(number, name, each)) for each in range(count)], seed, drawn)
            for (number, name), varied in cells.items()
        ),
    )


def _run(
    tasks: Mapping[Unit, Task], workers: int, dask: str | None, store: SweepStore | None, progress: Progress | None
) -> dict[Unit, Outcome]:
    finished = {} if store is None else {unit: found for unit, found in store.finished.items() if unit in tasks}
    left = [unit for unit in tasks if unit not in finished]
    if progress is not None and finished:
        progress(len(finished), len(tasks))
    processes = count_processes(workers, max(len(left), 1))
    for group in run_tasks([tasks[unit] for unit in left], processes, dask) if left else ():
        new = {left[place]: outcome for place, outcome in group if isinstance(outcome, Replication | str)}
        if store is not None:
            store.add(new.items())
        finished |= new
        if progress is not None:
            progress(len(finished), len(tasks))
    return finished


def _cell(
    number: int,
    name: str,
    varied: Varied | str,
    outcomes: Sequence[Outcome | None],
    seed: int,
    points: Sequence[Mapping[str, Any]],
) -> Cell:
    if isinstance(varied, str):
        return Cell(number, name, None, varied)
    for outcome in outcomes:
        if isinstance(outcome, str):
            return Cell(number, name, None, f"{place_of(number, points[number])} on {name}: {outcome}")
    found, profile = varied
    replications = [outcome for outcome in outcomes if outcome is not None and not isinstance(outcome, str)]
    return Cell(number, name, gather(found, profile, seed, replications))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to values, however the tables were nested: TOML reads `arrivals.rate = […]` as a table in a table."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and not {"low", "high"} & value.keys():
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
