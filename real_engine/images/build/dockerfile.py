"""A Dockerfile as lines of instructions: directives, comments, continuations, flags, here-documents.

Nothing here knows what an instruction means; `instructions` does. The grammar is that of the Dockerfile reference.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from real_engine.errors import InvalidParameter
from real_engine.images.build.go_syntax import quote
from real_engine.images.build.shell_words import Lexer

LONGEST_LINE = 65535  # bytes; Docker's own bound
_WITH_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = frozenset(("escape", "syntax", "check"))
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)")
_SPACES = re.compile(r"[\t\v\f\r ]+")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A document that stands in the Dockerfile itself: `<<NAME`, its lines, and a line that is the name alone."""

    name: str
    expand: bool
    strip_tabs: bool
    content: str = ""

    @property
    def text(self) -> str:
        """The content, without leading tabulators where `<<-` asked for that."""
        return re.sub(r"^\t+", "", self.content, flags=re.MULTILINE) if self.strip_tabs else self.content


@dataclass(frozen=True, slots=True)
class Line:
    """An instruction as written: its name in capitals, its flags (`--x=y`), the rest, and where it began.

    `original` is the whole, continuation lines joined.
    """

    name: str
    flags: tuple[str, ...]
    rest: str
    original: str
    number: int = 1
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The lines of a Dockerfile, its escape character, and what its author had better mend."""

    lines: tuple[Line, ...]
    escape: str
    warnings: tuple[str, ...] = ()


def parse_dockerfile(content: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Read the Dockerfile called `name`.

    Raises:
        InvalidParameter: it is empty, or a line can't be read; the line is named.
    """
    if not content:
        raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
    try:
        return _Parser(content).parse()
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to parse {name}: {error}") from error


def parse_line(text: str, number: int = 1) -> Line:
    """One instruction without continuation lines and here-documents, such as `docker commit --change` brings."""
    name, *rest = _SPACES.split(text.strip(), maxsplit=1)
    flags, arguments = _split_flags(rest[0] if rest else "")
    return Line(name.upper(), tuple(flags), arguments.strip(), text, number)


def parse_heredoc(word: str) -> Heredoc | None:
    """The here-document that a word announces (`<<EOF`, `<<-EOF`, `<<"EOF"`), as yet without content."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    try:
        plain = Lexer(keep_unset=True).split(match[3], {})
        raw = Lexer(keep_unset=True, raw_quotes=True, raw_escapes=True).split(match[3], {})
    except InvalidParameter:
        return None
    if len(plain) != 1:
        return None
    # A quotation mark or an escape anywhere in the name means: take the content as it stands.
    return Heredoc(plain[0], expand=plain == raw, strip_tabs=bool(match[2]))


def json_words(text: str) -> list[str] | None:
    """The words of a JSON array (the exec form); None if `text` is no JSON array.

    Raises:
        InvalidParameter: an array with something else than strings in it.
    """
    if not text.startswith("["):
        return None
    try:
        value, _ = json.JSONDecoder(strict=True).raw_decode(text)
    except ValueError:
        return None
    if not all(isinstance(word, str) for word in value):
        raise InvalidParameter("when using JSON array syntax, arrays must be comprised of strings only")
    return list(value)


def split_words(text: str, escape: str) -> list[str]:
    """Words between white space, with their quotation marks and escapes still in them."""
    words: list[str] = []
    word, quoted, in_word = "", "", False
    characters = iter(text)
    for character in characters:
        if not quoted and character.isspace():
            if in_word:
                words.append(word)
            word, in_word = "", False
            continue
        in_word = True
        if character == escape and quoted != "'":
            escaped = next(characters, "")
            if escaped:
                word += character + escaped
            continue
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "'\"":
            quoted = character
        word += character
    return [*words, word] if in_word and word else words


def key_values(text: str, name: str, escape: str) -> list[tuple[str, str]]:
    """The pairs of `ENV` and `LABEL`: `a=b c="d e"`, or the old form `a b`.

    Raises:
        InvalidParameter: a word that is no pair.
    """
    words = split_words(text, escape)
    if not words:
        return []
    if "=" not in words[0]:
        parts = _SPACES.split(text, maxsplit=1)
        if len(parts) < 2:
            raise InvalidParameter(f"{name} must have two arguments")
        return [(parts[0], parts[1])]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value")
        pairs.append((key, value))
    return pairs


class _Parser:
    def __init__(self, content: bytes) -> None:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        raw = text.split("\n")
        if not raw[-1]:
            raw.pop()
        self.raw = [line.removesuffix("\r") for line in raw]
        self.at = 0
        self.escape = "\\"
        self.directives: set[str] | None = set()  # those seen; None when no more can come
        self.warnings: list[str] = []

    def parse(self) -> Dockerfile:
        lines = []
        while self.at < len(self.raw):
            begin = self.at + 1
            try:
                line = self._instruction()
            except InvalidParameter as error:
                if self.directives is not None:  # a parser directive: it has no instruction's line
                    raise
                raise InvalidParameter(f"dockerfile parse error line {begin}: {error}") from error
            if line is not None:
                lines.append(line)
        if not lines:
            raise InvalidParameter("file with no instructions")
        if self.warnings:
            self.warnings.append("[WARNING]: Empty continuation lines will become errors in a future release.")
        return Dockerfile(tuple(lines), self.escape, tuple(self.warnings))

    def _instruction(self) -> Line | None:
        """The next instruction with its continuation lines; None for a line without one."""
        number = self.at + 1
        text = self._take().lstrip()
        self._look_for_directive(text)
        text, continued = self._without_continuation("" if text.startswith("#") else text)
        if not text and not continued:
            return None
        empty = False
        while continued and self.at < len(self.raw):
            following = self._take()
            if following.lstrip().startswith("#"):
                continue
            if not following.strip():
                empty = True
                continue
            piece, continued = self._without_continuation(following)
            text += piece
        if empty:
            self.warnings.append(f"[WARNING]: Empty continuation line found in:\n    {text}")
        if not text.strip():
            return None
        line = parse_line(text, number)
        heredocs = tuple(self._documents(line))
        if not heredocs:
            return line
        original = text + "".join(f"\n{document.content}{document.name}" for document in heredocs)
        return replace(line, heredocs=heredocs, original=original)

    def _take(self) -> str:
        line = self.raw[self.at]
        self.at += 1
        if len(line) > LONGEST_LINE:
            raise InvalidParameter(f"dockerfile line greater than max allowed size of {LONGEST_LINE}")
        return line

    def _look_for_directive(self, line: str) -> None:
        if self.directives is None:
            return
        match = _DIRECTIVE.match(line)
        key = match[1].lower() if match else ""
        if match is None or key not in _DIRECTIVES:
            self.directives = None
            return
        if key in self.directives:
            raise InvalidParameter(f"only one {key} parser directive can be used")
        self.directives.add(key)
        if key == "escape":
            if match[2] not in ("`", "\\"):
                raise InvalidParameter(f"invalid escape token '{match[2]}' does not match ` or \\")
            self.escape = match[2]

    def _without_continuation(self, line: str) -> tuple[str, bool]:
        trimmed = line.rstrip(" \t")
        if trimmed.endswith(self.escape):
            return trimmed[:-1], True
        return line, False

    def _documents(self, line: Line) -> Iterator[Heredoc]:
        """The here-documents that the line announces, read from the lines below it."""
        inner = parse_line(line.rest) if line.name == "ONBUILD" and line.rest else line
        if inner.name not in _WITH_HEREDOCS or "<<" not in inner.rest or json_words(inner.rest) is not None:
            return
        try:
            words = Lexer(raw_quotes=True, raw_escapes=True, keep_unset=True).split(inner.rest, {})
        except InvalidParameter:
            return  # what the quotes mean is the shell's own business, then
        for word in words:
            heredoc = parse_heredoc(word)
            if heredoc is not None:
                yield replace(heredoc, content=self._document(heredoc))

    def _document(self, heredoc: Heredoc) -> str:
        content: list[str] = []
        while self.at < len(self.raw):
            line = self.raw[self.at]
            self.at += 1
            if (line.lstrip("\t") if heredoc.strip_tabs else line) == heredoc.name:
                return "".join(content)
            content.append(line + "\n")
        raise InvalidParameter("unterminated heredoc")


def _split_flags(text: str) -> tuple[list[str], str]:
    """The flags (words that begin with `--`) that `text` begins with, without quotes and escapes, and the rest."""
    flags: list[str] = []
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if not text.startswith("--", position):
            return flags, text[position:]
        word, quoted = "", ""
        while position < len(text):
            character = text[position]
            if not quoted and character.isspace():
                break
            position += 1
            if character == quoted:
                quoted = ""
            elif not quoted and character in "'\"":
                quoted = character
            elif character == "\\":
                word += text[position : position + 1]
                position += 1
            else:
                word += character
        if word == "--":
            return flags, text[position:]
        flags.append(word)
