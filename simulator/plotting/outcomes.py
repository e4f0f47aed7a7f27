"""Figures of what a comparison comes to: each platform's figure with its interval, and the paired differences."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from simulator.datacenter.platforms import PlatformProfile
from simulator.plotting.labels import name_label
from simulator.plotting.style import (
    INK,
    NO_BREAK,
    QUIET,
    axes_or_new,
    digits,
    figure_style,
    figure_words,
    look_of,
    percent_text,
    seconds_axis,
    seconds_text,
    settle,
)
from simulator.results import Comparison, Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE = 20  # a ratio of largest to smallest figure above which a linear axis would press the small ones together


@figure_style()
def plot_outcome(
    comparison: Comparison,
    metric: str,
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """One metric of each platform: the mean over the replications, its 95 % interval, and each replication as a dot.

    Args:
        comparison: what was simulated.
        metric: a key of `simulator.metrics.UNITS`, e.g. `p99_seconds`.
        profiles: for the names of platforms.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    ax = axes_or_new(ax, height=0.9 + 0.5 * len(comparison.results))
    present = [(name, result) for name, result in comparison.results.items() if metric in result.metrics]
    unit = present[0][1].metrics[metric].unit if present else "seconds"
    every: list[float] = []
    for row, (name, result) in enumerate(present):
        look, figure = look_of(name), result.metrics[metric]
        dots = [replication.metrics[metric] for replication in result.replications if metric in replication.metrics]
        every += dots
        ax.plot(dots, [row + 0.25] * len(dots), "|", color=look.colour, markersize=7, markeredgewidth=1.0, alpha=0.7)
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
        ax.errorbar(
            figure.value,
            row,
            xerr=[[figure.value - low], [high - figure.value]],
            fmt=look.marker,
            color=look.colour,
            markersize=8,
            capsize=4,
            elinewidth=2,
        )
        ax.annotate(
            value_text(figure.value, unit),
            (figure.value, row),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=10,
        )
    ax.set_yticks(range(len(present)), [name_label(name, profiles, language) for name, _ in present])
    ax.set_ylim(len(present) - 0.45, -0.7)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    if unit == "seconds":
        logarithmic = bool(every) and min(every) > 0 and max(every) / min(every) > _WIDE
        seconds_axis(ax, "x", logarithmic=logarithmic)
        if logarithmic:
            ax.set_xlim(min(every) / 2, max(every) * 2)
    else:
        ax.xaxis.set_major_formatter(lambda value, _: value_text(value, unit))
        ax.set_xlim(left=0, right=max([*every, 0.01]) * 1.15)
    ax.set_title(_title(metric, language))
    return settle(ax)


@figure_style()
def plot_differences(
    comparison: Comparison,
    metric: str,
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """The paired difference of one metric between every two platforms, with its 95 % interval, beside zero.

    A hollow mark with a dashed line holds zero, so that no winner can be called.

    Args:
        comparison: what was simulated.
        metric: a key of `simulator.metrics.UNITS`.
        profiles: for the names of platforms.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    words = figure_words(language)
    shown = [difference for difference in comparison.differences if difference.metric == metric]
    ax = axes_or_new(ax, height=0.9 + 0.5 * len(shown))
    ax.axvline(0, color=QUIET, linewidth=1.4)
    for row, difference in enumerate(shown):
        _difference(ax, row, difference)
    names = [
        words(
            "outcome.difference",
            first=name_label(difference.first, profiles, language),
            second=name_label(difference.second, profiles, language),
        )
        for difference in shown
    ]
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.45, -0.7)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.12)
    unit = shown[0].unit if shown else "seconds"
    ax.xaxis.set_major_formatter(lambda value, _: difference_text(value, unit))
    ax.locator_params(axis="x", nbins=5)
    ax.set_title(words("outcome.paired", what=_title(metric, language)))
    return settle(ax)


def _difference(ax: "Axes", row: int, difference: Difference) -> None:
    low = difference.value if difference.low is None else difference.low
    high = difference.value if difference.high is None else difference.high
    decided = difference.lower is not None
    _, _, whiskers = ax.errorbar(
        difference.value,
        row,
        xerr=[[difference.value - low], [high - difference.value]],
        fmt="o",
        color=INK,
        markerfacecolor=INK if decided else "white",
        markersize=8,
        capsize=4,
        elinewidth=2,
    )
    if not decided:
        for whisker in whiskers:
            whisker.set_linestyle((0, (3, 2)))
    ax.annotate(
        difference_text(difference.value, difference.unit),
        (difference.value, row),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontsize=10,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _title(metric: str, language: str) -> str:
    return figure_words(language).get(f"outcome.{metric}", metric)


def value_text(value: float, unit: str) -> str:
    """A figure of a metric for people: `231 ms`, `1.2 %`, `12.5`."""
    if unit == "seconds":
        return seconds_text(value)
    return percent_text(value) if unit == "fraction" else digits(value)


def difference_text(value: float, unit: str) -> str:
    """The same for a difference, with its sign. Differences of fractions are in percentage points."""
    if value == 0:
        return "0"
    text = f"{digits(100 * abs(value))}{NO_BREAK}pp" if unit == "fraction" else value_text(abs(value), unit)
    return f"{'−' if value < 0 else '+'}{text}"
