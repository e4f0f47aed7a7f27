"""Moments as clients of the API give them: seconds since 1970, RFC 3339, or how long ago."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from datetime import tzinfo

_SECOND = 1_000_000_000
_UNIX = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9})\d*)?")
_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 1_000_000, "s": _SECOND, "m": 60 * _SECOND}
_UNITS["h"] = 3600 * _SECOND
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d(?::\d\d(?::\d\d)?)?)(?:\.(\d{1,9}))?)?(Z|z|[+-]\d\d:\d\d)?", re.ASCII
)


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
