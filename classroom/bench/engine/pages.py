"""The race's table, for a terminal and for docs/reference."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from classroom.bench.engine.runtimes import RUNTIMES

if TYPE_CHECKING:
    from rich.console import Console

_PEERS = ("onggi", "dockerd", *RUNTIMES)
_WIDE = 100  # columns of a terminal, from which on all contestants have one of the table


def show(console: "Console", found: Mapping[str, Any]) -> None:
    """Print the table, what is missing and what to doubt."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operation")
    names = _contestants(found)
    # The runtimes alone are in one row only: where there is no room for their columns, they get lines below.
    columns = names if console.width >= _WIDE else [name for name in names if name not in RUNTIMES]
    for name in (*columns, "ratio to dockerd", "target"):
        table.add_column(name, justify="right", overflow="fold")
    for key, row in _rows(found):
        ratio = found["ratios"].get(key)
        cells = (*(_figure(row, name) for name in columns), _ratio(ratio))
        table.add_row(row["title"], *(cell.replace(" (", "\n(") for cell in cells), _target(ratio))
    console.print(table)
    for _, row in _rows(found):
        for name in names:
            if name in row and name not in columns:
                console.print(f"{row['title']}: {name} {_figure(row, name)}")
    for line in _remarks(found):
        console.print(line)


def to_markdown(found: Mapping[str, Any]) -> str:
    """The page of docs/reference."""
    machine, names = found["machine"], _contestants(found)
    lines = [
        "# Speed of the engine",
        "",
        "Measured by `onggi bench engine` beside Docker's own daemon and the runtimes beneath it, on one machine",
        "in one run, in turns. A figure is a median and, in brackets, its 95 % interval. Figures of another machine",
        "differ; the ratios less so.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python'].split()[-1]};",
        f"{_counts(found)}; recorded {machine['recorded_at'][:10]}.",
        "",
        "| operation | " + " | ".join(names) + " | ratio to dockerd | target |",
        "|---|" + "--:|" * (len(names) + 2),
    ]
    for key, row in _rows(found):
        ratio = found["ratios"].get(key)
        cells = [row["title"], *(_figure(row, name) for name in names), _ratio(ratio), _target(ratio)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {name}: {text}." for name, text in found["method"].items())]
    lines += [f"- {line}." for line in _remarks(found)]
    return "\n".join(lines) + "\n"


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((key, row) for key, row in found.items() if isinstance(row, Mapping) and "title" in row)


def _contestants(found: Mapping[str, Any]) -> list[str]:
    return [name for name in _PEERS if any(name in row for _, row in _rows(found))]


def _figure(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    figures, unit = row[name], row["unit"]
    scale, shown = (1000.0, "ms") if unit == "s" and figures["median"] < 1 else (1.0, unit)
    text = f"{figures['median'] * scale:.3g} {shown}"
    if figures["low"] is not None:
        text += f" ({figures['low'] * scale:.3g}–{figures['high'] * scale:.3g})"
    return text


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return ""
    text = f"{ratio['ratio']:.2f}"
    return text if ratio["low"] is None else f"{text} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def _target(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None or ratio["target"] is None:
        return ""
    sign = "≤" if ratio["better"] == "less" else "≥"
    return f"{sign} {ratio['target']:.2f} {'✓' if ratio['met'] else '✗'}"


def _remarks(found: Mapping[str, Any]) -> list[str]:
    missing = found["not_installed"]
    return [*([f"not installed here, so not raced: {', '.join(missing)}"] if missing else []), *found["warnings"]]


def _counts(found: Mapping[str, Any]) -> str:
    """How many samples there are of each row, and of which there are fewer."""
    fewer = [(row["title"], len(row["onggi"]["samples"])) for _, row in _rows(found)]
    text = ", ".join(f"{count} of {title}" for title, count in fewer if count != found["runs"])
    return f"{found['runs']} samples of each" + (f", but {text}" if text else "")
