"""The keys that detach a terminal, as clients write them: `ctrl-p,ctrl-q`."""

from real_engine.errors import InvalidParameter

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q

# ASCII gives control characters by letter and by these five signs (ascii(7)).
_CONTROL = {chr(ord("a") + number): number + 1 for number in range(26)} | {
    "@": 0,
    "[": 27,
    "\\": 28,
    "]": 29,
    "^": 30,
    "_": 31,
}


def parse_detach_keys(text: str) -> bytes:
    """The bytes of a sequence of keys; the default sequence where none is given.

    Raises:
        InvalidParameter: a key that is neither one character nor `ctrl-` and a letter or one of `@[\\]^_`.
    """
    if not text:
        return DEFAULT_DETACH_KEYS
    found = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            found += key.encode()
        elif key.startswith("ctrl-") and key[5:] in _CONTROL:
            found.append(_CONTROL[key[5:]])
        else:
            raise InvalidParameter(f"Invalid detach keys ({text}) provided: Unknown character: '{key}'")
    return bytes(found)
