"""Variables in a compose file: `$VAR`, `${VAR:-default}`, `${VAR:?message}`, `${VAR:+replacement}`, and `$$` for a `$`.

Source: compose-spec, 12-interpolation.md. A default may hold variables itself.
"""

import re
from collections.abc import Callable, Mapping

from real_engine.errors import InvalidParameter

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
_DEEPEST = 32


def interpolate(
    text: str, variables: Mapping[str, str], unset: Callable[[str], None] = lambda name: None, _depth: int = 0
) -> str:
    """`text` with its variables filled in. `unset` is told each name that has no value and no default.

    Raises:
        InvalidParameter: a `$` that begins nothing, an unclosed brace, or a variable that must be set and isn't.
    """
    if "$" not in text:
        return text
    if _depth > _DEEPEST:
        raise InvalidParameter("variables are nested too deeply")
    pieces: list[str] = []
    position = 0
    while True:
        dollar = text.find("$", position)
        if dollar < 0:
            pieces.append(text[position:])
            return "".join(pieces)
        pieces.append(text[position:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            pieces.append("$")
            position = dollar + 2
        elif following == "{":
            end = _closing_brace(text, dollar + 2)
            pieces.append(_braced(text[dollar + 2 : end], variables, unset, _depth))
            position = end + 1
        else:
            name = _NAME.match(text, dollar + 1)
            if name is None:
                raise InvalidParameter(f"invalid interpolation format: {text!r}: write $$ for a dollar sign")
            pieces.append(_value(name[0], variables, unset))
            position = name.end()


def _closing_brace(text: str, begin: int) -> int:
    depth = 1
    position = begin
    while position < len(text):
        if text.startswith("$$", position):
            position += 2
            continue
        if text.startswith("${", position):
            depth += 1
            position += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise InvalidParameter(f"invalid interpolation format: {text!r}: a brace is not closed")


def _braced(inner: str, variables: Mapping[str, str], unset: Callable[[str], None], depth: int) -> str:
    name = _NAME.match(inner)
    if name is None:
        raise InvalidParameter(f"invalid interpolation format: {'${' + inner + '}'!r}: a variable's name is missing")
    rest = inner[name.end() :]
    if not rest:
        return _value(name[0], variables, unset)
    operator = next((one for one in _OPERATORS if rest.startswith(one)), None)
    if operator is None:
        raise InvalidParameter(f"invalid interpolation format: {'${' + inner + '}'!r}: unknown operator")
    operand = rest[len(operator) :]
    value = variables.get(name[0])
    # With a colon, an empty value counts as none.
    given = bool(value) if operator.startswith(":") else value is not None
    match operator[-1]:
        case "-":
            return (value or "") if given else interpolate(operand, variables, unset, depth + 1)
        case "+":
            return interpolate(operand, variables, unset, depth + 1) if given else ""
    if not given:
        message = interpolate(operand, variables, unset, depth + 1)
        raise InvalidParameter(f"required variable {name[0]} is missing a value" + (f": {message}" if message else ""))
    return value or ""


def _value(name: str, variables: Mapping[str, str], unset: Callable[[str], None]) -> str:
    value = variables.get(name)
    if value is None:
        unset(name)
        return ""
    return value
