"""`onggi compare` and `onggi report`: the main job, from recorded measurements to figures with kinds and intervals."""

import json
from pathlib import Path

import pytest

from classroom.cli import main
from classroom.recordings import own_recording, recordings_directory
from simulator.datafiles import data_directory

METRICS = ("startup_seconds", "memory_bytes", "density", "p99_seconds", "slo_violation_fraction")
QUICKLY = ["--measure", "never", "--replications", "3", "--workers", "1"]


def compare(capsys, *arguments: str) -> str:
    assert main(["compare", *QUICKLY, "--no-report", "--json", "-", *arguments]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def figures() -> dict:
    """The comparison that most of these tests look at, once."""
    import contextlib
    import io

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        main(["compare", *QUICKLY, "--no-report", "--json", "-"])
    return json.loads(output.getvalue())


def test_every_figure_has_its_interval_and_its_kind(figures):
    assert {"container", "vm-kvm", "vm-cloud"} == set(figures["platforms"])
    for platform in figures["platforms"].values():
        assert set(METRICS) <= set(platform)
        for metric in METRICS:
            figure = platform[metric]
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["kind"] in ("measured", "simulated", "published")
            assert figure["source"]


def test_kinds_are_told_apart(figures):
    container, vm = figures["platforms"]["container"], figures["platforms"]["vm-kvm"]

    assert container["startup_seconds"]["kind"] == "measured"
    assert container["memory_bytes"]["kind"] == "measured"
    assert vm["startup_seconds"]["kind"] == "published"
    assert vm["memory_bytes"]["kind"] == "published"
    assert {"simulated"} == {
        platform[metric]["kind"]
        for platform in figures["platforms"].values()
        for metric in ("density", "p99_seconds", "slo_violation_fraction")
    }


def test_the_density_names_the_limit_that_bound(figures):
    assert figures["platforms"]["vm-kvm"]["density"]["limit"] == "memory"
    assert figures["platforms"]["container"]["density"]["limit"] != "memory"


def test_an_emulated_guest_is_not_shown_as_the_vm(figures):
    assert "vm-tcg" not in figures["platforms"]


def test_it_says_which_measurements_it_used(figures):
    assert figures["measurements"]["host"] == "reference"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(capsys):
    first = compare(capsys, "--seed", "7")

    assert first == compare(capsys, "--seed", "7", "--workers", "2")
    assert first != compare(capsys, "--seed", "8")


def test_the_table_and_the_report_tell_the_same_numbers(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    report = tmp_path / "report.html"

    assert main(["compare", *QUICKLY, "--report", str(report)]) == 0

    output = capsys.readouterr().out
    assert all(kind in output for kind in ("measured", "simulated", "published"))
    assert report.resolve().as_uri() in output.replace("\n", "")
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(("language", "word"), [("en", "Cloud VM"), ("ko", "클라우드")])
def test_both_languages_have_a_table_and_a_report(language, word, capsys, tmp_path):
    report = tmp_path / "report.html"

    assert main(["compare", *QUICKLY, "--report", str(report), "--language", language]) == 0

    assert word in capsys.readouterr().out
    assert f'lang="{language}"' in report.read_text(encoding="utf-8")[:200]


def test_report_writes_again_without_measuring(tmp_path, capsys):
    output = tmp_path / "again.html"

    assert main(["report", "--replications", "2", "--measurements", "reference", "--output", str(output)]) == 0

    assert output.stat().st_size > 100_000


def test_one_replication_names_no_winner(capsys):
    tree = json.loads(compare(capsys, "--replications", "1"))

    simulated = [difference for difference in tree["differences"] if difference["metric"] == "p99_seconds"]
    assert simulated
    assert all("no verdict" in difference["verdict"] for difference in simulated)


@pytest.mark.parametrize(
    ("language", "said"), [("en", "one replication says nothing about chance"), ("ko", "반복 한 번으로는")]
)
def test_one_replication_is_said_to_prove_nothing(language, said, capsys):
    assert 0 == main(
        [
            "compare",
            "--measure",
            "never",
            "--workers",
            "1",
            "--no-report",
            "--replications",
            "1",
            "--language",
            language,
        ]
    )
    one = capsys.readouterr().out
    assert 0 == main(["compare", *QUICKLY, "--no-report", "--language", language])

    assert said in one
    assert said not in capsys.readouterr().out


@pytest.fixture
def overloaded(tmp_path):
    """A scenario that asks for more than can be done, and does not say how long its warm-up is."""
    path = tmp_path / "overloaded.toml"
    text = (data_directory() / "scenarios" / "steady.toml").read_text(encoding="utf-8")
    for before, after in (("= 30", "= 60"), ("= 1200", "= 300"), ("= 100000 ", "= 20 "), ("= 100\n", '= "auto"\n')):
        assert before in text
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("language", "said", "warm_up"), [("en", "no steady state", "warm-up"), ("ko", "정상 상태가 없습니다", "준비 구간")]
)
def test_an_unstable_scenario_is_said_to_be_and_its_warm_up_is_told(overloaded, language, said, warm_up, capsys):
    assert 0 == main(["compare", *QUICKLY, "--no-report", "--scenario", str(overloaded), "--language", language])
    shown = capsys.readouterr().out
    tree = json.loads(compare(capsys, "--scenario", str(overloaded)))

    assert 1 == sum(said in line and "container, vm-kvm, vm-cloud" in line for line in shown.splitlines())
    assert 1 == sum(line.startswith(warm_up) for line in shown.splitlines())
    assert {"container", "vm-kvm", "vm-cloud"} == set(tree["unstable"])
    assert 0 <= tree["warm_up_seconds"] <= 150


SPOILT = {
    "an unknown key": ("compare.toml", "replications = ", "replicatoins = ", "did you mean `replications`"),
    "a negative rate": ("compare.toml", "[0, 40]", "[0, -40]", "arrivals"),
    "not TOML": ("compare.toml", "[machines]", "[machines", "not TOML"),
}


@pytest.mark.parametrize("what", list(SPOILT))
def test_a_bad_scenario_ends_in_one_line(what, data_copy, capsys):
    name, good, bad, told = SPOILT[what]
    path = data_copy / "scenarios" / name
    text = path.read_text(encoding="utf-8")
    assert good in text
    path.write_text(text.replace(good, bad, 1), encoding="utf-8")

    assert main(["compare", *QUICKLY, "--no-report"]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("onggi: ")
    assert str(path) in error
    assert told in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--scenario", "no-such"], "no-such: no such file"),
        (["--platforms", "container,no-such"], "no-such: no such file"),
        (["--measurements", "no-such"], "no-such: no such directory"),
        (["--replications", "0"], "replications 0"),
        (["--seed", "-1"], "seed -1"),
        (["--json", "/no/such/directory/x.json"], "/no/such/directory/x.json"),
        (["--platforms", "container,container"], "each once"),
    ],
)
def test_a_bad_argument_ends_in_one_line(arguments, told, capsys):
    assert main(["compare", *QUICKLY, "--no-report", *arguments]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


@pytest.mark.parametrize("experiment", ["startup", "contention", "memory", "machine"])
def test_a_hole_in_the_measurements_is_named_with_its_line(experiment, data_copy, capsys):
    path = data_copy / "measurements" / "reference" / f"{experiment}.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    fields = lines[4].split(",")
    fields[-3] = ""
    lines[4] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    assert main(["compare", *QUICKLY, "--no-report", "--measurements", "reference"]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{path}" in error
    assert "5" in error


def test_a_report_that_cannot_be_written_is_told_in_one_line(capsys):
    assert main(["compare", *QUICKLY, "--report", "/no/such/directory/report.html"]) == 2

    assert capsys.readouterr().err.count("\n") == 1


def test_own_measurements_stand_beside_the_reference_set(data_copy):
    assert recordings_directory() == data_copy / "measurements"


def test_own_measurements_go_home_where_the_data_cannot_be_written(data_copy, monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))

    assert own_recording().parent == tmp_path / "home" / "onggi" / "measurements"


def test_a_home_that_is_not_named_is_the_usual_one(data_copy, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/student"))

    assert recordings_directory() == Path("/home/student/.local/share/onggi/measurements")
