"""The shell's words in a Dockerfile: quotes, escapes, and variables with their modifiers.

As Dockerfile instructions expand them (Dockerfile reference, "Environment replacement"): `$x`, `${x}`, `${x:-word}`,
`${x-word}`, `${x:+word}`, `${x+word}`, `${x:?text}`, `${x?text}`, `${x#pattern}`, `${x##pattern}`, `${x%pattern}`,
`${x%%pattern}`, `${x/pattern/text}` and `${x//pattern/text}`. No shell takes part.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from real_engine.errors import InvalidParameter
from real_engine.images.build.go_syntax import quote

_SPECIAL_PARAMETERS = frozenset("@*#?-$!")


@dataclass(frozen=True, slots=True)
class Lexer:
    """How words are read: the escape character, and what is left as it stands.

    `raw_quotes` and `raw_escapes` keep quotation marks and escape characters in the result; `ignore_quotes` gives
    quotation marks no meaning at all; `keep_unset` leaves a reference to an unknown variable as it was written.
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    ignore_quotes: bool = False
    keep_unset: bool = False

    def expand(self, text: str, variables: Mapping[str, str]) -> str:
        """`text` as one word, its quotes removed and its variables replaced.

        Raises:
            InvalidParameter: a quote that never ends, or a substitution that makes no sense.
        """
        return self._read(text, variables)[0]

    def split(self, text: str, variables: Mapping[str, str]) -> list[str]:
        """The words of `text`, split where white space isn't quoted, after the variables were replaced.

        Raises:
            InvalidParameter: as `expand`.
        """
        return self._read(text, variables)[1]

    def _read(self, text: str, variables: Mapping[str, str]) -> tuple[str, list[str]]:
        try:
            return _Reader(self, text, variables, self.raw_escapes).until("")
        except _WordError as error:
            raise InvalidParameter(f"failed to process {quote(text)}: {error}") from error


class _WordError(Exception):
    """What is wrong, without the word it is wrong in."""


@dataclass(slots=True)
class _Words:
    """Words as they grow, character by character."""

    done: list[str] = field(default_factory=list)
    current: str = ""

    def add(self, text: str) -> None:
        """Text in which white space separates words."""
        for character in text:
            if not character.isspace():
                self.current += character
            elif self.current:
                self.done.append(self.current)
                self.current = ""

    def add_quoted(self, text: str) -> None:
        self.current += text

    def finished(self) -> list[str]:
        return [*self.done, self.current] if self.current else self.done


class _Reader:
    def __init__(self, lexer: Lexer, text: str, variables: Mapping[str, str], raw_escapes: bool) -> None:
        self.lexer, self.text, self.variables, self.raw_escapes = lexer, text, variables, raw_escapes
        self.position = 0

    def peek(self) -> str:
        """The next character; nothing at the end."""
        return self.text[self.position : self.position + 1]

    def next(self) -> str:
        character = self.peek()
        self.position += 1
        return character

    def until(self, stop: str) -> tuple[str, list[str]]:
        """What comes before the character `stop`, which is taken too, or before the end where there is none."""
        result: list[str] = []
        words = _Words()
        while character := self.peek():
            if character == stop:
                self.next()
                return "".join(result), words.finished()
            if character == "$":
                piece = self._variable()
                words.add(piece)
            elif character in "'\"" and not self.lexer.ignore_quotes:
                piece = self._single_quoted() if character == "'" else self._double_quoted()
                words.add_quoted(piece)
            elif self.next() == self.lexer.escape:
                piece = self.next()  # nothing, where the escape character is the last one
                if self.raw_escapes:
                    piece = character + piece
                words.add_quoted(piece)
            else:
                piece = character
                words.add(piece)
            result.append(piece)
        if stop:
            raise _WordError(f"unexpected end of statement while looking for matching {stop}")
        return "".join(result), words.finished()

    def _raw_until(self, stop: str) -> str:
        """`until`, with the escape characters kept."""
        before, self.raw_escapes = self.raw_escapes, True
        try:
            return self.until(stop)[0]
        finally:
            self.raw_escapes = before

    def _single_quoted(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise _WordError("unexpected end of statement while looking for matching single-quote")
        inside = self.text[self.position + 1 : end]
        self.position = end + 1
        return f"'{inside}'" if self.lexer.raw_quotes else inside

    def _double_quoted(self) -> str:
        mark = self.next() if self.lexer.raw_quotes else self.next()[:0]
        result = [mark]
        while character := self.peek():
            if character == '"':
                self.next()
                return "".join(result) + mark
            if character == "$":
                result.append(self._variable())
                continue
            self.next()
            if character == self.lexer.escape:
                if self.raw_escapes:
                    result.append(character)
                following = self.peek()
                if not following:
                    break
                if following in ('"', "$", self.lexer.escape):
                    character = self.next()
                elif self.raw_escapes:
                    continue
            result.append(character)
        raise _WordError("unexpected end of statement while looking for matching double-quote")

    def _name(self) -> str:
        first = self.peek()
        if first in _SPECIAL_PARAMETERS and first:
            return self.next()
        begin = self.position
        if first.isdigit():
            while self.peek().isdigit():
                self.position += 1
        else:
            while self.peek().isalnum() or self.peek() == "_":
                self.position += 1
        return self.text[begin : self.position]

    def _variable(self) -> str:
        begin = self.position
        self.next()
        if self.peek() != "{":
            name = self._name()
            if not name:
                return "$"
            if name not in self.variables and self.lexer.keep_unset:
                return self.text[begin : self.position]
            return self.variables.get(name, "")
        self.next()
        following = self.peek()
        if not following:
            raise _WordError("syntax error: missing '}'")
        if following in "{}:":
            raise _WordError("syntax error: bad substitution")
        name = self._name()
        value = self._modified(name)
        if name not in self.variables and self.lexer.keep_unset:
            return self.text[begin : self.position]
        return value

    def _modified(self, name: str) -> str:
        """What a reference in braces stands for, read from behind the name to behind the closing brace."""
        value = self.variables.get(name)
        modifier = self.next()
        if modifier == "}":
            return value or ""
        if modifier == "/":
            return self._replaced(value or "")
        empty_counts = modifier == ":"
        operator = self.next() if empty_counts else modifier
        if not operator:
            raise _WordError("syntax error: missing '}'")
        if operator not in ("-", "+", "?", "#", "%") or (empty_counts and operator in "#%"):
            raise _WordError(f"unsupported modifier ({':' if empty_counts else ''}{operator}) in substitution")
        word = self._argument(operator)
        if operator in "#%":
            return _trimmed(value or "", word, operator)
        missing = value is None or (empty_counts and not value)
        if operator == "-":
            return word if missing else value or ""
        if operator == "+":
            return "" if missing else word
        if missing and not self.lexer.keep_unset:
            default = "is not allowed to be unset" if value is None else "is not allowed to be empty"
            raise _WordError(f"{name}: {word or default}")
        return value or ""

    def _argument(self, operator: str) -> str:
        try:
            return self._raw_until("}") if operator in "#%" else self.until("}")[0]
        except _WordError as error:
            if not self.peek():
                raise _WordError("syntax error: missing '}'") from error
            raise

    def _replaced(self, value: str) -> str:
        every = self.peek() == "/"
        if every:
            self.next()
        parts = []
        for stop, missing in (("/", "missing '/' in ${}"), ("}", "missing '}'")):
            try:
                parts.append(self._raw_until(stop))
            except _WordError as error:
                raise _WordError(f"syntax error: {missing}") from error
        pattern, replacement = parts
        return _compiled(pattern, longest=True).sub(lambda match: replacement, value, count=0 if every else 1)


def _trimmed(value: str, pattern: str, operator: str) -> str:
    """`value` without the shortest prefix (#) or suffix (%) that matches; the longest if the operator is doubled."""
    longest = pattern.startswith(operator)
    expression = _compiled(pattern[1:] if longest else pattern, longest)
    lengths = range(len(value) + 1)
    for length in reversed(lengths) if longest else lengths:
        if operator == "#":
            if expression.fullmatch(value[:length]):
                return value[length:]
        elif expression.fullmatch(value[len(value) - length :]):
            return value[: len(value) - length]
    return value


def _compiled(pattern: str, longest: bool) -> re.Pattern[str]:
    """A shell pattern (`*`, `?`, `\\` before one of them) as a regular expression."""
    written = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            written.append(".*" if longest else ".*?")
        elif character == "?":
            written.append(".")
        elif character == "\\":
            escaped = next(characters, "")
            if escaped not in ("}", "/", "*", "?", "\\"):
                raise _WordError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")
            written.append(re.escape(escaped))
        else:
            written.append(re.escape(character))
    return re.compile("".join(written))
