"""The keys that take a client away from a terminal and leave the program running."""

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q


class EscapeProxy:
    """Watches what a client types for the detach keys, and passes on everything else.

    The beginning of the sequence is held back until it is known not to be one. As with Docker (moby,
    pkg/term/proxy.go), a key that breaks a begun sequence doesn't begin another: ctrl-p ctrl-p ctrl-q detaches nobody.
    """

    def __init__(self, keys: bytes = DEFAULT_DETACH_KEYS) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What of `typed`, and of what was held back, is for the program; and whether the sequence is complete.

        What was typed after the sequence is dropped.
        """
        if not self._keys:
            return typed, False
        if self._matched == 0 and self._keys[0] not in typed:
            return typed, False
        passed = bytearray()
        for key in typed:
            if key == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            passed.append(key)
            self._matched = 0
        return bytes(passed), False

    def rest(self) -> bytes:
        """What is still held back: it turned out to be no sequence, for the client types no more."""
        held, self._matched = self._keys[: self._matched], 0
        return held
