"""Figures of start-up: how long it takes, from sample to sample, and what it consists of."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.datacenter.platforms import PlatformProfile
from simulator.evidence.measurements import Subject
from simulator.plotting.labels import kind_label, platform_label, subject_label
from simulator.plotting.style import (
    HATCHES,
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulator.evidence.measurements import Measurements

_STRIP = 0.13  # height of a line of the strip of ranges above the ECDF, whose own height is 1


@figure_style()
def plot_startup_ecdf(
    measurements: "Measurements | None",
    profiles: Mapping[str, PlatformProfile],
    *,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """Every measured start-up as a step of an empirical distribution; published ones as ranges above it.

    Args:
        measurements: of one host, or None where nothing was measured.
        profiles: platforms by name. One that was not measured is drawn as the range of its total start-up: a published
            range is not a distribution, so it gets no curve.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=4.2)
    handles: list[Any] = []
    measured = measurements.startup if measurements is not None else {}
    for subject, samples in measured.items():
        look = look_of(subject.platform, subject.variant)
        seconds = np.sort(samples.total)
        share = np.arange(seconds.size + 1) / seconds.size
        label = words(
            "startup.line",
            platform=subject_label(subject, profiles, language),
            n=seconds.size,
            median=seconds_text(float(np.median(seconds))),
        )
        ax.step([seconds[0], *seconds], share, where="post", color=look.colour, linestyle=look.line)
        mark: dict[str, Any] = {
            "color": look.colour,
            "marker": look.marker,
            "markersize": 4.5,
            "markeredgecolor": "white",
        }
        ax.plot(seconds, share[1:], linestyle="none", markeredgewidth=0.4, **mark)
        handles += ax.plot([], [], linestyle=look.line, markeredgewidth=0.4, label=label, **mark)
    others = [profile for name, profile in profiles.items() if all(name != subject.platform for subject in measured)]
    for line, profile in enumerate(others):
        _range(ax, profile, 1.12 + line * _STRIP, language)
    seconds_axis(ax, "x")
    ax.set_xlabel(words("startup.x"))
    ax.set_ylabel(words("startup.y"), y=0.5 / (1.06 + len(others) * _STRIP))
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    ax.set_ylim(-0.03, 1.06 + len(others) * _STRIP)
    low, high = ax.get_xlim()
    ax.set_xlim(low / 1.5, high * 1.5)
    if others:
        ax.axhline(1.04, color=QUIET, linewidth=0.8)
    if handles:
        legend_above(ax, handles, columns=1)
    return settle(ax)


def _range(ax: "Axes", profile: PlatformProfile, y: float, language: str) -> None:
    """The interval of a platform's start-up as a hatched bar, its value as a hollow mark, its name beside it."""
    look = look_of(profile.name)
    total = profile.startup.total_seconds
    ax.barh(
        y, max(total.high - total.low, 0.02 * total.value), left=total.low, height=_STRIP * 0.55, facecolor="none",
        edgecolor=look.colour, hatch=HATCHES[total.kind], linestyle="--" if total.kind == "published" else "-",
    )  # fmt: skip
    filled = look.colour if total.kind == "measured" else "white"
    ax.plot(
        total.value, y, look.marker, color=look.colour, markerfacecolor=filled, markersize=8, markeredgewidth=2,
        clip_on=False,
    )  # fmt: skip
    text = figure_words(language)(
        "startup.range",
        platform=platform_label(profile, language),
        value=seconds_text(total.value),
        kind=kind_label(total.kind, language),
    )
    ax.annotate(
        text,
        (total.low, y),
        xytext=(-9, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=10,
        color=INK,
    )


@figure_style()
def plot_startup_phases(
    profile: PlatformProfile,
    *,
    subject: Subject | None = None,
    key: bool = True,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """The phases of one start-up as a waterfall: each begins where the one before ended.

    The filled part of a bar is work on a core, the empty part waiting. A thin bar below is work of a second thread at
    the same time. Hatched and dashed means published, as in every figure.

    Args:
        profile: the platform.
        subject: how the platform was set up where it was measured, for the title.
        key: whether to say above the bars what filled and empty mean.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    from matplotlib.patches import Patch

    words = figure_words(language)
    phases = profile.startup.phases
    ax = axes_or_new(ax, height=1.3 + 0.34 * len(phases))
    look = look_of(profile.name, subject.variant if subject else "default")
    begun = 0.0
    whole = sum(phase.cpu_seconds + phase.fixed_seconds for phase in phases)
    for row, phase in enumerate(phases):
        published = phase.kind == "published"
        style: dict[str, Any] = {"edgecolor": look.colour, "linewidth": 1.2, "linestyle": "--" if published else "-"}
        working, waiting = phase.cpu_seconds, phase.fixed_seconds
        if published:
            # A hatch takes the colour of the edge, so the ground is left empty for it to be seen.
            ax.barh(row, working, left=begun, height=0.62, facecolor="none", hatch=HATCHES["published"], **style)
        else:
            ax.barh(row, working, left=begun, height=0.62, facecolor=look.colour, **style)
        ax.barh(row, waiting, left=begun + working, height=0.62, facecolor="none", **style)
        if phase.parallel_cpu_seconds:
            ax.barh(row + 0.42, phase.parallel_cpu_seconds, left=begun, height=0.14, color=look.colour)
        began, begun = begun, begun + working + waiting
        # Behind the bar where there is room, else before it, and in it where it fills the whole width.
        place, offset, side = (
            (begun, 5, "left") if begun < 0.8 * whole else (began, -5, "right")
            if began > 0.15 * whole else ((began + begun) / 2, 0, "center")
        )  # fmt: skip
        ax.annotate(
            seconds_text(working + waiting),
            (place, row),
            xytext=(offset, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=10,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
            if side == "center"
            else None,
        )
    ax.set_yticks(range(len(phases)), [words.get(f"phase.{phase.name}", phase.name) for phase in phases])
    ax.set_ylim(len(phases) - 0.3, -0.6)
    ax.set_xlim(0, whole * 1.02)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    seconds_axis(ax, "x", logarithmic=False)
    ax.locator_params(axis="x", nbins=6)
    total = profile.startup.total_seconds
    label = subject_label(subject, {profile.name: profile}, language) if subject else platform_label(profile, language)
    ax.set_title(
        words("phases.title", platform=label, total=seconds_text(total.value), kind=kind_label(total.kind, language)),
        pad=30 if key else 8,
    )
    if key:
        # The colour tells the platform apart, so what the key explains is drawn without one.
        filled = Patch(facecolor=QUIET, edgecolor=QUIET, label=words("phases.cpu"))
        legend_above(ax, [filled, Patch(facecolor="none", edgecolor=QUIET, label=words("phases.wait"))])
    return settle(ax)
