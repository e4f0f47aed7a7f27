"""`onggi scenario`: what is new runs, what is wrong is said, and the schema says what every key is."""

import json
import re
import tomllib

import pytest
from jsonschema import Draft202012Validator

from classroom.cli import main
from simulator.datafiles import data_directory
from simulator.record_docs import records_in
from simulator.scenario import Scenario
from simulator.template import FILL_IN, UNFIT, UNSET

SHIPPED = sorted(path.stem for path in (data_directory() / "scenarios").glob("*.toml"))
OPTION = re.compile(r"^#(?=[A-Za-z_])")


@pytest.fixture(scope="module", params=SHIPPED)
def new(request, tmp_path_factory):
    """A new scenario, of each kind."""
    folder = tmp_path_factory.mktemp("new")
    assert 0 == main(["scenario", "new", str(folder / "mine"), "--from", request.param])
    return folder / "mine.toml"


def read(text, tmp_path):
    path = tmp_path / "changed.toml"
    path.write_text(text, encoding="utf-8")
    return Scenario.from_toml(path)


def test_a_new_scenario_is_the_one_that_it_is_from_under_its_name(new, request):
    base = Scenario.from_toml(request.node.callspec.params["new"])

    assert base.model_copy(update={"name": "mine"}) == Scenario.from_toml(new)
    assert max(len(line) for line in new.read_text(encoding="utf-8").splitlines() if line.startswith("# ")) <= 120


def test_a_new_scenario_runs_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["scenario", "new", "mine"])
    assert 0 == main(["scenario", "check", "mine.toml"])
    assert 0 == main(["run", "mine.toml", "--replications", "1"])

    assert "mine on container" in capsys.readouterr().out


def test_each_option_of_a_new_scenario_can_be_taken_as_it_stands(new, tmp_path):
    lines = new.read_text(encoding="utf-8").splitlines()
    options = [n for n, line in enumerate(lines) if OPTION.match(line) and UNFIT not in _prose_above(lines, n)]

    assert options
    for number in options:
        changed = [OPTION.sub("", line) if place == number else line for place, line in enumerate(lines)]
        read("\n".join(changed), tmp_path)


def test_all_options_of_a_new_scenario_can_be_taken_and_change_nothing_that_has_a_default(new, tmp_path):
    text = new.read_text(encoding="utf-8")
    lines = text.splitlines()
    kept = [
        line if UNSET in (above := _prose_above(lines, number)) or UNFIT in above else OPTION.sub("", line)
        for number, line in enumerate(lines)
    ]

    # A default that is not written depends on nothing else, or it is not set by default.
    assert Scenario.from_toml(new) == read("\n".join(kept), tmp_path)


def test_each_table_of_another_kind_can_be_taken(new, tmp_path):
    lines = new.read_text(encoding="utf-8").splitlines()
    # A table of another kind may have tables of its own, which go with it.
    begins = [n for n, line in enumerate(lines) if line.startswith("#|") and not lines[n - 1].startswith("#|")]
    blocks = [number for number in begins if lines[number].startswith("#|[")]

    assert blocks == begins
    for number in blocks:
        if FILL_IN in (above := _prose_above(lines, number)) or UNFIT in above:
            continue
        path = lines[number].strip("#|[]")
        block = [line.removeprefix("#|") for line in lines[number : _end(lines, number)]]
        kept = lines if lines[number].startswith("#|[[") else list(_without(lines, path))
        read("\n".join([*kept, *block]), tmp_path)


def _prose_above(lines, number):
    prose = []
    while lines[number - 1].startswith("# "):
        number -= 1
        prose.insert(0, lines[number].removeprefix("# "))
    return " ".join(prose)


def _end(lines, begin):
    """Where the block of `#|` lines that begins there is over."""
    return next((at for at in range(begin, len(lines)) if not lines[at].startswith("#|")), len(lines))


def _without(lines, path):
    """The lines of all tables but `path` and what is in it."""
    inside = False
    for line in lines:
        if line.startswith("["):
            name = line.strip("[]")
            inside = name == path or name.startswith(f"{path}.")
        if not inside:
            yield line


def test_every_key_of_the_model_stands_in_a_new_scenario(new):
    text = new.read_text(encoding="utf-8")
    keys = set(re.findall(r"^(?:#\|)?#?(\w+) = ", text, re.MULTILINE))
    inline = set(re.findall(r"[{,] (\w+) = ", text))
    tables = {part for path in re.findall(r"^(?:#\|)?\[+([\w.]+)\]+$", text, re.MULTILINE) for part in path.split(".")}
    known = {key for model in _models(Scenario) for key in model.model_fields}

    assert set() == known - keys - inline - tables


def _models(model):
    yield model
    for field in model.model_fields.values():
        for inner in records_in(field.annotation):
            yield from _models(inner)


def test_what_is_there_is_not_written_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("precious", encoding="utf-8")

    assert 2 == main(["scenario", "new", "mine"])
    assert "mine.toml: is there already" in capsys.readouterr().err
    assert "precious" == (tmp_path / "mine.toml").read_text(encoding="utf-8")


def test_a_kind_that_there_is_not_lists_those_that_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert 2 == main(["scenario", "new", "mine", "--from", "no-such"])
    assert "compare, " in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


def test_a_check_says_a_line_of_each_file_and_goes_on(tmp_path, capsys):
    bad = tmp_path / "bad.toml"
    bad.write_text(STEADY.replace("workers = 4", "wrokers = 4"), encoding="utf-8")

    assert 2 == main(["scenario", "check", "steady", str(bad), "compare"])
    captured = capsys.readouterr()
    assert 2 == captured.out.count("\n")
    assert "steady: valid, about 36000 requests; load 0.75" in captured.out
    assert (
        captured.err == f"onggi: {bad}: unknown key `application.wrokers`: did you mean `workers`? (and 0 more)\n"
        or (captured.err.startswith(f"onggi: {bad}: unknown key `application.wrokers`: did you mean `workers`?"))
    )


STEADY = (data_directory() / "scenarios" / "steady.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("rate", "stable"), [(39.9, True), (40, False), (400, False)])
def test_a_load_that_is_too_much_is_legal_and_has_no_steady_state(tmp_path, capsys, rate, stable):
    path = tmp_path / "mine.toml"
    path.write_text(STEADY.replace("rate_per_second = 30", f"rate_per_second = {rate}"), encoding="utf-8")

    assert 0 == main(["scenario", "check", str(path)])
    assert stable == ("no steady state" not in capsys.readouterr().out)


def test_what_a_platform_costs_counts_as_load(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(STEADY.replace("rate_per_second = 30", "rate_per_second = 39.9"), encoding="utf-8")

    assert 0 == main(["scenario", "check", str(path), "--platform", "vm-kvm"])
    assert "no steady state" in capsys.readouterr().out


@pytest.mark.parametrize("name", SHIPPED)
def test_every_scenario_that_ships_is_valid_by_the_schema(name, capsys):
    assert 0 == main(["scenario", "schema"])
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(schema)
    tree = tomllib.loads((data_directory() / "scenarios" / f"{name}.toml").read_text(encoding="utf-8"))

    Draft202012Validator(schema).validate(tree)
    assert not Draft202012Validator(schema).is_valid(tree | {"no_such_key": 1})


def test_the_schema_that_is_shown_is_the_scenarios_own(capsys):
    assert 0 == main(["scenario", "schema"])

    assert Scenario.json_schema() == json.loads(capsys.readouterr().out)


def test_a_disk_that_requests_wait_for_is_part_of_the_load(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    text = STEADY.replace("workers = 4", "workers = 4\nio_operations = 10")
    path.write_text(f"{text}\n[machines.spec]\ndisk_operation_seconds = 0.01\n", encoding="utf-8")

    assert 0 == main(["scenario", "check", str(path)])
    assert "no steady state: 6 seconds of work arrive" in capsys.readouterr().out


def test_the_schema_says_what_keys_mean(tmp_path, capsys):
    assert 0 == main(["scenario", "schema", "--output", str(tmp_path / "schema.json")])
    schema = json.loads((tmp_path / "schema.json").read_text(encoding="utf-8"))

    assert (
        "how long requests arrive; those in flight then are still served."
        == (schema["properties"]["duration_seconds"]["description"])
    )
    tables = {"root": schema, **schema["$defs"]}
    assert all(table["description"] for table in tables.values())
    assert not any("Attributes:" in table["description"] for table in tables.values())
