"""Sizes (`64m`) and durations (`1m30s`) of a compose file.

Source: compose-spec, 11-extension.md, "Specifying byte values" and "Specifying durations".
"""

import re

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?\s*", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}


def size_bytes(value: object) -> int:
    """Bytes of `1024`, `64k`, `1.5gb`.

    Raises:
        ValueError: it is no size.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < -1:
            raise ValueError(f"{value} is no size")
        return value
    text = str(value)
    if text.strip() == "-1":
        return -1
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"`{value}` is no size: write 64m or 1g")
    return int(float(found[1]) * (1 << 10 * " kmgtp".index(found[2].lower() or " ")))


def duration_nanoseconds(value: object) -> int:
    """Nanoseconds of `30s`, `1m30s`, `1.5h`; a number alone is seconds.

    Raises:
        ValueError: it is no duration.
    """
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text) * _NANOSECONDS["s"])
    position = 0
    total = 0.0
    for part in _DURATION.finditer(text):
        if part.start() != position:
            break
        total += float(part[1]) * _NANOSECONDS[part[2]]
        position = part.end()
    if position != len(text) or not text:
        raise ValueError(f"`{value}` is no duration: write 30s or 1m30s")
    return int(total)
