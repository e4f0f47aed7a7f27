"""Files of variables, `.env` and those of `env_file`, as docker compose reads them.

Source: docs.docker.com/compose/how-tos/environment-variables/variable-interpolation, "Env-file syntax".
"""

import re
from collections.abc import Mapping
from pathlib import Path

from real_engine.compose.interpolation import interpolate
from real_engine.errors import InvalidParameter

_LARGEST_FILE = 4 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}


def read_env_file(path: Path, variables: Mapping[str, str]) -> dict[str, str | None]:
    """The variables of a file, in its order; None for a name without `=`, whose value the caller has to know.

    A value may use variables: `variables`, and those above it in the file. In single quotation marks nothing is filled
    in; in double ones, backslashes escape. A quoted value may span lines.

    Raises:
        InvalidParameter: it can't be read, or a line is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidParameter(f"env file {path} not found: {error.strerror}") from error
    if len(data) > _LARGEST_FILE:
        raise InvalidParameter(f"env file {path} is larger than {_LARGEST_FILE} bytes")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"env file {path} is not UTF-8 text: {error}") from error
    return _Parser(text, path, variables).parse()


class _Parser:
    def __init__(self, text: str, path: Path, variables: Mapping[str, str]) -> None:
        self._text, self._path, self._outside = text, path, variables
        self._position = 0
        self._found: dict[str, str | None] = {}

    def parse(self) -> dict[str, str | None]:
        while self._position < len(self._text):
            end = self._line_end()
            line = self._text[self._position : end].strip()
            if not line or line.startswith("#"):
                self._position = end + 1
                continue
            self._assignment()
        return self._found

    def _assignment(self) -> None:
        end = self._line_end()
        line = self._text[self._position : end]
        number = self._text.count("\n", 0, self._position) + 1
        begin = len(line) - len(line.lstrip())
        if line[begin:].startswith("export "):
            begin += len("export ")
            begin += len(line[begin:]) - len(line[begin:].lstrip())
        name = _NAME.match(line, begin)
        if name is None:
            raise InvalidParameter(f"{self._path}:{number}: not of the form NAME=VALUE: {line.strip()[:60]}")
        rest = line[name.end() :].lstrip()
        if not rest or rest.startswith("#"):
            self._found[name[0]] = None
            self._position = end + 1
            return
        if rest[0] not in "=:":
            raise InvalidParameter(f"{self._path}:{number}: not of the form NAME=VALUE: {line.strip()[:60]}")
        value = rest[1:].lstrip()
        self._position = end - len(value)
        if value[:1] in ("'", '"'):
            self._found[name[0]] = self._quoted(value[0], number)
        else:
            plain = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
            self._found[name[0]] = self._fill(plain)
            self._position = end + 1

    def _quoted(self, mark: str, number: int) -> str:
        position = self._position + 1
        pieces: list[str] = []
        while position < len(self._text):
            character = self._text[position]
            if character == mark:
                self._position = self._line_end(position) + 1
                value = "".join(pieces)
                return value if mark == "'" else self._fill(value)
            if character == "\\" and position + 1 < len(self._text):
                following = self._text[position + 1]
                if mark == '"':
                    pieces.append(_ESCAPES.get(following, "\\" + following))
                else:
                    pieces.append(following if following == mark else "\\" + following)
                position += 2
                continue
            pieces.append(character)
            position += 1
        raise InvalidParameter(f"{self._path}:{number}: a quotation mark is not closed")

    def _fill(self, value: str) -> str:
        known = {name: text for name, text in self._found.items() if text is not None}
        try:
            return interpolate(value, {**known, **self._outside})
        except InvalidParameter as error:
            raise InvalidParameter(f"{self._path}: {error}") from error

    def _line_end(self, begin: int | None = None) -> int:
        end = self._text.find("\n", self._position if begin is None else begin)
        return len(self._text) if end < 0 else end
