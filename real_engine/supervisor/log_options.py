"""How a container's output is logged: the driver, its options, and what of the container is noted beside each line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from real_engine.errors import EngineError, InvalidParameter

DRIVERS = ("json-file", "local", "none")

_COMMON = ("max-size", "max-file", "compress")
_ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
# Of every driver, and not its own business (moby, daemon/logger/factory.go).
_MODES, _EVERY_DRIVERS = ("", "blocking", "non-blocking"), ("mode", "max-buffer-size")
_BUFFER_BYTES = 1_000_000  # moby, daemon/logger/ring.go
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?[iI]?[bB]?")
_FAILED = "failed to initialize logging driver: "
_LOCAL_SIZE, _LOCAL_FILES = 20_000_000, 5  # moby, daemon/logger/local/config.go
_PLACEHOLDER = re.compile(r"\{\{\s*\.?(\w+)\s*\}\}")
_ID_DIGITS = 12


@dataclass(frozen=True)
class LogOptions:
    """Where and how to log. `path` is the file of the newest entries; rotated ones are beside it (.1, .2, …).

    `options` are those of Docker's `--log-opt`; `attributes` are noted in each entry (see `attributes`).
    """

    path: str
    driver: str = "json-file"
    options: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The options as they are sent to the supervisor."""
        return {
            "path": self.path,
            "driver": self.driver,
            "options": dict(self.options),
            "attributes": dict(self.attributes),
        }

    @cached_property
    def rotation(self) -> "Rotation":
        """When and how the file is rotated.

        Raises:
            EngineError: an option whose value can't be meant; in Docker's words.
        """
        return _rotation(self.driver, self.options)

    @cached_property
    def buffer_bytes(self) -> int | None:
        """How much may wait to be written while the program goes on; None: the program waits for its log.

        Raises:
            EngineError: a size that is none.
        """
        if self.options.get("mode") != "non-blocking":
            return None
        return _size(self.options["max-buffer-size"], 1024) if "max-buffer-size" in self.options else _BUFFER_BYTES


@dataclass(frozen=True, slots=True)
class Rotation:
    """`size_bytes` at which a file is full (None: never), how many files are kept, and if old ones are compressed."""

    size_bytes: int | None
    files: int
    compress: bool


def validate(driver: str, options: Mapping[str, str]) -> None:
    """Look at a driver and the names of its options, as is done when a container is created.

    Values are looked at when it starts (`LogOptions.rotation`), as Docker does, but for the mode and its buffer's size.

    Raises:
        InvalidParameter: a driver, option or mode that doesn't exist, or a buffer that isn't meant.
    """
    if driver not in DRIVERS:
        raise InvalidParameter(f"logger: no log driver named '{driver}' is registered")
    if driver == "none" and options:
        raise InvalidParameter("invalid logging opts for driver none")
    mode = options.get("mode", "")
    if mode not in _MODES:
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            _size(options["max-buffer-size"], 1024)
        except EngineError as error:
            raise InvalidParameter(
                f"error parsing option max-buffer-size: {str(error).removeprefix(_FAILED)}"
            ) from error
    for name in options:
        if name in _EVERY_DRIVERS:
            continue
        if driver == "json-file" and name not in (*_COMMON, *_ATTRIBUTES):
            raise InvalidParameter(f"unknown log opt '{name}' for json-file log driver")
        if driver == "local" and name not in _COMMON:
            raise InvalidParameter(f"unknown log opt '{name}' for log driver local")


def attributes(
    options: Mapping[str, str],
    *,
    labels: Mapping[str, str],
    environment: Mapping[str, str],
    facts: Mapping[str, str],
) -> dict[str, str]:
    """What of a container each entry carries, by the options `labels`, `env`, their `…-regex`, and `tag`.

    `facts` are what a tag may name: `ID` (all digits), `Name`, `ImageID`, `ImageName`, `DaemonName`. A tag is a text
    with `{{.Name}}` and the like; `{{.ID}}` is the short form, `{{.FullID}}` the whole.

    Raises:
        EngineError: a tag that names what isn't known, or a regular expression that is none.
    """
    found: dict[str, str] = {}
    for source, listed, pattern in (
        (labels, options.get("labels", ""), options.get("labels-regex", "")),
        (environment, options.get("env", ""), options.get("env-regex", "")),
    ):
        found |= {name: source[name] for name in listed.split(",") if name in source}
        if pattern:
            try:
                expression = re.compile(pattern)
            except re.error as error:
                raise EngineError(f"{_FAILED}error parsing regexp: {error}") from error
            found |= {name: value for name, value in source.items() if expression.search(name)}
    if options.get("tag"):
        found["tag"] = _tag(options["tag"], facts)
    return found


def _tag(template: str, facts: Mapping[str, str]) -> str:
    known = {
        "ID": facts.get("ID", "")[:_ID_DIGITS],
        "FullID": facts.get("ID", ""),
        "Name": facts.get("Name", "").removeprefix("/"),
        "ImageID": facts.get("ImageID", "").removeprefix("sha256:")[:_ID_DIGITS],
        "ImageFullID": facts.get("ImageID", ""),
        "ImageName": facts.get("ImageName", ""),
        "DaemonName": facts.get("DaemonName", ""),
    }

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise EngineError(f"{_FAILED}template: log-tag: can't evaluate field {match[1]}")
        return known[match[1]]

    return _PLACEHOLDER.sub(value, template)


def _rotation(driver: str, options: Mapping[str, str]) -> Rotation:
    """Source of the defaults and the messages: moby, daemon/logger/{jsonfilelog,local}."""
    local = driver == "local"
    size = _LOCAL_SIZE if local else None
    if "max-size" in options:
        size = _size(options["max-size"])
        if size <= 0:
            raise EngineError(f"{_FAILED}max-size must be a positive number")
    files = _LOCAL_FILES if local else 1
    if "max-file" in options:
        try:
            files = int(options["max-file"])
        except ValueError:
            text = options["max-file"]
            raise EngineError(f'{_FAILED}strconv.Atoi: parsing "{text}": invalid syntax') from None
        if files < 1 and not local:
            raise EngineError(f"{_FAILED}max-file cannot be less than 1")
    compress = local
    if "compress" in options:
        text = options["compress"]
        if text not in ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"):
            raise EngineError(f'{_FAILED}strconv.ParseBool: parsing "{text}": invalid syntax')
        compress = text[0] in "1tT"
    if compress and local and files <= 1:
        raise EngineError(f"{_FAILED}compression cannot be enabled when max file count is 1")
    if compress and (files < 2 or size is None):
        raise EngineError(f"{_FAILED}compress cannot be true when max-file is less than 2 or max-size is not set")
    return Rotation(size, max(1, files), compress)


def _size(text: str, unit: int = 1000) -> int:
    """Bytes, in units of thousands as a log's files have (docker/go-units, FromHumanSize), or of 1024 as memory has."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise EngineError(f"{_FAILED}invalid size: '{text}'")
    return int(float(found[1]) * unit ** ("kmgtp".index(found[2].lower()) + 1 if found[2] else 0))
