"""Header fields: names without case, and several values of one name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What RFC 9110 5.6.3 allows around a word. `strip` alone would take U+0085 and U+00A0 too, which nobody before us does.
_BLANKS = " \t"


class Headers:
    """The header fields of a message, in the order in which they came; names are compared without case."""

    __slots__ = ("_fields", "_first")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = list(fields)
        self._first: dict[str, str] = {}
        for name, value in reversed(self._fields):
            self._first[name.lower()] = value

    def get(self, name: str, default: str = "") -> str:
        """The first value of that name."""
        return self._first.get(name.lower(), default)

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        wanted = name.lower()
        return [value for key, value in self._fields if key.lower() == wanted]

    def tokens(self, name: str) -> list[str]:
        """The comma-separated words of that name's values, in small letters: `Connection: keep-alive, Upgrade`."""
        words = (word.strip(_BLANKS).lower() for value in self.all(name) for word in value.split(","))
        return [word for word in words if word]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._first

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({self._fields!r})"
