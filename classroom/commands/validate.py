"""Hold the model's predictions against what it was not fitted to, measured and published, and name the worst points."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from simulator.evidence.curves import CurvePoint
    from simulator.evidence.validation import Pair, Validation


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--measurements",
        metavar="HOST_OR_DIR",
        default="reference",
        help="a host in data/measurements, or a directory that `onggi measure` wrote (default: reference)",
    )
    parser.add_argument(
        "--against",
        choices=("all", "measurements", "published"),
        default="all",
        help="own measurements, published curves and the table of scaling, or both (default: all)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write every point and the summary as JSON to FILE, or to standard output with -"
    )


def run(arguments: Namespace) -> int:
    """Validate, and show the outcome; 0 also where a target is missed, which the table says."""
    from classroom.recordings import read_recording
    from simulator.evidence.literature import validate_literature
    from simulator.evidence.validation import validate
    from simulator.files import write_text

    validation, points = None, None
    if arguments.against != "published":
        validation = validate(read_recording(arguments.measurements).measurements)
    if arguments.against != "measurements":
        points = validate_literature()
    if arguments.json:
        text = _as_json(validation, points)
        if arguments.json == "-":
            print(text, end="")
            return 0
        write_text(Path(arguments.json), text)
    from rich.console import Console

    console = Console()
    if validation is not None:
        _show_measured(console, validation)
    if points is not None:
        _show_published(console, points)
    return 0


def _as_json(validation: "Validation | None", points: "Sequence[CurvePoint] | None") -> str:
    """`pairs` and `summary` of the measurements; under `published`, `points` and `summary` of the literature."""
    import json
    from dataclasses import asdict

    from simulator.evidence.curves import curves_as_json

    tree: dict[str, object] = {} if validation is None else asdict(validation)
    if points is not None:
        tree["published"] = curves_as_json(points)
    return json.dumps(tree, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _show_measured(console: "Console", validation: "Validation") -> None:
    console.print(
        f"Measured on [bold]{validation.host}[/bold], {validation.recorded_at}. The model was fitted to the dim rows, "
        "which are not counted; it predicted all others. Spread is how much the measured figure varies from run to run."
    )
    for subject in dict.fromkeys((pair.platform, pair.variant) for pair in validation.pairs):
        console.print(_pairs([pair for pair in validation.pairs if (pair.platform, pair.variant) == subject]))
    console.print(_summary(validation))
    for part in validation.summary:
        if part.platform == "all":
            console.print(f"Worst point of {part.experiment}: {_point(part.worst)}")


def _show_published(console: "Console", points: "Sequence[CurvePoint]") -> None:
    from simulator.evidence.curves import CURVES, condition_text, summarise_curves, value_text

    console.print(
        "\n[bold]Published.[/bold] The dim rows were fitted or given to the model and are not counted; it predicted "
        "all others. Hardware differs from source to source: what counts is shape and ratio within one.",
    )
    for curve, title in CURVES.items():
        console.print(_curve(f"{curve}. {title}", [point for point in points if point.curve == curve]))
    summaries = summarise_curves(points)
    console.print(_curves_summary(points))
    for curve in CURVES:
        worst = [part.worst for part in summaries if part.curve == curve and part.worst is not None]
        if worst:
            point = max(worst, key=lambda each: abs(each.relative_error))
            console.print(
                f"Worst point of curve {curve}: {point.platform}, {condition_text(point)}: "
                f"predicted {value_text(point.model, point.unit)}, "
                f"published {value_text(point.published, point.unit)}, {point.relative_error:+.1%}; {point.source}",
                markup=False,
            )


def _curve(title: str, points: "Sequence[CurvePoint]") -> "Table":
    from rich.table import Table

    from simulator.evidence.curves import POINT_COLUMNS, point_rows

    table = Table(title=title, title_justify="left", box=None)
    for column in POINT_COLUMNS:
        table.add_column(column, justify="left" if column in ("platform", "condition") else "right")
    for point, row in zip(points, point_rows(points), strict=True):
        table.add_row(*row, style="dim" if point.fitted else "")
    return table


def _curves_summary(points: "Sequence[CurvePoint]") -> "Table":
    from rich.table import Table

    from simulator.evidence.curves import SUMMARY_COLUMNS, summarise_curves, summary_rows

    table = Table(
        title="How far the predictions of published points are off (×: last point over first)",
        title_justify="left",
        box=None,
    )
    for column in ("", *SUMMARY_COLUMNS[1:]):
        table.add_column(column, justify="left" if column in ("", "line", "order") else "right")
    summaries = summarise_curves(points)
    for part, row in zip(summaries, summary_rows(summaries), strict=True):
        table.add_row(str(part.curve), *row[1:])
    return table


def _pairs(pairs: "Sequence[Pair]") -> "Table":
    from rich.table import Table

    table = Table(title=_subject(pairs[0].platform, pairs[0].variant), title_justify="left", box=None)
    table.add_column("what")
    for column in ("simulated", "measured", "[95 % interval]", "error", "spread"):
        table.add_column(column.replace("[", "\\["), justify="right")
    for pair in pairs:
        scale, unit = _scale(pair)
        table.add_row(
            _what(pair),
            f"{pair.predicted / scale:.3g} {unit}",
            f"{pair.measured / scale:.3g} {unit}",
            f"{pair.measured_low / scale:.3g} … {pair.measured_high / scale:.3g}",
            "fitted" if pair.fitted else f"{pair.relative_error:+.1%}",
            f"{pair.spread:.1%}",
            style="dim" if pair.fitted else "",
        )
    return table


def _summary(validation: "Validation") -> "Table":
    from rich.table import Table

    table = Table(title="How far the predictions are off", title_justify="left", box=None)
    for column in ("experiment", "platform"):
        table.add_column(column)
    for column in ("points", "median |error|", "target", "median spread"):
        table.add_column(column, justify="right")
    for part in validation.summary:
        table.add_row(
            part.experiment,
            _subject(part.platform, part.variant),
            str(part.points),
            f"{part.median_absolute_relative_error:.1%}",
            f"{part.target:.0%} {'[green]met[/green]' if part.met else '[red]missed[/red]'}",
            f"{part.median_spread:.1%}",
        )
    return table


def _point(pair: "Pair") -> str:
    scale, unit = _scale(pair)
    return (
        f"{_subject(pair.platform, pair.variant)}, {_what(pair)}: predicted {pair.predicted / scale:.3g} {unit}, "
        f"measured {pair.measured / scale:.3g} {unit}, {pair.relative_error:+.1%}"
    )


def _what(pair: "Pair") -> str:
    count = pair.condition.partition("=")[2]
    if pair.experiment == "memory":
        name = {"pss": "PSS of each of", "kernel": "kernel growth to", "footprint": "all memory of"}[pair.metric]
        return f"{name} {count}"
    if count == "1":
        return "one start" if pair.experiment == "startup" else "one start, again"
    return f"{pair.metric} of {count} at once"


def _subject(platform: str, variant: str) -> str:
    return platform if variant in ("default", "all") else f"{platform} ({variant})"


def _scale(pair: "Pair") -> tuple[float, str]:
    """What to divide a pair's figures by for a person, and the unit they then have."""
    if pair.unit == "bytes":
        return 2**20, "MiB"
    return (1, "s") if pair.measured >= 1 else (1e-3, "ms")
