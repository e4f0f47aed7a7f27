"""Figures of memory: what one instance needs, and how the need of many grows until a limit ends it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simulator.datacenter.memory import footprint
from simulator.datacenter.platforms import Memory, PlatformProfile, Quantity
from simulator.evidence.calibration import fitted_instances
from simulator.plotting.labels import kind_label, platform_label
from simulator.plotting.style import (
    HATCHES,
    INK,
    QUIET,
    axes_or_new,
    bytes_text,
    figure_style,
    figure_words,
    legend_above,
    look_of,
    settle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulator.datacenter.machine import MachineSpec
    from simulator.datacenter.memory import Density
    from simulator.evidence.measurements import Measurements

_PARTS = (("private", 1.0), ("kernel", 0.55), ("shared", 0.2))
"""The parts of a platform's memory in the order in which they are stacked, and how opaque each is."""


@figure_style()
def plot_memory_per_instance(
    profiles: Mapping[str, PlatformProfile], *, ax: "Axes | None" = None, language: str = "en"
) -> "Axes":
    """What one instance needs, as a stack of private memory, the host kernel's part, and what all share.

    The whiskers are the interval of private and kernel memory together, which is what one more instance costs.

    Args:
        profiles: platforms by name, drawn from top to bottom.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    from matplotlib.patches import Patch

    words = figure_words(language)
    ax = axes_or_new(ax, height=1.6 + 0.75 * len(profiles))
    widest = max(_ends(profile.memory)[2] + profile.memory.shared_bytes.value for profile in profiles.values())
    scale, unit = _unit(widest)
    for row, profile in enumerate(profiles.values()):
        look = look_of(profile.name)
        left = 0.0
        for part, opacity in _PARTS:
            quantity: Quantity = getattr(profile.memory, f"{part}_bytes")
            published = quantity.kind == "published"
            ax.barh(
                row,
                quantity.value / scale,
                left=left,
                height=0.5,
                facecolor="none" if published else (look.colour, opacity),
                edgecolor=look.colour,
                hatch=HATCHES[quantity.kind],
                linestyle="--" if published else "-",
            )
            left += quantity.value / scale
        value, low, high = _ends(profile.memory)
        ax.errorbar(
            value / scale,
            row,
            xerr=[[(value - low) / scale], [(high - value) / scale]],
            color=INK,
            capsize=4,
            linewidth=1.4,
        )
        ax.annotate(
            _parts_text(profile.memory, language),
            (max(high, left * scale) / scale, row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    names = [
        f"{platform_label(profile, language)}\n{kind_label(profile.memory.private_bytes.kind, language)}"
        for profile in profiles.values()
    ]
    ax.set_yticks(range(len(names)), names, linespacing=1.35)
    ax.set_ylim(len(names) - 0.5, -0.5)
    # Room on the right for the text that stands beside the longest bar.
    ax.set_xlim(0, widest / scale * 1.62)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(words("memory.x", unit=unit))
    legend_above(
        ax,
        [Patch(facecolor=(QUIET, opacity), edgecolor=QUIET, label=words(f"memory.{part}")) for part, opacity in _PARTS],
    )
    return settle(ax)


def _ends(memory: Memory) -> tuple[float, float, float]:
    """What one more instance costs in bytes: value, low, high. The sum of the ends holds whatever their dependence."""
    pair = (memory.private_bytes, memory.kernel_bytes)
    return sum(q.value for q in pair), sum(q.low for q in pair), sum(q.high for q in pair)


def _parts_text(memory: Memory, language: str) -> str:
    parts = [
        f"{figure_words(language)('memory.' + part)} {bytes_text(getattr(memory, part + '_bytes').value)}"
        for part, _ in _PARTS
        if getattr(memory, f"{part}_bytes").value
    ]
    return " + ".join(parts)


def _unit(largest: float) -> tuple[float, str]:
    """The binary unit in which `largest` is a readable number, and how many bytes it has."""
    return next(((2.0**e, unit) for e, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if largest >= 2**e), (1.0, "B"))


@figure_style()
def plot_memory_total(
    profiles: Mapping[str, PlatformProfile],
    densities: "Mapping[str, Density]",
    machine: "MachineSpec",
    *,
    application_bytes: float = 0.0,
    measurements: "Measurements | None" = None,
    ax: "Axes | None" = None,
    language: str = "en",
) -> "Axes":
    """What N instances need together against N, up to the density of each platform and the limit that bound it.

    Lines are the model `shared + N * (private + kernel + application)` with its band; marks are measured: filled where
    the model was not fitted to them, hollow where it was.

    Args:
        profiles: platforms by name.
        densities: of the same platforms on `machine`.
        machine: whose memory is the horizontal line.
        application_bytes: private bytes of the application inside each instance, as the densities were asked for.
        measurements: whose idle instances are marked, if nothing was added for an application.
        ax: where to draw; a new figure without it.
        language: `en` or `ko`.
    """
    words = figure_words(language)
    ax = axes_or_new(ax, height=4.4)
    handles = []
    for name, profile in profiles.items():
        look, density = look_of(name), densities[name]
        counts = np.geomspace(1, max(density.instances, 2), 60)
        value, low, high = (
            [footprint(_at(profile.memory, end), n, application_bytes) for n in counts]
            for end in ("value", "low", "high")
        )
        ax.fill_between(counts, low, high, color=look.colour, alpha=0.15, linewidth=0)
        (line,) = ax.plot(
            counts,
            value,
            color=look.colour,
            linestyle=look.line,
            label=words(
                "total.line",
                platform=platform_label(profile, language),
                density=f"{density.instances:,}",
                limit=words.get(f"limit.{density.limit}", density.limit),
            ),
        )
        ax.plot(counts[-1], value[-1], look.marker, color=look.colour, markersize=9, markeredgecolor="white")
        handles.append(line)
    if measurements is not None and not application_bytes:
        _measured_totals(ax, measurements, profiles)
    ax.axhline(machine.usable_bytes, color=QUIET, linestyle=(0, (2, 2)), linewidth=1.4)
    ax.annotate(
        words("total.machine", memory=bytes_text(machine.usable_bytes)),
        (0, machine.usable_bytes),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=10,
        color=QUIET,
    )
    ax.set_xscale("log")
    ax.set_yscale("log", base=2)
    _log_ticks(ax)
    ax.set_ylim(top=machine.usable_bytes * 3)
    ax.set_xlabel(words("total.x"))
    ax.set_ylabel(words("total.y"))
    legend_above(ax, handles, columns=1)
    return settle(ax)


def _log_ticks(ax: "Axes") -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(FixedLocator([2.0**exponent for exponent in range(10, 51, 5)]))
    ax.yaxis.set_minor_locator(FixedLocator([]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))


def _at(memory: Memory, end: str) -> Memory:
    """The memory of a platform with every quantity at its `value`, `low` or `high`."""
    ends = {
        name: (quantity := getattr(memory, name)).model_copy(update={"value": getattr(quantity, end)})
        for name in ("private_bytes", "shared_bytes", "kernel_bytes")
    }
    return memory.model_copy(update=ends)


def _measured_totals(ax: "Axes", measurements: "Measurements", profiles: Mapping[str, PlatformProfile]) -> None:
    """PSS of all instances plus the growth of the kernel, by how many instances there were."""
    for subject, samples in measurements.memory.items():
        if subject.platform not in profiles:
            continue
        look = look_of(subject.platform, subject.variant)
        for count, pss in samples.pss.items():
            if count in samples.kernel:
                total = pss.sum(axis=1) + samples.kernel[count]
                filled = "white" if count <= fitted_instances(subject.platform) else look.colour
                ax.plot(
                    np.full(total.size, count), total, look.marker, color=look.colour, markersize=5.5,
                    markerfacecolor=filled, markeredgecolor=look.colour,
                )  # fmt: skip
