"""Simulate a scenario on one platform, and show what it did with its intervals."""

from argparse import ArgumentParser, Namespace
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
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; -1: one a core (default: 1)")
    parser.add_argument(
        "--data-plane",
        choices=("auto", "python", "numba", "processes"),
        default="auto",
        help="how requests are run: all give the same figures (default: auto, which takes Numba where it works)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON to FILE, or to standard output with -")


def run(arguments: Namespace) -> int:
    """Simulate, and show or write the result."""
    from classroom.progress import progress_bar
    from simulator.experiments import run as simulate
    from simulator.scenario import Scenario

    scenario = Scenario.from_toml(arguments.scenario)
    with progress_bar(f"simulating {scenario.name}") as progress:
        result = simulate(
            scenario,
            platform=arguments.platform,
            seed=arguments.seed,
            replications=arguments.replications,
            workers=arguments.workers,
            progress=progress,
            data_plane=arguments.data_plane,
        )
    if arguments.json == "-":
        print(result.to_json(), end="")
        return 0
    if arguments.json:
        result.save(Path(arguments.json))
    _show(scenario, result)
    return 0


def _show(scenario: "Scenario", result: "Result") -> None:
    from rich.console import Console

    console = Console()
    console.print(
        f"[bold]{scenario.name}[/bold] on [bold]{result.platform}[/bold], seed {result.seed}, "
        f"{len(result.replications)} replications. All figures are simulated.",
        highlight=False,
    )
    console.print(_metrics(result))
    if result.episode.decisions:
        console.print(_decisions(result.episode))
    for reason in result.episode.without_room:
        console.print(f"Instances had to wait: {reason}", highlight=False, markup=False)


def _metrics(result: "Result") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("unit")
    for metric in result.metrics.values():
        interval = "one replication" if metric.low is None else f"{metric.low:.4g} … {metric.high:.4g}"
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
        caption=f"and {hidden} more: --json has them all" if hidden > 0 else None,
        caption_justify="left",
    )
    table.add_column("second", justify="right")
    table.add_column("instances", justify="right")
    table.add_column("because")
    for decision in changes[:DECISIONS_SHOWN]:
        change = f"{decision.current} → {decision.desired}"
        table.add_row(f"{decision.seconds:.0f}", change, Text(decision.reason))
    return table
