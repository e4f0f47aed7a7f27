"""What the keys of a record mean, read from where it is written once: the docstrings of its class.

A key is described under `Attributes:` in the docstring of its class, or by a docstring of its own below it, which
pydantic reads.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_SECTION = re.compile(r"^(Attributes|Args|Raises|Returns):$", re.MULTILINE)


def summary(model: type[BaseModel]) -> str:
    """What the record is, in a line or a few: its docstring up to the first section, each paragraph on one line."""
    text = inspect.cleandoc(model.__dict__.get("__doc__") or "")
    found = _SECTION.search(text)
    return _joined(text[: found.start()] if found else text)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Key to what it means, for every key of `model` that is described; those of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= dict(_under_attributes(base.__dict__.get("__doc__") or ""))
    for name, field in model.model_fields.items():
        if field.description:
            found[name] = field.description
    # `machines, slo: see their records`: the record says it better.
    return {name: text for name, text in found.items() if name in model.model_fields and not text.startswith("see ")}


def described_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a record (draft 2020-12) with what each key and each table means, for editors."""
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **model.model_json_schema(schema_generator=_DescribedSchema),
    }


def records_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The kinds of table that a value of this type can be: itself, in a union, or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not dict:
        for argument in get_args(annotation):
            yield from records_in(argument)


class _DescribedSchema(GenerateJsonSchema):
    """A schema whose descriptions come from docstrings."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """The schema of one record."""
        written = super().model_schema(schema)
        model = schema["cls"]
        if text := summary(model):
            written["description"] = text
        known = descriptions(model)
        for name, field in model.model_fields.items():
            if told := known.get(name) or _of_the_type(field.annotation):
                written["properties"][name]["description"] = told
        return written


def _of_the_type(annotation: Any) -> str:
    """What a key is by its type alone: a table that says itself what it is, or one of several kinds."""
    tables = list(records_in(annotation))
    if len(tables) == 1:
        return summary(tables[0])
    if tables:
        return "one of several kinds, as `kind` says"
    return "which kind of table this is" if get_origin(annotation) is Literal else ""


def _under_attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """The entries of the section `Attributes:`; one may describe several names, `low, high: …`."""
    lines = inspect.cleandoc(docstring).splitlines()
    if "Attributes:" not in lines:
        return
    section = []
    for line in lines[lines.index("Attributes:") + 1 :]:
        if line and not line.startswith(" "):
            break
        section.append(line)
    entries = re.split(r"^(?=\S)", textwrap.dedent("\n".join(section)), flags=re.MULTILINE)
    for entry in entries:
        names, colon, text = entry.partition(":")
        if colon:
            for name in names.split(","):
                yield name.strip(), _joined(inspect.cleandoc(text))


def _joined(text: str) -> str:
    """Each paragraph on one line."""
    return "\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))
