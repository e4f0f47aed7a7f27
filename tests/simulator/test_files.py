"""Files that a command leaves."""

import pytest

from simulator.errors import SimulatorError
from simulator.files import write_text


def test_an_old_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")

    write_text(path, "옹기")

    assert path.read_text(encoding="utf-8") == "옹기"
    assert [path] == list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path):
    with pytest.raises(SimulatorError, match="No such file or directory; name a file") as refused:
        write_text(tmp_path / "folder-in-the-way" / "report.html", "new")

    assert "\n" not in str(refused.value)


def test_an_old_file_survives_a_write_that_fails(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")

    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a pair: \ud800")

    assert path.read_text() == "old"
    assert [path] == list(tmp_path.iterdir())
