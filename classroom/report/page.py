"""The report: one HTML file that needs nothing else, no network and no script."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroom.report.figures import Drawing, Material, draw_all
from classroom.report.headline import METRICS, headline
from classroom.report.verdict import verdict
from simulator.datacenter.platforms import PlatformProfile, Quantity
from simulator.datafiles import data_directory
from simulator.errors import SimulatorError
from simulator.evidence.curves import condition_text as published_condition
from simulator.evidence.curves import summarise_curves
from simulator.evidence.measurements import Subject
from simulator.evidence.published import Source, sources
from simulator.files import write_text
from simulator.plotting.labels import name_label, subject_label
from simulator.plotting.style import (
    KIND_MARKS,
    bytes_text,
    change_text,
    digits,
    figure_words,
    percent_text,
    seconds_text,
)
from simulator.plotting.validation import condition_text, pair_value_text
from simulator.words import Words

if TYPE_CHECKING:
    from simulator.datacenter.machine import MachineSpec
    from simulator.datacenter.memory import Density
    from simulator.evidence.curves import CurvePoint
    from simulator.evidence.measurements import Measurements
    from simulator.evidence.validation import Pair, Validation
    from simulator.results import Comparison

_LARGEST_PROVENANCE = 1024 * 1024  # bytes


@lru_cache
def report_words(language: str) -> Words:
    """The words of the report in one language.

    Raises:
        SimulatorError: a language that there is not.
    """
    return Words(Path(__file__).parent, language)


def write_report(
    path: Path,
    *,
    comparison: "Comparison",
    profiles: Mapping[str, PlatformProfile],
    densities: "Mapping[str, Density]",
    machine: "MachineSpec",
    application_bytes: float = 0.0,
    measurements: "Measurements | None" = None,
    validation: "Validation | None" = None,
    curves: "Sequence[CurvePoint]" = (),
    command: str = "",
    language: str = "en",
) -> None:
    """Write the report to `path`: the whole file, or none where something goes wrong. Same input, same bytes.

    Args:
        path: the HTML file; replaced if it exists.
        comparison: what was simulated, with the run over time of one replication; its first platform is set against
            the others.
        profiles: of all its platforms, as they were simulated.
        densities: of the same platforms on `machine`.
        machine: whose limits the densities ran into.
        application_bytes: private memory of the application in each instance, as the densities were asked for.
        measurements: of the host whose samples are shown, or None.
        validation: of the same host, or None.
        curves: published points beside what the simulator gives for them, `validate_literature()`; or none.
        command: what makes this report again, shown to the reader.
        language: `en` or `ko`.

    Raises:
        SimulatorError: an unknown language, a platform without profile or density, matplotlib or Jinja2 not installed,
            or a file that cannot be written.
    """
    for name in comparison.results:
        if name not in profiles or name not in densities:
            raise SimulatorError(f"report: platform `{name}` was simulated but has no profile or no density; give both")
    if not path.parent.is_dir():
        raise SimulatorError(f"{path}: there is no directory {path.parent}; make it, or name another place")
    material = Material(
        comparison,
        {name: profiles[name] for name in comparison.results},
        {name: densities[name] for name in comparison.results},
        machine,
        application_bytes,
        measurements,
        validation,
        curves,
    )
    words = report_words(language)
    write_text(path, render(material, _draw(material, words), command, words))


def _draw(material: Material, words: Words) -> dict[str, Drawing]:
    try:
        return draw_all(material, words)
    except ImportError as error:
        raise SimulatorError("report: matplotlib is not installed; run `pip install 'onggi[report]'`") from error


def render(material: Material, drawings: Mapping[str, Drawing], command: str, words: Words) -> str:
    """The report as HTML. Everything that does not come from a template or from a figure is escaped.

    Args:
        material: as given to `write_report`.
        drawings: the figures by key; one that is missing is left out.
        command: what makes this report again.
        words: `report_words` of the wanted language.

    Raises:
        SimulatorError: Jinja2 is not installed, or a file that belongs to onggi or to the measurements cannot be read.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise SimulatorError("report: Jinja2 is not installed; run `pip install 'onggi[report]'`") from error
    language = words.language
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = headline(material.comparison, material.profiles, material.densities)
    template = environment.get_template("report.html.j2")
    return template.render(
        w=words,
        drawings=drawings,
        style=(Path(__file__).parent / "report.css").read_text(encoding="utf-8"),
        font=_font(),
        metrics=METRICS,
        figures=figures,
        labels={name: name_label(name, material.profiles, language) for name in figures},
        limits={name: _limit(density.limit, language) for name, density in material.densities.items()},
        marks=KIND_MARKS,
        findings=_findings(material, figures, words),
        cause=_cause(material, words),
        notes=list(_notes(material, words)),
        comparison=material.comparison,
        alerts=_alerts(material, words),
        when=_when(material.measurements.provenance.recorded_at) if material.measurements else None,
        host=material.measurements.host if material.measurements else None,
        summary=list(_summary(material, words)),
        pairs=list(_pairs(material, words)),
        curves=list(_curves(material, words)),
        points=list(_points(material, words)),
        assumptions=[_assumptions(profile, words) for profile in material.profiles.values()],
        citations=_citations(material),
        provenance=list(_provenance(material, command, words)),
        command=command,
        version=_version(),
    )


def _font() -> str:
    """The page's font in base64, for the one @font-face rule."""
    path = data_directory() / "fonts" / "NotoSansKR-Regular.woff2"
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; reinstall onggi") from error


def _when(recorded_at: str) -> str:
    """`2026-11-24T03:00:00+00:00` as `2026-11-24 03:00 UTC`, or as it is where it is no such time."""
    try:
        return f"{datetime.fromisoformat(recorded_at).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return recorded_at


def _limit(limit: str, language: str) -> str:
    return figure_words(language).get(f"limit.{limit}", limit)


def _findings(material: Material, figures: Any, words: Words) -> list[dict[str, Any]]:
    """The sentences of the verdict, grouped by the platform that the first is set against."""
    names = list(figures)
    return [
        {
            "heading": words(
                "verdict.against",
                first=name_label(names[0], material.profiles, words.language),
                second=name_label(other, material.profiles, words.language),
            ),
            "sentences": verdict(
                {name: figures[name] for name in (names[0], other)}, material.comparison, material.profiles, words
            ),
        }
        for other in names[1:]
    ]


def _cause(material: Material, words: Words) -> str:
    """Why simulated platforms differ: what each adds to the work of a request, which is an assumption."""
    factors = (
        f"{name_label(name, material.profiles, words.language)} × {digits(profile.overhead.cpu_factor.value)}"
        for name, profile in material.profiles.items()
    )
    return words("verdict.cause", factors=", ".join(factors))


def _notes(material: Material, words: Words) -> Iterator[str]:
    """What a reader of the headline must know: the machine, the objective, how often it was repeated."""
    yield words(
        "metric.density-machine",
        cores=material.machine.cores,
        memory=bytes_text(material.machine.usable_bytes),
    )
    if material.application_bytes:
        yield words("metric.density-application", application=bytes_text(material.application_bytes))
    result = next(iter(material.comparison.results.values()))
    objective = result.slo
    yield words(
        "metric.slo", quantile=percent_text(objective["quantile"]), latency=seconds_text(objective["latency_seconds"])
    )
    yield words("metric.replications", count=len(result.replications))


def _alerts(material: Material, words: Words) -> list[str]:
    """What makes the measured figures less than they seem."""
    if material.measurements is None:
        return [words("host-none")]
    provenance = material.measurements.provenance
    alerts = list(provenance.warnings)
    if provenance.quick:
        alerts.append(words("provenance.quick"))
    if not provenance.complete:
        alerts.append(words("provenance.incomplete"))
    return alerts


def _summary(material: Material, words: Words) -> Iterator[dict[str, Any]]:
    """One row for each experiment and platform: what the unfitted predictions come to."""
    if material.validation is None:
        return
    for summary in material.validation.summary:
        everything = summary.platform == "all"
        platform = (
            words("evidence.all")
            if everything
            else subject_label(Subject(summary.platform, summary.variant), material.profiles, words.language)
        )
        worst = summary.worst
        yield {
            "experiment": words(f"evidence.{summary.experiment}"),
            "platform": platform,
            "everything": everything,
            "points": summary.points,
            "median": percent_text(summary.median_absolute_relative_error),
            "target": percent_text(summary.target),
            "met": summary.met,
            "worst": f"{_what(worst, material, words)}: {change_text(worst.relative_error)}",
            "spread": percent_text(summary.median_spread),
        }


def _what(pair: "Pair", material: Material, words: Words) -> str:
    label = subject_label(Subject(pair.platform, pair.variant), material.profiles, words.language)
    metric = figure_words(words.language).get(f"metric.{pair.metric}", pair.metric)
    return f"{label}, {metric}, {condition_text(pair, words.language)}"


def _pairs(material: Material, words: Words) -> Iterator[dict[str, Any]]:
    """Every predicted and measured pair."""
    for pair in material.validation.pairs if material.validation else ():
        ends = [pair_value_text(pair, end) for end in (pair.measured_low, pair.measured_high)]
        yield {
            "experiment": words(f"evidence.{pair.experiment}"),
            "platform": subject_label(Subject(pair.platform, pair.variant), material.profiles, words.language),
            "what": figure_words(words.language).get(f"metric.{pair.metric}", pair.metric),
            "condition": condition_text(pair, words.language),
            "predicted": pair_value_text(pair, pair.predicted),
            "measured": f"{pair_value_text(pair, pair.measured)} ({ends[0]} – {ends[1]})",
            "error": change_text(pair.relative_error),
            "fitted": pair.fitted,
        }


def _curves(material: Material, words: Words) -> Iterator[dict[str, Any]]:
    """One row for each line of a published curve: what the unfitted predictions come to."""
    for part in summarise_curves(material.curves):
        worst = part.worst
        yield {
            "curve": words(f"curves.title-{part.curve}"),
            "line": words.get(f"curves.line-{part.platform}", part.platform),
            "points": part.points,
            "median": percent_text(part.median_absolute_relative_error) if part.points else "–",
            "worst": "–"
            if worst is None
            else f"{worst.platform}, {published_condition(worst)}: {change_text(worst.relative_error)}"
            if worst.condition
            else f"{worst.platform}: {change_text(worst.relative_error)}",
            "published": f"× {digits(part.published_ratio)}",
            "simulated": f"× {digits(part.model_ratio)}",
            "same_order": part.same_order,
            "source": part.source,
        }


def _points(material: Material, words: Words) -> Iterator[dict[str, Any]]:
    """Every published point beside what was simulated."""
    text = {"seconds": seconds_text, "bytes": bytes_text}
    for point in material.curves:
        shown = text.get(point.unit, digits)
        yield {
            "curve": words(f"curves.title-{point.curve}"),
            "platform": point.platform,
            "condition": published_condition(point),
            "published": shown(point.published),
            "simulated": shown(point.model),
            "error": change_text(point.relative_error),
            "fitted": point.fitted,
            "source": point.source,
        }


def _assumptions(profile: PlatformProfile, words: Words) -> dict[str, Any]:
    """What is assumed of one platform, quantity by quantity, with its source."""
    memory, overhead = profile.memory, profile.overhead
    quantities = (
        ("startup", profile.startup.total_seconds, seconds_text),
        ("private", memory.private_bytes, bytes_text),
        ("shared", memory.shared_bytes, bytes_text),
        ("kernel", memory.kernel_bytes, bytes_text),
        ("cpu", overhead.cpu_factor, digits),
        ("network", overhead.network_seconds, seconds_text),
    )

    def row(name: str, quantity: Quantity, text: Any) -> dict[str, Any]:
        interval = "" if quantity.low == quantity.high else f" ({text(quantity.low)} – {text(quantity.high)})"
        return {
            "name": words(f"assumptions.{name}"),
            "value": text(quantity.value) + interval,
            "kind": quantity.kind,
            "source": quantity.source,
        }

    return {
        "label": name_label(profile.name, {profile.name: profile}, words.language),
        "about": profile.about,
        "rows": [row(*quantity) for quantity in quantities],
    }


def _citations(material: Material) -> dict[str, Source]:
    """The publications whose short names the profiles' sources mention, and those of the published curves."""
    said = json.dumps([profile.model_dump() for profile in material.profiles.values()], ensure_ascii=False)
    said += " ".join({point.source_name for point in material.curves})
    return {name: source for name, source in sources().items() if name in said}


@dataclass(frozen=True)
class Item:
    """One line of the provenance: what it is about, and what is to be said, a line each."""

    name: str
    lines: Sequence[str]


def _provenance(material: Material, command: str, words: Words) -> Iterator[Item]:
    """Everything that is known of where the numbers come from."""

    def item(key: str, *lines: object) -> Item:
        told = [str(line) for line in lines if line not in (None, "")]
        return Item(words(f"provenance.{key}"), told or [words("provenance.unknown")])

    if material.measurements is not None:
        record = _read_provenance(material.measurements.directory / "provenance.json")
        cpu, load = _object(record, "cpu"), _object(record, "load_average")
        yield item("machine", record.get("host"))
        yield item("recorded", record.get("recorded_at"))
        yield item("cpu", cpu.get("model"), words("provenance.cores", count=cpu.get("cores", "?")))
        yield item("memory", bytes_text(float(material.measurements.provenance.memory_bytes)))
        yield item("kernel", record.get("kernel"))
        yield item("cgroup", record.get("cgroup"))
        yield item("accelerators", *(f"{name}: {what}" for name, what in _object(record, "accelerators").items()))
        yield item("runtimes", *(f"{name} {what}" for name, what in _object(record, "runtimes").items()))
        yield item("load", *(f"{_numbers(load.get('before'))} / {_numbers(load.get('after'))}" for _ in load and [0]))
        yield item("commit", record.get("commit"))
        yield item("version", record.get("onggi_version"))
        yield item("seed", record.get("seed"))
        yield item("command", record.get("command"))
        yield item("fingerprint", record.get("fingerprint"))
        yield item("warnings", *(_alerts(material, words) or [words("provenance.no-warnings")]))
    yield item("simulation-seed", material.comparison.seed)
    yield item("report", command)


def _numbers(values: object) -> str:
    return " ".join(f"{value:.2f}" for value in values) if isinstance(values, list) else "?"


def _object(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _read_provenance(path: Path) -> dict[str, Any]:
    """All of `provenance.json`, of which the simulator keeps a part; here everything is shown."""
    try:
        with path.open("rb") as file:
            record = json.loads(file.read(_LARGEST_PROVENANCE))
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; measure again, or name another host") from error
    except ValueError as error:
        raise SimulatorError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise SimulatorError(f"{path}: not a JSON object; `data/README.md` says what it holds")
    return record


def _version() -> str:
    try:
        return version("onggi")
    except PackageNotFoundError:
        return "?"
