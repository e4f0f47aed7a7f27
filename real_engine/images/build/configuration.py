"""What instructions do to an image's configuration, and how the classic builder words that in the image's history.

A configuration is Docker's `Config` object as JSON has it (`Env`, `Cmd`, `WorkingDir` ...).
"""

import copy
import posixpath
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from real_engine.errors import InvalidParameter
from real_engine.images.build import instructions as ins
from real_engine.images.build.dockerfile import parse_dockerfile
from real_engine.images.build.go_syntax import quote, quote_list, show_duration, show_list
from real_engine.images.build.shell_words import Lexer

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")

_COMMIT_CHANGES = frozenset(
    ("CMD", "ENTRYPOINT", "HEALTHCHECK", "ENV", "EXPOSE", "LABEL", "ONBUILD", "USER", "VOLUME", "WORKDIR", "STOPSIGNAL")
)
_PORT = re.compile(r"[0-9]{1,5}")
_PROTOCOLS = frozenset(("tcp", "udp", "sctp"))
_LAST_SIGNAL = 64

# The order of Docker's own JSON; those with None are left out where they are empty (moby api/types/container Config).
_FIELDS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "ExposedPorts": None,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": [],
    "Cmd": None,
    "Healthcheck": None,
    "ArgsEscaped": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "NetworkDisabled": None,
    "MacAddress": None,
    "OnBuild": None,
    "Labels": None,
    "StopSignal": None,
    "StopTimeout": None,
    "Shell": None,
}
_OMITTED_WHEN_EMPTY = frozenset(
    (
        "ExposedPorts",
        "Healthcheck",
        "ArgsEscaped",
        "NetworkDisabled",
        "MacAddress",
        "StopSignal",
        "StopTimeout",
        "Shell",
    )
)

Config = dict[str, Any]


def complete(config: Mapping[str, Any] | None, **changed: Any) -> Config:
    """A copy of a configuration with every field that Docker writes, and those of `changed` instead."""
    merged = {**copy.deepcopy(dict(config or {})), **changed}
    result: Config = {}
    for name, default in _FIELDS.items():
        value = merged.get(name)
        if value is None:
            value = default if default is None else copy.copy(default)
        if value or name not in _OMITTED_WHEN_EMPTY:
            result[name] = value
    return result


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a configuration; the last of a name counts."""
    pairs = (variable.partition("=") for variable in config.get("Env") or ())
    return {name: value for name, _, value in pairs}


def shell(config: Mapping[str, Any]) -> list[str]:
    """What runs the shell form of a command."""
    return list(config.get("Shell") or DEFAULT_SHELL)


def with_default_path(config: Config) -> None:
    """Give the configuration a PATH if it has none."""
    if "PATH" not in environment(config):
        config["Env"] = [*(config.get("Env") or ()), f"PATH={DEFAULT_PATH}"]


def resolved(command: ins.CommandLine, config: Mapping[str, Any]) -> list[str]:
    """The words that a command line is run with."""
    return [*shell(config), *command.words] if command.shell else list(command.words)


def expand(instruction: ins.Instruction, lexer: Lexer, variables: Mapping[str, str]) -> ins.Instruction:
    """The instruction with variables replaced in what the Dockerfile reference lists for that; the others unchanged.

    Raises:
        InvalidParameter: a substitution that makes no sense.
    """

    def word(text: str) -> str:
        return lexer.expand(text, variables)

    match instruction:
        case ins.Env():
            return replace(instruction, pairs=tuple((word(key), word(value)) for key, value in instruction.pairs))
        case ins.Label() if not instruction.literal:
            return replace(instruction, pairs=tuple((word(key), word(value)) for key, value in instruction.pairs))
        case ins.Arg():
            return replace(
                instruction,
                pairs=tuple((word(key), None if value is None else word(value)) for key, value in instruction.pairs),
            )
        case ins.Copy():
            documents = tuple(
                replace(document, content=_document(document.text, lexer, variables), strip_tabs=False)
                if document.expand
                else document
                for document in instruction.documents
            )
            return replace(
                instruction,
                sources=tuple(word(source) for source in instruction.sources),
                destination=word(instruction.destination),
                owner=word(instruction.owner),
                mode=word(instruction.mode),
                checksum=word(instruction.checksum),
                documents=documents,
            )
        case ins.Workdir():
            return replace(instruction, path=word(instruction.path))
        case ins.User():
            return replace(instruction, user=word(instruction.user))
        case ins.StopSignal():
            return replace(instruction, signal=word(instruction.signal))
        case ins.Volume():
            return replace(instruction, paths=tuple(word(path) for path in instruction.paths))
        case ins.Expose():
            ports = [port for text in instruction.ports for port in lexer.split(text, variables)]
            return replace(instruction, ports=tuple(ports))
        case ins.Run():
            return replace(instruction, mounts=tuple(word(mount) for mount in instruction.mounts))
    return instruction


def _document(text: str, lexer: Lexer, variables: Mapping[str, str]) -> str:
    return replace(lexer, ignore_quotes=True).expand(text, variables)


def configure(config: Config, instruction: ins.Instruction) -> str:
    """Do to `config` what an (expanded) instruction says; returns its text in the history, `ENV a=1`.

    Raises:
        InvalidParameter: a port, signal or name that doesn't exist.
    """
    match instruction:
        case ins.Env():
            variables = list(config.get("Env") or ())
            for name, value in instruction.pairs:
                _set_variable(variables, name, value)
            config["Env"] = variables
            return "ENV" + "".join(f" {name}={value}" for name, value in instruction.pairs)
        case ins.Label():
            config["Labels"] = {**(config.get("Labels") or {}), **dict(instruction.pairs)}
            return "LABEL" + "".join(f" {name}={value}" for name, value in instruction.pairs)
        case ins.Cmd():
            config["Cmd"] = resolved(instruction, config)
            return f"CMD {quote_list(config['Cmd'])}"
        case ins.Entrypoint():
            config["Entrypoint"] = resolved(instruction, config)
            return f"ENTRYPOINT {quote_list(config['Entrypoint'])}"
        case ins.Onbuild():
            config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.expression]
            return f"ONBUILD {instruction.expression}"
        case ins.User():
            config["User"] = instruction.user
            return f"USER {instruction.user}"
        case ins.Workdir():
            config["WorkingDir"] = beneath(config.get("WorkingDir") or "", instruction.path)
            return f"WORKDIR {config['WorkingDir']}"
        case ins.Volume():
            if not all(instruction.paths):
                raise InvalidParameter("VOLUME specified can not be an empty string")
            config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in instruction.paths}}
            return f"VOLUME {show_list(instruction.paths)}"
        case ins.Expose():
            found: dict[str, Any] = {port: {} for text in instruction.ports for port in parse_ports(text)}
            config["ExposedPorts"] = dict(sorted({**(config.get("ExposedPorts") or {}), **found}.items()))
            return f"EXPOSE {' '.join(instruction.ports)}"
        case ins.StopSignal():
            check_signal(instruction.signal)
            config["StopSignal"] = instruction.signal
            return f"STOPSIGNAL {instruction.signal}"
        case ins.Shell():
            config["Shell"] = list(instruction.words)
            return f"SHELL {show_list(instruction.words)}"
        case ins.Healthcheck():
            config["Healthcheck"] = _healthcheck(instruction, config.get("Healthcheck") or {})
            return f"HEALTHCHECK {_shown(instruction)}"
    raise InvalidParameter(f"{type(instruction).__name__.upper()} doesn't only change the configuration")


def apply_changes(config: Mapping[str, Any] | None, changes: Iterable[str]) -> Config:
    """The configuration after the instructions of `docker commit --change` or `docker import --change`.

    Raises:
        InvalidParameter: an instruction that is wrong, or that would do more than change the configuration.
    """
    result = complete(config)
    command_set = False
    lines = [line for change in changes for line in change.split("\n") if line.strip()]
    for text in lines:
        dockerfile = parse_dockerfile(text.encode("utf-8", "surrogateescape"))
        for line in dockerfile.lines:
            if line.name not in _COMMIT_CHANGES:
                raise InvalidParameter(f"{line.name.lower()} is not a valid change command")
            instruction = expand(ins.parse_instruction(line), Lexer(), environment(result))
            configure(result, instruction)
            command_set |= isinstance(instruction, ins.Cmd)
            if isinstance(instruction, ins.Entrypoint) and not command_set:
                result["Cmd"] = None
    return complete(result)


def beneath(directory: str, path: str) -> str:
    """`path` as seen from `directory`: an absolute one stays as it is, as in Docker not even tidied up.

    Raises:
        InvalidParameter: no path.
    """
    if not path:
        raise InvalidParameter("cannot normalize nothing")
    if path.startswith("/"):
        return path
    return "/" + posixpath.normpath(f"/{directory}/{path}").lstrip("/")


def parse_ports(text: str) -> list[str]:
    """`80/tcp` for each port of `80`, `8000-8010/udp` or `127.0.0.1:8080:80`.

    Raises:
        InvalidParameter: in the words of Docker (go-connections nat).
    """
    ports, slash, protocol = text.partition("/")
    container = ports.rpartition(":")[2]
    protocol = (protocol if slash else "tcp").lower()
    if not container:
        raise InvalidParameter(f"No port specified: {text}<empty>")
    first, dash, last = container.partition("-")
    if not dash:
        last = first
    if not all(_PORT.fullmatch(port) and int(port) < 65536 for port in (first, last)) or int(last) < int(first):
        raise InvalidParameter(f"Invalid containerPort: {container}")
    if protocol not in _PROTOCOLS:
        raise InvalidParameter(f"Invalid proto: {protocol}")
    return [f"{port}/{protocol}" for port in range(int(first), int(last) + 1)]


def check_signal(text: str) -> None:
    """See that a signal of that number or name (with or without SIG) exists.

    Raises:
        InvalidParameter: there is none.
    """
    if text.isdecimal():
        known = 0 < int(text) <= _LAST_SIGNAL
    else:
        name = text.upper().removeprefix("SIG")
        base, _, offset = name.partition("+") if name.startswith("RTMIN+") else name.partition("-")
        known = f"SIG{base}" in signal.Signals.__members__ and (not offset or offset.isdecimal())
    if not known:
        raise InvalidParameter(f"Invalid signal: {text}")


def _set_variable(variables: list[str], name: str, value: str) -> None:
    for index, variable in enumerate(variables):
        if variable.partition("=")[0] == name:
            variables[index] = f"{name}={value}"
            return
    variables.append(f"{name}={value}")


def _healthcheck(check: ins.Healthcheck, before: Mapping[str, Any]) -> dict[str, Any]:
    """What is not said stays as it was, or as it is in the image below."""
    result: dict[str, Any] = {"Test": list(check.test)}
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ):
        if value or before.get(name):
            result[name] = value or before[name]
    return result


def _shown(check: ins.Healthcheck) -> str:
    times = " ".join(quote(show_duration(time)) for time in (check.interval, check.timeout, check.start_period))
    retries = quote(chr(check.retries) if check.retries < 0x110000 else "\ufffd", "'")
    return f"&{{{quote_list(check.test)} {times} {retries}}}"


def no_operation(config: Mapping[str, Any], comment: str | Sequence[str], **changed: Any) -> Config:
    """The configuration of a step that runs nothing: its command is the comment `#(nop)`.

    A comment in one piece makes one word (WORKDIR, COPY and ADD), else it is a word of its own: so the classic
    builder does it, and a cache made by either has to fit.
    """
    words = [f"#(nop) {comment}"] if isinstance(comment, str) else ["#(nop) ", *comment]
    return complete(config, Cmd=[*shell(config), *words], **changed)
