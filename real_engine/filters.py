"""Filters of the API: `{"status": {"running": true}}` from the command line, `{"status": ["running"]}` from the SDK.

Source: moby api/types/filters (v24), whose matching differs from key to key; each way has its method here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from real_engine.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_TRUE = frozenset(("1", "true"))
_FALSE = frozenset(("0", "false"))


class Filters:
    """Keys, each with the values that were given for it. A key that isn't there lets everything through."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Iterable[str]] | None = None) -> None:
        self._values = {key: list(dict.fromkeys(given)) for key, given in (values or {}).items()}

    def get(self, key: str) -> list[str]:
        """The values of a key, in the order in which they came."""
        return list(self._values.get(key, ()))

    def check(self, allowed: Collection[str]) -> None:
        """Refuse what isn't known.

        Raises:
            InvalidParameter: a key that is not among `allowed`.
        """
        for key in self._values:
            if key not in allowed:
                raise InvalidParameter(f"invalid filter '{key}'")

    def flag(self, key: str, default: bool = False) -> bool:
        """The truth value of a key: `1`, `true`, `0` or `false`.

        Raises:
            InvalidParameter: another value, or contradicting ones.
        """
        values = self._values.get(key)
        if not values:
            return default
        if len(values) == 1 and values[0] in _TRUE | _FALSE:
            return values[0] in _TRUE
        raise InvalidParameter(f"invalid filter '{key}=[{' '.join(values)}]'")

    def exact(self, key: str, value: str) -> bool:
        """Whether `value` is one of the key's values."""
        values = self._values.get(key)
        return not values or value in values

    def prefix(self, key: str, value: str) -> bool:
        """Whether `value` is, or begins with, one of the key's values."""
        values = self._values.get(key)
        return not values or value.startswith(tuple(values))

    def search(self, key: str, value: str) -> bool:
        """Whether one of the key's values is `value`, or is found in it as a regular expression."""
        values = self._values.get(key)
        if not values or value in values:
            return True
        return any(_found(pattern, value) for pattern in values)

    def labels(self, key: str, labels: Mapping[str, str] | None) -> bool:
        """Whether all that is asked holds of `labels`: each value is `name`, or `name=value`."""
        for wanted in self._values.get(key, ()):
            name, equals, value = wanted.partition("=")
            if labels is None or name not in labels or (equals and labels[name] != value):
                return False
        return True

    def match_labels(self, labels: Mapping[str, str] | None) -> bool:
        """Whether `label` holds and none of `label!` does."""
        if not self.labels("label", labels):
            return False
        return not any(Filters({"label": [unwanted]}).labels("label", labels) for unwanted in self.get("label!"))

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __repr__(self) -> str:
        return f"Filters({self._values!r})"


def parse_filters(text: str) -> Filters:
    """The filters of a request's parameter `filters`, in either of its forms; none if it is empty.

    Raises:
        InvalidParameter: they are in neither form.
    """
    if not text:
        return Filters()
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter("invalid filter") from error
    if given is None:
        return Filters()
    if not isinstance(given, dict):
        raise InvalidParameter("invalid filter")
    values: dict[str, list[str]] = {}
    for key, value in given.items():
        if isinstance(value, dict) and all(isinstance(wanted, bool) for wanted in value.values()):
            values[key] = [name for name, wanted in value.items() if wanted]
        elif isinstance(value, list) and all(isinstance(name, str) for name in value):
            values[key] = value
        elif value is not None:
            raise InvalidParameter("invalid filter")
    return Filters(values)


def _found(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False
