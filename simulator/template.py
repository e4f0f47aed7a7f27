"""A record as a TOML file that explains itself: every key that there is, with what it means and what it may be.

All of it comes from the record's schema and the docstrings of its class, so a key that is added is in the next file
that is written. What is set in the record is set in the file; every other key stands as a comment with its default.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from simulator.datafiles import data_directory
from simulator.record_docs import described_schema, descriptions, records_in, summary

OPTION = "#"
"""Begins a line with one key at its default: take it away, and the key is set."""

BLOCK = "#|"
"""Begins each line of a table of another kind: take it away from all of them, and the table above out."""

UNSET = "not set by default"
"""Said of a key that has no default; the value that is shown is an example."""

UNFIT = "not together with what is set here"
"""Said of a key or a table that needs another key to be changed as well."""

FILL_IN = " (Its values are only there to show the form: put in your own.)"
"""Said of a table that cannot be taken as it stands."""

_WIDTH = 118

EXAMPLES: Mapping[str, Sequence[Any]] = {
    "steps": ([[0, 50], [120, 500]],),
    "times": ([[0, 4], [120, 20]],),
    "rate_per_second": (50.0,),
    "mean_rate": (50.0,),
    "base_rate": (50.0,),
    "peak_rate": (500.0,),
    "start_seconds": (120.0,),
    "ramp_seconds": (30.0,),
    "hold_seconds": (120.0,),
    "fall_seconds": (60.0,),
    "amplitude": (0.5,),
    "mean_seconds": (0.05,),
    "states": ([{"rate_per_second": 20.0, "mean_seconds": 60.0}, {"rate_per_second": 200.0, "mean_seconds": 10.0}],),
    "users": (100,),
    "shape": (1.5,),
    "minimum_seconds": (0.01,),
    "maximum_seconds": (1.0,),
    "low_seconds": (0.0,),
    "high_seconds": (1.0,),
    "path": ("mine.csv", "reference/startup"),
    "scale_out": ([{"at": 80.0, "instances": 2}, {"at": 95.0, "percent": 50.0}],),
    "at": (90.0,),
    "percent": (25.0,),
    "max_instances": (20,),
    "machine": ("machine-0",),
    "zone": ("zone-1",),
    "pods_per_node": (110,),
}
"""Key to a value worth showing, where nothing has set one; the first that the key takes is used. For all other keys a
value is found from what they may be."""

_NUMBERS = (1, 1.0, 0.5, 0.1, 2, 10, 60, 0, -1)
_TEXTS = ("name", "a", "")


def commented_toml(record: BaseModel, heading: str) -> str:
    """The record as TOML with every key of its class, commented.

    Args:
        record: what is set.
        heading: the first lines, a paragraph each, without their `#`.
    """
    lines = [line for part in heading.splitlines() for line in (_prose(part) if part else ("#",))]
    return "\n".join([*lines, "", *_table(record, "", record)]) + "\n"


def example(model: type[BaseModel]) -> tuple[BaseModel, bool]:
    """A record of this class with a value for each key that it requires and no other, and whether it is valid.

    It is not where a value must come from the person, such as the path of a file.

    Raises:
        ValueError: no value of a key was found. Give one in `EXAMPLES`, or `Field(examples=[…])`.
    """
    required = {name: field for name, field in model.model_fields.items() if field.is_required()}
    choices = [_candidates(name, field)[:4] for name, field in required.items()]
    # The first choice of every key is nearly always right; where keys depend on each other, the next are tried, and
    # then one more key.
    more = (
        {},
        *({name: _candidates(name, field)[0]} for name, field in model.model_fields.items() if _is_unset(field)),
    )
    for added in more:
        for values in product(*choices):
            with suppress(ValidationError):
                return model.model_validate(dict(zip(required, values, strict=True)) | added), True
    return model.model_construct(
        set(required), **{n: found[0] for n, found in zip(required, choices, strict=True)}
    ), False


def _table(record: BaseModel, path: str, root: BaseModel | None) -> Iterator[str]:
    """The lines of one table: first its keys, then the tables in it, as TOML wants them.

    Args:
        record: what is set in it.
        path: of the table, with a dot behind it.
        root: the whole record, which tells what fits; None in a block, where no tables of other kinds are shown.
    """
    model = type(record)
    properties = described_schema(model)["properties"]
    told = descriptions(model)
    inner = {name: list(records_in(field.annotation)) for name, field in model.model_fields.items()}
    for name, field in model.model_fields.items():
        if inner[name] and (root is not None or getattr(record, name)):
            continue
        # What is left of the tables is not there, in a block where another would be a block in a block: on one line.
        is_set = name in record.model_fields_set or field.is_required()
        value = getattr(record, name) if is_set else _shown_default(name, field)
        if inner[name]:
            value = [example(inner[name][0])[0]] if _is_listed(field.annotation) else example(inner[name][0])[0]
        note = ""
        if not is_set:
            note = UNFIT if not _fits(record, name, value) else UNSET if _is_unset(field) else ""
        yield from _prose(_meaning(told.get(name, ""), properties[name], note))
        yield f"{'' if is_set else OPTION}{name} = {_literal(value)}"
    for name, kinds in inner.items():
        if kinds and (root is not None or getattr(record, name)):
            field = model.model_fields[name]
            yield from _tables(getattr(record, name), kinds, field, f"{path}{name}", told.get(name, ""), root)


def _tables(
    value: Any, kinds: Sequence[type[BaseModel]], field: FieldInfo, path: str, told: str, root: BaseModel | None
) -> Iterator[str]:
    """The lines of what is at `path`: one table or none, or several of a list, and the kinds that there are beside."""
    listed = _is_listed(field.annotation)
    opening = f"[[{path}]]" if listed else f"[{path}]"
    present = list(value) if listed and value is not None else [] if value is None else [value]
    for record in present:
        yield ""
        yield from _prose(_first_upper(told or summary(type(record))))
        yield opening
        if told and summary(type(record)):
            yield from _prose(summary(type(record)))
        yield from _table(record, f"{path}.", root)
    others = [kind for kind in kinds if listed or kind not in map(type, present)]
    if root is None:
        # A block in a block would be hard to take: each on one line.
        forms = [_literal(example(kind)[0]) for kind in others if kind not in map(type, present)]
        if present:
            yield from (f"# Or: {path.rpartition('.')[2]} = {form}" for form in forms)
        return
    for kind in others:
        yield ""
        instead = "Another of these" if listed else "In place of the table above" if present else "Not set by default"
        record, valid = example(kind)
        if valid and not _fits_at(root, path, record, listed):
            instead = f"{instead}, {UNFIT}"
        yield from _prose(f"{instead}: {summary(kind) or _kind(kind)}{'' if valid else FILL_IN}")
        yield f"{BLOCK}{opening}"
        for line in _table(record, f"{path}.", None):
            yield f"{BLOCK}{line}"


def _meaning(told: str, schema: Mapping[str, Any], note: str) -> str:
    """What a key means and what it may be."""
    notes = "; ".join(part for part in (_allowed(schema), note) if part)
    return " ".join(part for part in (_first_upper(told), f"({notes})" if notes else "") if part)


def _allowed(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(filter(None, (_allowed(each) for each in schema["anyOf"]))))
    if "enum" in schema:
        return f"one of {', '.join(json.dumps(each, ensure_ascii=False) for each in schema['enum'])}"
    kind = None if "const" in schema else schema.get("type")
    if kind in ("integer", "number"):
        return f"{'a whole number' if kind == 'integer' else 'a number'}{_bounds(schema)}"
    return {"boolean": "true or false", "string": "text", "array": "a list", "object": "a table"}.get(str(kind), "")


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if max(abs(low), abs(high)) < 1e6 else f" from {low} to {high}"
    words = {
        "minimum": "not below",
        "exclusiveMinimum": "above",
        "maximum": "not above",
        "exclusiveMaximum": "below",
    }
    said = [f"{word} {schema[key]}" for key, word in words.items() if schema.get(key) is not None]
    return f" {' and '.join(said)}" if said else ""


def _is_unset(field: FieldInfo) -> bool:
    """Whether the key has no default, or an empty list of tables, so that only an example can be shown."""
    return not field.is_required() and field.get_default(call_default_factory=True) in (None, ())


def _fits(record: BaseModel, name: str, value: Any) -> bool:
    """Whether the record would be valid with this key as well."""
    tree = {each: getattr(record, each) for each in record.model_fields_set}
    try:
        type(record).model_validate(tree | {name: value})
    except ValidationError:
        return False
    return True


def _fits_at(root: BaseModel, path: str, record: BaseModel, listed: bool) -> bool:
    """Whether the whole would be valid with this table at `path`, in place of what is there or added to the list."""
    tree = root.model_dump(exclude_unset=True)
    *parents, last = path.split(".")
    here = tree
    for parent in parents:
        here = here.setdefault(parent, {})
        if not isinstance(here, dict):
            return True  # inside a list: which of its places is meant is for the person to say
    table = record.model_dump(exclude_unset=True)
    here[last] = [*(here.get(last) or ()), table] if listed else table
    try:
        type(root).model_validate(tree)
    except ValidationError:
        return False
    return True


def _shown_default(name: str, field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return _candidates(name, field)[0] if _is_unset(field) else default


def _candidates(name: str, field: FieldInfo) -> list[Any]:
    """Values that the key takes, the best first; at least one.

    Raises:
        ValueError: none was found.
    """
    # Annotated with the field itself, so that its bounds hold.
    bounded: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(bounded)
    found = []
    traces = sorted(path.stem for path in (data_directory() / "traces").glob("*.csv")) if name == "path" else ()
    for value in (*(field.examples or ()), *EXAMPLES.get(name, ()), *traces, *_values(field.annotation)):
        try:
            adapter.validate_python(value)
        except ValidationError:
            continue
        if value is not None:
            found.append(value)
    if not found:
        raise ValueError(f"no value for `{name}` was found; give one in simulator.template.EXAMPLES")
    return found


def _values(annotation: Any) -> Iterator[Any]:
    """Values to try for a type, with no regard to bounds."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield example(annotation)[0]
    elif annotation is bool:
        yield from (True, False)
    elif annotation in (int, float):
        yield from (number for number in _NUMBERS if annotation is float or isinstance(number, int))
    elif annotation is str:
        yield from _TEXTS
    elif hasattr(annotation, "__metadata__"):
        yield from (value for value in _values(inside[0]) if _takes(annotation, value))
    elif origin is dict:
        yield {}
        yield from ({key: value} for key in _values(inside[0]) for value in _values(inside[1]))
    elif origin in (tuple, list):
        fixed = [each for each in inside if each is not Ellipsis]
        parts = [list(_values(each))[:3] for each in fixed]
        yield from (list(values) for values in product(*parts))
        if len(fixed) == 1:
            yield []
            yield from ([value, other] for value, other in product(parts[0], parts[0]))
    else:
        for each in inside:
            if each is not NoneType:
                yield from _values(each) if isinstance(each, type) or get_origin(each) or get_args(each) else (each,)


def _takes(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def _literal(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields if name in value.model_fields_set}
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(name)} = {_literal(each)}" for name, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    # A basic string of TOML is a string of JSON, but for one sign that JSON need not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _prose(text: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        yield from textwrap.wrap(paragraph, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _is_listed(annotation: Any) -> bool:
    """Whether there can be several tables: `[[…]]`."""
    if get_origin(annotation) in (tuple, list):
        return True
    return any(_is_listed(each) for each in get_args(annotation) if get_origin(each) is not None)


def _kind(model: type[BaseModel]) -> str:
    """The value of `kind` that says it is this one, quoted; of a table without, nothing."""
    field = model.model_fields.get("kind")
    return f'"{get_args(field.annotation)[0]}"' if field is not None and get_args(field.annotation) else ""


def _first_upper(text: str) -> str:
    """A sentence from a fragment; what begins with a key in back-quotes stays."""
    return text[:1].upper() + text[1:]
