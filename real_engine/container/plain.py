"""Frozen dataclasses as plain JSON values and back, exactly: how a container is told to another process.

What has its default value is left out. Known are str, int, float, bool, None, Path, `tuple[X, ...]`, `Mapping[str, X]`,
and other dataclasses; a union may hold None beside one of these.
"""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from real_engine.errors import InvalidParameter

T = TypeVar("T")
_Decoder = Callable[[Any], Any]


def to_plain(value: Any) -> Any:
    """`value` as something that `json.dumps` takes."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    found = {}
    for name, default in _defaults(cast(Any, type(value))):
        item = getattr(value, name)
        if default is MISSING or item != default:
            found[name] = to_plain(item)
    return found


def from_plain(kind: type[T], plain: Any) -> T:
    """What `to_plain` made into `plain`, as a `kind` again.

    Raises:
        InvalidParameter: a field that `kind` doesn't have or that is of another type, or one that is missing.
        EngineError: what `kind` itself refuses.
    """
    if not isinstance(plain, dict):
        raise InvalidParameter(f"{kind.__name__}: an object is expected, not {type(plain).__name__}")
    known = _decoders(cast(Any, kind))
    strange = plain.keys() - known.keys()
    if strange:
        raise InvalidParameter(f"{kind.__name__} has no field `{min(strange)}`")
    try:
        return kind(**{name: known[name](item) for name, item in plain.items()})
    except TypeError as error:
        raise InvalidParameter(f"{kind.__name__}: {error}") from error


@cache
def _defaults(kind: type) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, _default(field)) for field in fields(kind))


def _default(field: "Field[Any]") -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


@cache
def _decoders(kind: type) -> dict[str, _Decoder]:
    hints = typing.get_type_hints(kind)
    return {field.name: _decoder(hints[field.name]) for field in fields(kind)}


def _decoder(hint: Any) -> _Decoder:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (plain,) = [argument for argument in arguments if argument is not type(None)]
        inner = _decoder(plain)
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        inner = _decoder(arguments[0])
        return lambda value: tuple(inner(item) for item in _expect(value, list))
    if origin is Mapping:
        inner = _decoder(arguments[1])
        return lambda value: {str(key): inner(item) for key, item in _expect(value, dict).items()}
    if is_dataclass(hint):
        return lambda value: from_plain(cast(Any, hint), value)
    if hint is Path:
        return lambda value: Path(_expect(value, str))
    if hint is float:
        return lambda value: float(_expect(value, (int, float)))
    return lambda value: _expect(value, hint)


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is of another type")
    return value
