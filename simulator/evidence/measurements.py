"""What was measured on one machine, read strictly: a hole in the data is an error here and not a surprise later.

`data/README.md` defines the files. Arrays hold raw samples with one row a repetition; nothing is averaged here.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulator.datafiles import data_directory
from simulator.errors import SimulatorError

Samples = NDArray[np.float64]

_CONDITIONS = {
    "startup": ("phase",),
    "contention": ("concurrency", "instance"),
    "memory": ("instances", "instance"),
    "machine": ("concurrency", "work"),
}
_UNITS = {
    "wall": "seconds",
    "last": "seconds",
    "cpu": "seconds",
    "pss": "bytes",
    "kernel": "bytes",
    "available": "bytes",
}
_DIFFERENCES = ("kernel", "available")  # of two readings of the whole host, so noise can make them negative
_PLATFORMS = ("process", "container", "vm-tcg", "vm-kvm")
_LARGEST_FILE = 64 * 1024 * 1024  # bytes: several hundred times a full session, and no more of a wrong file is read


class Subject(NamedTuple):
    """What was measured: a platform and how it was set up."""

    platform: str
    variant: str

    def __str__(self) -> str:
        return self.platform if self.variant == "default" else f"{self.platform} ({self.variant})"


@dataclass(frozen=True)
class StartupSamples:
    """Starts of one instance on an idle machine.

    Attributes:
        phases: their names, in order.
        wall: for each phase, seconds by repetition, shape (repetitions,).
        cpu: for each phase, CPU seconds by repetition.
        total: seconds from the request until the instance's own program ran, by repetition.
    """

    phases: tuple[str, ...]
    wall: Mapping[str, Samples]
    cpu: Mapping[str, Samples]
    total: Samples


@dataclass(frozen=True)
class MemorySamples:
    """Idle instances side by side, by how many there are, in bytes.

    Attributes:
        pss: proportional set size of each, shape (repetitions, instances).
        kernel: growth of the host kernel's own memory since before the first, shape (repetitions,).
        available: drop of the host's available memory over the same interval, shape (repetitions,).
    """

    pss: Mapping[int, Samples]
    kernel: Mapping[int, Samples]
    available: Mapping[int, Samples]


class Cpu(BaseModel):
    """The processor of the measured machine."""

    model: str
    cores: int = Field(gt=0)


class Provenance(BaseModel):
    """What the simulator needs of `provenance.json`; the other keys are for people."""

    model_config = ConfigDict(frozen=True)

    host: str
    recorded_at: str
    cpu: Cpu
    memory_bytes: int = Field(gt=0)
    kernel: str
    tick_seconds: float = Field(default=0.004, gt=0, le=1)
    """The kernel's timer tick: clock_getres(2) of CLOCK_MONOTONIC_COARSE. Most distributions build with 4 ms."""
    quick: bool = False
    complete: bool = True
    fingerprint: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurements:
    """One host's raw samples.

    Attributes:
        directory: where they were read from.
        provenance: which machine, when.
        startup: one instance at a time.
        contention: seconds of each of several that start at once: concurrency to shape (repetitions, concurrency).
        memory: idle instances side by side.
        machine: seconds until the last copy of a fixed work was done: kind of work, then copies at once, to shape
            (repetitions,).
    """

    directory: Path
    provenance: Provenance
    startup: Mapping[Subject, StartupSamples]
    contention: Mapping[Subject, Mapping[int, Samples]]
    memory: Mapping[Subject, MemorySamples]
    machine: Mapping[str, Mapping[int, Samples]]

    @property
    def host(self) -> str:
        """The name of the measured host."""
        return self.provenance.host


def measurements_directory(host_or_directory: str | Path) -> Path:
    """Where the measurements of a host are: a directory that exists, or a name in `data/measurements/`.

    Raises:
        SimulatorError: neither; the message lists the hosts that there are.
    """
    given = Path(host_or_directory)
    if given.is_dir():
        return given
    folder = data_directory() / "measurements"
    if given.name == str(host_or_directory) and given.name not in ("", ".", "..") and (folder / given.name).is_dir():
        return folder / given.name
    hosts = sorted(path.parent.name for path in folder.glob("*/provenance.json"))
    known = f"the hosts here are: {', '.join(hosts)}" if hosts else "none are recorded; run `onggi measure`"
    raise SimulatorError(f"{host_or_directory}: no such directory and no such host of measurements; {known}")


def read_measurements(host_or_directory: str | Path = "reference") -> Measurements:
    """Read everything that was measured on a host.

    Args:
        host_or_directory: the name of a host in `data/measurements/`, or a directory.

    Raises:
        SimulatorError: no such host, no measurements in it, or a file that breaks the contract of `data/README.md`:
            the message names file and line.
    """
    directory = measurements_directory(host_or_directory)
    files = sorted(directory.glob("*.csv"))
    if not files:
        raise SimulatorError(f"{directory}: holds no measurements (*.csv); run `onggi measure`")
    for path in files:
        if path.stem not in _CONDITIONS:
            raise SimulatorError(f"{path}: unknown experiment `{path.stem}`; known are {', '.join(_CONDITIONS)}")
    tables = {path.stem: _Table(path, list(_rows(path))) for path in files}
    empty = _Table(directory, [])
    startup, contention, memory, machine = (tables.get(name, empty) for name in _CONDITIONS)
    return Measurements(
        directory=directory,
        provenance=_read_provenance(directory / "provenance.json"),
        startup={subject: _startup(part) for subject, part in startup.by_subject()},
        contention={subject: part.by_instance("concurrency", "wall") for subject, part in contention.by_subject()},
        memory={
            subject: MemorySamples(
                part.where("instance", lambda name: name != "host").by_instance("instances", "pss"),
                part.where("instance", lambda name: name == "host").by_count("instances", "kernel"),
                part.where("instance", lambda name: name == "host").by_count("instances", "available"),
            )
            for subject, part in memory.by_subject()
        },
        machine={work: part.by_count("concurrency", "last") for work, part in machine.grouped("work")},
    )


def _startup(table: "_Table") -> StartupSamples:
    phases = tuple(name for name, _ in table.grouped("phase") if name != "total")
    if not phases:
        raise SimulatorError(f"{table.path}: no phase but `total` of {table.subject}; a start-up has at least one")
    wall = {name: part.by_repetition("wall") for name, part in table.grouped("phase")}
    cpu = {name: part.by_repetition("cpu") for name, part in table.grouped("phase")}
    if "total" not in wall:
        raise SimulatorError(f"{table.path}: no rows with phase `total` of {table.subject}")
    repetitions = set(wall["total"])
    for name in phases:
        for metric, samples in (("wall", wall[name]), ("cpu", cpu[name])):
            if set(samples) != repetitions:
                odd = min(set(samples) ^ repetitions)
                raise SimulatorError(
                    f"{table.path}: {table.subject}, repetition {odd}: phase `{name}` and `total` do not both have "
                    f"`{metric}`; each repetition has every phase"
                )
    return StartupSamples(
        phases,
        {name: _array(wall[name]) for name in phases},
        {name: _array(cpu[name]) for name in phases},
        _array(wall["total"]),
    )


def _array(by_repetition: Mapping[int, float]) -> Samples:
    return np.array([by_repetition[repetition] for repetition in sorted(by_repetition)], dtype=np.float64)


class _Row(NamedTuple):
    line: int
    subject: Subject
    conditions: Mapping[str, str]
    metric: str
    value: float
    repetition: int


class _Table:
    """Rows of one file, and how they become arrays."""

    def __init__(self, path: Path, rows: list[_Row]) -> None:
        self.path = path
        self.rows = rows

    @property
    def subject(self) -> Subject:
        return self.rows[0].subject

    def by_subject(self) -> Iterator[tuple[Subject, "_Table"]]:
        parts: dict[Subject, list[_Row]] = defaultdict(list)
        for row in self.rows:
            parts[row.subject].append(row)
        return ((subject, _Table(self.path, rows)) for subject, rows in parts.items())

    def grouped(self, condition: str) -> Iterator[tuple[str, "_Table"]]:
        """The parts with each value of `condition`, in order of appearance."""
        parts: dict[str, list[_Row]] = defaultdict(list)
        for row in self.rows:
            parts[row.conditions[condition]].append(row)
        return ((value, _Table(self.path, rows)) for value, rows in parts.items())

    def where(self, condition: str, wanted: Callable[[str], bool]) -> "_Table":
        return _Table(self.path, [row for row in self.rows if wanted(row.conditions[condition])])

    def by_repetition(self, metric: str) -> dict[int, float]:
        found: dict[int, float] = {}
        for row in self.rows:
            if row.metric == metric:
                if row.repetition in found:
                    raise SimulatorError(f"{self.path}:{row.line}: repetition {row.repetition} is there twice")
                found[row.repetition] = row.value
        return found

    def by_count(self, condition: str, metric: str) -> dict[int, Samples]:
        """For each count, the samples by repetition: shape (repetitions,)."""
        parts = {
            self._count(part.rows[0], condition): part.by_repetition(metric) for _, part in self.grouped(condition)
        }
        return {count: _array(parts[count]) for count in sorted(parts) if parts[count]}

    def by_instance(self, condition: str, metric: str) -> dict[int, Samples]:
        """For each count, the samples by repetition and instance: shape (repetitions, count)."""
        found: dict[int, Samples] = {}
        for _, part in self.grouped(condition):
            count = self._count(part.rows[0], condition)
            instances = {
                self._index(sub.rows[0], count): sub.by_repetition(metric) for _, sub in part.grouped("instance")
            }
            repetitions = {repetition for samples in instances.values() for repetition in samples}
            for index in range(count):
                if missing := repetitions - set(instances.get(index, {})):
                    raise SimulatorError(
                        f"{self.path}: {part.subject}, {condition} {count}, repetition {min(missing)}: "
                        f"instance {index} is missing; each repetition has instances 0 to {count - 1}"
                    )
            if repetitions:
                found[count] = np.stack([_array(instances[index]) for index in range(count)], axis=1)
        return dict(sorted(found.items()))

    def _count(self, row: _Row, condition: str) -> int:
        text = row.conditions[condition]
        if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 6 and int(text) > 0):
            raise SimulatorError(f"{self.path}:{row.line}: `{condition}` is {text!r}; a count from 1 up is needed")
        return int(text)

    def _index(self, row: _Row, count: int) -> int:
        text = row.conditions["instance"]
        if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) < count):
            raise SimulatorError(
                f"{self.path}:{row.line}: `instance` is {text!r}; a number from 0 to {count - 1} is needed"
            )
        return int(text)


def _rows(path: Path) -> Iterator[_Row]:
    """Each line of an experiment's file, checked.

    Raises:
        SimulatorError: anything that `data/README.md` forbids.
    """
    conditions = _CONDITIONS[path.stem]
    wanted = ["experiment", "platform", "variant", *conditions, "metric", "value", "unit", "repetition"]
    lines = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    try:
        header = next(lines, [])
        if missing := [column for column in wanted if column not in header]:
            raise SimulatorError(f"{path}:1: column `{missing[0]}` is missing; the header is {','.join(wanted)}")
        if header != wanted:
            raise SimulatorError(f"{path}:1: the columns are not {','.join(wanted)}, in this order and no others")
        for fields in lines:
            yield _row(
                f"{path}:{lines.line_num}", lines.line_num, path.stem, dict(zip(wanted, fields, strict=False)), fields
            )
    except csv.Error as error:
        raise SimulatorError(f"{path}:{lines.line_num}: not CSV: {error}") from error


def _row(where: str, line: int, experiment: str, row: dict[str, str], fields: list[str]) -> _Row:
    wanted = 7 + len(_CONDITIONS[experiment])
    if len(fields) != wanted:
        raise SimulatorError(f"{where}: {len(fields)} fields where {wanted} are needed")
    for column, text in row.items():
        if not text.strip():
            raise SimulatorError(f"{where}: `{column}` is empty; every field is needed")
    if row["experiment"] != experiment:
        raise SimulatorError(f"{where}: experiment `{row['experiment']}` in the file of `{experiment}`")
    if row["platform"] not in _PLATFORMS:
        raise SimulatorError(f"{where}: unknown platform `{row['platform']}`; known are {', '.join(_PLATFORMS)}")
    metric = row["metric"]
    value = _number(row["value"])
    if value is None:
        raise SimulatorError(f"{where}: `value` is {row['value']!r}; a finite number is needed")
    if value < 0 and metric not in _DIFFERENCES:
        raise SimulatorError(f"{where}: `{metric}` is {row['value']}; it cannot be negative")
    if metric in _UNITS and row["unit"] != _UNITS[metric]:
        raise SimulatorError(f"{where}: `unit` of `{metric}` is {row['unit']!r}; it is in {_UNITS[metric]}")
    repetition = row["repetition"]
    if not (repetition.isascii() and repetition.isdigit() and len(repetition) <= 9):
        raise SimulatorError(f"{where}: `repetition` is {repetition!r}; it counts 0, 1, 2, …")
    return _Row(
        line,
        Subject(row["platform"], row["variant"]),
        {name: row[name] for name in _CONDITIONS[experiment]},
        metric,
        value,
        int(repetition),
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    # float() also takes 1_000, which is Python's way of writing a number and not CSV's.
    return value if math.isfinite(value) and "_" not in text else None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}") from error
    if len(content) > _LARGEST_FILE:
        raise SimulatorError(f"{path}: larger than {_LARGEST_FILE} bytes, so not what `onggi measure` wrote")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SimulatorError(f"{path}: not UTF-8 at byte {error.start}") from error


def _read_provenance(path: Path) -> Provenance:
    if not path.exists():
        raise SimulatorError(f"{path}: is missing; measurements without it say nothing about where they come from")
    try:
        return Provenance.model_validate_json(_text(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SimulatorError(f"{path}: {'key `' + key + '`: ' if key else ''}{first['msg']}") from error
