"""Reading measurements: what is right comes back as arrays, and every kind of hole is one clear line."""

import json
import re

import numpy as np
import pytest

from simulator.errors import SimulatorError
from simulator.evidence.measurements import Subject, read_measurements

CONTAINER = Subject("container", "default")


def test_everything_comes_back_by_repetition(measured):
    found = read_measurements(measured)
    assert found.host == "made-up"
    startup = found.startup[CONTAINER]
    assert startup.phases == ("clone", "mounts", "exec")
    np.testing.assert_allclose(startup.total, sum(startup.wall[phase] for phase in startup.phases))
    assert {count: samples.shape for count, samples in found.contention[CONTAINER].items()} == {
        count: (20, count) for count in (1, 2, 4, 8, 16)
    }
    assert {count: samples.shape for count, samples in found.memory[CONTAINER].pss.items()} == {
        count: (5, count) for count in (1, 2, 4, 8, 16, 32, 64)
    }
    assert found.memory[CONTAINER].kernel[4].shape == (5,)
    assert {work: list(samples) for work, samples in found.machine.items()} == {"compute": [1, 2], "fork": [1, 2]}


def test_an_experiment_that_was_not_measured_is_empty(measure):
    directory = measure()
    (directory / "memory.csv").unlink()
    assert read_measurements(directory).memory == {}


def test_metrics_from_a_later_version_are_ignored(measure):
    directory = measure()
    with (directory / "startup.csv").open("a") as file:
        file.write("startup,container,default,total,voluntary_switches,3,count,0\n")
    assert read_measurements(directory).startup[CONTAINER].total.size == 40


def test_noise_may_make_the_hosts_growth_negative(measure):
    directory = edit(measure(), "memory", "memory,container,default,1,host,kernel,", value="-4096")
    assert read_measurements(directory).memory[CONTAINER].kernel[1].min() == -4096


def edit(directory, name, start, /, **columns):
    """Change columns of the first line of the file that begins with `start` (an empty one is the header)."""
    path = directory / f"{name}.csv"
    lines = path.read_text().splitlines()
    header = lines[0].split(",")
    index = next(i for i, line in enumerate(lines) if i and line.startswith(start))
    fields = lines[index].split(",")
    for column, text in columns.items():
        fields[header.index(column)] = text
    lines[index] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")
    return directory


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"value": ""}, "`value` is empty"),
        ({"variant": "  "}, "`variant` is empty"),
        ({"value": "nan"}, "finite number"),
        ({"value": "inf"}, "finite number"),
        ({"value": "1e999"}, "finite number"),
        ({"value": "1_000"}, "finite number"),
        ({"value": "fast"}, "finite number"),
        ({"value": "-0.1"}, "cannot be negative"),
        ({"unit": "ms"}, "it is in seconds"),
        ({"platform": "zone"}, "unknown platform `zone`"),
        ({"experiment": "memory"}, "experiment `memory` in the file of `startup`"),
        ({"repetition": "-1"}, "`repetition`"),
        ({"repetition": "1.5"}, "`repetition`"),
        ({"repetition": "1,2"}, "9 fields where 8"),
        ({"value": '"1'}, "not CSV"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(measure, columns, message):
    directory = edit(measure(), "startup", "startup,container,default,clone,wall", **columns)
    with pytest.raises(SimulatorError, match=message) as caught:
        read_measurements(directory)
    assert re.match(rf"{re.escape(str(directory))}/startup\.csv:\d+: ", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"concurrency": "0"}, "count from 1 up"),
        ({"concurrency": "two"}, "count from 1 up"),
        ({"instance": "2"}, "from 0 to 1"),
        ({"instance": "host"}, "from 0 to 1"),
    ],
)
def test_a_wrong_count_is_named_with_file_and_line(measure, columns, message):
    directory = edit(measure(), "contention", "contention,container,default,2,0", **columns)
    with pytest.raises(SimulatorError, match=rf"contention\.csv:\d+: .*{message}"):
        read_measurements(directory)


def test_a_missing_column_is_named(measure):
    directory = measure()
    path = directory / "memory.csv"
    path.write_text(path.read_text().replace(",metric,", ",", 1))
    with pytest.raises(SimulatorError, match=r"memory\.csv:1: column `metric` is missing"):
        read_measurements(directory)


@pytest.mark.parametrize("experiment", ["contention", "memory"])
def test_an_instance_that_is_missing_from_a_repetition_is_named(measure, experiment):
    directory = measure()
    path = directory / f"{experiment}.csv"
    lines = path.read_text().splitlines(keepends=True)
    gone = next(line for line in lines if line.startswith(f"{experiment},container,default,4,3,"))
    path.write_text("".join(line for line in lines if line is not gone))
    with pytest.raises(SimulatorError, match=r"4, repetition 0: instance 3 is missing"):
        read_measurements(directory)


def test_a_phase_that_is_missing_from_a_repetition_is_named(measure):
    directory = measure()
    path = directory / "startup.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not re.match("startup,container,default,exec,cpu,.*,5$", line)))
    with pytest.raises(SimulatorError, match="repetition 5: phase `exec`"):
        read_measurements(directory)


def test_a_repetition_that_is_there_twice_is_named(measure):
    directory = measure()
    path = directory / "machine.csv"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1])
    with pytest.raises(SimulatorError, match=r"machine\.csv:\d+: repetition 6 is there twice"):
        read_measurements(directory)


def test_an_unknown_experiment_is_named(measure):
    directory = measure()
    (directory / "speed.csv").write_text("experiment\n")
    with pytest.raises(SimulatorError, match="unknown experiment `speed`"):
        read_measurements(directory)


def test_an_empty_file_has_no_columns(measure):
    directory = measure()
    (directory / "memory.csv").write_text("")
    with pytest.raises(SimulatorError, match="column `experiment` is missing"):
        read_measurements(directory)


def test_bytes_that_are_no_text_are_refused(measure):
    directory = measure()
    (directory / "memory.csv").write_bytes(b"experiment\xff")
    with pytest.raises(SimulatorError, match="not UTF-8 at byte 10"):
        read_measurements(directory)


def test_a_file_far_too_large_is_not_read_whole(measure):
    directory = measure()
    with (directory / "memory.csv").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(SimulatorError, match="larger than"):
        read_measurements(directory)


def test_no_such_host_lists_those_that_there_are(monkeypatch, measured, tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "measurements").mkdir()
    (tmp_path / "measurements" / "made-up").symlink_to(measured)
    monkeypatch.setenv("ONGGI_DATA", str(tmp_path))
    assert read_measurements("made-up").host == "made-up"
    with pytest.raises(SimulatorError, match=r"mine: no such directory .* hosts here are: made-up"):
        read_measurements("mine")


def test_a_directory_without_measurements_is_refused(tmp_path):
    with pytest.raises(SimulatorError, match="holds no measurements"):
        read_measurements(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("kernel"), "kernel"),
        (lambda record: record["cpu"].update(cores=0), r"cpu\.cores"),
        (lambda record: record.update(memory_bytes="much"), "memory_bytes"),
    ],
)
def test_a_wrong_provenance_names_the_key(measure, change, message):
    directory = measure()
    path = directory / "provenance.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(SimulatorError, match=f"provenance.json: key `{message}`"):
        read_measurements(directory)


def test_measurements_without_provenance_are_refused(measure):
    directory = measure()
    (directory / "provenance.json").unlink()
    with pytest.raises(SimulatorError, match="is missing"):
        read_measurements(directory)
