"""Simulate a scenario at many points of a space of its keys, on one platform or several that meet the same requests.

`onggi sweep steady --over arrivals.rate_per_second=10,20,30 --over application.workers=1..8 --platform container`
"""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from simulator.experiments import Sweep, SweepPlan
    from simulator.results import Metric

SHOWN = ("p99_seconds", "slo_violation_fraction", "mean_instances")
"""Metrics in the table, unless others are asked for."""

REFUSALS_SHOWN = 5


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="a scenario that ships, a TOML file, or a TOML file with a `[sweep]`"
    )
    parser.add_argument(
        "--platform",
        action="append",
        metavar="NAME,…",
        help="profiles that ship or TOML files, with commas between (default: container)",
    )
    parser.add_argument(
        "--over",
        action="append",
        default=[],
        type=_over,
        metavar="KEY=VALUES",
        help="a key and its values: 1,2,3 or a range 1..8 (of whole numbers), 0.5..2, log:0.1..10; once a key",
    )
    parser.add_argument(
        "--design", choices=("grid", "latin-hypercube"), help="every combination, or a sample (default: grid)"
    )
    parser.add_argument(
        "--points", type=int, metavar="N", help="of a Latin hypercube; of a grid, into how many values a range is cut"
    )
    parser.add_argument("--seed", type=int, help="root of all random numbers, the same at each point (default: 0)")
    parser.add_argument("--replications", type=int, metavar="N", help="of each point (default: as the scenario says)")
    parser.add_argument("--workers", type=int, default=-1, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--dask", metavar="tcp://HOST:PORT", help="let the workers of this Dask scheduler run it")
    parser.add_argument("--store", metavar="DIR", help="keep what is finished in DIR, so that it can be resumed")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the store")
    parser.add_argument("--metric", action="append", metavar="NAME", help=f"shown (default: {', '.join(SHOWN)})")
    parser.add_argument("--csv", metavar="FILE", help="write every figure as CSV to FILE, or to standard output with -")
    parser.add_argument("--json", metavar="FILE", help="write the sweep as JSON to FILE, or to standard output with -")


def run(arguments: Namespace) -> int:
    """Simulate, and show or write the sweep."""
    from classroom.progress import progress_bar
    from simulator.errors import SimulatorError
    from simulator.files import write_text

    if arguments.resume and arguments.store is None:
        raise SimulatorError("--resume: say which sweep goes on: `--store DIR`")
    if arguments.csv == arguments.json == "-":
        raise SimulatorError("--csv - and --json -: standard output can have one of them")
    plan = _plan(arguments)
    shown = _metrics(arguments.metric or SHOWN)
    done, count = 0, 0
    try:
        with progress_bar(f"sweeping {plan.scenario}") as bar:

            def progress(finished: int, total: int) -> None:
                nonlocal done, count
                done, count = finished, total
                bar(finished, total)

            swept = plan.run(
                workers=arguments.workers,
                dask=arguments.dask,
                store=arguments.store,
                resume=arguments.resume,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(f"onggi: {_how_to_resume(arguments.store, done, count)}", file=sys.stderr)
        raise
    for target, write in ((arguments.csv, swept.to_csv), (arguments.json, swept.to_json)):
        if target == "-":
            print(write(), end="")
        elif target:
            write_text(Path(target), write())
    if "-" in (arguments.csv, arguments.json):
        for line in _refusals(swept):
            print(f"onggi: {line}", file=sys.stderr)
    else:
        _show(swept, shown)
    return 0


def _plan(arguments: Namespace) -> "SweepPlan":
    """What is asked: the `[sweep]` of a file if that has one, and what the options change of it."""
    from simulator.datafiles import named_file
    from simulator.errors import SimulatorError
    from simulator.experiments import SweepPlan
    from simulator.experiments.sweeps import is_sweep_file
    from simulator.records import validate_record

    names = [name for part in arguments.platform or () for name in part.split(",")]
    asked: dict[str, Any] = {
        "platforms": names or None,
        "over": dict(arguments.over) or None,
        "design": arguments.design,
        "points": arguments.points,
        "seed": arguments.seed,
        "replications": arguments.replications,
    }
    twice = [key for index, (key, _) in enumerate(arguments.over) if key in dict(arguments.over[:index])]
    if twice:
        raise SimulatorError(f"--over {twice[0]}: given twice; put its values into one list, with commas between")
    changes = {name: value for name, value in asked.items() if value is not None}
    if is_sweep_file(arguments.scenario):
        tree = SweepPlan.from_toml(named_file("scenarios", arguments.scenario)).model_dump(exclude_unset=True)
    else:
        tree = {"scenario": arguments.scenario}
        if "over" not in changes:
            raise SimulatorError(
                "sweep over nothing: give `--over KEY=VALUES`, such as `--over application.workers=1..8`"
            )
    return validate_record(SweepPlan, tree | changes, "sweep")


def _metrics(names: Sequence[str]) -> Sequence[str]:
    from difflib import get_close_matches

    from simulator.errors import SimulatorError
    from simulator.metrics import UNITS

    for name in names:
        if name not in UNITS:
            near = get_close_matches(name, UNITS, n=1)
            raise SimulatorError(
                f"unknown metric `{name}`: " + (f"did you mean `{near[0]}`?" if near else f"one of {', '.join(UNITS)}")
            )
    return names


def _over(text: str) -> tuple[str, Any]:
    """`key=1,2,3` as the key and its values. A value is read as TOML, or is a name."""
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise ArgumentTypeError(f"`{text}`: give a key and its values, such as application.workers=1,2,4")
    return key.strip(), _range(values) or _list(values)


def _range(text: str) -> dict[str, Any] | None:
    """`1..8`, `0.5..2` or `log:1..1000`, or None if it is none."""
    logarithmic = text.startswith("log:")
    low, dots, high = text.removeprefix("log:").partition("..")
    if not dots:
        return None
    try:
        ends = float(low), float(high)
    except ValueError:
        return None
    whole = all(end.strip().lstrip("+-").isdecimal() for end in (low, high))
    return {"low": ends[0], "high": ends[1], "integer": whole, "logarithmic": logarithmic}


def _list(text: str) -> list[Any]:
    import tomllib

    try:
        values: list[Any] = tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return [_value(part.strip()) for part in text.split(",")]
    return values


def _value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a name, such as `round-robin`, that TOML would want in quotes


def _how_to_resume(store: str | None, done: int, count: int) -> str:
    """What to tell a person who pressed Ctrl-C."""
    import shlex

    if store is None:
        return f"{done} of {count} replications are lost; with `--store DIR` the sweep could be resumed"
    command = [*sys.argv[1:], *([] if "--resume" in sys.argv else ["--resume"])]
    return f"{done} of {count} replications are in {store}; go on with `{shlex.join(['onggi', *command])}`"


def _show(swept: "Sweep", shown: Sequence[str]) -> None:
    from rich.console import Console

    console = Console()
    certainty = (
        "one replication of each, which says nothing about chance. All figures are simulated."
        if swept.replications == 1
        else f"{swept.replications} replications of each. All figures are simulated, with their 95 % intervals."
    )
    console.print(
        f"[bold]{swept.scenario}[/bold], {len(swept.points)} points ({swept.design}), seed {swept.seed}, {certainty}",
        highlight=False,
    )
    console.print(_table(swept, shown))
    for line in (*_refusals(swept), *_warm_ups(swept), *_unstable(swept), *_verdicts(swept, shown[0])):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(swept: "Sweep", shown: Sequence[str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    # The key's last part is enough for a column, unless two keys share it.
    last = [key.rpartition(".")[2] for key in swept.keys]
    for key, name in zip(swept.keys, last, strict=True):
        table.add_column(
            name if last.count(name) == 1 and not name.isdecimal() else key, justify="right", overflow="fold"
        )
    table.add_column("platform")
    for name in shown:
        table.add_column(name, justify="right", overflow="fold")
    for cell in swept.cells:
        values = [_short(swept.points[cell.point][key]) for key in swept.keys]
        if cell.result is None:
            figures = ["refused", *[""] * (len(shown) - 1)]
        else:
            figures = [_figure(cell.result.metrics.get(name)) for name in shown]
        table.add_row(*map(Text, (*values, cell.platform, *figures)))
    return table


def _figure(metric: "Metric | None") -> str:
    if metric is None:
        return "none"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.4g}"
    # No spaces in the interval: a narrow terminal puts it whole under its value.
    from simulator.results import WITHIN_ONE_RUN

    within = ", one run" if metric.method == WITHIN_ONE_RUN else ""
    return f"{metric.value:.4g} ({metric.low:.4g}…{metric.high:.4g}{within})"


def _short(value: Any) -> str:
    import json

    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _refusals(swept: "Sweep") -> list[str]:
    lines = list(dict.fromkeys(f"refused: {cell.refusal}" for cell in swept.refused))
    more = len(lines) - REFUSALS_SHOWN
    return [*lines[:REFUSALS_SHOWN], *([f"and {more} more that were refused: --json has them all"] if more > 0 else [])]


def _warm_ups(swept: "Sweep") -> list[str]:
    """Where the warm-up was found and not set: between which moments it ended."""
    found = [cell.result.warm_up_seconds for cell in swept.cells if cell.result is not None and cell.result.warm_up]
    if not found:
        return []
    longest = f"{min(found):g} to {max(found):g}" if min(found) < max(found) else f"{max(found):g}"
    return [f"warm-up, found by MSER-5 in pilot replications of each point: {longest} s, which are not counted"]


def _unstable(swept: "Sweep") -> list[str]:
    """At which points more arrives than can be done."""
    cells = [cell for cell in swept.cells if cell.result is not None and cell.result.stability]
    if not cells or cells[0].result is None:
        return []
    first = cells[0]
    key = ", ".join(f"{key}={_short(value)}" for key, value in swept.points[first.point].items())
    of = f"{len(cells)} of {len(swept.cells)} rows have"
    return [f"{of} no steady state; the first ({key} on {first.platform}): {cells[0].result.stability}"]


def _verdicts(swept: "Sweep", metric: str) -> list[str]:
    """How many points tell each two platforms apart: paired differences, each with an interval of its own."""
    from collections import Counter

    if len(swept.platforms) < 2:
        return []
    if swept.replications == 1:
        return [f"no verdict on {metric}: one replication says nothing about chance; run more"]
    found: dict[tuple[str, str], Counter[str]] = {}
    for point in range(len(swept.points)):
        for each in swept.comparison(point).differences:
            if each.metric == metric:
                found.setdefault((each.first, each.second), Counter())[each.lower or ""] += 1
    return [
        f"{metric} of {first} and {second}: lower with {first} at {count[first]} points, with {second} at "
        f"{count[second]}, no verdict at {count['']} (each at 95 %: of twenty verdicts one may be chance)"
        for (first, second), count in found.items()
    ]
