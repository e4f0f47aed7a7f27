"""Write the report again from what was measured before: in another language, of another scenario or seed."""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    from classroom.commands.compare import add_question_arguments

    add_question_arguments(parser)
    parser.add_argument("--output", metavar="FILE", default="report.html", help="default: report.html")


def run(arguments: Namespace) -> int:
    """Simulate and write. Nothing is measured."""
    from classroom.commands.compare import ask, write

    write(ask(arguments), Path(arguments.output), arguments.language)
    return 0
