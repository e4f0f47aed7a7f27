"""Simulate a scenario on one platform, and show what it did with its intervals."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from simulator.results import Episode, Result
    from simulator.scenario import Scenario

DECISIONS_SHOWN = 12


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("scenario", metavar="SCENARIO", help="a scenario that ships (compare, steady) or a TOML file")
    parser.add_argument(
        "--platform", default="container", help="a platform profile that ships or a TOML file (default: container)"
    )
    parser.add_argument("--seed", type=int, default=0, help="root of all random numbers (default: 0)")
    parser.add_argument("--replications", type=int, metavar="N", help="repetitions (default: as the scenario says)")
    parser.add_argument(
        "--precision",
        metavar="METRIC=WIDTH",
        help="replicate until the relative error of a metric is so small: p99_seconds=0.05, or 5%%",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; -1: one a core (default: 1)")
    parser.add_argument(
        "--data-plane",
        choices=("auto", "python", "numba", "processes"),
        default="auto",
        help="how requests are run: all give the same figures (default: auto, which takes Numba where it works)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON to FILE, or to standard output with -")
    parser.add_argument(
        "--log", metavar="FILE", help="write what happened in every replication to FILE, one line of JSON an event"
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say of each placement, routing policy, scale decision and fault in replication 0 why it came to be",
    )


def run(arguments: Namespace) -> int:
    """Simulate, and show or write the result."""
    from classroom.progress import progress_bar
    from simulator.experiments import run as simulate
    from simulator.scenario import Scenario

    scenario = Scenario.from_toml(arguments.scenario)
    precision = _precision(arguments.precision)
    with _log(arguments.log, kept_for_a_while=arguments.explain) as log:
        with progress_bar(f"simulating {scenario.name}") as progress:
            result = simulate(
                scenario,
                platform=arguments.platform,
                seed=arguments.seed,
                replications=arguments.replications,
                workers=arguments.workers,
                progress=progress,
                data_plane=arguments.data_plane,
                precision=precision,
                log=log,
            )
        explained = _explained(log) if arguments.explain and log is not None else []
    if arguments.json == "-":
        print(result.to_json(), end="")
        for line in (*_remarks(result), *explained):
            print(line, file=sys.stderr)
        return 0
    if arguments.json:
        result.save(Path(arguments.json))
    _show(scenario, result, explained)
    return 0


def _precision(text: str | None) -> tuple[str, float] | None:
    """`p99_seconds=0.05` or `p99_seconds=5%` as the metric and the fraction."""
    from difflib import get_close_matches

    from simulator.errors import SimulatorError
    from simulator.metrics import UNITS

    if text is None:
        return None
    metric, _, width = text.partition("=")
    try:
        fraction = float(width.removesuffix("%")) / (100 if width.endswith("%") else 1)
    except ValueError as error:
        raise SimulatorError(
            f"--precision {text}: give a metric and its relative error, such as p99_seconds=0.05"
        ) from error
    if metric not in UNITS:
        near = get_close_matches(metric, UNITS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"choose from {', '.join(UNITS)}"
        raise SimulatorError(f"--precision {text}: unknown metric `{metric}`: {hint}")
    return metric, fraction


@contextmanager
def _log(asked: str | None, *, kept_for_a_while: bool) -> Iterator[Path | None]:
    """Where to log: where it was asked for, or for as long as it takes to explain it."""
    from tempfile import TemporaryDirectory

    from simulator.errors import SimulatorError

    if asked is not None:
        path = Path(asked)
        if kept_for_a_while and path.exists() and not path.is_file():
            raise SimulatorError(f"--log {asked}: not a file, and --explain reads it again; name a file")
        yield path
    elif kept_for_a_while:
        with TemporaryDirectory(prefix="onggi-") as directory:
            yield Path(directory) / "events.jsonl"
    else:
        yield None


def _explained(log: Path) -> list[str]:
    """The decisions of replication 0, in words."""
    from itertools import takewhile

    from simulator.eventlog import read_events
    from simulator.explanation import explain

    lines = list(explain(takewhile(lambda event: event.replication == 0, read_events(log))))
    if lines and lines[-1].startswith("and "):
        lines[-1] += ": --log FILE has them all"
    return lines


def _remarks(result: "Result") -> list[str]:
    """What must be known to read the figures."""
    from simulator.results import WITHIN_ONE_RUN

    one = len(result.replications) == 1
    within = [metric.name for metric in result.metrics.values() if metric.method == WITHIN_ONE_RUN]
    which = f"only {', '.join(within)} has an interval ({WITHIN_ONE_RUN})" if within else "no figure has an interval"
    return [
        *([f"{result.platform} has {result.stability}"] if result.stability else []),
        *([f"{result.warm_up}; requests before it are not counted"] if result.warm_up else []),
        *([f"precision of {result.stopping}"] if result.stopping else []),
        *([f"one replication says nothing about chance from run to run, so {which}; run more"] if one else []),
    ]


def _show(scenario: "Scenario", result: "Result", explained: list[str]) -> None:
    from rich.console import Console

    console = Console()
    count = len(result.replications)
    console.print(
        f"[bold]{scenario.name}[/bold] on [bold]{result.platform}[/bold], seed {result.seed}, "
        f"{count} replication{'s' if count > 1 else ''}. All figures are simulated.",
        highlight=False,
    )
    console.print(_metrics(result))
    for line in _remarks(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if explained:
        console.print("What was decided in replication 0, and why", style="italic")
        for line in explained:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    elif result.episode.decisions:
        console.print(_decisions(result.episode))
    for reason in result.episode.without_room:
        console.print(f"Instances had to wait: {reason}", highlight=False, markup=False)


def _metrics(result: "Result") -> "Table":
    from rich.table import Table

    from simulator.results import WITHIN_ONE_RUN

    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("unit")
    for metric in result.metrics.values():
        interval = "one replication" if metric.low is None else f"{metric.low:.4g} … {metric.high:.4g}"
        interval += " (one run)" if metric.method == WITHIN_ONE_RUN else ""
        table.add_row(metric.name, f"{metric.value:.4g}", interval, metric.unit)
    return table


def _decisions(episode: "Episode") -> "Table":
    """The decisions of replication 0 that changed something."""
    from rich.table import Table
    from rich.text import Text

    changes = [decision for decision in episode.decisions if decision.desired != decision.current]
    hidden = len(changes) - DECISIONS_SHOWN
    table = Table(
        title="What the autoscaler changed in replication 0, and why",
        title_justify="left",
        box=None,
        pad_edge=False,
        caption=f"and {hidden} more: --explain tells them, and --json has them all" if hidden > 0 else None,
        caption_justify="left",
    )
    table.add_column("second", justify="right")
    table.add_column("instances", justify="right")
    table.add_column("because")
    for decision in changes[:DECISIONS_SHOWN]:
        change = f"{decision.current} → {decision.desired}"
        table.add_row(f"{decision.seconds:.0f}", change, Text(decision.reason))
    return table
