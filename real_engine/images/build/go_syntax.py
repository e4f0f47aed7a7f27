"""Text as Go writes and reads it, where Docker lets it show: in an image's history and in messages.

`%q` of a string, of a list and of a health check; durations ("1m30s"); integers. Sources: the Go standard library's
documentation of `strconv.Quote`, `time.ParseDuration` and `time.Duration.String`.
"""

import re
from collections.abc import Iterable
from fractions import Fraction

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_NUMBER_AND_UNIT = re.compile(r"(\d*)(\.\d*)?([^\d.]*)")
_LONGEST_DURATION = (1 << 63) - 1  # nanoseconds


def quote(text: str, mark: str = '"') -> str:
    """`text` between quotation marks, with what can't be printed escaped."""
    written = []
    for character in text:
        code = ord(character)
        if character == mark:
            written.append("\\" + mark)
        elif character in _ESCAPES:
            written.append(_ESCAPES[character])
        elif character.isprintable():
            written.append(character)
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, kept by surrogateescape
            written.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x80:
            written.append(f"\\x{code:02x}")
        else:
            written.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return mark + "".join(written) + mark


def quote_list(items: Iterable[str]) -> str:
    """A list of strings: `["a" "b c"]`."""
    return "[" + " ".join(quote(item) for item in items) + "]"


def show_list(items: Iterable[str]) -> str:
    """A list of strings without quotation marks: `[a b c]`."""
    return "[" + " ".join(items) + "]"


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `1m30.5s`.

    Raises:
        ValueError: with Go's own words.
    """
    rest, sign = text, 1
    if rest[:1] in ("+", "-"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f"time: invalid duration {quote(text)}")
    total = Fraction(0)
    while rest:
        match = _NUMBER_AND_UNIT.match(rest)
        whole, point, unit = match.groups() if match else ("", "", "")
        if not whole and len(point or "") < 2:
            raise ValueError(f"time: invalid duration {quote(text)}")
        if not unit:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if unit not in _UNITS:
            raise ValueError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        total += Fraction((whole or "0") + (point if point and len(point) > 1 else "")) * _UNITS[unit]
        rest = rest[len(whole) + len(point or "") + len(unit) :]
    if total > _LONGEST_DURATION:
        raise ValueError(f"time: invalid duration {quote(text)}")
    return sign * int(total)


def show_duration(nanoseconds: int) -> str:
    """A duration as Go prints it: `0s`, `1.5ms`, `5s`, `1m0s`, `2h0m0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 10**9:
        unit = next(unit for unit in ("ms", "µs", "ns") if rest >= _UNITS[unit])
        return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
    minutes, seconds = divmod(rest, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    shown = f"{_decimal(seconds, 10**9)}s"
    if hours or minutes:
        shown = f"{minutes}m{shown}"
    if hours:
        shown = f"{hours}h{shown}"
    return sign + shown


def parse_integer(text: str) -> int:
    """A decimal integer of 32 bits.

    Raises:
        ValueError: with Go's own words.
    """
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    number = int(text)
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return number


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0")
