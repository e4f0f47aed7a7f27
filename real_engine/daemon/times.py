"""Times as Docker's API writes them: RFC 3339 in UTC with nanoseconds, and durations in a person's words."""

import re
import time
from datetime import UTC, datetime

from real_engine.errors import InvalidParameter

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time: not started yet, not finished yet
_SECOND = 1_000_000_000

_UNITS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)")


def now() -> int:
    """Nanoseconds since 1970."""
    return time.time_ns()


def rfc3339(nanoseconds: int) -> str:
    """The moment, as Go's RFC3339Nano writes it: without zeros at the end of the fraction."""
    if nanoseconds == 0:
        return NEVER
    seconds, rest = divmod(nanoseconds, _SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


def from_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time; 0 for Go's zero time.

    Raises:
        ValueError: it is no such time.
    """
    if text in ("", NEVER):
        return 0
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is no RFC 3339 time")
    moment = datetime.fromisoformat(found[1].replace("t", "T") + ("+00:00" if found[3] in "Zz" else found[3]))
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return seconds * _SECOND + int((found[2] or "0").ljust(9, "0"))


def parse_moment(text: str) -> int:
    """Nanoseconds since 1970 of a moment as clients write it.

    That is seconds since 1970 with or without a fraction, an RFC 3339 time (also without its zone, or its time of day),
    or a span back from now (`10m`, `1h30m`).

    Raises:
        InvalidParameter: none of them.
    """
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * _SECOND + int(fraction.ljust(9, "0") or "0")
    if re.fullmatch(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", text):
        return now() - sum(
            int(float(number) * _UNITS[unit])
            for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
        )
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            text += "T00:00:00"
        return from_rfc3339(text if re.search(r"(Z|z|[+-]\d\d:\d\d)$", text) else f"{text}Z")
    except ValueError as error:
        raise InvalidParameter(f'parsing time "{text}": it is no moment') from error


def ago(nanoseconds: int) -> str:
    """How long a span is, in the words of `docker ps`: "Less than a second", "5 minutes", "About an hour"."""
    seconds = nanoseconds // _SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"
