"""Records read from TOML: what is wrong is told in one line that names the key and what to do."""

from pathlib import Path

import pytest

from simulator.errors import SimulatorError
from simulator.records import NonNegative, Positive, StrictModel, read_record, validate_record


class Engine(StrictModel):
    power: Positive
    fuel: NonNegative = 0.0


class Car(StrictModel):
    name: str
    engine: Engine
    spare: tuple[Engine, ...] = ()


GOOD = 'name = "one"\n[engine]\npower = 3\n'


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "car.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_good_record_is_read_and_cannot_be_changed(tmp_path):
    car = read_record(Car, written(tmp_path, GOOD))
    assert Car(name="one", engine=Engine(power=3.0)) == car
    with pytest.raises(ValueError, match="frozen"):
        car.name = "two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "fule = 1\n", "unknown key `engine.fule`: did you mean `fuel`?"),
        (GOOD + "wings = 2\n", "unknown key `engine.wings`: remove it"),
        (GOOD + "[[spare]]\npower = 1\nfuell = 2\n", "unknown key `spare.0.fuell`: did you mean `fuel`?"),
        (GOOD.replace('name = "one"', ""), "key `name` is missing: add it"),
        (GOOD.replace("= 3", "= -3"), "key `engine.power`: input should be greater than 0, got -3"),
        (GOOD.replace("= 3", "= inf"), "key `engine.power`: input should be a finite number, got inf"),
        (GOOD.replace("= 3", "= nan"), "key `engine.power`"),
        (GOOD + "fuel = -1\n", "key `engine.fuel`: input should be greater than or equal to 0, got -1"),
        ("name = ", "not TOML"),
        (b"\xff", "not TOML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(SimulatorError) as caught:
        read_record(Car, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SimulatorError, match=r"none\.toml: No such file"):
        read_record(Car, tmp_path / "none.toml")


def test_a_directory_is_no_record(tmp_path):
    with pytest.raises(SimulatorError, match="name a TOML file"):
        read_record(Car, tmp_path)


def test_a_file_far_too_large_is_not_read_whole(tmp_path):
    path = tmp_path / "car.toml"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(SimulatorError, match="larger than"):
        read_record(Car, path)


def test_a_tree_that_is_no_table_is_refused():
    with pytest.raises(SimulatorError, match=r"^here: "):
        validate_record(Car, ["name"], "here")
