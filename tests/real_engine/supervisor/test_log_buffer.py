"""A non-blocking log: a program never waits for it; it loses what the buffer can't hold, and nothing else.

What stands for a disk that has come to a halt is a FIFO that nobody reads.
"""

import array
import fcntl
import json
import os
import termios
import threading

import pytest

from real_engine.supervisor.events import LogFailed
from real_engine.supervisor.log_buffer import BufferedLogWriter
from real_engine.supervisor.log_options import LogOptions
from real_engine.supervisor.loop import Loop

from .conftest import SECONDS, eventually


class Reading:
    """Reads a FIFO from when it is told to, to its end."""

    def __init__(self, path):
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(self._descriptor, True)
        self.data = b""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        while data := os.read(self._descriptor, 65536):
            self.data += data

    def full(self):
        waiting = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return waiting[0] == fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ)

    def begin(self):
        self._thread.start()

    def entries(self):
        self._thread.join(SECONDS)
        os.close(self._descriptor)
        return [json.loads(line) for line in self.data.splitlines()]


def open_writer(path, loop, driver="json-file", **options):
    options = {name.replace("_", "-"): value for name, value in options.items()}
    failures, recoveries = [], []
    writer = BufferedLogWriter(
        LogOptions(str(path), driver, {"mode": "non-blocking", **options}),
        failed=failures.append,
        recovered=recoveries.append,
        loop=loop,
        clock=lambda: 1_795_536_000_123_456_789,  # always as many digits: a shorter entry may fit where a longer didn't
    )
    return writer, failures, recoveries


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_all_is_written_in_order_where_the_disk_keeps_up(loop, tmp_path):
    writer, failures, _ = open_writer(tmp_path / "log", loop)
    for number in range(2000):
        writer.write("stdout", b"%d\n" % number)
    writer.write("stderr", b"no newline")
    writer.close(loop.stop)
    loop.run()
    entries = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [f"{number}\n" for number in range(2000)] == [one["log"] for one in entries if one["stream"] == "stdout"]
    assert ["no newline"] == [one["log"] for one in entries if one["stream"] == "stderr"]
    assert ([], 0) == (failures, writer.overflowed)
    assert [] == [thread for thread in threading.enumerate() if thread.name == "log"]


def test_what_the_buffer_cannot_hold_is_dropped_the_newest_first(loop, tmp_path):
    reading = Reading(tmp_path / "log")
    writer, _, _ = open_writer(tmp_path / "log", loop, max_buffer_size="100k")
    for _ in range(6):
        writer.write("stderr", b"x" * 15_000 + b"\n")
    eventually(reading.full)  # now the thread waits in the middle of an entry
    for number in range(20_000):  # about 1.5 MB of entries
        writer.write("stdout", b"%d\n" % number)
    reading.begin()
    eventually(lambda: not writer._waiting)
    writer.write("stdout", b"later\n")
    writer.close(loop.stop)
    loop.run()
    *kept, last = [entry["log"] for entry in reading.entries() if entry["stream"] == "stdout"]
    assert ("later\n", list(range(len(kept)))) == (last, [int(line) for line in kept])
    assert 20_000 == len(kept) + writer.overflowed
    assert 100 * 1024 <= len(reading.data) <= 100 * 1024 + 3 * 65536


def test_one_line_goes_into_any_buffer(loop, tmp_path):
    writer, _, _ = open_writer(tmp_path / "log", loop, max_buffer_size="0")
    writer.write("stdout", b"x" * 10_000 + b"\n")
    writer.close(loop.stop)
    loop.run()
    assert 10_001 == len(json.loads((tmp_path / "log").read_bytes())["log"])


def test_it_rotates_and_compresses(loop, tmp_path):
    writer, failures, _ = open_writer(tmp_path / "log", loop, "local", max_size="5k", max_file="3")
    for number in range(500):
        writer.write("stdout", b"%d\n" % number)
    writer.close(loop.stop)
    loop.run()
    assert ({"log", "log.1.gz", "log.2.gz"}, []) == ({path.name for path in tmp_path.iterdir()}, failures)


def test_failures_are_told_by_the_loop(loop, tmp_path):
    writer, failures, recoveries = open_writer("/dev/full", loop)
    told_by = []
    writer._failed = lambda reason: writer._call(lambda: told_by.append((reason, threading.current_thread())))
    writer.write("stdout", b"a\n")
    writer.close(loop.stop)
    loop.run()
    assert [("/dev/full: No space left on device", threading.current_thread())] == told_by
    assert ([], []) == (failures, recoveries)


@pytest.mark.root
def test_a_container_does_not_wait_for_a_log_that_has_come_to_a_halt(supervised):
    container, neighbour = supervised.new_id(), supervised.new_id()
    log = supervised.log_options(container, mode="non-blocking", max_buffer_size="200k")
    reading = Reading(log.path)
    attached = supervised.attach(container)
    supervised.start(container, "seq 1 200000; echo all; read line", log=log, open_stdin=True, stdin_once=True)
    assert len(attached.read_until(b"all\n")) > 1_200_000  # with nothing of the log read yet
    # Nobody else waits either, and containers and more programs start while the thread is there.
    assert (0, b"beside\n", b"") == supervised.run("echo beside")
    supervised.exec(container, f"{neighbour}e", "true")
    assert 0 == supervised.end_of(f"{neighbour}e").status
    supervised.client.signal(container, 9)
    reading.begin()
    assert 137 == supervised.end_of(container).status
    lines = [entry["log"] for entry in reading.entries()]
    numbers = [int(line) for line in lines if line != "all\n"]
    assert (1, numbers) == (numbers[0], sorted(set(numbers)))  # whole lines in order, of which some are missing
    assert 1000 < len(numbers) < 200_000


@pytest.mark.root
def test_the_end_is_told_when_all_is_logged(supervised):
    container = supervised.new_id()
    supervised.start(container, "seq 1 5000", log=supervised.log_options(container, mode="non-blocking"))
    supervised.end_of(container)
    assert [("stdout", b"%d\n" % number) for number in range(1, 5001)] == supervised.logged(container)
    assert [] == [event for event in supervised.events.seen if isinstance(event, LogFailed)]
