"""Times: as Docker's API writes them (RFC 3339 with nanoseconds), as clients give them, and in a person's words."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from datetime import tzinfo

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time: not started yet, not finished yet
_SECOND = 1_000_000_000

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)")
_UNIX = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9})\d*)?")
_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 1_000_000, "s": _SECOND, "m": 60 * _SECOND}
_UNITS["h"] = 3600 * _SECOND
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d(?::\d\d(?::\d\d)?)?)(?:\.(\d{1,9}))?)?(Z|z|[+-]\d\d:\d\d)?", re.ASCII
)


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


def parse_moment(text: str, reference: int | None = None, zone: tzinfo | None = None) -> int | None:
    """Nanoseconds since 1970 of a moment; None for an empty text.

    It is `seconds[.fraction]`, a duration of Go's before `reference` (nanoseconds since 1970; now) as `1h30m`, or an
    RFC 3339 time, of which the end may be missing and whose zone is `zone` (the machine's own) where it names none
    (moby api/types/time GetTimestamp).

    Raises:
        InvalidParameter: it is none of these.
    """
    if not text:
        return None
    unix = _UNIX.fullmatch(text)
    if unix is not None:
        fraction = int((unix[2] or "").ljust(9, "0") or 0)
        seconds = int(unix[1]) * _SECOND
        return seconds - fraction if unix[1].startswith("-") else seconds + fraction
    duration = parse_duration(text)
    if duration is not None:
        return (time.time_ns() if reference is None else reference) - duration
    date = _DATE.fullmatch(text)
    if date is not None:
        clock = (date[2] or "00") + ":00:00"[3 * (date[2] or "00").count(":") :]
        offset = "" if date[4] is None else "+00:00" if date[4] in "Zz" else date[4]
        try:
            moment = datetime.fromisoformat(f"{date[1]}T{clock}{offset}")
        except ValueError:
            pass
        else:
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=zone) if zone is not None else moment.astimezone()
            return int(moment.timestamp()) * _SECOND + int((date[3] or "").ljust(9, "0") or 0)
    raise InvalidParameter(f'failed to parse value as time or duration: "{text}"')


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a duration as Go writes them: `300ms`, `-1.5h`, `2h45m`; None if it is none."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return 0 if text == "0" else None
    total = sum(int(float(number) * _UNITS[unit]) for number, unit in _PART.findall(text))
    return -total if found[1] == "-" else total
