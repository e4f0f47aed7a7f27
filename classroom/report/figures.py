"""The report's figures: which there are, how their parts are put together, and what is said of each."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from classroom.report.svg import inline_svg
from simulator import plotting
from simulator.datacenter.platforms import PlatformProfile
from simulator.evidence.calibration import described_profile, fit_startup
from simulator.evidence.curves import LADDER
from simulator.plotting.style import figure_style
from simulator.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from simulator.datacenter.machine import MachineSpec
    from simulator.datacenter.memory import Density
    from simulator.evidence.curves import CurvePoint
    from simulator.evidence.measurements import Measurements, Subject
    from simulator.evidence.validation import Validation
    from simulator.results import Comparison

WIDTH = 6.8
"""Inches of every figure: its 11-point text is read on a wall when it fills a page, and on a phone that scrolls."""


@dataclass(frozen=True)
class Drawing:
    """One figure of the page.

    Attributes:
        key: of its words, and prefix of its ids.
        svg: the figure.
        title: what it is.
        caption: how to read it.
        not_shown: one sentence on what it does not show.
    """

    key: str
    svg: str
    title: str
    caption: str
    not_shown: str


Row = tuple[float, Callable[..., "Axes"]]
"""The height of a part in inches, and what draws it when called with `ax=`."""


@dataclass(frozen=True)
class Material:
    """What the figures are drawn from; see `classroom.report.page.write_report` for each."""

    comparison: "Comparison"
    profiles: Mapping[str, PlatformProfile]
    densities: "Mapping[str, Density]"
    machine: "MachineSpec"
    application_bytes: float
    measurements: "Measurements | None"
    validation: "Validation | None"
    curves: "Sequence[CurvePoint]" = ()


def draw_all(material: Material, words: Words) -> dict[str, Drawing]:
    """Every figure that the material allows, by key."""
    return {
        key: _drawing(key, rows, words)
        for key, rows in (
            ("startup", _startup(material, words.language)),
            ("phases", _phases(material, words.language)),
            ("memory", _memory(material, words.language)),
            ("total", _total(material, words.language)),
            ("episode", _episode(material, words.language)),
            ("outcome", _outcome(material, words.language)),
            ("contention", _contention(material, words.language)),
            ("validation-contention", _validation(material, "contention", words.language)),
            ("validation-memory", _validation(material, "memory", words.language)),
            ("curves", _curves(material, words.language)),
        )
        if rows
    }


def _drawing(key: str, rows: list[Row], words: Words) -> Drawing:
    """Draw `rows` below each other on one figure."""
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=(WIDTH, sum(height for height, _ in rows)))
        grid = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[height for height, _ in rows])
        for (_, draw), ax in zip(rows, grid[:, 0], strict=True):
            draw(ax=ax)
        _arrange(figure, share_time=key == "episode")
        caption, not_shown = words(f"figure.{key}.caption"), words(f"figure.{key}.not-shown")
        title = words(f"figure.{key}.title")
        svg = inline_svg(figure, key, f"{title}. {caption}")
    return Drawing(key, svg, title, caption, not_shown)


def _arrange(figure: "Figure", *, share_time: bool) -> None:
    """Room between the parts; for an episode, one time axis for all of them and their labels in one line."""
    figure.get_layout_engine().set(h_pad=0.03 if share_time else 0.1)  # type: ignore[union-attr,call-arg]
    axes = figure.get_axes()
    if share_time:
        for ax in axes[:-1]:
            ax.set_xlabel("")
            ax.sharex(axes[-1])
            ax.tick_params(axis="x", labelbottom=False)
        figure.align_ylabels(axes)


def _startup(material: Material, language: str) -> list[Row]:
    curves = len(material.measurements.startup) if material.measurements else 0
    draw = partial(plotting.plot_startup_ecdf, material.measurements, material.profiles, language=language)
    return [(2.9 + 0.22 * curves + 0.3 * len(material.profiles), draw)]


def _phases(material: Material, language: str) -> list[Row]:
    return [
        (
            0.85 + 0.3 * len(profile.startup.phases) + (0 if row else 0.25),
            partial(plotting.plot_startup_phases, profile, subject=subject, key=row == 0, language=language),
        )
        for row, (profile, subject) in enumerate(_profiles_with_phases(material))
    ]


def _profiles_with_phases(material: Material) -> "Iterator[tuple[PlatformProfile, Subject | None]]":
    """The platforms compared, and after them the virtual machines that were measured but not compared."""
    for profile in material.profiles.values():
        yield profile, None
    if material.measurements is not None:
        for subject, samples in material.measurements.startup.items():
            if subject.platform.startswith("vm") and subject.platform not in material.profiles:
                measured = fit_startup(samples, subject, material.measurements.host)
                yield described_profile(subject).model_copy(update={"startup": measured}), subject


def _memory(material: Material, language: str) -> list[Row]:
    draw = partial(plotting.plot_memory_per_instance, material.profiles, language=language)
    return [(1.2 + 0.7 * len(material.profiles), draw)]


def _total(material: Material, language: str) -> list[Row]:
    draw = partial(
        plotting.plot_memory_total,
        material.profiles,
        material.densities,
        material.machine,
        application_bytes=material.application_bytes,
        measurements=material.measurements,
        language=language,
    )
    return [(3.6 + 0.22 * len(material.profiles), draw)]


def _episode(material: Material, language: str) -> list[Row]:
    both = (material.comparison, material.profiles)
    return [
        (1.3, partial(plotting.plot_offered_load, material.comparison, language=language)),
        (3.0, partial(plotting.plot_instances, *both, language=language)),
        (2.1, partial(plotting.plot_episode_latency, *both, language=language)),
        (1.5, partial(plotting.plot_episode_violations, *both, language=language)),
    ]


def _outcome(material: Material, language: str) -> list[Row]:
    comparison, profiles = material.comparison, material.profiles
    rows: list[Row] = []
    met_faults = any("blast_radius_fraction" in result.metrics for result in comparison.results.values())
    of_faults = ("blast_radius_fraction", "fault_recovery_seconds") if met_faults else ()
    for metric in ("p99_seconds", "slo_violation_fraction", *of_faults):
        outcome = partial(plotting.plot_outcome, comparison, metric, profiles, language=language)
        rows.append((0.8 + 0.42 * len(comparison.results), outcome))
        pairs = sum(difference.metric == metric for difference in comparison.differences)
        if pairs:
            paired = partial(plotting.plot_differences, comparison, metric, profiles, language=language)
            rows.append((0.8 + 0.42 * pairs, paired))
    return rows


def _contention(material: Material, language: str) -> list[Row]:
    validation = material.validation
    if validation is None or not any(pair.experiment == "contention" for pair in validation.pairs):
        return []
    return [(4.2, partial(plotting.plot_contention, validation, material.profiles, language=language))]


def _validation(material: Material, experiment: str, language: str) -> list[Row]:
    validation = material.validation
    if validation is None or not any(pair.experiment == experiment for pair in validation.pairs):
        return []
    all_three = (validation, experiment, material.profiles)
    return [
        (4.4, partial(plotting.plot_predicted_against_measured, *all_three, language=language)),
        (2.7, partial(plotting.plot_relative_error, *all_three, language=language)),
    ]


def _curves(material: Material, language: str) -> list[Row]:
    """The published curves, one below the other; the isolation ladder and the table of scaling have a row a point."""
    count = Counter(point.curve for point in material.curves)
    return [
        (
            1.3 + 0.24 * count[curve] if curve >= LADDER else 2.8,
            partial(plotting.plot_published_curve, material.curves, curve, language=language),
        )
        for curve in sorted(count)
    ]
