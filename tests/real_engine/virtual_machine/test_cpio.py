import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.errors import EngineError
from real_engine.images.busybox import find_busybox
from real_engine.virtual_machine import cpio

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda name: not name.startswith("/") and name != "TRAILER!!!"
)
entries = st.builds(
    cpio.Entry,
    name=names,
    mode=st.sampled_from([stat.S_IFREG, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFLNK]).flatmap(
        lambda kind: st.integers(0, 0o7777).map(lambda permissions: kind | permissions)
    ),
    data=st.binary(max_size=200),
    device=st.tuples(st.integers(0, 255), st.integers(0, 255)),
)


def read_back(archive: bytes) -> list[cpio.Entry]:
    """An independent reader, written from buffer-format.rst of the Linux sources."""
    found, at = [], 0
    while True:
        assert at % 4 == 0
        header = archive[at : at + 110]
        assert header[:6] == b"070701"
        fields = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        name_at = at + 110
        name = archive[name_at : name_at + fields[11] - 1].decode()
        assert archive[name_at + fields[11] - 1] == 0
        data_at = (name_at + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert data_at == len(archive)
            return found
        found.append(cpio.Entry(name, fields[1], archive[data_at : data_at + fields[6]], (fields[9], fields[10])))
        at = (data_at + fields[6] + 3) // 4 * 4


@given(st.lists(entries, max_size=8))
def test_what_is_written_can_be_read_back(given_entries: list[cpio.Entry]) -> None:
    assert given_entries == read_back(cpio.archive(given_entries))


@given(st.lists(entries, max_size=4))
def test_the_same_entries_give_the_same_bytes(given_entries: list[cpio.Entry]) -> None:
    assert cpio.archive(given_entries) == cpio.archive(iter(given_entries))


def test_busybox_unpacks_the_archive(tmp_path: Path) -> None:
    try:
        busybox = find_busybox()
    except EngineError as error:
        pytest.skip(str(error))
    archive = cpio.archive(
        [cpio.directory("bin"), cpio.program("bin/hello", b"#!/bin/sh\necho hello\n"), cpio.directory("empty")]
    )
    listed = subprocess.run([busybox, "cpio", "-t"], input=archive, capture_output=True, check=True)
    assert b"bin\nbin/hello\nempty\n" == listed.stdout
    subprocess.run([busybox, "cpio", "-i"], input=archive, cwd=tmp_path, capture_output=True, check=True)
    assert b"hello\n" == subprocess.run([tmp_path / "bin/hello"], capture_output=True, check=True).stdout
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("name", ["", "/init", "a\0b", "TRAILER!!!"])
def test_a_name_that_would_spoil_the_archive_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cpio entry"):
        cpio.program(name, b"")
