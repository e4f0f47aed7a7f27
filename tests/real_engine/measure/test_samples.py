"""Raw samples become tidy files, whole or not at all."""

import csv

import pytest

from real_engine.measure.samples import CONDITIONS, Sample, Samples


def sample(experiment: str, value: float = 0.25) -> Sample:
    conditions = tuple(range(len(CONDITIONS[experiment])))
    return Sample(experiment, "container", "default", conditions, "wall", value, "seconds", 3)


@pytest.mark.parametrize("experiment", list(CONDITIONS))
def test_each_experiment_has_a_file_with_its_own_condition_columns(experiment, tmp_path):
    samples = Samples([sample(experiment)])

    (path,) = samples.write(tmp_path)

    rows = list(csv.DictReader(path.open()))
    assert path.name == f"{experiment}.csv"
    assert list(rows[0]) == [
        "experiment", "platform", "variant", *CONDITIONS[experiment], "metric", "value", "unit", "repetition",
    ]  # fmt: skip
    assert len(rows) == 1
    assert rows[0]["value"] == "0.25"


def test_a_value_is_written_so_that_it_is_read_back_exactly(tmp_path):
    value = 0.1 + 0.2
    (path,) = Samples([sample("startup", value)]).write(tmp_path)

    (row,) = csv.DictReader(path.open())

    assert float(row["value"]) == value
