"""Figures of validation: the model's predictions beside measurements that it was not fitted to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simulator.datacenter.platforms import PlatformProfile
from simulator.evidence.measurements import Subject
from simulator.evidence.validation import TARGETS, Pair, Validation
from simulator.plotting.labels import subject_label
from simulator.plotting.style import (
    INK,
    QUIET,
    axes_or_new,
    bytes_text,
    change_text,
    figure_style,
    figure_words,
    legend_above,
    look_of,
    seconds_axis,
    seconds_text,
    settle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = 0.15
"""Half-width of the band around the identity line, as a fraction: the widest error that onggi's targets allow."""


@figure_style()
def plot_predicted_against_measured(
    validation: Validation,
    experiment: str,
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """Each prediction against what was measured, with the line on which both agree and a band of ±15 %.

    Filled marks are predictions. Hollow ones were fitted, so they lie on the line by construction and show nothing. The
    prediction that is furthest off is named.

    Args:
        validation: pairs of one host.
        experiment: `contention` (seconds; the start-up of one is drawn with it) or `memory` (bytes).
        profiles: for the names of platforms.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=5.2)
    experiments = ("startup", "contention") if experiment == "contention" else (experiment,)
    # A logarithmic axis has no place for a kernel that shrank while instances came up, which is noise.
    pairs = [
        pair for pair in validation.pairs if pair.experiment in experiments and min(pair.predicted, pair.measured) > 0
    ]
    if not pairs:
        ax.set_axis_off()
        ax.text(0.5, 0.5, words("nothing"), ha="center", transform=ax.transAxes)
        return settle(ax)
    low = min(min(pair.measured, pair.predicted) for pair in pairs) / 1.6
    high = max(max(pair.measured, pair.predicted) for pair in pairs) * 1.6
    ends = [low, high]
    ax.fill_between(
        ends,
        [low * (1 - BAND), high * (1 - BAND)],
        [low * (1 + BAND), high * (1 + BAND)],
        color=QUIET,
        alpha=0.16,
        linewidth=0,
    )
    ax.plot(ends, ends, color=QUIET, linewidth=1.2)
    handles = []
    for subject, part in by_subject(pairs).items():
        look = look_of(subject.platform, subject.variant)
        label = subject_label(subject, profiles, language)
        marks = [(pair.measured, pair.predicted, *_reach(pair)) for pair in part]
        _draw_marks(ax, part, marks, along="x")
        handles += ax.plot([], [], look.marker, color=look.colour, label=label)
    handles += ax.plot([], [], "o", color=INK, markerfacecolor="white", label=words("validation.fitted"))
    _name_worst(ax, [pair for pair in pairs if not pair.fitted], profiles, language)
    for axis in ("x", "y"):
        _axis(ax, axis, experiment)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_xlabel(words("validation.x"))
    ax.set_ylabel(words("validation.y"))
    ax.text(
        0.98,
        0.03,
        words("validation.band", percent=f"{BAND:.0%}"),
        transform=ax.transAxes,
        ha="right",
        color=QUIET,
        fontsize=10,
    )
    legend_above(ax, handles, columns=2)
    return settle(ax)


def _reach(pair: Pair) -> tuple[float, float]:
    """From what was measured, its median, down and up to the ends of its interval."""
    return pair.measured - pair.measured_low, pair.measured_high - pair.measured


def _draw_marks(
    ax: "Axes",
    part: Sequence[Pair],
    marks: Sequence[tuple[float, float, float, float]],
    *,
    along: str,
    capsize: float = 0,
) -> None:
    """Draw pairs of one subject: hollow where fitted, filled where predicted.

    Args:
        ax: where.
        part: the pairs.
        marks: of each, x, y, and how far its whisker reaches down and up.
        along: the axis, `x` or `y`, along which whiskers reach.
        capsize: of the whiskers, in points.
    """
    look = look_of(part[0].platform, part[0].variant)
    for fitted in (True, False):
        x, y, down, up = (
            np.array([mark for mark, pair in zip(marks, part, strict=True) if pair.fitted == fitted], dtype=np.float64)
            .reshape(-1, 4)
            .T
        )
        if x.size:
            reach = np.stack([down, up])
            ax.errorbar(
                x,
                y,
                xerr=reach if along == "x" else None,
                yerr=reach if along == "y" else None,
                fmt=look.marker,
                color=look.colour,
                markerfacecolor="white" if fitted else look.colour,
                markersize=6.5,
                capsize=capsize,
                elinewidth=1.2,
            )


def by_subject(pairs: Sequence[Pair]) -> dict[Subject, list[Pair]]:
    """Pairs by what was measured, in order of appearance."""
    parts: dict[Subject, list[Pair]] = {}
    for pair in pairs:
        parts.setdefault(Subject(pair.platform, pair.variant), []).append(pair)
    return parts


def _name_worst(ax: "Axes", unfitted: list[Pair], profiles: Mapping[str, PlatformProfile], language: str) -> None:
    """Point at the prediction that is furthest off, from the corner below the line, where no mark is."""
    if not unfitted:
        return
    worst = max(unfitted, key=lambda pair: abs(pair.relative_error))
    ax.annotate(
        worst_text(worst, profiles, language),
        (worst.measured, worst.predicted),
        xytext=(0.98, 0.12),
        textcoords="axes fraction",
        ha="right",
        fontsize=10,
        linespacing=1.35,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.9, "shrinkB": 5},
    )


def worst_text(worst: Pair, profiles: Mapping[str, PlatformProfile], language: str) -> str:
    """Which prediction is furthest off, and by how much."""
    words = figure_words(language)
    return words(
        "validation.worst",
        what=subject_label(Subject(worst.platform, worst.variant), profiles, language),
        metric=words.get(f"metric.{worst.metric}", worst.metric),
        condition=condition_text(worst, language),
        error=change_text(worst.relative_error),
    )


@figure_style()
def plot_relative_error(
    validation: Validation,
    experiment: str,
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """By how much each prediction is off, against how many instances there were: what a logarithmic axis hides.

    The band is the target of the experiment's median. Whiskers are what the run-to-run spread of the measurement alone
    makes of the error. Hollow marks were fitted.

    Args:
        validation: pairs of one host.
        experiment: `contention` or `memory`.
        profiles: for the names of platforms.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=3.6)
    # Kernel memory alone is noise where few instances run; the footprint holds it together with all the rest.
    shown = {"contention": ("mean", "last"), "memory": ("pss", "footprint")}[experiment]
    pairs = [pair for pair in validation.pairs if pair.experiment == experiment and pair.metric in shown]
    if not pairs:
        ax.set_axis_off()
        ax.text(0.5, 0.5, words("nothing"), ha="center", transform=ax.transAxes)
        return settle(ax)
    target = TARGETS[experiment]
    ax.axhspan(-target, target, color=QUIET, alpha=0.16, linewidth=0)
    ax.axhline(0, color=QUIET, linewidth=1.2)
    subjects = by_subject(pairs)
    for row, part in enumerate(subjects.values()):
        marks = []
        for pair in part:
            # Side by side, so that platforms and metrics of one condition do not hide each other.
            shift = 2 ** (0.16 * (row - (len(subjects) - 1) / 2) + 0.05 * (shown.index(pair.metric) - 0.5))
            error = pair.relative_error
            errors = [error] + [pair.predicted / at - 1 for at in (pair.measured_high, pair.measured_low) if at > 0]
            marks.append((condition_count(pair) * shift, error, error - min(errors), max(errors) - error))
        _draw_marks(ax, part, marks, along="y")
    every = sorted({condition_count(pair) for pair in pairs})
    ax.set_xscale("log", base=2)
    ax.set_xticks(every, [str(count) for count in every])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: change_text(value) if value else "0")
    ax.margins(y=0.12)
    low, high = ax.get_ylim()
    reach_of_axis = max(-low, high, target * 1.3)
    ax.set_ylim(-reach_of_axis, reach_of_axis)
    ax.set_xlabel(words(f"error.{experiment}"))
    ax.set_ylabel(words("error.y"), linespacing=1.35)
    return settle(ax)


def condition_count(pair: Pair) -> int:
    """How many instances there were: `concurrency=4` as 4."""
    return int(pair.condition.partition("=")[2])


def condition_text(pair: Pair, language: str) -> str:
    """`concurrency=4` in words."""
    name, _, count = pair.condition.partition("=")
    words = figure_words(language)
    return words(f"condition.{name}", n=count) if f"condition.{name}" in words else pair.condition


def pair_value_text(pair: Pair, value: float) -> str:
    """`value` in the unit of the pair."""
    return seconds_text(value) if pair.unit == "seconds" else bytes_text(value)


def _axis(ax: "Axes", which: str, experiment: str) -> None:
    if experiment == "contention":
        seconds_axis(ax, "x" if which == "x" else "y")
        return
    from matplotlib.ticker import FixedLocator, FuncFormatter

    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log", base=2)
    axis.set_major_locator(FixedLocator([2.0**exponent for exponent in range(10, 51, 4)]))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))


@figure_style()
def plot_contention(
    validation: Validation,
    profiles: Mapping[str, PlatformProfile],
    *,
    metric: str = "mean",
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """How long start-ups take that begin at the same moment: measured marks with their spread, predicted lines.

    Args:
        validation: pairs of one host.
        profiles: for the names of platforms.
        metric: `mean` over those that start together, or the `last` of them.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=4.4)
    pairs = [pair for pair in validation.pairs if pair.experiment == "contention" and pair.metric == metric]
    if not pairs:
        ax.set_axis_off()
        ax.text(0.5, 0.5, words("nothing"), ha="center", transform=ax.transAxes)
        return settle(ax)
    handles = []
    for subject, part in by_subject(pairs).items():
        look = look_of(subject.platform, subject.variant)
        counts = [condition_count(pair) for pair in part]
        ax.fill_between(
            counts,
            [pair.predicted_low for pair in part],
            [pair.predicted_high for pair in part],
            color=look.colour,
            alpha=0.15,
            linewidth=0,
        )
        ax.plot(counts, [pair.predicted for pair in part], color=look.colour, linestyle=look.line, linewidth=1.6)
        marks = [(count, pair.measured, *_reach(pair)) for count, pair in zip(counts, part, strict=True)]
        _draw_marks(ax, part, marks, along="y", capsize=4)
        handles += ax.plot(
            [],
            [],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            label=subject_label(subject, profiles, language),
        )
    handles += ax.plot([], [], "o", color=INK, markerfacecolor="white", label=words("validation.fitted"))
    ax.set_xscale("log", base=2)
    every = sorted({condition_count(pair) for pair in pairs})
    ax.set_xticks(every, [str(count) for count in every])
    ax.minorticks_off()
    seconds_axis(ax, "y")
    ax.set_xlabel(words("contention.x"))
    ax.set_ylabel(words(f"contention.{metric}"))
    legend_above(ax, handles, columns=2)
    return settle(ax)
