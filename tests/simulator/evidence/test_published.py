"""Published figures: all can be read, each has its source, and the profiles built from them agree with them."""

import shutil

import pytest

from simulator.datafiles import data_directory
from simulator.errors import SimulatorError
from simulator.evidence.published import read_published, sources

NAMES = ("scaling", "startup", "memory", "overhead", "curves")


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_that_can_be_cited(name):
    cited = sources()
    for figure in read_published(name):
        assert cited[figure.source].url.startswith("https://")
        assert figure.value > 0
        assert (figure.read_from == "digitised") <= (figure.low is not None and figure.high is not None)


def test_every_source_is_used():
    assert set(sources()) == {figure.source for name in NAMES for figure in read_published(name)}


def test_no_figure_is_there_twice():
    for name in NAMES:
        keys = [
            (f.quantity, f.platform, tuple(f.conditions.items()), f.unit, f.source, f.place)
            for f in read_published(name)
        ]
        assert len(keys) == len(set(keys))


def test_a_curve_can_be_taken_out_by_its_condition():
    curve = {
        int(figure.conditions["guests_running"]): figure.value
        for figure in read_published("curves")
        if figure.platform == "debian-xen" and figure.quantity == "start-up"
    }
    assert list(curve) == [5, 200, 400, 600, 800, 995]
    assert sorted(curve.values()) == list(curve.values())  # the more guests run, the longer one takes (LightVM, Fig 4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the data that may be spoilt."""
    for name in ("profiles", "published"):
        shutil.copytree(data_directory() / name, tmp_path / name)
    monkeypatch.setenv("ONGGI_DATA", str(tmp_path))
    return tmp_path / "published"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("start-up,x,,,,,seconds,Felter,p,text", "`value` is empty"),
        ("start-up,x,,many,,,seconds,Felter,p,text", "`value` is 'many'"),
        ("start-up,x,,1,2,3,seconds,Felter,p,text", "low <= value <= high"),
        ("start-up,x,,1,,,seconds,Nobody,p,text", "source `Nobody` is not in sources.toml"),
        ("start-up,x,,1,,,seconds,Felter,p,memory", "`read_from` is 'memory'"),
        ("start-up,x,idle,1,,,seconds,Felter,p,text", "`condition` is 'idle'"),
        ("start-up,x,,1,,seconds,Felter,p,text", "9 fields where 10"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(folder, row, message):
    path = folder / "startup.csv"
    path.write_text(path.read_text() + row + "\n")
    line = len(path.read_text().splitlines())
    with pytest.raises(SimulatorError, match=rf"startup\.csv:{line}: {message}"):
        read_published("startup")


def test_unknown_figures_list_those_that_there_are():
    with pytest.raises(SimulatorError, match="known are curves, memory, overhead, scaling, startup"):
        read_published("speed")
