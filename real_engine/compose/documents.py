"""Compose files as plain Python values: YAML 1.1's safe part, with anchors, merge keys, `!reset` and `!override`.

A document is bounded in size and in how much its aliases may multiply, so a small file can't fill the memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError, InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LARGEST_FILE = 8 << 20
_MOST_NODES = 500_000
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Override:
    """A value that replaces, instead of joining, what an earlier file has there (`!override`)."""

    value: Any


class Reset:
    """Takes away what an earlier file has there (`!reset`)."""


RESET = Reset()


def read_document(path: Path) -> dict[str, Any]:
    """The mapping in a file.

    Raises:
        InvalidParameter: it can't be read, is no YAML, or no mapping.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidParameter(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    return parse_document(data, str(path))


def parse_document(data: bytes | str, name: str) -> dict[str, Any]:
    """The mapping in a text, called `name` in errors.

    Raises:
        InvalidParameter: it is no YAML, or no mapping.
    """
    if len(data) > _LARGEST_FILE:
        raise InvalidParameter(f"{name} is larger than {_LARGEST_FILE} bytes")
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise EngineError("compose needs PyYAML: pip install 'onggi[engine]'") from error
    try:
        found = yaml.load(data, Loader=_loader())  # noqa: S506 -- a SafeLoader with two tags more
        _check_nodes(found)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise InvalidParameter(f"{where}: {error.problem or error.context or 'not YAML'}") from error
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{name}: {' '.join(str(error).split()) or 'nested too deeply'}") from error
    except ValueError as error:
        raise InvalidParameter(f"{name}: {error}") from error
    if found is None:
        raise InvalidParameter(f"{name}: empty compose file")
    if not isinstance(found, dict):
        raise InvalidParameter(f"{name}: top-level object must be a mapping")
    return found


def map_texts(value: Any, change: Callable[[str, str], Any], where: str = "") -> Any:
    """`value` with every text in it (but no key) changed by `change(text, where)`."""
    if isinstance(value, str):
        return change(value, where)
    if isinstance(value, dict):
        return {key: map_texts(inner, change, f"{where}.{key}" if where else str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [map_texts(inner, change, f"{where}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, Override):
        return Override(map_texts(value.value, change, where))
    return value


def _check_nodes(document: Any) -> None:
    """Refuse a document whose aliases multiply it, or one that holds itself."""
    nodes = 0
    waiting = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        nodes += 1
        if nodes > _MOST_NODES or depth > _DEEPEST:
            raise ValueError("the document is too large once its aliases are followed")
        if isinstance(value, Override):
            waiting.append((value.value, depth))
        elif isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"a key must be text: {key!r}")
            waiting.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            waiting.extend((inner, depth + 1) for inner in value)


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # the library brings no types
        """Safe YAML as compose has it: no dates, and no `yes` and `no` for truth values."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"mapping key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value if isinstance(key.value, str) else None)
            return super().construct_mapping(node, deep)

    def override(loader: Any, node: Any) -> Override:
        return Override(_plain(loader, node))

    Loader.add_constructor("!override", override)
    Loader.add_constructor("!reset", lambda loader, node: RESET)
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_IN_COMPOSE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "tTfF":
        Loader.yaml_implicit_resolvers.setdefault(first, []).insert(0, (_BOOL, re.compile(r"(?i:true|false)\Z")))
    for first in "-+0123456789":
        Loader.yaml_implicit_resolvers.setdefault(first, []).insert(0, (_INT, _YAML12_INT))
    return Loader


_BOOL, _INT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:int"
# `on: off`, dates and `22:22`, a number in base 60, are texts to everybody who writes a compose file.
_NOT_IN_COMPOSE = (_BOOL, _INT, "tag:yaml.org,2002:timestamp")
_YAML12_INT = re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+|0[0-7]+)\Z")


def _plain(loader: Any, node: Any) -> Any:
    import yaml

    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    tag = loader.resolve(yaml.ScalarNode, node.value, (True, False))
    return loader.construct_object(yaml.ScalarNode(tag, node.value, node.start_mark, node.end_mark), deep=True)
