"""Figures of the published curves: what was published as marks, what the simulator gives as lines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simulator.evidence.curves import LADDER, CurvePoint, lines_of
from simulator.plotting.style import (
    INK,
    QUIET,
    Look,
    axes_or_new,
    bytes_text,
    change_text,
    digits,
    figure_style,
    figure_words,
    legend_above,
    seconds_text,
    settle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = (
    Look("#D55E00", "s", "-"),
    Look("#0072B2", "o", (0, (6, 2))),
    Look("#009E73", "D", (0, (1, 1.2))),
    Look("#CC79A7", "^", (0, (6, 2, 1.2, 2))),
    Look("#8C6D00", "v", (0, (3, 1.5))),
)
"""Of the lines of one curve, in order: publications have other platforms than those that ship."""

_LINE_POINTS = 13.0
"""Names at the ends of lines keep so far apart: the height of a line of text, in points."""


@figure_style()
def plot_published_curve(
    points: Sequence[CurvePoint], curve: int, *, ax: "Axes | None" = None, language: str = "en"
) -> "Axes":
    """One published curve: marks are published, lines are simulated.

    Filled marks were predicted. Hollow ones were fitted, so the line meets them by construction and shows nothing.
    Curves 1 to 4 are drawn against their condition. The points of the isolation ladder and of the table of scaling have
    units of their own: each is a row, with simulated over published, and both beside it.

    Args:
        points: of any curves, e.g. `validate_literature()`.
        curve: which to draw, a number of `CURVES`.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    shown = [point for point in points if point.curve == curve]
    rows = curve >= LADDER
    ax = axes_or_new(ax, height=1.3 + 0.3 * len(shown) if rows else 4.2)
    words = figure_words(language)
    if not shown:
        ax.set_axis_off()
        ax.text(0.5, 0.5, words("nothing"), ha="center", transform=ax.transAxes)
    elif rows:
        _draw_rows(ax, shown, language)
    else:
        _draw_lines(ax, shown, language)
    return settle(ax)


def _draw_lines(ax: "Axes", shown: Sequence[CurvePoint], language: str) -> None:
    """Curves 1 to 4: one line a platform, named at its end."""
    words = figure_words(language)
    ends = []
    lines = lines_of(shown)
    for number, ((_, platform), line) in enumerate(lines.items()):
        look = _LOOKS[number % len(_LOOKS)]
        across = [condition_value(point) for point in line]
        ax.plot(across, [point.model for point in line], color=look.colour, linestyle=look.line, linewidth=1.6)
        for point, x in zip(line, across, strict=True):
            _mark(ax, x, point.published, look, hollow=point.fitted)
        ends.append((line[-1].model, platform, look))
    condition = shown[0].condition.partition("=")[0]
    ax.set_xlabel(words.get(f"curves.{condition}", condition))
    ax.set_ylabel(words.get(f"curves.y{shown[0].curve}", ""))
    if len(lines) > 1:
        ax.set_yscale("log")
        _value_axis(ax, shown[0].unit)
        _name_ends(ax, ends)
    else:
        ax.set_ylim(bottom=0)
        _value_axis(ax, shown[0].unit)
    _legend(ax, language)


def _name_ends(ax: "Axes", ends: "list[tuple[float, str, Look]]") -> None:
    """Write each line's name beside its end, pushed up where the one below is too near."""
    clearance = _LINE_POINTS / 72 * ax.figure.dpi / ax.get_window_extent().height
    last = -1.0
    for value, platform, look in sorted(ends, key=lambda end: end[0]):
        height = float(ax.transAxes.inverted().transform(ax.transData.transform((ax.get_xlim()[1], value)))[1])
        last = max(height, last + clearance)
        ax.text(1.015, last, platform, transform=ax.transAxes, color=look.colour, va="center", fontsize=10)


def _draw_rows(ax: "Axes", shown: Sequence[CurvePoint], language: str) -> None:
    """The ladder and the table: simulated over published, a row a point, from above."""
    words = figure_words(language)
    look = _LOOKS[1]
    names = []
    for row, point in enumerate(shown):
        ratio = point.model / point.published
        colour = QUIET if point.fitted else look.colour
        ax.plot([1.0, ratio], [row, row], color=colour, linewidth=2.4, solid_capstyle="butt")
        ax.plot(
            [ratio],
            [row],
            look.marker,
            color=colour,
            markerfacecolor="white" if point.fitted else colour,
            markersize=6.5,
        )
        values = f"{_text(point.published, point.unit)} → {_text(point.model, point.unit)}"
        # Rounded before it is written, or what is nearly 0 is written as -0.
        error = "" if point.fitted else f"  {change_text(round(point.relative_error, 2) + 0.0)}"
        ax.text(1.015, row, f"{values}{error}", transform=ax.get_yaxis_transform(), va="center", fontsize=9, color=INK)
        names.append(_row_name(point))
    ax.axvline(1.0, color=QUIET, linewidth=1.2)
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_xscale("log", base=2)
    reach = max(abs(np.log2(point.model / point.published)) for point in shown)
    reach = max(float(reach) * 1.15, 0.35)
    ax.set_xlim(2**-reach, 2**reach)
    wanted = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if reach >= 1 else (0.5, 0.7, 1.0, 1.4, 2.0)
    ticks = [tick for tick in wanted if 2**-reach <= tick <= 2**reach]
    ax.set_xticks(ticks, [f"× {digits(tick)}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel(words("curves.ratio"))
    handles = [
        *ax.plot([], [], look.marker, color=look.colour, label=words("curves.predicted")),
        *ax.plot([], [], look.marker, color=QUIET, markerfacecolor="white", label=words("curves.fitted")),
    ]
    legend_above(ax, handles)


def _row_name(point: CurvePoint) -> str:
    """The platform, and of its condition what tells rows apart."""
    kept = [
        part.partition("=")
        for part in point.condition.split(";")
        if part and not part.startswith(("statistic=", "to=first"))
    ]
    condition = " ".join(value if name in ("from", "program") else f"{name} {value}" for name, _, value in kept)
    return f"{point.platform} {condition}".strip()


def condition_value(point: CurvePoint) -> float:
    """The number in a condition such as `guests_running=200`."""
    return float(point.condition.partition("=")[2])


def _mark(ax: "Axes", x: float, y: float, look: Look, *, hollow: bool) -> None:
    ax.plot(
        [x], [y], look.marker, color=look.colour, markerfacecolor="white" if hollow else look.colour, markersize=6.5
    )


def _text(value: float, unit: str) -> str:
    return {"seconds": seconds_text, "bytes": bytes_text}.get(unit, digits)(value)


def _value_axis(ax: "Axes", unit: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    if unit == "bytes":
        ax.set_yscale("log", base=2)
        ax.yaxis.set_major_locator(FixedLocator([2.0**exponent for exponent in range(10, 51, 2)]))
        ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _text(value, unit)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _legend(ax: "Axes", language: str) -> None:
    words = figure_words(language)
    handles = [
        *ax.plot([], [], color=INK, label=words("curves.model")),
        *ax.plot([], [], "o", color=INK, label=words("curves.published")),
        *ax.plot([], [], "o", color=INK, markerfacecolor="white", label=words("curves.fitted")),
    ]
    legend_above(ax, handles)
