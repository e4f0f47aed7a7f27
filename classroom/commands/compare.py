"""Compare containers with virtual machines: start-up, memory, density, and how each follows load.

As root on Linux, this machine is measured first, once. Otherwise the measurements that ship are used.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from classroom.comparison import Compared

DEFAULT_SEED = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    add_question_arguments(parser)
    parser.add_argument(
        "--measure",
        choices=("auto", "never", "always"),
        default="auto",
        help="measure this machine first: where it can be and was not yet, never, or always (default: auto)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON to FILE, or to stdout with -")
    parser.add_argument("--report", metavar="FILE", default="report.html", help="the report (default: report.html)")
    parser.add_argument("--no-report", action="store_true", help="write no report")


def add_question_arguments(parser: ArgumentParser) -> None:
    """Declare what `compare` and `report` both need to know: what is asked, and on which measurements."""
    parser.add_argument("--scenario", default="compare", help="a scenario that ships or a TOML file (default: compare)")
    parser.add_argument(
        "--platforms",
        metavar="NAME,…",
        help="profiles that ship or TOML files, with commas between (default: container,vm-kvm,vm-cloud)",
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help=f"of all chance (default: {DEFAULT_SEED})")
    parser.add_argument("--replications", type=int, metavar="N", help="repetitions (default: as the scenario says)")
    parser.add_argument("--workers", type=int, default=-1, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--measurements", metavar="HOST", help="recorded measurements: a host's name or a directory (default: own)"
    )
    parser.add_argument("--language", choices=("en", "ko"), default="en", help="of table and report (default: en)")


def run(arguments: Namespace) -> int:
    """Measure if need be, simulate, show the table, and write the report."""
    from classroom.commands.measure import measure_if_due

    if arguments.measurements is None:
        measure_if_due(arguments.measure)
    compared = ask(arguments)
    if arguments.json == "-":
        print(as_json(compared), end="")
        for line in remarks(compared, arguments.language):
            print(line, file=sys.stderr)
    else:
        from classroom.table import print_table
        from simulator.files import write_text

        print_table(compared, arguments.language)
        for line in remarks(compared, arguments.language):
            print(line)
        if arguments.json:
            write_text(Path(arguments.json), as_json(compared))
    if not arguments.no_report:
        write(compared, Path(arguments.report), arguments.language, quiet=arguments.json == "-")
    return 0


def ask(arguments: Namespace) -> "Compared":
    """Run the comparison that the arguments of `add_question_arguments` describe."""
    from classroom.comparison import DEFAULT_PLATFORMS, compare_platforms
    from classroom.progress import progress_bar
    from classroom.recordings import read_recording
    from simulator.scenario import Scenario

    scenario = Scenario.from_toml(arguments.scenario)
    recording = read_recording(arguments.measurements)
    platforms = arguments.platforms.split(",") if arguments.platforms else DEFAULT_PLATFORMS
    with progress_bar(f"simulating {scenario.name}") as progress:
        return compare_platforms(
            scenario,
            recording,
            platforms,
            seed=arguments.seed,
            replications=arguments.replications,
            workers=arguments.workers,
            progress=progress,
        )


def remarks(compared: "Compared", language: str) -> list[str]:
    """What must be known to read the figures: what has no steady state or no interval, what is not counted."""
    from simulator.model.inputs import io_seconds
    from simulator.stability import load_of
    from simulator.words import Words

    words = Words(Path(__file__).parent, language)
    results = compared.comparison.results
    lines = []
    if unstable := [name for name, result in results.items() if result.stability]:
        profile = compared.profiles[unstable[0]]
        added = io_seconds(compared.scenario, profile)
        load = load_of(compared.scenario, profile.overhead.cpu_factor.value, added)
        fields = {
            "platforms": ", ".join(unstable),
            "first": unstable[0],
            "offered": f"{load.offered_cores:.4g}",
            "capacity": f"{load.most_cores:.4g}",
            "instances": load.most_instances,
        }
        lines.append(words("compare.unstable", **fields))
    one = next(iter(results.values()))
    if one.warm_up:
        lines.append(words("compare.warm-up", seconds=f"{one.warm_up_seconds:g}"))
    if len(one.replications) == 1:
        lines.append(words("compare.one-replication"))
    return lines


def as_json(compared: "Compared") -> str:
    """The comparison as JSON, keys sorted: the same comparison gives the same bytes."""
    import json

    return json.dumps(compared.to_dict(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write(compared: "Compared", path: Path, language: str, *, quiet: bool = False) -> None:
    """Write the report, and tell where it is."""
    import shlex

    from classroom.report.page import write_report

    write_report(
        path,
        comparison=compared.comparison,
        profiles=compared.profiles,
        densities=compared.densities,
        machine=compared.scenario.machines.spec,
        measurements=compared.recording.measurements,
        validation=compared.validation,
        curves=compared.curves,
        command=shlex.join(["onggi", *sys.argv[1:]]),
        language=language,
    )
    if not quiet:
        print(f"\nreport: {path.resolve().as_uri()}")
