"""Patterns of file names: those of COPY (Go's `filepath.Match`), and those of `.dockerignore`."""

import posixpath
import re
from collections.abc import Iterable

from real_engine.errors import InvalidParameter

IGNORE_FILE = ".dockerignore"


def has_wildcards(name: str) -> bool:
    """Whether COPY takes `name` for a pattern: it has `*`, `?` or `[` that isn't escaped."""
    return re.search(r"[*?\[]", re.sub(r"\\.", "", name, flags=re.DOTALL)) is not None


def compile_glob(pattern: str) -> re.Pattern[str]:
    """A pattern for whole paths: `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are classes, a backslash escapes.

    Raises:
        InvalidParameter: it is malformed, in the words of Go's `filepath.ErrBadPattern`.
    """
    written: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            written.append("[^/]*")
        elif character == "?":
            written.append("[^/]")
        elif character == "[":
            expression, position = _character_class(pattern, position)
            written.append(expression)
        else:
            if character == "\\":
                if position == len(pattern):
                    raise _bad()
                character = pattern[position]
                position += 1
            written.append(re.escape(character))
    return re.compile("".join(written), re.DOTALL)


def _bad() -> InvalidParameter:
    return InvalidParameter("syntax error in pattern")


def _character_class(pattern: str, position: int) -> tuple[str, int]:
    """The class that begins before `position`, and where it ends. A slash is in none."""
    negated = pattern[position : position + 1] == "^"
    position += negated
    ranges: list[tuple[str, str]] = []
    while not (pattern[position : position + 1] == "]" and ranges):
        low, position = _class_member(pattern, position)
        high = low
        if pattern[position : position + 1] == "-":
            high, position = _class_member(pattern, position + 1)
        ranges.append((low, high))
    inside = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high)
    if not inside:
        return ("[^/]" if negated else "(?!)"), position + 1
    return (f"(?!/)[{'^' if negated else ''}{inside}]"), position + 1


def _class_member(pattern: str, position: int) -> tuple[str, int]:
    character = pattern[position : position + 1]
    if character in ("", "-", "]"):
        raise _bad()
    if character == "\\":
        position += 1
        character = pattern[position : position + 1]
    if not character or position + 1 >= len(pattern):
        raise _bad()
    return character, position + 1


class IgnorePatterns:
    """What a `.dockerignore` leaves out of a build context: the last pattern that matches a path or a parent decides.

    The rules are those of moby/patternmatcher: `**` is any number of directories, a leading `!` takes paths back in.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for pattern in patterns:
            text = pattern.strip()
            if not text:
                continue
            included = text.startswith("!")
            if included:
                text = text[1:].strip()
                if not text:
                    raise InvalidParameter('illegal exclusion pattern: "!"')
            self._rules.append((not included, _compile_ignore(posixpath.normpath(text))))

    @property
    def has_exceptions(self) -> bool:
        """Whether an excluded directory may hold included files, so that it must be looked into."""
        return any(not excluded for excluded, _ in self._rules)

    def excludes(self, path: str) -> bool:
        """Whether `path`, relative to the context and with slashes, is left out."""
        parts = path.strip("/").split("/")
        candidates = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        excluded = False
        for verdict, expression in self._rules:
            if verdict != excluded and any(expression.fullmatch(candidate) for candidate in candidates):
                excluded = verdict
        return excluded


def read_ignore_file(text: str) -> list[str]:
    """The patterns in a `.dockerignore`: without comments and empty lines, each made relative to the context."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        excluded = pattern.startswith("!")
        if excluded:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1:
                pattern = "/" + pattern.lstrip("/") if pattern.startswith("/") else pattern
                pattern = pattern.removeprefix("/")
        patterns.append("!" + pattern if excluded else pattern)
    return patterns


def _compile_ignore(pattern: str) -> re.Pattern[str]:
    """`**/` is any number of directories, a trailing `**` all that is beneath; the rest as in `compile_glob`."""
    written: list[str] = []
    position = 0
    while position < len(pattern):
        if pattern.startswith("**", position):
            position += 2
            while pattern.startswith("*", position):
                position += 1
            if pattern.startswith("/", position):
                position += 1
                written.append("(?:.*/)?")
            else:
                written.append(".*")
            continue
        # Up to the next `**`; a class or an escape can't hold one that counts.
        end = pattern.find("**", position)
        end = len(pattern) if end < 0 else end
        written.append(compile_glob(pattern[position:end]).pattern)
        position = end
    return re.compile("".join(written), re.DOTALL)
