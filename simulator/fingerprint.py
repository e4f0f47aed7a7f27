"""What makes two simulations the same: their input, and the version of the model that runs it."""

import hashlib
import json
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_LENGTH = 16  # hexadecimal digits: 64 bits, so a thousand million fingerprints have no two alike by chance


def fingerprint(*parts: Any) -> str:
    """A short name of `parts` that is the same on every machine, and another where any part differs.

    Args:
        parts: records, and whatever JSON can hold.
    """
    text = json.dumps(parts, sort_keys=True, default=_plain, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def run_id(scenario: BaseModel, profile: BaseModel, seed: int, replication: int) -> str:
    """The name of one replication of a scenario on a platform: the same whenever and wherever it runs.

    Args:
        scenario: what is asked.
        profile: the platform.
        seed: root of all random numbers.
        replication: which independent repetition.
    """
    return fingerprint(scenario, profile, seed, replication)


@lru_cache(maxsize=1)
def model_version() -> str:
    """Which model this is: two processes give the same results for the same input if this is the same in both.

    The version of the package alone would not do: in a checkout the sources change and it stays. NumPy is named because
    its random generators may draw differently in another version (NEP 19).
    """
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    try:
        onggi = version("onggi")
    except PackageNotFoundError:  # sources that were put on the path without being installed
        onggi = "unknown"
    return f"onggi {onggi} (sources {digest.hexdigest()[:8]}), numpy {version('numpy')}"


def _plain(part: object) -> Any:
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json")
    raise TypeError(f"a {type(part).__name__} has no fingerprint")
