"""Files that a command leaves: there whole or not at all, and on every operating system."""

import os
import tempfile
from pathlib import Path

from simulator.errors import SimulatorError


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` in UTF-8: a reader sees the old file or the new one, never a part.

    Raises:
        SimulatorError: it cannot be written there; what was there stays.
    """
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; name a file in a directory that can be written") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes a file that only its owner reads; what a command leaves is for all whom the umask allows.
        mask = os.umask(0)
        os.umask(mask)
        Path(partial).chmod(0o666 & ~mask)
        Path(partial).replace(path)
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}; name a file that can be written") from error
    finally:
        Path(partial).unlink(missing_ok=True)
