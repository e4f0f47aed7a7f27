"""What is not to be shown or written down of an exchange: passwords, tokens, keys."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

HIDDEN = "(hidden)"

_HEADERS = frozenset(
    ("authorization", "proxy-authorization", "x-registry-auth", "x-registry-config", "cookie", "set-cookie")
)
_OURS = "x-onggi-explain"
# Bodies of these hold passwords, tokens or keys, in the request or in the answer.
_PATHS = re.compile(r"(/v[0-9]+\.[0-9]+)?/(auth|secrets|swarm|session)(/|$)")
_NAME = re.compile(r"passw|passphrase|secret|token|credential|api_?key|private_?key|access_?key", re.IGNORECASE)
# NAME=value and "NAME": "value" in what can't be read as JSON, being cut off or several values.
_ASSIGNED = re.compile(
    rb"(\w*(?:passw|passphrase|secret|token|credential|api_?key|private_?key|access_?key)\w*(?:=|\"\s*:\s*\"))"
    rb"(?:[^\"\\]|\\.)+",
    re.IGNORECASE,
)
_KEYS = frozenset(("password", "auth", "identitytoken", "registrytoken", "username", "unlockkey", "jointoken"))


def headers(fields: list[tuple[str, str]]) -> list[list[str]]:
    """Header fields without secrets, and without the one that we have added."""
    return [[name, HIDDEN if name.lower() in _HEADERS else value] for name, value in fields if name.lower() != _OURS]


def target(text: str) -> str:
    """A request's target whose build arguments have no secret values."""
    path, question, query = text.partition("?")
    if not question or "buildargs" not in query:
        return text
    fields = [
        (name, json.dumps(value_of(_parsed(value))) if name == "buildargs" else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{path}?{urlencode(fields)}"


def hides_bodies(path: str) -> bool:
    """Whether the bodies of a request to `path` are not to be shown at all."""
    return _PATHS.match(path) is not None


def value_of(value: Any) -> Any:
    """A JSON value whose secrets are replaced: by the name of their key, or of an environment variable."""
    if isinstance(value, dict):
        return {
            key: HIDDEN
            if isinstance(item, str) and item and (key.lower() in _KEYS or _NAME.search(key))
            else value_of(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [value_of(item) for item in value]
    if isinstance(value, str):
        name, equals, rest = value.partition("=")
        if equals and rest and _NAME.search(name) and re.fullmatch(r"(?:--?[\w-]+[= ])?\w+", name):
            return f"{name}={HIDDEN}"
    return value


def body(data: bytes) -> bytes:
    """A body that is JSON without its secrets; the beginning of a longer one, without what looks like some."""
    if not _NAME.search(data.decode("latin-1")):
        return data
    try:
        return json.dumps(value_of(json.loads(data)), ensure_ascii=False).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return _ASSIGNED.sub(rb"\1" + HIDDEN.encode(), data)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return HIDDEN
