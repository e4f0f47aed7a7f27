"""Validation: a world that is as the model says is predicted; a world that is not is found out."""

import json

import pytest

from simulator.errors import SimulatorError
from simulator.evidence.measurements import read_measurements
from simulator.evidence.validation import TARGETS, validate


@pytest.fixture(scope="module")
def found(measured):
    return validate(read_measurements(measured))


def test_a_world_like_the_model_is_predicted_within_its_spread(found):
    for part in found.summary:
        assert part.met
        assert part.median_absolute_relative_error < 0.05


def test_every_condition_is_listed(found):
    listed = {(pair.experiment, pair.metric, pair.condition) for pair in found.pairs}
    assert len(found.pairs) == len(listed)
    assert {("contention", "mean", f"concurrency={count}") for count in (1, 2, 4, 8, 16)} <= listed
    assert {("memory", "pss", f"instances={count}") for count in (1, 2, 4, 8, 16, 32, 64)} <= listed
    for growth in ("kernel", "footprint"):  # counted from the first on, so there is none at 1
        assert {("memory", growth, f"instances={count}") for count in (2, 4, 8, 16, 32, 64)} <= listed
    assert ("startup", "mean", "concurrency=1") in listed


def test_fitted_pairs_are_marked_and_not_counted(found):
    fitted = {(pair.experiment, pair.condition) for pair in found.pairs if pair.fitted}
    assert fitted == {
        ("startup", "concurrency=1"),
        ("contention", "concurrency=1"),
        *(("memory", f"instances={count}") for count in (1, 2, 4, 8, 16)),
    }
    for part in found.summary:
        counted = [pair for pair in found.pairs if pair.experiment == part.experiment and not pair.fitted]
        assert len(counted) == part.points
        assert part.worst in counted
        assert part.worst.relative_error in (
            max(pair.relative_error for pair in counted),
            min(pair.relative_error for pair in counted),
        )


def test_errors_are_of_the_pair_beside_them(found):
    for pair in found.pairs:
        assert (pair.predicted - pair.measured) / pair.measured == pytest.approx(pair.relative_error)
        assert pair.measured_low <= pair.measured <= pair.measured_high
        assert pair.predicted_low <= pair.predicted <= pair.predicted_high
        assert pair.spread > 0


def test_contention_beyond_the_model_is_found_out(measure):
    """Every start at 16 at once takes twice as long as sharing two cores explains."""
    directory = measure()
    path = directory / "contention.csv"
    lines = path.read_text().splitlines()
    for index, line in enumerate(lines):
        fields = line.split(",")
        if fields[3] in ("4", "8", "16"):
            fields[6] = repr(2 * float(fields[6]))
        lines[index] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")
    overall = next(part for part in validate(read_measurements(directory)).summary if part.experiment == "contention")
    assert not overall.met
    assert overall.worst.relative_error < -0.4
    assert overall.worst.condition in ("concurrency=4", "concurrency=8", "concurrency=16")


def test_drift_of_the_host_before_the_first_instance_is_no_growth(measure):
    directory = measure()
    path = directory / "memory.csv"
    lines = path.read_text().splitlines()
    for index, line in enumerate(lines):
        fields = line.split(",")
        if fields[5] == "kernel":
            fields[6] = str(int(fields[6]) - 13 * 2**20)
        lines[index] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")
    (overall, *_) = [part for part in validate(read_measurements(directory)).summary if part.experiment == "memory"]
    assert overall.met


def test_a_set_with_nothing_to_fit_is_refused(measure):
    directory = measure()
    (directory / "memory.csv").unlink()
    with pytest.raises(SimulatorError, match="nothing to fit"):
        validate(read_measurements(directory))


def test_json_is_complete_and_always_the_same(found, measured):
    text = found.to_json()
    assert validate(read_measurements(measured)).to_json() == text
    tree = json.loads(text)
    assert len(found.pairs) == len(tree["pairs"])
    assert {"experiment", "platform", "predicted", "measured", "relative_error", "fitted", "spread"} <= set(
        tree["pairs"][0]
    )
    assert list(tree["pairs"][0]) == sorted(tree["pairs"][0])
    assert {part["experiment"] for part in tree["summary"]} == set(TARGETS)
