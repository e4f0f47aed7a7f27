"""Keys of a record by dotted path, `arrivals.steps.1.1`: which there are, and a record with some of them changed.

A key is looked up in the schema and not in the record, since one that was left at its default is no less a key. Of a
table that can be of several kinds any kind's key will do: the kind may be changed along with it.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from simulator.datacenter.platforms import Quantity
from simulator.errors import SimulatorError
from simulator.records import StrictModel, validate_record

Record = TypeVar("Record", bound=StrictModel)


def check_key(model: type[BaseModel], key: str, where: str) -> None:
    """Refuse a key that `model` does not have.

    Args:
        model: the record's.
        key: its dotted path; a number is a place in a list, counted from 0.
        where: what the message begins with.

    Raises:
        SimulatorError: no such key; the nearest that there is is named.
    """
    here: list[Any] = [model]
    for part in key.split("."):
        here = [inner for annotation in here for inner in _step(annotation, part)]
        if not here:
            raise SimulatorError(f"{where}: unknown key `{key}`: {_hint(model, key)}")


def with_keys(record: Record, changes: Mapping[str, Any], where: str) -> Record:
    """`record` with the value of some keys changed, and validated again as a whole.

    A platform's quantity, which has an interval and a source, may be given as one number.

    Args:
        record: stays as it is.
        changes: dotted path to value; a value may be a whole table.
        where: what the message of a refusal begins with.

    Raises:
        SimulatorError: no such key, no such place in a list, or values that the record refuses.
    """
    # Only what was written: a default of one kind would be an unknown key where the kind is changed.
    tree: Any = record.model_dump(mode="json", exclude_unset=True)
    for key, value in changes.items():
        check_key(type(record), key, where)
        tree = _put(tree, key.split("."), _as_quantity(type(record), key, value), f"{where}: key `{key}`")
    return validate_record(type(record), tree, where)


def known_keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key of `model` and of the records inside it, dotted; what is in a list is not among them."""
    for name, field in model.model_fields.items():
        yield name
        for inner in _alternatives(field.annotation):
            if _is_model(inner):
                yield from (f"{name}.{rest}" for rest in known_keys(inner))


def _step(annotation: Any, part: str) -> Iterator[Any]:
    """What can be at `part` of a value of type `annotation`."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        if field is not None:
            yield from _alternatives(field.annotation)
    elif get_origin(annotation) in (tuple, list) and part.isdecimal():
        inside = get_args(annotation)
        fixed = get_origin(annotation) is tuple and Ellipsis not in inside
        if fixed and int(part) >= len(inside):
            return
        yield from _alternatives(inside[int(part)] if fixed else inside[0])
    elif get_origin(annotation) is dict:
        yield from _alternatives(get_args(annotation)[1])


def _alternatives(annotation: Any) -> Iterator[Any]:
    """`annotation` without what is wrapped around it (`Annotated`), and each part of a union on its own."""
    if get_origin(annotation) in (tuple, list, dict, Literal) or not get_args(annotation):
        yield annotation
    elif hasattr(annotation, "__metadata__"):
        yield from _alternatives(get_args(annotation)[0])
    else:
        for each in get_args(annotation):
            yield from _alternatives(each)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _as_quantity(model: type[BaseModel], key: str, value: Any) -> Any:
    here: list[Any] = [model]
    for part in key.split("."):
        here = [inner for annotation in here for inner in _step(annotation, part)]
    if Quantity in here and isinstance(value, int | float):
        return {"value": value, "low": value, "high": value, "kind": "simulated", "source": "set by hand in a sweep"}
    return value


def _put(tree: Any, parts: list[str], value: Any, where: str) -> Any:
    """`tree` with `value` at `parts`; neither it nor anything in it is changed."""
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if isinstance(tree, list):
        if int(part) >= len(tree):
            raise SimulatorError(f"{where}: no place {part} in a list of {len(tree)}; they are counted from 0")
        return [_put(old, rest, value, where) if index == int(part) else old for index, old in enumerate(tree)]
    if tree is None and part.isdecimal():
        raise SimulatorError(f"{where}: the list is not set; write it into the scenario first")
    old = tree if isinstance(tree, Mapping) else {}
    return {**old, part: _put(old.get(part), rest, value, where)}


def _hint(model: type[BaseModel], key: str) -> str:
    known = sorted(set(known_keys(model)))
    # `rate_per_second` is meant as `arrivals.rate_per_second`, however far apart the two are as texts.
    ends = [each for each in known if each.endswith(f".{key}")]
    near = ends or difflib.get_close_matches(key, known, n=1)
    return f"did you mean `{near[0]}`?" if near else "`onggi scenario schema` lists them all"
