"""Reading a log: all of it or its end, between two moments, over rotated files, and while it is being written."""

import gzip
import itertools
import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.supervisor.log_options import LogOptions
from real_engine.supervisor.log_writer import LogWriter, TimestampFormat
from real_engine.supervisor.logs import LogEntry, read_log, remove_log

_SECOND = 1_000_000_000
_BEGIN = 1_795_536_000 * _SECOND


def line(entry: LogEntry) -> str:
    moment = TimestampFormat().format(entry.time_ns)
    return json.dumps({"log": entry.data.decode(), "stream": entry.stream, "time": moment}) + "\n"


def writer(path: Path, jobs: list, **options: str) -> LogWriter:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    options = LogOptions(str(path), "json-file", named)
    return LogWriter(options, failed=pytest.fail, recovered=lambda _: None, work=jobs.append)


_ENTRIES = st.lists(
    st.builds(
        LogEntry,
        stream=st.sampled_from(["stdout", "stderr"]),
        time_ns=st.integers(_BEGIN, _BEGIN + 3 * _SECOND),
        data=st.text(st.characters(exclude_categories=("Cs",)), max_size=20).map(lambda text: (text + "\n").encode()),
        attributes=st.just({}),
    ),
    max_size=30,
).map(lambda entries: sorted(entries, key=lambda entry: entry.time_ns))
_MOMENTS = st.none() | st.integers(_BEGIN - 1, _BEGIN + 3 * _SECOND + 1)


@settings(max_examples=150, deadline=None)
@given(
    entries=_ENTRIES,
    cuts=st.lists(st.integers(0, 30), max_size=3),
    packed=st.booleans(),
    tail=st.none() | st.integers(0, 35),
    since=_MOMENTS,
    until=_MOMENTS,
    stdout=st.booleans(),
    stderr=st.booleans(),
)
def test_as_a_naive_reader(tmp_path_factory, entries, cuts, packed, tail, since, until, stdout, stderr):
    path = tmp_path_factory.mktemp("log") / "log"
    bounds = [0, *sorted(min(cut, len(entries)) for cut in cuts), len(entries)]
    parts = [entries[begin:end] for begin, end in itertools.pairwise(bounds)]
    for number, part in enumerate(reversed(parts)):
        text = "".join(map(line, part)).encode()
        if number and packed:
            Path(f"{path}.{number}.gz").write_bytes(gzip.compress(text))
        else:
            Path(f"{path}.{number}" if number else path).write_bytes(text)
    wanted = entries if tail is None else entries[len(entries) - min(tail, len(entries)) :]
    expected = [
        entry
        for entry in wanted
        if (since is None or entry.time_ns >= since)
        and (until is None or entry.time_ns <= until)
        and (stdout if entry.stream == "stdout" else stderr)
    ]
    assert expected == list(read_log(path, tail=tail, since=since, until=until, stdout=stdout, stderr=stderr))


@pytest.mark.parametrize("tail", [0, 1, 7, 100, 3000, 4000])
def test_the_end_of_a_file_of_many_blocks(tmp_path, tail):
    entries = [LogEntry("stdout", _BEGIN + n, f"{n} {'x' * (n % 90)}\n".encode()) for n in range(3000)]
    (tmp_path / "log").write_text("".join(map(line, entries)))
    assert entries[len(entries) - min(tail, 3000) :] == list(read_log(tmp_path / "log", tail=tail))


def test_the_end_is_read_from_the_end(tmp_path, monkeypatch):
    entries = [LogEntry("stdout", _BEGIN + n, b"x" * 100 + b"\n") for n in range(20_000)]
    (tmp_path / "log").write_text("".join(map(line, entries)))
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *arguments: read.append(data := pread(*arguments)) or data)
    assert entries[-5:] == list(read_log(tmp_path / "log", tail=5))
    assert sum(map(len, read)) < 300_000 < (tmp_path / "log").stat().st_size


def test_what_is_no_entry_is_passed_over(tmp_path):
    good = line(LogEntry("stdout", _BEGIN, b"good\n"))
    (tmp_path / "log").write_text(
        f'{good}{{"log":"cut\n[]\nnull\n{{"log":"x"}}\n{{"log":1,"time":2}}\n{good}{{"log":"ha'
    )
    assert [b"good\n", b"good\n"] == [entry.data for entry in read_log(tmp_path / "log")]


def test_no_log_at_all(tmp_path):
    assert [] == list(read_log(tmp_path / "log"))
    assert [] == list(read_log(tmp_path / "log", finished=lambda: True))


def test_attributes(tmp_path):
    text = '{"log":"x\\n","stream":"stdout","attrs":{"a":"1"},"time":"2026-11-24T16:00:00Z"}\n'
    (tmp_path / "log").write_text(text)
    assert [{"a": "1"}] == [entry.attributes for entry in read_log(tmp_path / "log")]


@pytest.mark.parametrize("options", [{}, {"max_size": "2k", "max_file": "3"}, {"max_size": "3k"}])
def test_a_follower_misses_nothing(tmp_path, options):
    """Rotation throws files away that it still reads, and it has them open; so it reads all, in order."""
    path = tmp_path / "log"
    log = writer(path, [], **options)
    over = threading.Event()
    total = 400
    reached = threading.Semaphore(0)

    def write() -> None:
        for number in range(total):
            log.write("stdout", f"line {number}\n".encode())
            if number % 10 == 9:
                reached.acquire(timeout=5)  # not more than one file ahead of the reader
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    for entry in read_log(path, finished=over.is_set):
        seen.append(entry.data.decode())
        if len(seen) % 10 == 0:
            reached.release()
    thread.join()
    log.close()
    assert [f"line {number}\n" for number in range(total)] == seen


def test_a_follower_goes_on_over_compressed_files(tmp_path):
    path = tmp_path / "log"
    jobs: list = []
    log = writer(path, jobs, max_size="1k", max_file="9", compress="true")
    log.write("stdout", b"first\n")
    over = threading.Event()
    entries = read_log(path, finished=over.is_set)
    seen = [next(entries).data]
    for number in range(60):  # several rotations, while the reader is away
        log.write("stdout", f"line {number}\n".encode())
        while jobs:
            list(jobs.pop())
            time.sleep(0.01)  # a file is known by when it was last written to, and clocks of files tick slowly
    log.close()
    over.set()
    seen += [entry.data for entry in entries]
    assert [b"first\n", *(f"line {number}\n".encode() for number in range(60))] == seen


def test_a_follower_is_woken_at_once(tmp_path):
    path = tmp_path / "log"
    log = writer(path, [])
    over = threading.Event()
    times = []

    def write() -> None:
        for _ in range(5):
            time.sleep(0.15)
            times.append(time.monotonic())
            log.write("stdout", b"x\n")
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    late = [time.monotonic() - times[number] for number, _ in enumerate(read_log(path, finished=over.is_set))]
    thread.join()
    log.close()
    assert 5 == len(late)
    assert sorted(late)[2] < 0.08  # looking again every 100 ms would take 50 on average, and up to 100


def test_the_caller_can_end_it(tmp_path):
    path = tmp_path / "log"
    log = writer(path, [])
    log.write("stdout", b"x\n")
    log.close()
    waits = []

    def wait(descriptor: int, seconds: float) -> bool:
        waits.append((descriptor, seconds))
        return False

    assert [b"x\n"] == [entry.data for entry in read_log(path, finished=lambda: False, wait=wait)]
    assert 1 == len(waits)


def test_following_ends_after_until(tmp_path):
    (tmp_path / "log").write_text(line(LogEntry("stdout", _BEGIN, b"x\n")))
    begin = time.time_ns()
    entries = list(read_log(tmp_path / "log", finished=lambda: False, until=begin + _SECOND // 5))
    assert time.time_ns() - begin < 2 * _SECOND
    assert [] == [entry for entry in entries if entry.time_ns > begin]


def test_following_a_log_that_comes_into_being(tmp_path):
    path = tmp_path / "log"
    over = threading.Event()

    def write() -> None:
        time.sleep(0.1)
        log = writer(path, [])
        log.write("stderr", b"late\n")
        log.close()
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert [b"late\n"] == [entry.data for entry in read_log(path, finished=over.is_set)]
    thread.join()


def test_a_log_that_somebody_empties(tmp_path):
    path = tmp_path / "log"
    log = writer(path, [])
    over = threading.Event()
    log.write("stdout", b"first\n" * 20)
    entries = read_log(path, finished=over.is_set)
    seen = [next(entries).data for _ in range(20)]
    os.truncate(path, 0)
    log.write("stdout", b"second\n")
    over.set()
    assert [b"first\n"] * 20 + [b"second\n"] == seen + [entry.data for entry in entries]
    log.close()


def test_remove(tmp_path):
    for name in ("c-json.log", "c-json.log.1", "c-json.log.2.gz", "c-json.log.2.gz.partial", "other"):
        (tmp_path / name).write_text("")
    remove_log(tmp_path / "c-json.log")
    assert ["other"] == [file.name for file in tmp_path.iterdir()]
