"""Scenarios: `new` begins one with every key explained, `check` says whether files can be run, `schema` describes all.

`onggi scenario new mine` writes mine.toml, which runs as it is: `onggi run mine.toml`.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

BASE = "compare"

HEADING = """\
A scenario. Run it: `onggi run {file}`. Compare platforms on it: `onggi compare --scenario {file}`.

Every key that there is stands here. A line that begins with `#` and a letter is a key at its default: take the `#` \
away, and change it. Lines that begin with `#|` are a table of another kind, or one that is not there by default: take \
`#|` away from all of its lines, and out with the table that it stands in for. `onggi scenario check {file}` says what \
is wrong, and `onggi scenario schema` describes it all for an editor."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="write a scenario with every key explained, which runs as it is")
    new.add_argument("name", metavar="NAME", help="of the scenario; the file is NAME.toml, and must not be there")
    new.add_argument(
        "--from", dest="base", metavar="KIND", default=BASE, help=f"a scenario to begin with (default: {BASE})"
    )
    check = actions.add_parser("check", help="say of each file whether it can be run, and what load it is")
    check.add_argument("files", metavar="FILE", nargs="+", help="a scenario that ships or a TOML file")
    check.add_argument("--platform", default="process", help="whose cost of a request counts (default: process)")
    schema = actions.add_parser("schema", help="describe every key as a JSON Schema")
    schema.add_argument("--output", metavar="FILE", help="write it to FILE instead of showing it")


def run(arguments: Namespace) -> int:
    """Carry out the action; 2 where a file that was checked cannot be run."""
    if arguments.action == "new":
        return _new(arguments.name, arguments.base)
    if arguments.action == "check":
        return _check(arguments.files, arguments.platform)
    return _schema(arguments.output)


def _new(name: str, base: str) -> int:
    from simulator.errors import SimulatorError
    from simulator.files import write_text
    from simulator.records import validate_record
    from simulator.scenario import Scenario
    from simulator.template import commented_toml

    path = Path(name if name.endswith(".toml") else f"{name}.toml")
    if path.exists() or path.is_symlink():
        raise SimulatorError(f"{path}: is there already; give another name, or remove it")
    begun = Scenario.from_toml(base).model_dump(exclude_unset=True) | {"name": path.stem}
    scenario = validate_record(Scenario, begun, f"scenario `{path.stem}`")
    write_text(path, commented_toml(scenario, HEADING.format(file=path)))
    print(path)
    return 0


def _check(files: list[str], platform: str) -> int:
    import sys

    from simulator.datacenter.platforms import PlatformProfile
    from simulator.errors import SimulatorError
    from simulator.model.inputs import io_seconds
    from simulator.scenario import Scenario
    from simulator.stability import load_of

    profile = PlatformProfile.from_toml(platform)
    status = 0
    for file in files:
        try:
            scenario = Scenario.from_toml(file)
        except SimulatorError as error:
            print(f"onggi: {error}", file=sys.stderr)
            status = 2
        else:
            load = load_of(scenario, profile.overhead.cpu_factor.value, io_seconds(scenario, profile))
            requests = scenario.arrivals.expected(scenario.duration_seconds)
            number = f"{'at most' if load.closed else 'about'} {requests:.0f} requests"
            print(f"{file}: valid, {number}; {load.explain()}")
    return status


def _schema(output: str | None) -> int:
    import json

    from simulator.files import write_text
    from simulator.scenario import Scenario

    text = json.dumps(Scenario.json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
    else:
        write_text(Path(output), text)
        print(output)
    return 0
