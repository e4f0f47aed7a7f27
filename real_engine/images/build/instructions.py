"""What the lines of a Dockerfile say: typed instructions in stages, each checked as far as its text alone allows.

Messages are those of Docker (`dockerfile parse error line 2: unknown instruction: FOO`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from real_engine.errors import InvalidParameter
from real_engine.images.build.dockerfile import (
    Dockerfile,
    Heredoc,
    Line,
    json_words,
    key_values,
    parse_heredoc,
    parse_line,
    split_words,
)
from real_engine.images.build.go_syntax import parse_duration, parse_integer, quote, show_duration

SHORTEST_INTERVAL = 10**6  # nanoseconds: a health check more often than each millisecond is refused
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Instruction:
    """What all have: the text to show, and the line where it begins."""

    source: str
    number: int


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    """ARG: build arguments, with a default or without."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    """ENV: environment variables."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    """LABEL: labels; those of `docker build --label` are literal."""

    pairs: tuple[tuple[str, str], ...]
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    """MAINTAINER: the author."""

    name: str


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """COPY and ADD (`command`): files into the image."""

    command: str
    sources: tuple[str, ...]
    destination: str
    owner: str = ""
    mode: str = ""
    origin: str = ""
    checksum: str = ""
    documents: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandLine(Instruction):
    """A command: words for exec, or with `shell` one text for the shell."""

    words: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True)
class Run(CommandLine):
    """RUN: a command whose changes of files become a layer."""

    mounts: tuple[str, ...] = ()
    network: str = ""
    documents: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Cmd(CommandLine):
    """CMD: what runs unless something else is asked for."""


@dataclass(frozen=True, slots=True)
class Entrypoint(CommandLine):
    """ENTRYPOINT: what always runs."""


@dataclass(frozen=True, slots=True)
class Onbuild(Instruction):
    """ONBUILD: an instruction for those who build upon this image."""

    expression: str


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    """WORKDIR: the working directory, which is made."""

    path: str


@dataclass(frozen=True, slots=True)
class User(Instruction):
    """USER: who runs what follows."""

    user: str


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    """VOLUME: directories that get a volume in each container."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    """EXPOSE: ports that the program listens on."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    """STOPSIGNAL: what `docker stop` sends."""

    signal: str


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """HEALTHCHECK: how to see that the program is well; times in nanoseconds."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    """SHELL: what runs the shell form of RUN, CMD and ENTRYPOINT."""

    words: tuple[str, ...]


@dataclass(slots=True)
class Stage:
    """FROM, and what follows it up to the next one."""

    source: str
    number: int
    base: str
    name: str = ""
    platform: str = ""
    instructions: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole Dockerfile: the arguments before the first FROM, and the stages."""

    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    def index(self, name: str) -> int | None:
        """The number of the stage of that name, or with that number."""
        for number, stage in enumerate(self.stages):
            if stage.name and stage.name == name.lower():
                return number
        return int(name) if name.isdecimal() and int(name) < len(self.stages) else None


def parse_plan(dockerfile: Dockerfile) -> Plan:
    """The stages of a Dockerfile.

    Raises:
        InvalidParameter: an instruction that doesn't exist, is in a wrong place or has wrong arguments.
    """
    arguments: list[Arg] = []
    stages: list[Stage] = []
    for line in dockerfile.lines:
        try:
            if line.name == "FROM":
                stages.append(_from(line))
                continue
            instruction = _instruction(line, dockerfile.escape)
        except InvalidParameter as error:
            raise InvalidParameter(f"dockerfile parse error line {line.number}: {error}") from error
        if stages:
            stages[-1].instructions.append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise InvalidParameter("no build stage in current context")
    return Plan(tuple(arguments), tuple(stages))


def parse_instruction(line: Line, escape: str = "\\") -> Instruction:
    """One instruction other than FROM.

    Raises:
        InvalidParameter: see `parse_plan`.
    """
    if line.name == "FROM":
        raise InvalidParameter("FROM isn't allowed here")
    return _instruction(line, escape)


def parse_trigger(expression: str) -> Instruction:
    """The instruction that ONBUILD kept in an image.

    Raises:
        InvalidParameter: as `parse_instruction`.
    """
    head, *documents = expression.split("\n", 1)
    line = parse_line(head)
    if documents:
        from real_engine.images.build.dockerfile import parse_dockerfile

        line = parse_dockerfile(expression.encode("utf-8", "surrogateescape")).lines[0]
    return parse_instruction(line)


def _instruction(line: Line, escape: str) -> Instruction:
    parse = _PARSERS.get(line.name)
    if parse is None:
        raise InvalidParameter(f"unknown instruction: {line.name}")
    return parse(line, escape)


def _flags(line: Line, *allowed: str, booleans: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The flags of a line by name; only `mount` may come twice."""
    found: dict[str, list[str]] = {}
    for flag in line.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in allowed and name not in booleans:
            raise InvalidParameter(f"Unknown flag: {name}")
        if name in found and name != "mount":
            raise InvalidParameter(f"Duplicate flag specified: {name}")
        if name in booleans:
            if equals and value.lower() not in _BOOLEANS:
                raise InvalidParameter(f"Expecting boolean value for flag {name}, not: {value}")
        elif not equals:
            raise InvalidParameter(f"Missing a value on flag: {name}")
        found.setdefault(name, []).append(value)
    return found


def _one(flags: dict[str, list[str]], name: str) -> str:
    return flags.get(name, [""])[0]


def _from(line: Line) -> Stage:
    flags = _flags(line, "platform")
    words = line.rest.split()
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise InvalidParameter(
                f"invalid name for build stage: {quote(words[2])}, name can't start with a number or contain symbols"
            )
    elif len(words) != 1:
        raise InvalidParameter("FROM requires either one or three arguments")
    return Stage(line.original.strip(), line.number, words[0], name, _one(flags, "platform"))


def _pairs(line: Line, escape: str) -> tuple[tuple[str, str], ...]:
    _flags(line)
    pairs = key_values(line.rest, line.name, escape)
    if not pairs:
        raise InvalidParameter(f"{line.name} requires at least one argument")
    if not all(key for key, _ in pairs):
        raise InvalidParameter(f"{line.name} names can not be blank")
    return tuple(pairs)


def _env(line: Line, escape: str) -> Instruction:
    return Env(line.original, line.number, _pairs(line, escape))


def _label(line: Line, escape: str) -> Instruction:
    return Label(line.original, line.number, _pairs(line, escape))


def _arg(line: Line, escape: str) -> Instruction:
    _flags(line)
    words = split_words(line.rest, escape)
    if not words:
        raise InvalidParameter("ARG requires at least one argument")
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not key:
            raise InvalidParameter("ARG names can not be blank")
        pairs.append((key, value if equals else None))
    return Arg(line.original, line.number, tuple(pairs))


def _copy(line: Line, escape: str) -> Instruction:
    if line.name == "COPY":
        flags = _flags(line, "from", "chown", "chmod", booleans=("link",))
    else:
        flags = _flags(line, "chown", "chmod", "checksum", booleans=("link", "keep-git-dir"))
    words = json_words(line.rest)
    if words is None:
        words = line.rest.split()
    if len(words) < 2:
        raise InvalidParameter(
            f"{line.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    documents = {document.name: document for document in line.heredocs}
    sources, kept = [], []
    for word in words[:-1]:
        announced = parse_heredoc(word) if documents else None
        if announced is not None and announced.name in documents:
            kept.append(documents[announced.name])
        else:
            sources.append(word)
    return Copy(
        line.original,
        line.number,
        line.name,
        tuple(sources),
        words[-1],
        owner=_one(flags, "chown"),
        mode=_one(flags, "chmod"),
        origin=_one(flags, "from"),
        checksum=_one(flags, "checksum"),
        documents=tuple(kept),
    )


def _command_line(line: Line) -> tuple[tuple[str, ...], bool]:
    words = json_words(line.rest)
    if words is not None:
        return tuple(words), False
    return ((line.rest,) if line.rest else ()), True


def _run(line: Line, escape: str) -> Instruction:
    flags = _flags(line, "mount", "network", "security")
    if _one(flags, "security") not in ("", "sandbox"):
        raise InvalidParameter(f"security mode {quote(_one(flags, 'security'))} is not supported: only sandbox is")
    network = _one(flags, "network")
    if network not in ("", "default", "none", "host"):
        raise InvalidParameter(f"invalid network mode {quote(network)}: it may be default, none or host")
    words, shell = _command_line(line)
    mounts = tuple(flags.get("mount", ()))
    return Run(line.original, line.number, words, shell, mounts, network.removeprefix("default"), line.heredocs)


def _cmd(line: Line, escape: str) -> Instruction:
    _flags(line)
    return Cmd(line.original, line.number, *_command_line(line))


def _entrypoint(line: Line, escape: str) -> Instruction:
    _flags(line)
    return Entrypoint(line.original, line.number, *_command_line(line))


def _shell(line: Line, escape: str) -> Instruction:
    _flags(line)
    words = json_words(line.rest)
    if words is None:
        raise InvalidParameter(
            "SHELL requires the arguments to be in JSON form" if line.rest else "SHELL requires at least one argument"
        )
    if not words:
        raise InvalidParameter("SHELL requires at least one argument")
    return Shell(line.original, line.number, tuple(words))


def _only_argument(line: Line) -> str:
    _flags(line)
    if not line.rest:
        raise InvalidParameter(f"{line.name} requires exactly one argument")
    return line.rest


def _maintainer(line: Line, escape: str) -> Instruction:
    return Maintainer(line.original, line.number, _only_argument(line))


def _user(line: Line, escape: str) -> Instruction:
    return User(line.original, line.number, _only_argument(line))


def _workdir(line: Line, escape: str) -> Instruction:
    return Workdir(line.original, line.number, _only_argument(line))


def _stopsignal(line: Line, escape: str) -> Instruction:
    return StopSignal(line.original, line.number, _only_argument(line))


def _words(line: Line) -> tuple[str, ...]:
    _flags(line)
    words = json_words(line.rest) if line.name == "VOLUME" else None
    if words is None:
        words = line.rest.split()
    if not words:
        raise InvalidParameter(f"{line.name} requires at least one argument")
    return tuple(words)


def _expose(line: Line, escape: str) -> Instruction:
    return Expose(line.original, line.number, tuple(sorted(_words(line))))


def _volume(line: Line, escape: str) -> Instruction:
    paths = tuple(path.strip() for path in _words(line))
    if not all(paths):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    return Volume(line.original, line.number, paths)


def _onbuild(line: Line, escape: str) -> Instruction:
    _flags(line)
    if not line.rest:
        raise InvalidParameter("ONBUILD requires at least one argument")
    inner = parse_line(line.rest, line.number)
    if inner.name == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if inner.name in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{inner.name} isn't allowed as an ONBUILD trigger")
    original = re.sub(r"^\s*ONBUILD\s*", "", line.original, flags=re.IGNORECASE)
    return Onbuild(line.original, line.number, original.strip() if not line.heredocs else original)


def _healthcheck(line: Line, escape: str) -> Instruction:
    flags = _flags(line, "interval", "timeout", "start-period", "start-interval", "retries")
    kind, *rest = line.rest.split(None, 1)[:2] if line.rest else [""]
    if not kind:
        raise InvalidParameter("HEALTHCHECK requires at least one argument")
    command = rest[0] if rest else ""
    if kind.upper() == "NONE":
        if command:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(line.original, line.number, ("NONE",))
    if kind.upper() != "CMD":
        raise InvalidParameter(f"Unknown type {quote(kind.upper())} in HEALTHCHECK (try CMD)")
    words = json_words(command)
    test = ("CMD", *words) if words is not None else ("CMD-SHELL", command)
    if not command or words == []:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    try:
        interval, timeout = _interval(flags, "interval"), _interval(flags, "timeout")
        start_period, start_interval = _interval(flags, "start-period"), _interval(flags, "start-interval")
        retries = parse_integer(_one(flags, "retries")) if "retries" in flags else 0
    except ValueError as error:
        raise InvalidParameter(str(error)) from error
    if "retries" in flags and retries < 1:
        raise InvalidParameter(f"--retries must be at least 1 (not {retries})")
    return Healthcheck(line.original, line.number, test, interval, timeout, start_period, start_interval, retries)


def _interval(flags: dict[str, list[str]], name: str) -> int:
    text = _one(flags, name)
    nanoseconds = parse_duration(text) if text else 0
    if nanoseconds and nanoseconds < SHORTEST_INTERVAL:
        raise ValueError(f"Interval {quote(name)} cannot be less than {show_duration(SHORTEST_INTERVAL)}")
    return nanoseconds


_PARSERS: dict[str, Callable[[Line, str], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
