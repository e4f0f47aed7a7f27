"""Figures of the scaling episode: the load comes, instances follow, and latency tells what the wait for them costs.

They show one replication: a run as it may happen, not a mean over runs, in which every spike would be smeared.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simulator.datacenter.platforms import PlatformProfile
from simulator.plotting.labels import name_label
from simulator.plotting.style import (
    INK,
    QUIET,
    axes_or_new,
    figure_style,
    figure_words,
    legend_above,
    look_of,
    seconds_axis,
    seconds_text,
    settle,
)
from simulator.results import Comparison, FleetStep

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@figure_style()
def plot_offered_load(comparison: Comparison, *, ax: "Axes | None" = None, language: str = "en") -> "Axes":
    """Requests per second that arrived over time. All platforms of a comparison meet the same.

    Args:
        comparison: whose first result's run over time is drawn.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.

    Raises:
        SimulatorError: the comparison holds no run over time.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=2.0)
    episode = next(iter(comparison.results.values())).episode
    minutes = np.array(episode.seconds) / 60
    ax.fill_between(minutes, episode.offered_rate, step="mid", color=QUIET, alpha=0.35, linewidth=0)
    ax.plot(minutes, episode.offered_rate, drawstyle="steps-mid", color=INK, linewidth=1.2)
    ax.set_ylim(bottom=0)
    return _time_axis(ax, minutes, words("episode.load"), language)


@figure_style()
def plot_instances(
    comparison: Comparison,
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """Ready instances of each platform over time as thick steps, those that are starting as thin ones.

    A mark stands where the autoscaler decided on another number than before, at the number that it decided on, and a
    cross where a fault took ready instances, at how many it took.

    Args:
        comparison: its runs over time.
        profiles: for the names of platforms.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.

    Raises:
        SimulatorError: the comparison holds no run over time.
    """
    from matplotlib.ticker import MaxNLocator

    words = figure_words(language)
    ax = axes_or_new(ax, height=3.0)
    handles = []
    faults = 0
    minutes = np.array([0.0])
    for name, result in comparison.results.items():
        look, episode = look_of(name), result.episode
        minutes = np.array(episode.seconds) / 60
        at = [step.seconds / 60 for step in episode.fleet]
        for count, width, alpha in (
            ([_coming(step) for step in episode.fleet], 1.0, 0.75),
            (_ready(episode.fleet), 2.2, 1),
        ):
            ax.step(
                [*at, minutes[-1]],
                [*count, count[-1]],
                where="post",
                color=look.colour,
                linestyle=look.line,
                linewidth=width,
                alpha=alpha,
            )
        changed = [decision for decision in episode.decisions if decision.desired != decision.current]
        ax.plot(
            [decision.seconds / 60 for decision in changed],
            [decision.desired for decision in changed],
            look.marker,
            color=look.colour,
            markerfacecolor="white",
            markersize=5.5,
            markeredgewidth=1.3,
        )
        hurt = [fault for fault in episode.faults if fault.blast_radius_fraction > 0]
        faults += len(hurt)
        ax.plot(
            [fault.seconds / 60 for fault in hurt],
            [fault.lost_instances for fault in hurt],
            "X",
            color=look.colour,
            markeredgecolor="white",
            markeredgewidth=0.6,
            markersize=7.5,
        )
        handles += ax.plot([], [], color=look.colour, linestyle=look.line, label=name_label(name, profiles, language))
    handles += ax.plot([], [], color=INK, linewidth=1.0, alpha=0.75, label=words("episode.starting"))
    handles += ax.plot([], [], "o", color=INK, markerfacecolor="white", markersize=5.5, label=words("episode.decision"))
    if faults:
        handles += ax.plot(
            [], [], "X", color=INK, markeredgecolor="white", markersize=7.5, label=words("episode.fault")
        )
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(ax, handles, columns=min(len(handles), 3))
    return _time_axis(ax, minutes, words("episode.instances"), language)


def _ready(fleet: tuple[FleetStep, ...]) -> list[int]:
    return [step.ready for step in fleet]


def _coming(step: FleetStep) -> int:
    """Instances that were asked for and do not serve yet, whether they start or wait for a machine with room."""
    return step.pending + step.starting


@figure_style()
def plot_episode_latency(
    comparison: Comparison,
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """99th percentile of the latency over time, on a logarithmic axis, with the SLO as a line.

    A request counts when it arrived. Where none of a bin was answered, the line has a gap.

    Args:
        comparison: its runs over time.
        profiles: for the names of platforms.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.

    Raises:
        SimulatorError: the comparison holds no run over time.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=2.6)
    minutes = np.array([0.0])
    objective = None
    for name, result in comparison.results.items():
        look, episode = look_of(name), result.episode
        minutes = np.array(episode.seconds) / 60
        latency = [np.nan if seconds is None else seconds for seconds in episode.p99_seconds]
        ax.plot(
            minutes,
            latency,
            color=look.colour,
            linestyle=look.line,
            linewidth=1.6,
            label=name_label(name, profiles, language),
        )
        objective = result.slo["latency_seconds"]
    seconds_axis(ax, "y", between=True)
    if objective is not None:
        ax.axhline(objective, color=INK, linewidth=1.2, linestyle=(0, (2, 2)))
        ax.annotate(
            words("episode.slo", latency=seconds_text(objective)),
            (1, objective),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            fontsize=10,
        )
    return _time_axis(ax, minutes, words("episode.latency"), language)


@figure_style()
def plot_episode_violations(
    comparison: Comparison,
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """Share of the requests that arrived in each bin and were late, rejected or lost.

    Args:
        comparison: its runs over time.
        profiles: for the names of platforms.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.

    Raises:
        SimulatorError: the comparison holds no run over time.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=2.2)
    minutes = np.array([0.0])
    for name, result in comparison.results.items():
        look, episode = look_of(name), result.episode
        minutes = np.array(episode.seconds) / 60
        share = [np.nan if fraction is None else fraction for fraction in episode.violation_fraction]
        ax.plot(
            minutes,
            share,
            drawstyle="steps-mid",
            color=look.colour,
            linestyle=look.line,
            linewidth=1.6,
            label=name_label(name, profiles, language),
        )
    ax.set_ylim(-0.03, 1.03)
    ax.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    return _time_axis(ax, minutes, words("episode.violations"), language)


def _time_axis(ax: "Axes", minutes: "np.typing.NDArray[np.float64]", label: str, language: str) -> "Axes":
    ax.set_xlim(0, minutes[-1] + (minutes[-1] - minutes[-2]) / 2 if minutes.size > 1 else 1)
    ax.set_xlabel(figure_words(language)("episode.x"))
    ax.set_ylabel(label, linespacing=1.35)
    return settle(ax)
