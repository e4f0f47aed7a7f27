"""Measure how fast the simulator or the engine is, side by side with their peers. Takes some ten minutes."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    Measured = tuple[dict[str, Any], Callable[[Console, dict[str, Any]], None], Callable[[dict[str, Any]], str]]

RUNS = {"simulator": 3, "engine": 15}


ENGINE_ROWS = ("run_bridge", "run_no_network", "exec", "starts_at_once", "idle_memory", "warm_build", "pull")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    from classroom.bench.pages import ROW_TITLES

    parser.add_argument(
        "what",
        choices=tuple(RUNS),
        help="the simulator beside a process per request, Ciw and SimPy; or the engine beside dockerd, crun and runc",
    )
    parser.add_argument(
        "--runs",
        type=int,
        metavar="N",
        help="of each contestant, in turns (default: 3 of a simulator, 15 of an engine)",
    )
    parser.add_argument("--quick", action="store_true", help="few requests: to see that it works, not how fast")
    parser.add_argument(
        "--full", action="store_true", help="also an hour of 10,000 instances at 100,000 requests a second, once"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help=f"only these: {', '.join(ROW_TITLES)}; of the engine: {', '.join(ENGINE_ROWS)}",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write every sample as JSON to FILE, or to standard output with -"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write the page of docs/reference to FILE")


def run(arguments: Namespace) -> int:
    """Measure, and show or write what was found."""
    for name in (arguments.json, arguments.markdown):
        if name and name != "-":
            _check_directory(Path(name))
    measured = _simulator(arguments) if arguments.what == "simulator" else _engine(arguments)
    return _hand_out(arguments, *measured)


def _simulator(arguments: Namespace) -> "Measured":
    from classroom.bench import machine, pages, resident
    from classroom.bench.cases import QUICK, WHOLE, all_cases
    from classroom.bench.figures import report
    from classroom.bench.rounds import run_rounds
    from classroom.progress import progress_bar

    size = QUICK if arguments.quick else WHOLE
    asked = _rows(arguments, tuple(pages.ROW_TITLES))
    runs = arguments.runs if arguments.runs is not None else RUNS["simulator"]
    cases = all_cases(size, full=arguments.full or "hour" in asked)
    cases = [case for case in cases if not asked or case.row in asked]
    described = machine.describe()
    with progress_bar("measuring the simulator and its peers") as progress:
        samples = run_rounds(cases, runs, progress=progress)
    found = report(samples, size=size, runs=runs, quick=arguments.quick, machine=described, memory=resident.method())
    return found, pages.show, pages.to_markdown


def _engine(arguments: Namespace) -> "Measured":
    import shutil
    import sys

    from real_engine.errors import EngineError

    asked = _rows(arguments, ENGINE_ROWS)
    if sys.platform != "linux":
        raise EngineError("containers need a Linux kernel; `onggi bench simulator` works here")
    if shutil.which("docker") is None:
        raise EngineError("there is no docker command on this machine to race with: make peers")
    from classroom.bench import machine
    from classroom.bench.engine import pages
    from classroom.bench.engine.figures import report
    from classroom.bench.engine.race import race
    from classroom.progress import progress_bar

    runs = arguments.runs if arguments.runs is not None else RUNS["engine"]
    if runs < 1:
        raise EngineError(f"runs {runs}: each contestant must run at least once")
    described = machine.describe()
    with progress_bar("racing the engine and its peers") as progress:
        samples, missing, remarks = race(runs, quick=arguments.quick, names=asked, progress=progress)
    found = report(samples, missing, remarks, runs=runs, quick=arguments.quick, machine=described)
    return found, pages.show, pages.to_markdown


def _rows(arguments: Namespace, known: tuple[str, ...]) -> tuple[str, ...]:
    """The rows that were asked for.

    Raises:
        SimulatorError: one that there isn't.
    """
    from simulator.errors import SimulatorError

    for row in arguments.rows or ():
        if row not in known:
            raise SimulatorError(f"unknown row `{row}` of the {arguments.what}: choose from {', '.join(known)}")
    return tuple(arguments.rows or ())


def _hand_out(
    arguments: Namespace,
    found: "dict[str, Any]",
    show: "Callable[[Console, dict[str, Any]], None]",
    to_markdown: "Callable[[dict[str, Any]], str]",
) -> int:
    """Write and show what was found."""
    import json

    from simulator.files import write_text

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
