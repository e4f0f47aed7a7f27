"""Holds answers against Docker's own description of its API (OpenAPI 2.0), which lies beside the checkout."""

import re
from functools import cache
from pathlib import Path
from typing import Any

# Numbers that Go holds by a pointer, and Docker's daemon (20.10.24, asked) answers with null, though not so described.
_POINTERS = frozenset(("MemorySwappiness", "ExitCode"))
DESCRIPTION = Path(__file__).resolve().parents[4] / "shared/reference/docker-engine-api-v1.43.yaml"


class ApiDescription:
    """The description. `check` tells where an answer differs from it."""

    def __init__(self, path: Path = DESCRIPTION) -> None:
        import yaml

        with path.open("rb") as file:
            self._document = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._paths = [
            (re.compile(re.sub(r"\\\{[^/]+?\\\}", ".+" if "name" in path else "[^/]+", re.escape(path))), path)
            for path in sorted(self._document["paths"], key=lambda path: (path.count("{"), -len(path)))
        ]
        definitions = {name: _as_json_schema(schema) for name, schema in self._document["definitions"].items()}
        self._definitions = definitions

    def operations(self) -> list[tuple[str, str]]:
        """Every method and path template that is described."""
        verbs = ("get", "head", "post", "put", "delete")
        return [
            (verb.upper(), path) for path, item in self._document["paths"].items() for verb in verbs if verb in item
        ]

    def template(self, method: str, path: str) -> str:
        """The template of a path: `/containers/{id}/json` of `/containers/abc/json`."""
        path = re.sub(r"^/v1\.\d+(?=/)", "", path.partition("?")[0])
        for pattern, template in self._paths:
            if (template == path or pattern.fullmatch(path)) and method.lower() in self._document["paths"][template]:
                return template
        raise AssertionError(f"{method} {path} is not in the description")

    def check(self, method: str, path: str, status: int, payload: Any = None) -> None:
        """Assert that the API may answer so: this status, and a payload of its schema."""
        template = self.template(method, path)
        responses = self._document["paths"][template][method.lower()]["responses"]
        described = responses.get(status, responses.get(str(status)))
        assert described is not None, f"{method} {template} has the statuses {sorted(responses)}, and not {status}"
        schema = described.get("schema")
        if schema is None:
            return
        problems = _problems({**_as_json_schema(schema), "definitions": self._definitions}, payload)
        assert not problems, f"{method} {template} {status}: " + "; ".join(problems)


@cache
def description() -> ApiDescription:
    """The description, read once."""
    return ApiDescription()


def _problems(schema: dict[str, Any], payload: Any) -> list[str]:
    from jsonschema import Draft4Validator  # OpenAPI 2.0 is built on draft 4

    found = []
    waiting = list(Draft4Validator(schema).iter_errors(payload))
    while waiting:
        error = waiting.pop()
        if error.validator == "anyOf" and error.context:  # the other choice is null, which it isn't either
            waiting += [one for one in error.context if one.validator_value != "null"]
        else:
            found.append(f"{'/'.join(map(str, error.absolute_path)) or 'the payload'}: {error.message[:200]}")
    return sorted(found)[:10]


def _as_json_schema(schema: Any) -> Any:
    """A schema of OpenAPI 2.0 as one of JSON Schema.

    `x-nullable` becomes a union with null. So does every list and map, whatever is said of it: Go encodes those that
    are empty as null, and Docker's own daemon fails its own description otherwise.
    """
    if isinstance(schema, list):
        return [_as_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: _properties(value) if key == "properties" else _as_json_schema(value)
        for key, value in schema.items()
        if key not in ("example", "examples", "default", "format", "discriminator", "x-nullable", "description")
    }
    kind = plain.get("type")
    nullable = schema.get("x-nullable")
    if "$ref" in plain:
        # Beside a reference nothing else counts in draft 4, so what may be null is said around it.
        reference = {"$ref": plain["$ref"]}
        return {"anyOf": [reference, {"type": "null"}]}
    if nullable or kind in ("array", "object"):
        if isinstance(kind, str):
            plain["type"] = [kind, "null"]
        elif "allOf" in plain:
            return {"anyOf": [plain, {"type": "null"}]}
        if "enum" in plain:
            plain["enum"] = [*plain["enum"], None]
    return plain


def _properties(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _as_json_schema({**schema, "x-nullable": True} if name in _POINTERS else schema)
        for name, schema in properties.items()
    }
