"""The headline of a comparison: five figures a platform, each with its interval and its kind.

The command's table, its JSON and the report take their numbers from here, so that they cannot disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from simulator.datacenter.memory import Density, weakest_kind
from simulator.datacenter.platforms import Kind, PlatformProfile
from simulator.plotting.style import bytes_text, digits, percent_text, seconds_text
from simulator.results import Comparison, Metric

METRICS = ("startup_seconds", "memory_bytes", "density", "p99_seconds", "slo_violation_fraction")
"""What the headline has of every platform, in order."""


@dataclass(frozen=True)
class Figure:
    """One figure of the headline.

    Attributes:
        value: in `unit`.
        low, high: ends of its interval; None where there is none, as with a single replication.
        kind: where it comes from.
        unit: `seconds`, `bytes`, `count` or `fraction`.
        source: which measurement, publication or simulation.
        limit: of a density: the limit that bound it.
    """

    value: float
    low: float | None
    high: float | None
    kind: Kind
    unit: str
    source: str
    limit: str | None = None

    @property
    def text(self) -> str:
        """The value with its unit, for people."""
        return quantity_text(self.value, self.unit)

    @property
    def interval(self) -> str | None:
        """The interval for people, or None where there is none."""
        if self.low is None or self.high is None:
            return None
        return f"{quantity_text(self.low, self.unit)} – {quantity_text(self.high, self.unit)}"

    def to_dict(self) -> dict[str, float | str | None]:
        """As in `onggi compare --json`: value, low, high, kind, unit, source, and limit where there is one."""
        record = {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "kind": self.kind,
            "unit": self.unit,
            "source": self.source,
        }
        return record if self.limit is None else {**record, "limit": self.limit}


def headline(
    comparison: Comparison, profiles: Mapping[str, PlatformProfile], densities: Mapping[str, Density]
) -> dict[str, dict[str, Figure]]:
    """Platform to metric to figure, in the order of the comparison. A metric without a value in any run is missing.

    Args:
        comparison: what was simulated: p99 and violations.
        profiles: of the same platforms: start-up and memory. `memory_bytes` is what one more instance of an image that
            already runs needs, private and kernel memory together; the ends of its interval are the sums of theirs.
        densities: of the same platforms.
    """
    return {
        name: _of_profile(profiles[name])
        | {"density": _of_density(densities[name])}
        | {
            metric: _simulated(result.metrics[metric], comparison)
            for metric in ("p99_seconds", "slo_violation_fraction")
            if metric in result.metrics
        }
        for name, result in comparison.results.items()
    }


def _of_profile(profile: PlatformProfile) -> dict[str, Figure]:
    total = profile.startup.total_seconds
    parts = (profile.memory.private_bytes, profile.memory.kernel_bytes)
    sources = dict.fromkeys(part.source for part in parts if part.value or part.high)
    return {
        "startup_seconds": Figure(total.value, total.low, total.high, total.kind, "seconds", total.source),
        "memory_bytes": Figure(
            sum(part.value for part in parts),
            sum(part.low for part in parts),
            sum(part.high for part in parts),
            cast("Kind", weakest_kind(*parts)),
            "bytes",
            "; ".join(sources),
        ),
    }


def _of_density(density: Density) -> Figure:
    """What the model makes of a platform's memory and a machine's limits: simulated, whatever the memory was."""
    reason = next(limit.reason for limit in density.limits if limit.name == density.limit)
    return Figure(density.instances, density.low, density.high, "simulated", "count", reason, density.limit)


def _simulated(metric: Metric, comparison: Comparison) -> Figure:
    source = f"scenario {comparison.scenario}, seed {comparison.seed}, {metric.samples} replications"
    return Figure(metric.value, metric.low, metric.high, metric.kind, metric.unit, source)


def quantity_text(value: float, unit: str) -> str:
    """A figure with its unit: `5.5 ms`, `157 MiB`, `1,023`, `10.2 %`."""
    match unit:
        case "seconds":
            return seconds_text(value)
        case "bytes":
            return bytes_text(value)
        case "fraction":
            return percent_text(value)
    return digits(value)
