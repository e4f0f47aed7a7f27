"""What was seen of an engine fits the terminal, with Korean twice as wide, and moves no cursor."""

import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classroom.commands.engine_records import Teller, byte_text, duration, pad, printable, telling, wrapped
from real_engine.explain.session import read

REFERENCE = Path(__file__).parents[2] / "data" / "recordings" / "engine-session.jsonl"


def columns(text):
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("width", [80, 160])
def test_no_line_is_wider_than_the_terminal(language, width):
    stream = io.StringIO()
    teller = Teller(language, stream, width=width)
    for record in read(REFERENCE):
        teller(record)
    teller.end()
    lines = stream.getvalue().splitlines()
    assert 200 < len(lines)
    assert [] == [line for line in lines if columns(line) > width]


def test_elsewhere_a_step_is_a_line():
    stream = io.StringIO()
    teller = Teller("en", stream, exchange=False)
    steps = [record for record in read(REFERENCE) if record["kind"] == "step"]
    for record in steps:
        teller(record)
    assert len(steps) == len(stream.getvalue().splitlines())


def test_nothing_moves_the_cursor():
    assert "\\x1b[2Jx⏎" == printable("\x1b[2Jx\n")


def test_long_ids_are_cut():
    assert "rm 0123456789ab…" == printable("rm " + "0123456789abcdef" * 4)


def test_units():
    assert ["7 µs", "3.25 ms", "250 ms", "2.50 s"] == [duration(each) for each in (7e-6, 0.00325, 0.25, 2.5)]
    assert ["12 B", "1.5 KiB", "2.0 MiB"] == [byte_text(each) for each in (12, 1536, 2 << 20)]


def test_korean_is_padded_by_its_width():
    assert ("국면  ", 6) == (pad("국면", 6), columns(pad("국면", 6)))


@given(st.text("ab 한글/,. ", max_size=60), st.integers(8, 30))
def test_wrapping_keeps_every_character_and_the_width(text, width):
    lines = wrapped(text, width)
    assert all(columns(line) <= width for line in lines)
    assert text.replace(" ", "") == "".join(lines).replace(" ", "")


def test_wrapping_breaks_a_path_at_its_slashes_and_keeps_the_inset():
    assert ["see /sys/", "fs/cgroup/", "cpu"] == wrapped("see /sys/fs/cgroup/cpu", 10)
    assert ["  ab cd", "  ef"] == wrapped("  ab cd ef", 8)


def test_empty_fields_are_left_out_and_counted():
    text = '{"Image": "x", "Env": null, "Tty": false, "HostConfig": {"Memory": 0, "AutoRemove": true}, "Empty": {}}'
    shorter, count = telling(text)
    assert 4 == count
    assert ["Image", "HostConfig", "AutoRemove"] == [
        line.split('"')[1] for line in shorter.splitlines() if '":' in line
    ]
    assert ("no JSON", 0) == telling("no JSON")


def test_a_terminal_gets_a_head_and_a_reason_that_comes_again_only_once():
    stream = io.StringIO()
    teller = Teller("en", stream, exchange=False, width=120)
    for at in (0.0, 1.0):
        teller(
            {
                "kind": "step",
                "phase": "mounts",
                "operation": "",
                "call": "mount()",
                "why": "so",
                "at": at,
                "seconds": 0.1,
            }
        )
    head, first, second = stream.getvalue().splitlines()
    assert ["at", "took", "part", "what", "is", "done", "why"] == head.split()
    assert (["mount()", "so"], ["mount()", "as", "above"]) == (first.split()[-2:], second.split()[-3:])


def test_sums_are_of_own_times():
    teller = Teller("en", io.StringIO(), exchange=False)
    step = {"kind": "step", "operation": "", "call": "", "why": "", "at": 0.0}
    teller({**step, "phase": "network", "seconds": 3.0})
    teller({**step, "phase": "start", "seconds": 5.0, "own_seconds": 2.0, "parts": 1})
    assert {"network": (1, 3.0), "start": (1, 2.0)} == teller.totals
