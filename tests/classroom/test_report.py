"""The report: one file that asks for nothing, says where each number is from, and refuses what it cannot tell."""

import csv
import json
import re
import time
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simulator
from classroom.report import headline, write_report
from classroom.report.figures import Material
from classroom.report.page import render, report_words
from classroom.report.svg import inline_svg
from classroom.report.verdict import verdict
from simulator.datacenter.machine import MachineSpec
from simulator.datacenter.memory import density
from simulator.datacenter.platforms import PlatformProfile
from simulator.errors import SimulatorError
from simulator.evidence.literature import validate_literature
from simulator.evidence.measurements import Measurements, read_measurements
from simulator.evidence.validation import validate
from simulator.scenario import Scenario

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

PLATFORMS = ("container", "vm-kvm", "vm-cloud")
HOSTILE = "</td><script>alert('x')</script>{{ 7 * 7 }}\"'&"


def record(folder: Path, **changes: Any) -> Measurements:
    """Measurements of a host that there is not, as `onggi measure` would have left them."""
    random = np.random.default_rng(7)
    startup, contention, memory, machine = ([] for _ in range(4))
    for platform, variant, seconds, private in (("container", "default", 0.006, 3e5), ("vm-tcg", "microvm", 2.5, 9e7)):
        for repetition in range(8):
            one = seconds * random.lognormal(0, 0.05)
            for phase, share in (("vmm", 0.25), ("exec", 0.75), ("total", 1.0)):
                for metric, part in (("wall", share), ("cpu", share * 0.8)):
                    row = ["startup", platform, variant, phase, metric, one * part, "seconds", repetition]
                    startup.append(row)
            for count in (1, 2, 4, 8):
                wall = seconds * max(1, count / 2) * random.lognormal(0, 0.05)
                for index in range(count):
                    contention.append(
                        ["contention", platform, variant, count, index, "wall", wall, "seconds", repetition]
                    )
                    pss = (private + private / count) * random.lognormal(0, 0.02)
                    memory.append(["memory", platform, variant, count, index, "pss", pss, "bytes", repetition])
                kernel = count * private / 2 * random.lognormal(0, 0.02)
                memory.append(["memory", platform, variant, count, "host", "kernel", kernel, "bytes", repetition])
                memory.append(["memory", platform, variant, count, "host", "available", kernel, "bytes", repetition])
    for work in ("compute", "fork"):
        for count in (1, 2):
            machine.append(["machine", "process", "default", count, work, "last", 0.2 + count / 100, "seconds", 0])
    for name, conditions, rows in (
        ("startup", ["phase"], startup),
        ("contention", ["concurrency", "instance"], contention),
        ("memory", ["instances", "instance"], memory),
        ("machine", ["concurrency", "work"], machine),
    ):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            header = ["experiment", "platform", "variant", *conditions, "metric", "value", "unit", "repetition"]
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    provenance = {
        "host": "laboratory",
        "recorded_at": "2026-01-02T03:04:05+00:00",
        "command": "onggi measure",
        "commit": "0123456789ab",
        "onggi_version": "0.1.0",
        "quick": False,
        "complete": True,
        "seed": 1,
        "cpu": {"model": "A processor", "cores": 2},
        "memory_bytes": 2**33,
        "kernel": "6.1.0",
        "cgroup": "v2",
        "accelerators": {"vm-kvm": "not used: the probe guest did not boot"},
        "runtimes": {"qemu": "7.2"},
        "load_average": {"before": [0.1, 0.2, 0.3], "after": [1.0, 0.5, 0.3]},
        "fingerprint": "fedcba9876543210",
        "warnings": [],
        **changes,
    }
    (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    return read_measurements(folder)


@pytest.fixture(scope="module")
def profiles() -> dict[str, PlatformProfile]:
    return {name: PlatformProfile.from_toml(name) for name in PLATFORMS}


@pytest.fixture(scope="module")
def comparison(profiles) -> simulator.Comparison:
    scenario = Scenario.from_toml("compare").model_copy(update={"duration_seconds": 200.0, "warm_up_seconds": 20.0})
    return simulator.compare(scenario, list(profiles.values()), seed=3, replications=3)


@pytest.fixture(scope="module")
def arguments(profiles, comparison, tmp_path_factory) -> dict[str, Any]:
    machine = MachineSpec()
    measurements = record(tmp_path_factory.mktemp("laboratory"))
    return {
        "comparison": comparison,
        "profiles": profiles,
        "densities": {name: density(profile, machine) for name, profile in profiles.items()},
        "machine": machine,
        "measurements": measurements,
        "validation": validate(measurements),
        "curves": validate_literature(scale_out=False),
        "command": "onggi compare --seed 3",
    }


@pytest.fixture(scope="module", params=["en", "ko"])
def report(request, arguments, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph or font is a warning of matplotlib's
        write_report(path, **arguments, language=request.param)
    return path.read_text(encoding="utf-8")


def page_of(arguments: dict[str, Any]) -> "Page":
    """The report in English without its figures, which take the most time."""
    given = {"application_bytes": 0.0, **arguments}
    command = given.pop("command")
    return Page(render(Material(**given), {}, command, report_words("en")))


class Page(HTMLParser):
    """What a browser would see: every element with its attributes, and the text."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += text

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_it_asks_for_nothing_outside_of_itself(report):
    page = Page(report)

    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "data", "poster", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        href = attributes.get("href") or ""
        assert href == "" or href.startswith("#") or (tag == "a" and href.startswith("https://"))
    for address in re.findall(r"url\(([^)]*)\)", report):
        assert address.startswith(("#", "data:font/woff2;base64,"))
    assert "@import" not in report


def test_its_policy_forbids_the_network_even_if_something_asked(report):
    (policy,) = [
        meta["content"] for meta in Page(report).all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]

    assert {"default-src 'none'", "style-src 'unsafe-inline'", "font-src data:"} <= {
        part.strip() for part in (policy or "").split(";")
    }


def test_every_element_is_closed_and_ids_are_unique_and_found(report):
    page = Page(report)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    wanted = [
        (attributes.get("href") or "")[1:]
        for _, attributes in page.elements
        if (attributes.get("href") or "").startswith("#")
    ]
    wanted += re.findall(r"url\(#([^)]+)\)", report)
    wanted += [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]

    assert page.open == []
    assert len(ids) == len(set(ids))
    assert set(wanted) <= set(ids)


def test_figures_are_described_and_their_text_is_text(report):
    page = Page(report)
    drawings = page.all("svg")

    assert len(drawings) == 10
    assert all(svg["role"] == "img" and svg["aria-label"] and svg["viewbox"] for svg in drawings)
    assert len(page.all("text")) > 100
    assert report.count("@font-face") == 1


def test_no_figure_holds_the_time_at_which_it_was_drawn(report):
    assert "<metadata" not in report
    assert "matplotlib" not in report.lower()


def test_tables_have_headers(report):
    page = Page(report)

    assert len(page.all("table")) >= 6
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))


def test_every_headline_number_has_its_kind_and_its_interval(report, arguments):
    figures = headline(arguments["comparison"], arguments["profiles"], arguments["densities"])
    table = report[report.index('<table class="headline">') :].split("</table>", 1)[0]

    assert table.count('<span class="badge') == table.count('<span class="value">') == 5 * len(PLATFORMS)
    for of in figures.values():
        for figure in of.values():
            assert figure.text in table
            assert figure.interval in table


def test_the_same_input_gives_the_same_bytes_within_ten_seconds(report, arguments, tmp_path):
    language = "ko" if '<html lang="ko">' in report else "en"
    began = time.process_time()
    write_report(tmp_path / "again.html", **arguments, language=language)

    assert time.process_time() - began < 10
    assert report == (tmp_path / "again.html").read_text(encoding="utf-8")


def test_what_others_wrote_is_shown_and_never_run(arguments, tmp_path):
    measurements = record(
        tmp_path, host=HOSTILE, kernel=HOSTILE, command=HOSTILE, warnings=[HOSTILE], runtimes={HOSTILE: HOSTILE}
    )
    hostile = arguments | {
        "measurements": measurements,
        "command": HOSTILE,
        "comparison": replace(arguments["comparison"], scenario=HOSTILE),
        "profiles": {
            name: profile.model_copy(update={"label_en": "<b>$x$&", "about": HOSTILE})
            for name, profile in arguments["profiles"].items()
        },
    }
    write_report(tmp_path / "report.html", **hostile)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    assert not page.all("script")
    assert page.open == []
    assert not page.all("b")
    assert page.text.count(HOSTILE) > 8
    assert page.text.count("<b>$x$&") > 20
    assert "7 * 7" in page.text


def test_provenance_and_warnings_are_told(arguments, tmp_path):
    measurements = record(tmp_path, quick=True, warnings=["unstable: the load average was 3.00 on 2 cores"])
    page = page_of(arguments | {"measurements": measurements})

    for told in (
        "A processor",
        "6.1.0",
        "not used: the probe guest did not boot",
        "qemu 7.2",
        "0123456789ab",
        "0.10 0.20 0.30",
    ):
        assert told in page.text
    assert page.text.count("unstable: the load average was 3.00 on 2 cores") == 2
    assert "Read with care" in page.text
    assert "fewer repetitions" in page.text


def test_published_points_stand_beside_the_simulated_and_fitted_ones_are_marked(arguments):
    text = page_of(arguments).text
    words = report_words("en")
    assert words("curves.heading") in text
    for number in range(1, 6):
        assert words(f"curves.title-{number}") in text
    assert f"{words('curves.pairs')} ({len(arguments['curves'])})" in text
    fitted = sum(point.fitted for point in arguments["curves"])
    assert fitted == text.partition(words("curves.pairs"))[2].count("fitted")
    assert "My VM is Lighter" in text  # what a curve is from is cited, whatever platforms were compared


def test_without_published_curves_none_are_told_of(arguments):
    assert report_words("en")("curves.heading") not in page_of({**arguments, "curves": ()}).text


def test_without_measurements_nothing_claims_to_be_measured(arguments, tmp_path):
    write_report(tmp_path / "report.html", **arguments | {"measurements": None, "validation": None, "curves": ()})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    assert "Nothing was measured here" in page.text
    assert "nothing was validated here" in page.text
    assert "laboratory" not in page.text
    assert len(page.all("svg")) == 6


def test_one_platform_alone_is_reported_without_a_verdict(arguments):
    one = arguments["comparison"]
    alone = replace(one, results={"container": one.results["container"]}, differences=())
    page = page_of(arguments | {"comparison": alone})

    assert 5 == sum(attributes.get("class") == "value" for attributes in page.all("span"))
    assert not any("decided" in (attributes.get("class") or "") for attributes in page.all("dt"))
    assert "Container against" not in page.text


def findings(arguments: dict[str, Any], comparison: simulator.Comparison, language: str = "en") -> dict[str, list[Any]]:
    figures = headline(comparison, arguments["profiles"], arguments["densities"])
    words = report_words(language)
    found: dict[str, list[Any]] = {}
    for sentence in verdict(figures, comparison, arguments["profiles"], words):
        found.setdefault(sentence.about, []).append(sentence)
    return found


def test_no_winner_where_the_interval_of_the_difference_holds_zero(arguments):
    comparison = arguments["comparison"]
    unsure = tuple(replace(each, value=0.1, low=-0.2, high=0.4, lower=None) for each in comparison.differences)

    for sentence in findings(arguments, replace(comparison, differences=unsure))["p99 latency"]:
        assert not sentence.decided
        assert "No winner" in sentence.text
        assert "−200\u00a0ms to +400\u00a0ms" in sentence.text


def test_no_winner_from_one_replication(arguments):
    comparison = arguments["comparison"]
    single = tuple(replace(each, low=None, high=None, lower=None) for each in comparison.differences)

    for sentence in findings(arguments, replace(comparison, differences=single))["p99 latency"]:
        assert not sentence.decided
        assert "says nothing about chance" in sentence.text


def test_a_difference_names_the_lower_platform_in_both_languages(arguments):
    comparison = arguments["comparison"]
    sure = tuple(replace(each, value=-0.3, low=-0.4, high=-0.2, lower=each.first) for each in comparison.differences)
    decided = replace(comparison, differences=sure)

    assert "Lower on Container." in findings(arguments, decided)["p99 latency"][0].text
    assert "더 작은 쪽: 컨테이너." in findings(arguments, decided, "ko")["p99 지연 시간"][0].text


def test_no_winner_where_published_ranges_overlap(arguments):
    profile = arguments["profiles"]["vm-kvm"]
    container = arguments["profiles"]["container"].startup.total_seconds
    total = profile.startup.total_seconds.model_copy(
        update={"low": container.value, "value": 2 * container.high, "high": 3 * container.high}
    )
    twin = profile.model_copy(update={"startup": profile.startup.model_copy(update={"total_seconds": total})})
    sentences = findings(arguments | {"profiles": arguments["profiles"] | {"vm-kvm": twin}}, arguments["comparison"])[
        "Start-up"
    ]

    assert [False, True] == [sentence.decided for sentence in sentences]
    assert "no winner, since the two intervals overlap" in sentences[0].text


def test_a_ratio_has_an_interval_that_holds_it(arguments):
    (_, cloud) = findings(arguments, arguments["comparison"])["Start-up"]
    told = re.search(r"about ([\d.,]+) \(([\d.,]+) to ([\d.,]+)\)", cloud.text)
    assert told
    ratio, least, most = (float(number.replace(",", "")) for number in told.groups())
    container, vm = (arguments["profiles"][name].startup.total_seconds for name in ("container", "vm-cloud"))

    assert least <= ratio <= most
    assert vm.value / container.value == pytest.approx(ratio, rel=0.06)
    assert vm.low / container.high == pytest.approx(least, rel=0.06)


def test_a_platform_without_profile_is_refused(arguments, tmp_path):
    profiles = {name: arguments["profiles"][name] for name in PLATFORMS[:2]}
    with pytest.raises(SimulatorError, match="`vm-cloud` was simulated but has no profile"):
        write_report(tmp_path / "report.html", **arguments | {"profiles": profiles})

    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told_in_one_line(arguments, tmp_path):
    with pytest.raises(SimulatorError, match=r"there is no directory .*no-such-folder") as refused:
        write_report(tmp_path / "no-such-folder" / "report.html", **arguments)

    assert "\n" not in str(refused.value)


def test_two_figures_alike_share_no_id():
    from matplotlib.figure import Figure

    from simulator.plotting.style import figure_style

    texts = []
    for key in ("first", "second"):
        with figure_style():
            figure = Figure()
            figure.subplots().plot([1, 2], [3, 4], "o-", color="#0072B2")
            texts.append(inline_svg(figure, key, "<a line> & more"))
    first, second = (set(re.findall(r' id="([^"]+)"', text)) for text in texts)

    assert first
    assert not first & second
    assert "var(--blue, #0072b2)" in texts[0]
    assert 'aria-label="&lt;a line&gt; &amp; more"' in texts[0]
