"""The parameters of a request's address, read as Docker reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Iterator

# moby api/server/httputils/form.go, BoolValue: whatever isn't one of these is true.
_FALSE = frozenset(("", "0", "no", "false", "none"))
_MOST_FIELDS = 10_000


class Query:
    """What stands after the `?`.

    Raises:
        InvalidParameter: more fields than anybody means, or a NUL, which no name or path can hold.
    """

    __slots__ = ("_text", "_values")

    def __init__(self, text: str = "") -> None:
        self._text = text
        self._values: dict[str, list[str]] = {}
        if "%00" in text:
            raise InvalidParameter("invalid query: it has a NUL in it")
        if text:
            try:
                fields = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
            except ValueError as error:
                raise InvalidParameter(f"invalid query: {error}") from error
            for name, value in fields:
                self._values.setdefault(name, []).append(value)

    def get(self, name: str, default: str = "") -> str:
        """The first value of that name."""
        values = self._values.get(name)
        return values[0] if values else default

    def path(self, name: str) -> str:
        """The first value of that name, as the name of a file: bytes that are no UTF-8 are kept, as surrogates.

        (`os.fsencode` gives them back. Everywhere else they become U+FFFD, as Go's decoder makes them.)
        """
        fields = parse_qsl(self._text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="surrogateescape")
        return next((value for key, value in fields if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value: false is "", 0, no, false, none in any case; all else is true."""
        values = self._values.get(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number; `default` where it is missing or empty.

        Raises:
            InvalidParameter: it is none.
        """
        text = self.get(name)
        if not text:
            return default
        try:
            if not text.isascii() or "_" in text or text != text.strip():
                raise ValueError(text)
            return int(text)
        except ValueError as error:
            raise InvalidParameter(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)
