"""The log's format is Docker's, byte by byte; it rotates without losing anything; and a full disk holds nobody up."""

import gzip
import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.supervisor.log_options import LogOptions
from real_engine.supervisor.log_writer import LONGEST_PIECE, LogWriter, TimestampFormat

_SECOND = 1_000_000_000
_NOON = 1_795_536_000 * _SECOND


class Writing:
    """A writer, what it complained of, and its long jobs, which are done when they are asked for."""

    def __init__(self, path: Path, driver: str = "json-file", attributes: dict | None = None, **options: str) -> None:
        self.path = path
        self.failures: list[str] = []
        self.recoveries: list[int] = []
        self.jobs: list = []
        named = {name.replace("_", "-"): value for name, value in options.items()}
        ticks = itertools.count(_NOON, 1000)
        self.writer = LogWriter(
            LogOptions(str(path), driver, named, attributes or {}),
            failed=self.failures.append,
            recovered=self.recoveries.append,
            work=self.jobs.append,
            clock=lambda: next(ticks),
        )

    def finish(self) -> None:
        self.writer.close()
        for job in self.jobs:
            list(job)


@pytest.fixture
def writing(tmp_path):
    return Writing(tmp_path / "log")


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def all_text(path: Path) -> str:
    """Everything that is kept, the oldest first."""
    found = ""
    for number in range(99, 0, -1):
        plain, packed = Path(f"{path}.{number}"), Path(f"{path}.{number}.gz")
        assert not (plain.exists() and packed.exists())
        if plain.exists():
            found += plain.read_text()
        elif packed.exists():
            found += gzip.decompress(packed.read_bytes()).decode()
    return found + path.read_text()


def test_what_docker_wrote(writing):
    """Recorded from dockerd 20.10.24 for the same output."""
    writing.writer.write(
        "stdout",
        b'a\tb<&>"\\\x01\x7f\xc2\x85\xe2\x80\xa8 \xed\xa0\x80 \xe2\x82x\n\xff\xef\xbf\xbd \xe6\x97\xa5\nno newline',
    )
    writing.finish()
    recorded = (
        '{"log":"a\\u0009b\\u003c\\u0026\\u003e\\"\\\\\\u0001\x7f\x85\\u2028 \\ufffd\\ufffd\\ufffd \\ufffd\\ufffdx\\n",'
        '"stream":"stdout","time":"2026-11-24T16:00:00Z"}\n'
        '{"log":"\\ufffd\ufffd 日\\n","stream":"stdout","time":"2026-11-24T16:00:00Z"}\n'
        '{"log":"no newline","stream":"stdout","time":"2026-11-24T16:00:00.000001Z"}\n'
    )
    assert recorded == writing.path.read_text()
    assert 0o640 == writing.path.stat().st_mode & 0o777


def test_attributes_stand_before_the_time(tmp_path):
    writing = Writing(tmp_path / "log", attributes={"tag": "c/1", "FOO": "1"})
    writing.writer.write("stderr", b"hi\n")
    writing.finish()
    line = '{"log":"hi\\n","stream":"stderr","attrs":{"FOO":"1","tag":"c/1"},"time":"2026-11-24T16:00:00Z"}\n'
    assert line == writing.path.read_text()


def test_a_long_line_becomes_pieces_of_16_kib_with_one_time(writing):
    for part in (b"x" * 10_000, b"x" * 30_000, b"\nnext\n"):
        writing.writer.write("stdout", part)
    writing.finish()
    found = entries(writing.path)
    assert [16384, 16384, 40_000 - 2 * 16384 + 1, 5] == [len(entry["log"]) for entry in found]
    assert [False, False, True, True] == [entry["log"].endswith("\n") for entry in found]
    assert 1 == len({entry["time"] for entry in found[:3]})
    assert found[2]["time"] < found[3]["time"]


def test_a_line_of_exactly_16_kib(writing):
    writing.writer.write("stdout", b"y" * LONGEST_PIECE + b"\n\n")
    writing.finish()
    assert ["y" * LONGEST_PIECE, "\n", "\n"] == [entry["log"] for entry in entries(writing.path)]


def pieces(text: bytes) -> list[bytes]:
    """Docker's rule, said simply: lines, each cut after every 16384 bytes; what has no end has no newline."""
    found = []
    *lines, last = text.split(b"\n")
    for line in lines:
        cuts = len(line) // LONGEST_PIECE
        found += [line[index * LONGEST_PIECE : (index + 1) * LONGEST_PIECE] for index in range(cuts)]
        found.append(line[cuts * LONGEST_PIECE :] + b"\n")
    while last:
        found.append(last[:LONGEST_PIECE])
        last = last[LONGEST_PIECE:]
    return found


_PARTS = st.lists(
    st.one_of(
        st.text(max_size=30).map(str.encode),
        st.sampled_from([b"\n", b"\n\n", b"z" * 16383, b"z" * 16384, b"z" * 16385, b"z" * 40_000, b"a\nb\nc"]),
    ),
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(_PARTS)
def test_every_byte_is_logged_in_docker_s_pieces(tmp_path_factory, parts):
    writing = Writing(tmp_path_factory.mktemp("log") / "log")
    for part in parts:
        writing.writer.write("stdout", memoryview(part))
    writing.finish()
    expected = [
        re.sub("[\udc80-\udcff]", "\ufffd", piece.decode(errors="surrogateescape")) for piece in pieces(b"".join(parts))
    ]
    assert expected == [entry["log"] for entry in entries(writing.path)]


def test_streams_do_not_mix(writing):
    writing.writer.write("stdout", b"out ")
    writing.writer.write("stderr", b"error\n")
    writing.writer.write("stdout", b"put\n")
    writing.finish()
    found = [(entry["stream"], entry["log"]) for entry in entries(writing.path)]
    assert [("stderr", "error\n"), ("stdout", "out put\n")] == found


def test_it_goes_on_after_what_is_there_and_mends_a_cut_line(tmp_path):
    (tmp_path / "log").write_text('{"log":"old\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n{"log":"cu')
    writing = Writing(tmp_path / "log")
    writing.writer.write("stdout", b"new\n")
    writing.finish()
    lines = writing.path.read_text().splitlines()
    assert 3 == len(lines)
    assert "new\n" == json.loads(lines[2])["log"]


@settings(max_examples=40, deadline=None)
@given(st.integers(100, 1500), st.integers(1, 4), st.booleans(), st.lists(st.integers(0, 200), max_size=40))
def test_rotation_keeps_the_newest_whole(tmp_path_factory, size, files, compress, lengths):
    compress = compress and files > 1
    options = {"max_size": str(size), "max_file": str(files), "compress": str(compress).lower()}
    writing = Writing(tmp_path_factory.mktemp("log") / "log", **options)
    lines = [f"{number}:" + "x" * length for number, length in enumerate(lengths)]
    for begin in range(0, len(lines), 3):
        writing.writer.write("stdout", "".join(line + "\n" for line in lines[begin : begin + 3]).encode())
    writing.finish()
    kept = [json.loads(line)["log"][:-1] for line in all_text(writing.path).splitlines()]
    assert lines[len(lines) - len(kept) :] == kept
    rotated = [file for file in writing.path.parent.iterdir() if file != writing.path]
    assert len(rotated) < files
    assert all(file.name.endswith(".gz") == compress for file in rotated)
    if not rotated and files > 1:
        assert lines == kept
    # A file is closed by the first entry that finds it full, so it is at most one entry larger.
    assert all(len(gzip.decompress(f.read_bytes()) if compress else f.read_bytes()) >= size for f in rotated)
    assert writing.path.stat().st_size <= size + 320
    assert not writing.failures


@pytest.mark.root
def test_a_full_disk_drops_and_counts_and_recovers(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        writing = Writing(disk / "log")
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(40 * 1024))
        for number in range(600):
            writing.writer.write("stdout", f"line {number}\n".encode())
        assert 1 == len(writing.failures)
        assert "No space left on device" in writing.failures[0]
        dropped = writing.writer.dropped
        assert 0 < dropped < 600
        ballast.unlink()
        writing.writer.write("stdout", b"room again\n")
        writing.finish()
        assert [dropped] == writing.recoveries
        logged = [entry["log"] for entry in entries(writing.path)]
        assert [f"line {number}\n" for number in range(600 - dropped)] + ["room again\n"] == logged
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (_NOON + 1, "2026-11-24T16:00:00.000000001Z"),
        (_NOON + 120_000_000, "2026-11-24T16:00:00.12Z"),
        (_NOON + 999_999_999, "2026-11-24T16:00:00.999999999Z"),
    ],
)
def test_timestamps_are_go_s(nanoseconds, text):
    assert text == TimestampFormat().format(nanoseconds)
