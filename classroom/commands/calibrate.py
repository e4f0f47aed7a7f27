"""Fit the profiles of the platforms to measurements, and show or write them."""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--measurements",
        metavar="HOST_OR_DIR",
        default="reference",
        help="a host in data/measurements, or a directory that `onggi measure` wrote (default: reference)",
    )
    parser.add_argument("--output", metavar="DIR", help="write one PLATFORM.toml each to DIR instead of showing them")


def run(arguments: Namespace) -> int:
    """Calibrate every platform that was measured."""
    from classroom.recordings import read_recording
    from simulator.evidence.calibration import calibrate_all, heading
    from simulator.files import write_text

    measurements = read_recording(arguments.measurements).measurements
    texts = {name: profile.to_toml(heading(measurements)) for name, profile in calibrate_all(measurements).items()}
    if arguments.output is None:
        print("\n".join(texts.values()), end="")
        return 0
    for name, text in texts.items():
        path = Path(arguments.output) / f"{name}.toml"
        write_text(path, text)
        print(path)
    return 0
