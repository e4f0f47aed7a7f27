"""Files that are there whole or not at all."""

import os
import stat

import pytest

from real_engine.files import write_durably


def test_a_file_is_written_for_all_to_read(tmp_path):
    write_durably(tmp_path / "startup.csv", b"new")

    assert (tmp_path / "startup.csv").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "startup.csv").stat().st_mode) == 0o644


def test_an_old_file_survives_a_write_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "startup.csv"
    write_durably(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")

    assert path.read_bytes() == b"old"
    assert [path] == list(tmp_path.iterdir())
