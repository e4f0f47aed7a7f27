"""What a comparison comes to in plain words, and where it refuses to name a winner."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from classroom.report.headline import Figure
from simulator.datacenter.platforms import PlatformProfile
from simulator.plotting.labels import name_label
from simulator.plotting.outcomes import difference_text
from simulator.plotting.style import digits
from simulator.results import Comparison, Difference
from simulator.words import Words


@dataclass(frozen=True)
class Sentence:
    """One finding.

    Attributes:
        about: the metric in words.
        text: the finding.
        decided: whether it names a difference; False where the intervals do not allow one.
    """

    about: str
    text: str
    decided: bool


def verdict(
    figures: Mapping[str, Mapping[str, Figure]],
    comparison: Comparison,
    profiles: Mapping[str, PlatformProfile],
    words: Words,
) -> list[Sentence]:
    """The first platform of the comparison against each of the others, metric by metric.

    Start-up, memory and density are set against each other as ratios: decided where the intervals do not overlap. What
    was simulated is decided by the interval of the paired differences.

    Args:
        figures: the headline.
        comparison: its paired differences.
        profiles: for the names of platforms.
        words: the report's words.
    """
    names = list(figures)
    return [
        sentence for other in names[1:] for sentence in _against(names[0], other, figures, comparison, profiles, words)
    ]


def _against(
    first: str,
    other: str,
    figures: Mapping[str, Mapping[str, Figure]],
    comparison: Comparison,
    profiles: Mapping[str, PlatformProfile],
    words: Words,
) -> Iterator[Sentence]:
    labels = {name: name_label(name, profiles, words.language) for name in (first, other)}
    for metric in ("startup_seconds", "memory_bytes", "density"):
        yield _ratio(metric, (figures[first][metric], figures[other][metric]), (labels[first], labels[other]), words)
    for metric in ("p99_seconds", "slo_violation_fraction"):
        for difference in comparison.differences:
            if (difference.metric, {difference.first, difference.second}) == (metric, {first, other}):
                yield _difference(difference, labels, words)


def _ratio(metric: str, pair: tuple[Figure, Figure], labels: tuple[str, str], words: Words) -> Sentence:
    one, other = pair
    values = {"first": labels[0], "one": one.text, "second": labels[1], "other": other.text}
    about = words(f"metric.{metric}")
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Sentence(about, words("verdict.no-interval", **values), decided=False)
    if one.low <= other.high and other.low <= one.high:
        return Sentence(about, words("verdict.overlap", **values), decided=False)
    if one.value > other.value:
        ratios = (one.value, other.value), (one.low, other.high), (one.high, other.low)
    else:
        ratios = (other.value, one.value), (other.low, one.high), (other.high, one.low)
    # Of the ends of the two intervals, those nearest to each other bound the ratio below, those furthest apart above.
    ratio, least, most = (_times(*ends) for ends in ratios)
    text = words("verdict.ratio", ratio=ratio, least=least, most=most, **values)
    if {one.kind, other.kind} == {"measured", "published"}:
        text += " " + words("verdict.different-machines")
    return Sentence(about, text, decided=True)


def _times(larger: float, smaller: float) -> str:
    """A ratio to two significant digits: of figures from different machines, no more are worth telling."""
    return digits(float(f"{larger / smaller:.2g}")) if smaller else "∞"


def _difference(difference: Difference, labels: Mapping[str, str], words: Words) -> Sentence:
    about = words(f"metric.{difference.metric}")
    values = {
        "first": labels[difference.first],
        "second": labels[difference.second],
        "difference": difference_text(difference.value, difference.unit),
    }
    if difference.low is None or difference.high is None:
        return Sentence(about, words("verdict.one-replication", **values), decided=False)
    values |= {
        "low": difference_text(difference.low, difference.unit),
        "high": difference_text(difference.high, difference.unit),
    }
    if difference.low == difference.high == 0:
        return Sentence(about, words("verdict.equal", **values), decided=False)
    if difference.lower is None:
        return Sentence(about, words("verdict.holds-zero", **values), decided=False)
    return Sentence(about, words("verdict.lower", lower=labels[difference.lower], **values), decided=True)
