"""Times as Docker's API writes them."""

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.times import NEVER, ago, from_rfc3339, now, parse_moment, rfc3339

_SECOND = 1_000_000_000


@given(st.integers(1, 4_000_000_000 * _SECOND))
def test_a_moment_is_read_as_it_was_written(nanoseconds: int) -> None:
    assert nanoseconds == from_rfc3339(rfc3339(nanoseconds))


def test_zero_is_never() -> None:
    assert NEVER == rfc3339(0)
    assert 0 == from_rfc3339(NEVER)


def test_a_zone_counts() -> None:
    assert from_rfc3339("2026-01-01T09:00:00+09:00") == from_rfc3339("2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1700000000", 1_700_000_000 * _SECOND),
        ("1700000000.5", 1_700_000_000 * _SECOND + _SECOND // 2),
        ("2026-01-01T00:00:01Z", from_rfc3339("2026-01-01T00:00:01Z")),
    ],
)
def test_a_moment_as_clients_write_it(text: str, nanoseconds: int) -> None:
    assert nanoseconds == parse_moment(text)


def test_a_span_is_back_from_now() -> None:
    before = now() - 5400 * _SECOND
    assert before <= parse_moment("1h30m") <= now() - 5400 * _SECOND


def test_a_moment_without_a_zone_is_of_the_zone_that_is_given() -> None:
    assert from_rfc3339("2026-01-01T00:00:00Z") == parse_moment("2026-01-01", zone=UTC)


@pytest.mark.parametrize("text", ["soon", "1x", "2026-13-01", "1h-"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_moment(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (3 * 86400, "3 days"),
        (21 * 86400, "3 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_spans_in_the_words_of_docker_ps(seconds: int, words: str) -> None:
    assert words == ago(seconds * _SECOND)
