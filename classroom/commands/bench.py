"""Measure how fast the simulator is, side by side with a process per request, Ciw and SimPy. Takes some ten minutes."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

RUNS = 3


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    from classroom.bench.pages import ROW_TITLES

    parser.add_argument("what", choices=("simulator",), help="what is measured")
    parser.add_argument(
        "--runs", type=int, default=RUNS, metavar="N", help=f"of each engine, in turns (default: {RUNS})"
    )
    parser.add_argument("--quick", action="store_true", help="few requests: to see that it works, not how fast")
    parser.add_argument(
        "--full", action="store_true", help="also an hour of 10,000 instances at 100,000 requests a second, once"
    )
    parser.add_argument(
        "--rows", nargs="+", choices=tuple(ROW_TITLES), metavar="ROW", help=f"only these: {', '.join(ROW_TITLES)}"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write every sample as JSON to FILE, or to standard output with -"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write the page of docs/reference to FILE")


def run(arguments: Namespace) -> int:
    """Measure, and show or write what was found."""
    import json

    from classroom.bench import machine, resident
    from classroom.bench.cases import QUICK, WHOLE, all_cases
    from classroom.bench.figures import report
    from classroom.bench.pages import show, to_markdown
    from classroom.bench.rounds import run_rounds
    from classroom.progress import progress_bar
    from simulator.files import write_text

    for name in (arguments.json, arguments.markdown):
        if name and name != "-":
            _check_directory(Path(name))
    size = QUICK if arguments.quick else WHOLE
    asked = arguments.rows or ()
    cases = all_cases(size, full=arguments.full or "hour" in asked)
    cases = [case for case in cases if not asked or case.row in asked]
    described = machine.describe()
    with progress_bar("measuring the simulator and its peers") as progress:
        samples = run_rounds(cases, arguments.runs, progress=progress)
    found = report(
        samples, size=size, runs=arguments.runs, quick=arguments.quick, machine=described, memory=resident.method()
    )
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if arguments.markdown:
        write_text(Path(arguments.markdown), to_markdown(found))
    if arguments.json == "-":
        print(text, end="")
        return 0
    if arguments.json:
        write_text(Path(arguments.json), text)
    from rich.console import Console

    show(Console(highlight=False), found)
    return 0


def _check_directory(path: Path) -> None:
    """Refuse a file that cannot be written before the minutes in which its contents are found, and not after."""
    import os

    from simulator.errors import SimulatorError

    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SimulatorError(f"{path}: {path.parent} is no directory that can be written; name a file in one that is")
