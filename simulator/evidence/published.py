"""Figures of the literature, each with its source: `data/published/*.csv` and `sources.toml`."""

import csv
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from simulator.datafiles import data_directory
from simulator.errors import SimulatorError
from simulator.records import StrictModel, validate_record

_COLUMNS = ("quantity", "platform", "condition", "value", "low", "high", "unit", "source", "place", "read_from")
_READ_FROM = ("text", "data", "digitised", "secondary")
_LARGEST_FILE = 4 * 1024 * 1024


class Source(StrictModel):
    """A publication: what to cite, and where it is."""

    citation: str
    url: str


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
        quantity: what it is of, e.g. `start-up`.
        platform: as the publication has it, e.g. `tinyx-xen`.
        conditions: under which it holds, e.g. `{"guests_running": "200"}`.
        value: in `unit`.
        low: lower end where the publication gives a range, or of what reading a curve by eye leaves open.
        high: upper end, as `low`.
        unit: `seconds`, `bytes`, …
        source: short name of the publication, a key of `sources()`.
        place: where in it.
        read_from: `text`, `data`, `digitised` (from a curve, ±3 %) or `secondary`.
    """

    quantity: str
    platform: str
    conditions: Mapping[str, str]
    value: float
    low: float | None
    high: float | None
    unit: str
    source: str
    place: str
    read_from: str


def sources() -> dict[str, Source]:
    """Every publication that is cited, by short name.

    Raises:
        SimulatorError: the file is missing or wrong.
    """
    path = data_directory() / "published" / "sources.toml"
    try:
        tree = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SimulatorError(f"{path}: not TOML: {error}") from error
    return {name: validate_record(Source, entry, f"{path}: {name}") for name, entry in tree.items()}


def read_published(name: str) -> tuple[Figure, ...]:
    """The figures of `data/published/NAME.csv`: `startup`, `memory`, `overhead` or `curves`.

    Raises:
        SimulatorError: no such file, or a row that is not as it should be; the message names file and line.
    """
    folder = data_directory() / "published"
    known = sorted(path.stem for path in folder.glob("*.csv"))
    if name not in known:
        raise SimulatorError(f"{name}: no such published figures; known are {', '.join(known)}")
    path = folder / f"{name}.csv"
    cited = sources()
    lines = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    if tuple(next(lines, [])) != _COLUMNS:
        raise SimulatorError(f"{path}:1: the columns are not {','.join(_COLUMNS)}")
    figures = []
    for fields in lines:
        where = f"{path}:{lines.line_num}"
        if len(fields) != len(_COLUMNS):
            raise SimulatorError(f"{where}: {len(fields)} fields where {len(_COLUMNS)} are needed")
        figures.append(_figure(where, dict(zip(_COLUMNS, fields, strict=True)), cited))
    return tuple(figures)


def _figure(where: str, row: dict[str, str], cited: Mapping[str, Source]) -> Figure:
    for column in ("quantity", "platform", "value", "unit", "source", "place", "read_from"):
        if not row[column].strip():
            raise SimulatorError(f"{where}: `{column}` is empty")
    if row["source"] not in cited:
        raise SimulatorError(f"{where}: source `{row['source']}` is not in sources.toml; add what to cite")
    if row["read_from"] not in _READ_FROM:
        raise SimulatorError(f"{where}: `read_from` is {row['read_from']!r}; one of {', '.join(_READ_FROM)}")
    value = _number(where, "value", row["value"])
    low, high = (_number(where, end, row[end]) if row[end] else None for end in ("low", "high"))
    if (low is not None and low > value) or (high is not None and high < value):
        raise SimulatorError(f"{where}: low <= value <= high does not hold")
    pairs = [part.partition("=") for part in row["condition"].split(";") if part]
    if any(not (name and equals and text) for name, equals, text in pairs):
        raise SimulatorError(f"{where}: `condition` is {row['condition']!r}; it is written name=value;name=value")
    conditions = MappingProxyType({name: text for name, _, text in pairs})
    return Figure(
        row["quantity"], row["platform"], conditions, value, low, high,
        row["unit"], row["source"], row["place"], row["read_from"],
    )  # fmt: skip


def _number(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SimulatorError(f"{where}: `{column}` is {text!r}; a finite number is needed")
    return number


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE).decode()
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SimulatorError(f"{path}: not UTF-8 at byte {error.start}") from error
