"""Raw samples and the tidy CSV files that they are kept in; `data/README.md` defines every column."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from real_engine.files import write_durably

CONDITIONS: dict[str, tuple[str, ...]] = {
    "startup": ("phase",),
    "contention": ("concurrency", "instance"),
    "memory": ("instances", "instance"),
    "machine": ("concurrency", "work"),
}
"""The condition columns of each experiment, in the order in which its file has them."""


@dataclass(frozen=True)
class Sample:
    """One raw sample: what was measured, under which conditions, and which repetition of them it is.

    `conditions` has one value for each name in `CONDITIONS[experiment]`, in that order.
    """

    experiment: str
    platform: str
    variant: str
    conditions: tuple[str | int, ...]
    metric: str
    value: float
    unit: str
    repetition: int

    def row(self) -> list[str]:
        """The sample as a line of its experiment's file."""
        value = repr(self.value) if isinstance(self.value, float) else str(self.value)
        fields = (self.experiment, self.platform, self.variant, *self.conditions, self.metric, value, self.unit)
        return [*map(str, fields), str(self.repetition)]


@dataclass
class Samples:
    """All the samples of one session. Kept in order, written file by file."""

    rows: list[Sample] = field(default_factory=list)

    def extend(self, samples: Iterable[Sample]) -> None:
        """Add samples, each of an experiment in `CONDITIONS`."""
        self.rows.extend(samples)

    def write(self, directory: Path) -> list[Path]:
        """Write each experiment that has samples to `directory/EXPERIMENT.csv`, durably; return the paths."""
        written = []
        for experiment, conditions in CONDITIONS.items():
            rows = [sample.row() for sample in self.rows if sample.experiment == experiment]
            if rows:
                text = io.StringIO()
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(
                    ("experiment", "platform", "variant", *conditions, "metric", "value", "unit", "repetition")
                )
                writer.writerows(rows)
                path = directory / f"{experiment}.csv"
                write_durably(path, text.getvalue().encode())
                written.append(path)
        return written
