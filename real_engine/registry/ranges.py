"""Byte ranges of requests (RFC 9110, section 14)."""

import re

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def byte_range(header: str, size: int) -> range | None:
    """The bytes that a `Range` header asks for of `size`: None for all of them, an empty range if there are none such.

    Several ranges at once get everything, as the standard allows.
    """
    matched = _RANGE.fullmatch(header.strip().replace(" ", ""))
    if matched is None:
        return None
    first, last = matched.groups()
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        return range(max(size - int(last), 0), size) if int(last) else range(0)
    start = int(first)
    if last and int(last) < start:
        return None  # not a range at all, so to be passed over
    return range(start, min(int(last) + 1, size) if last else size) if start < size else range(0)
