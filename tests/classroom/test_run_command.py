import json

import pytest

from classroom.cli import main

QUICK = ["run", "steady", "--replications", "2", "--seed", "1"]


def test_it_shows_every_metric_with_its_interval(capsys):
    assert 0 == main(QUICK)

    shown = capsys.readouterr().out
    assert "steady on container" in shown
    assert "p99_seconds" in shown
    assert "…" in shown


def test_json_is_the_same_each_time_and_in_a_file(capsys, tmp_path):
    texts = []
    for _ in range(2):
        assert 0 == main([*QUICK, "--json", "-"])
        texts.append(capsys.readouterr().out)
    assert 0 == main([*QUICK, "--json", str(tmp_path / "result.json")])

    assert texts[0] == texts[1] == (tmp_path / "result.json").read_text(encoding="utf-8")
    assert "container" == json.loads(texts[0])["platform"]


def test_every_data_plane_gives_the_same_figures(capsys):
    texts = set()
    for plane in ("auto", "python"):
        assert 0 == main([*QUICK, "--data-plane", plane, "--json", "-"])
        texts.add(capsys.readouterr().out)

    assert 1 == len(texts)


def test_an_autoscaler_is_shown_with_its_reasons(capsys):
    assert 0 == main(["run", "compare", "--replications", "1"])

    assert "why" in (shown := capsys.readouterr().out)
    assert "utilisation" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        ["run", "no-such-scenario"],
        ["run", "steady", "--platform", "no-such-platform"],
        ["run", "steady", "--replications", "0"],
        ["run", "steady", "--seed", "-1"],
        ["run", "steady", "--replications", "1", "--json", "/no/such/folder/result.json"],
    ],
)
def test_wrong_input_ends_in_one_line_and_status_2(wrong, capsys):
    assert 2 == main(wrong)

    captured = capsys.readouterr()
    assert "" == captured.out
    assert captured.err.startswith("onggi: ")
    assert 1 == captured.err.count("\n")
