"""Where the data live: `data/` at the top of a checkout, `simulator/data/` in an installed wheel, or ONGGI_DATA."""

import os
from pathlib import Path

from simulator.errors import SimulatorError


def data_directory() -> Path:
    """The directory with `measurements/`, `profiles/`, `published/` and `scenarios/` that ship with onggi.

    Raises:
        SimulatorError: ONGGI_DATA names something that is not a directory, or the installation has no data.
    """
    if override := os.environ.get("ONGGI_DATA"):
        if not Path(override).is_dir():
            raise SimulatorError(f"ONGGI_DATA={override}: not a directory; unset it or name onggi's data directory")
        return Path(override)
    package = Path(__file__).resolve().parent
    for candidate in (package.parent / "data", package / "data"):
        if (candidate / "profiles").is_dir():
            return candidate
    raise SimulatorError(f"onggi's data are missing beside {package}: reinstall onggi")


def named_file(kind: str, name_or_path: str, suffix: str = ".toml") -> Path:
    """The file that a person means by `name_or_path`: a path that exists, or the name of one in `data/KIND/`.

    Args:
        kind: the folder of `data/` to look in: `scenarios` or `profiles`.
        name_or_path: `compare`, `compare.toml` or `./my/scenario.toml`.
        suffix: what the files there end with.

    Raises:
        SimulatorError: there is no such file; the message lists the names that ship.
    """
    given = Path(name_or_path)
    if given.is_file():
        return given
    folder = data_directory() / kind
    shipped = sorted(path.stem for path in folder.glob(f"*{suffix}"))
    if given.name == name_or_path and given.name.removesuffix(suffix) in shipped:
        return folder / f"{given.name.removesuffix(suffix)}{suffix}"
    raise SimulatorError(f"{name_or_path}: no such file, and none of the {kind} that ship: {', '.join(shipped)}")
