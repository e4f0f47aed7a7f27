"""What was seen of an engine fits the terminal, with Korean twice as wide, and moves no cursor."""

import io
import unicodedata
from pathlib import Path

import pytest

from classroom.commands.engine_records import Teller, byte_text, duration, pad, printable
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
