"""Records that people write by hand in TOML: strict, frozen, and refused with one line that says what to do."""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulator.errors import SimulatorError

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StrictModel(BaseModel):
    """A frozen record that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Record = TypeVar("Record", bound=StrictModel)

_LARGEST_RECORD = 4 * 1024 * 1024  # bytes: no hand-written scenario comes near, and a wrong path is not read whole


def read_record(model: type[Record], path: Path) -> Record:
    """Read `path` as TOML into `model`.

    Raises:
        SimulatorError: unreadable, too large, not TOML, an unknown key (the nearest valid one is named) or a bad value.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_RECORD + 1)
        if len(text) > _LARGEST_RECORD:
            raise SimulatorError(f"{path}: larger than {_LARGEST_RECORD} bytes, so not a scenario or a profile")
        tree = tomllib.loads(text.decode())
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; name a TOML file that exists and can be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SimulatorError(f"{path}: not TOML: {error}") from error
    return validate_record(model, tree, str(path))


def validate_record(model: type[Record], tree: object, where: str) -> Record:
    """Validate `tree` as `model`; the first error becomes one line that starts with `where`."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SimulatorError(f"{where}: {_first_line(model, error)}") from error


def _first_line(model: type[BaseModel], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    # A typo in a required key is both an unknown key and a missing one; only the first tells what to do.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    known = set(_keys(model))
    # Where a table can be of several kinds, pydantic puts the kind into the path; a person did not write it there.
    path = [part for part in first["loc"][:-1] if isinstance(part, int) or part in known]
    last = first["loc"][-1:]
    if first["type"] == "extra_forbidden" or not last or isinstance(last[0], int) or last[0] in known:
        path += last
    key = ".".join(str(part) for part in path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        wrong = str(first["loc"][-1])
        here = sorted({name for found in _at(model, first["loc"][:-1]) for name in found.model_fields})
        near = difflib.get_close_matches(wrong, here, n=1) or difflib.get_close_matches(wrong, known - {wrong}, n=1)
        elsewhere = f"it belongs elsewhere; here there are {', '.join(here)}" if wrong in known else "remove it"
        hint = f"did you mean `{near[0]}`?" if near else elsewhere
        return f"unknown key `{key}`: {hint}{more}"
    if first["type"].startswith("union_tag"):
        return _wrong_kind(first, key) + more
    if first["type"] == "missing":
        return f"key `{key}` is missing: add it{more}"
    message = first["msg"].removeprefix("Value error, ")
    shown = repr(first["input"])
    got = f", got {shown}" if key and len(shown) <= 60 and not isinstance(first["input"], dict) else ""
    return f"{'key `' + key + '`: ' if key else ''}{message[0].lower()}{message[1:]}{got}{more}"


def _wrong_kind(error: Any, key: str) -> str:
    """What to say of a table whose kind is missing, or none of those that there are."""
    name = error["ctx"]["discriminator"].strip("'")
    if error["type"] == "union_tag_not_found":
        return f"key `{key}.{name}` is missing: add it, it says which kind of table this is"
    wrong, known = error["ctx"]["tag"], [tag.strip("'") for tag in error["ctx"]["expected_tags"].split(", ")]
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"key `{key}.{name}`: unknown kind `{wrong}`: " + (
        f"did you mean `{near[0]}`?" if near else f"choose from {', '.join(known)}"
    )


def _at(model: type[BaseModel], path: Sequence[str | int]) -> list[type[BaseModel]]:
    """The records that can stand at `path`: one, unless pydantic names no kind where there are several."""
    found = [model]
    for part in path:
        inside = [each.model_fields[part].annotation for each in found if part in each.model_fields]
        if inside:
            found = [inner for annotation in inside for inner in _models(annotation)]
        elif isinstance(part, str):
            # Not a key but the kind of a table, as pydantic tells it.
            found = [each for each in found if part in _kinds(each)] or found
    return found


def _kinds(model: type[BaseModel]) -> tuple[object, ...]:
    """What `kind` may be in a table of this record."""
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def _keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key that `model` or a model inside it knows, to suggest one for a typo."""
    for name, field in model.model_fields.items():
        yield name
        for inner in _models(field.annotation):
            yield from _keys(inner)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
