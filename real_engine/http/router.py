"""Finds the handler of a request by its method and path."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from real_engine.errors import NotFound
from real_engine.http.messages import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterator

Handler = Callable[[Request], Response | None]
"""Answers a request; None when it hijacked the connection."""

_VARIABLE = re.compile(r"\{([a-z_]+)(\*?)\}")


class Router:
    """Routes of the form `/containers/{id}/json`.

    `{name}` stands for one part of the path, `{name*}` for several of them: an image's name holds slashes. Where
    several patterns match, the one with the most literal characters wins: `/images/{name*}/json` before
    `/images/{name*}`.
    """

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[tuple[str, str], list[tuple[int, str, re.Pattern[str], Handler]]] = {}

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Let `handler` answer requests of that method to that pattern.

        Raises:
            ValueError: a pattern that there is already, or that begins with no literal part.
        """
        if not _VARIABLE.search(pattern):
            if (method, pattern) in self._exact:
                raise ValueError(f"there is a handler for {method} {pattern} already")
            self._exact[method, pattern] = handler
            return
        first = pattern.split("/", 2)[1]
        if not first or "{" in first:
            raise ValueError(f"the pattern {pattern} begins with no literal part")
        parts, last = [], 0
        for variable in _VARIABLE.finditer(pattern):
            parts.append(re.escape(pattern[last : variable.start()]))
            parts.append(f"(?P<{variable[1]}>{'.+' if variable[2] else '[^/]+'})")
            last = variable.end()
        parts.append(re.escape(pattern[last:]))
        routes = self._patterns.setdefault((method, first), [])
        if any(pattern == other for _, other, _, _ in routes):
            raise ValueError(f"there is a handler for {method} {pattern} already")
        literal = len(_VARIABLE.sub("", pattern)) - 100 * pattern.count("*}")
        routes.append((literal, pattern, re.compile("".join(parts), re.DOTALL), handler))
        routes.sort(key=lambda route: -route[0])

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str], str] | None:
        """The handler of a path, the values of the pattern's variables, and the pattern; None if there is none."""
        handler = self._exact.get((method, path))
        if handler is not None:
            return handler, {}, path
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        for _, pattern, expression, found in self._patterns.get((method, first), ()):
            matched = expression.fullmatch(path)
            if matched is not None:
                return found, matched.groupdict(), pattern
        return None

    def routes(self) -> Iterator[tuple[str, str]]:
        """Every method and pattern that there is."""
        yield from self._exact
        for (method, _), routes in self._patterns.items():
            for _, pattern, _, _ in routes:
                yield method, pattern

    def __call__(self, request: Request) -> Response | None:
        """Let the handler answer.

        Raises:
            NotFound: there is none. (So it is for a method that a path doesn't know, as with Docker.)
            EngineError: what the handler raises.
        """
        found = self.find(request.method, request.path)
        if found is None:
            raise NotFound("page not found")
        handler, request.match, _ = found
        return handler(request)
