"""The headline of a comparison as a table on the terminal, and its findings in plain words."""

from typing import TYPE_CHECKING

from classroom.report.headline import METRICS, Figure
from classroom.report.page import report_words
from classroom.report.verdict import verdict
from simulator.plotting.style import figure_words

if TYPE_CHECKING:
    from rich.text import Text

    from classroom.comparison import Compared
    from simulator.words import Words

KIND_STYLES = {"measured": "bold green", "simulated": "cyan", "published": "yellow"}
"""Beside the word itself, which says the same without colour."""


def print_table(compared: "Compared", language: str) -> None:
    """Print where the measurements are from, five figures a platform, and what they come to."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    words = report_words(language)
    figures = compared.figures
    console = Console(highlight=False)
    console.print(Text(words("origin", origin=compared.recording.origin), style="dim"))
    table = Table(show_lines=True)
    table.add_column("")
    for metric in METRICS:
        table.add_column(words(f"metric.{metric}"), justify="right")
    for name, profile in compared.profiles.items():
        label = profile.label_ko if language == "ko" else profile.label_en
        table.add_row(label, *(_cell(figures[name].get(metric), words) for metric in METRICS))
    console.print(table)
    for sentence in verdict(figures, compared.comparison, compared.profiles, words):
        mark = "•" if sentence.decided else "?"
        console.print(Text.assemble(f"{mark} ", (sentence.about, "bold"), f": {sentence.text}"))


def _cell(figure: Figure | None, words: "Words") -> "Text":
    from rich.text import Text

    if figure is None:
        return Text(words("metric.none"))
    lines = [figure.text, figure.interval or words("metric.no-interval")]
    if figure.limit is not None:
        lines.append(figure_words(words.language).get(f"limit.{figure.limit}", figure.limit))
    kind = (words(f"kind.{figure.kind}"), KIND_STYLES[figure.kind])
    return Text.assemble((lines[0], "bold"), "\n", "\n".join(lines[1:]), "\n", kind)
