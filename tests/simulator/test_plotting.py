"""Figures: every one in both languages, with the right marks, and without a trace in matplotlib's settings."""

import string
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simulator
from simulator import plotting
from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.memory import density
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.evidence.curves import CurvePoint
from simulator.evidence.literature import validate_literature
from simulator.evidence.measurements import Cpu, Measurements, MemorySamples, Provenance, StartupSamples, Subject
from simulator.evidence.validation import Pair, Validation, summaries
from simulator.plotting.style import NO_BREAK, bytes_text, digits, figure_style, look_of, seconds_text
from simulator.scenario import Scenario
from simulator.words import LANGUAGES, Words

matplotlib = pytest.importorskip("matplotlib")

PLATFORMS = ("container", "vm-kvm", "vm-cloud")
CONTAINER = Subject("container", "default")
MICROVM = Subject("vm-tcg", "microvm")
WORDS = Path(plotting.__file__).parent
REPORT_WORDS = WORDS.parents[1] / "classroom" / "report"


@pytest.fixture(autouse=True)
def _without_a_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def profiles() -> dict[str, PlatformProfile]:
    return {name: PlatformProfile.from_toml(name) for name in PLATFORMS}


@pytest.fixture(scope="module")
def measurements() -> Measurements:
    random = np.random.default_rng(5)

    def startup(seconds: float) -> StartupSamples:
        wall = seconds * random.lognormal(0, 0.1, 12)
        return StartupSamples(
            ("vmm", "exec"), {"vmm": wall / 2, "exec": wall / 2}, {"vmm": wall, "exec": wall / 9}, wall
        )

    memory = MemorySamples(
        pss={n: random.lognormal(13, 0.05, (3, n)) for n in (1, 4, 16)},
        kernel={n: n * random.lognormal(12, 0.05, 3) for n in (1, 4, 16)},
        available={n: n * random.lognormal(13, 0.05, 3) for n in (1, 4, 16)},
    )
    return Measurements(
        directory=Path("nowhere"),
        provenance=Provenance(
            host="lab", recorded_at="2026-01-02", cpu=Cpu(model="a CPU", cores=2), memory_bytes=2**33, kernel="6.1"
        ),
        startup={CONTAINER: startup(0.006), MICROVM: startup(2.5)},
        contention={},
        memory={CONTAINER: memory},
        machine={},
    )  # fmt: skip


def pair(
    experiment: str, metric: str, condition: str, predicted: float, measured: float, *, fitted: bool = False
) -> Pair:
    return Pair(
        experiment, "container", "default", metric, condition, "bytes" if experiment == "memory" else "seconds",
        predicted, predicted * 0.95, predicted * 1.05, measured, measured * 0.9, measured * 1.1,
        (predicted - measured) / measured, fitted, 0.1, 8,
    )  # fmt: skip


@pytest.fixture(scope="module")
def validation() -> Validation:
    pairs = (
        pair("startup", "mean", "concurrency=1", 0.006, 0.006, fitted=True),
        pair("contention", "mean", "concurrency=1", 0.006, 0.0061, fitted=True),
        pair("contention", "mean", "concurrency=4", 0.012, 0.011),
        pair("contention", "mean", "concurrency=16", 0.048, 0.080),
        pair("contention", "last", "concurrency=16", 0.050, 0.060),
        pair("memory", "pss", "instances=4", 3e5, 3e5, fitted=True),
        pair("memory", "pss", "instances=16", 2e5, 2.1e5),
        pair("memory", "kernel", "instances=16", 4e6, -1e5),
        pair("memory", "footprint", "instances=16", 8e6, 7e6),
    )
    return Validation("lab", "2026-01-02T03:04:05+00:00", pairs, tuple(summaries(pairs)))


@pytest.fixture(scope="module")
def comparison(profiles) -> simulator.Comparison:
    scenario = Scenario.from_toml("compare").model_copy(update={"duration_seconds": 200.0, "warm_up_seconds": 20.0})
    return simulator.compare(scenario, list(profiles.values()), seed=3, replications=2)


@pytest.fixture(scope="module")
def curves() -> tuple[CurvePoint, ...]:
    return validate_literature(scale_out=False)


@pytest.fixture(scope="module")
def figures(profiles, measurements, validation, comparison, curves) -> dict[str, Callable]:
    machine = MachineSpec()
    densities = {name: density(profile, machine) for name, profile in profiles.items()}
    return {
        "startup_ecdf": lambda **how: plotting.plot_startup_ecdf(measurements, profiles, **how),
        "startup_phases": lambda **how: plotting.plot_startup_phases(profiles["vm-cloud"], **how),
        "memory_per_instance": lambda **how: plotting.plot_memory_per_instance(profiles, **how),
        "memory_total": lambda **how: plotting.plot_memory_total(
            profiles, densities, machine, measurements=measurements, **how
        ),
        "predicted_contention": lambda **how: plotting.plot_predicted_against_measured(
            validation, "contention", profiles, **how
        ),
        "predicted_memory": lambda **how: plotting.plot_predicted_against_measured(
            validation, "memory", profiles, **how
        ),
        "relative_error": lambda **how: plotting.plot_relative_error(validation, "contention", profiles, **how),
        "contention": lambda **how: plotting.plot_contention(validation, profiles, **how),
        "offered_load": lambda **how: plotting.plot_offered_load(comparison, **how),
        "instances": lambda **how: plotting.plot_instances(comparison, profiles, **how),
        "latency": lambda **how: plotting.plot_episode_latency(comparison, profiles, **how),
        "violations": lambda **how: plotting.plot_episode_violations(comparison, profiles, **how),
        "outcome": lambda **how: plotting.plot_outcome(comparison, "p99_seconds", profiles, **how),
        "differences": lambda **how: plotting.plot_differences(comparison, "slo_violation_fraction", profiles, **how),
        "curve": lambda **how: plotting.plot_published_curve(curves, 1, **how),
        "memory_curve": lambda **how: plotting.plot_published_curve(curves, 3, **how),
        "ladder": lambda **how: plotting.plot_published_curve(curves, 5, **how),
    }


FIGURES = (
    "startup_ecdf", "startup_phases", "memory_per_instance", "memory_total", "predicted_contention", "predicted_memory",
    "relative_error", "contention", "offered_load", "instances", "latency", "violations", "outcome", "differences",
    "curve", "memory_curve", "ladder",
)  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_on_the_axes_it_is_given_without_a_missing_glyph(name, language, figures):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that no font has, and of a font that is not there
        assert ax is figures[name](ax=ax, language=language)
        ax.figure.canvas.draw()

    assert ax.has_data() or ax.texts


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_axes_makes_its_own(name, figures):
    assert figures[name]().figure.axes


@pytest.mark.parametrize("name", FIGURES)
def test_both_languages_differ_and_say_as_much(name, figures):
    from matplotlib.text import Text

    english, korean = (
        [text.get_text() for text in figures[name](language=language).figure.findobj(Text) if text.get_text().strip()]
        for language in LANGUAGES
    )

    assert len(english) == len(korean)
    assert any("가" <= letter <= "힣" for text in korean for letter in text)
    assert not any("가" <= letter <= "힣" for text in english for letter in text)


def test_drawing_leaves_matplotlib_as_it_was(figures):
    before = dict(matplotlib.rcParams)

    figures["startup_ecdf"](language="ko").figure.canvas.draw()

    assert before == dict(matplotlib.rcParams)


def test_every_single_start_is_a_mark(figures):
    ax = figures["startup_ecdf"]()
    marked = [line for line in ax.lines if line.get_marker() == look_of("container").marker]
    (marks,) = [line for line in marked if len(line.get_xdata()) > 1]

    assert [(n + 1) / 12 for n in range(12)] == pytest.approx(list(marks.get_ydata()))
    assert list(marks.get_xdata()) == sorted(marks.get_xdata())
    # Marks that were joined would be slopes, and an empirical distribution has steps only.
    assert "None" == marks.get_linestyle()


def test_a_published_start_up_is_a_hatched_range_and_not_a_curve(figures, profiles):
    ax = figures["startup_ecdf"]()
    total = profiles["vm-kvm"].startup.total_seconds
    (bar,) = [bar for bar in ax.patches if bar.get_x() == total.low]

    assert total.high == pytest.approx(bar.get_x() + bar.get_width())
    assert bar.get_hatch()
    assert bar.get_linestyle() == "--"


def test_phases_follow_each_other_and_add_up(figures, profiles):
    bars = [bar for bar in figures["startup_phases"]().patches if bar.get_height() > 0.5]

    assert profiles["vm-cloud"].startup.total_seconds.value == pytest.approx(
        sum(bar.get_width() for bar in bars), rel=1e-3
    )
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    assert [0.0, *ends[:-1]] == pytest.approx([bar.get_x() for bar in bars])


def test_density_is_named_with_its_limit(figures):
    key = [text.get_text() for text in figures["memory_total"]().get_legend().get_texts()]

    assert any("1,023" in text and "bridge ports" in text for text in key)


def test_fitted_points_are_hollow_and_the_worst_unfitted_one_is_named(figures):
    ax = figures["predicted_contention"]()
    (named,) = [text.get_text() for text in ax.texts if "16 at once" in text.get_text()]
    faces = {
        line.get_markerfacecolor() for line in ax.lines if line.get_label().startswith("_") and line.get_marker() == "o"
    }

    assert "−40\u00a0%" in named
    assert {"white", look_of("container").colour} == faces


@pytest.mark.parametrize("curve", [1, 2, 3, 4, 5])
def test_marks_of_a_curve_are_published_lines_simulated_and_fitted_ones_hollow(curves, curve):
    shown = [point for point in curves if point.curve == curve]
    ax = plotting.plot_published_curve(curves, curve)
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1 and line.get_marker() != "None"]

    assert [point.fitted for point in shown] == [mark.get_markerfacecolor() == "white" for mark in marks]
    drawn = [mark.get_xdata()[0] if curve == 5 else mark.get_ydata()[0] for mark in marks]
    wanted = [point.model / point.published if curve == 5 else point.published for point in shown]
    assert wanted == drawn
    if curve != 5:
        lines = [y for line in ax.lines if len(line.get_xdata()) > 1 for y in line.get_ydata()]
        assert [point.model for point in shown] == lines


def test_a_curve_without_points_says_so():
    assert ["Nothing was measured for this figure"] == [
        text.get_text() for text in plotting.plot_published_curve((), 1).texts
    ]


def test_a_difference_that_holds_zero_is_hollow(comparison, profiles):
    from dataclasses import replace

    unsure = replace(comparison.differences[0], metric="p99_seconds", value=0.1, low=-0.1, high=0.3, lower=None)
    sure = replace(unsure, value=0.2, low=0.1, lower=unsure.second)
    drawn = plotting.plot_differences(replace(comparison, differences=(unsure, sure)), "p99_seconds", profiles)

    assert ["white", "#1b2026"] == [line.get_markerfacecolor() for line in drawn.lines if line.get_marker() == "o"]


def test_without_measurements_all_platforms_are_ranges(profiles):
    ax = plotting.plot_startup_ecdf(None, profiles)

    assert len(profiles) == len(ax.patches)
    assert ax.get_legend() is None


def test_an_unknown_language_is_refused(figures):
    with pytest.raises(SimulatorError, match=r"language `fr`: .* en, ko"):
        figures["contention"](language="fr")


def test_importing_the_figures_imports_no_matplotlib():
    program = "import sys, simulator.plotting; sys.exit('matplotlib' in sys.modules)"

    assert 0 == run([sys.executable, "-c", program], check=False).returncode


@pytest.mark.parametrize("folder", [WORDS, REPORT_WORDS], ids=["figures", "report"])
def test_both_languages_have_the_same_keys_with_the_same_fields(folder):
    def fields(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english, korean = (Words(folder, language).texts for language in LANGUAGES)

    assert {key: fields(text) for key, text in english.items()} == {key: fields(text) for key, text in korean.items()}
    assert all(text.strip() for text in (*english.values(), *korean.values()))


@pytest.mark.parametrize("folder", [WORDS, REPORT_WORDS], ids=["figures", "report"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_font_has_every_letter_of_the_words(folder, language):
    from matplotlib.ft2font import FT2Font

    from simulator.datafiles import data_directory

    has = FT2Font(str(data_directory() / "fonts" / "NotoSansKR-Regular.ttf")).get_charmap()
    text = "".join(Words(folder, language).texts.values())

    assert not {letter for letter in text if ord(letter) not in has and letter != "\n"}


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [
        ("0", 0.0),
        ("879 µs", 0.000879),
        ("5.5 ms", 0.0055),
        ("1 s", 0.99996),
        ("29.3 s", 29.26),
        ("1,200 s", 1200.0),
    ],
)
def test_seconds_are_told_in_a_unit_near_them(expected, seconds):
    assert expected.replace(" ", NO_BREAK) == seconds_text(seconds)


@pytest.mark.parametrize(
    ("expected", "count"),
    [("0 B", 0), ("500 B", 500), ("372 KiB", 380930), ("157 MiB", 164363456), ("63 GiB", 63 * 2**30)],
)
def test_bytes_are_told_in_binary_units(expected, count):
    assert expected.replace(" ", NO_BREAK) == bytes_text(count)


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_digits_keep_three_significant_ones(number):
    assert number == pytest.approx(float(digits(number).replace(",", "")), rel=0.0051)


def test_a_dollar_sign_in_a_name_is_no_mathematics(profiles):
    odd = {"container": profiles["container"].model_copy(update={"label_en": r"$\frac$ & <b>"})}
    with figure_style():
        ax = plotting.plot_memory_per_instance(odd)
        ax.figure.canvas.draw()

    assert any(r"$\frac$ & <b>" in label.get_text() for label in ax.get_yticklabels())
