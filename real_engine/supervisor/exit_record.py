"""How a container ended, kept in its directory for a daemon that was away."""

import json
import os
from pathlib import Path
from typing import Any

from real_engine.supervisor.events import Exited

EXIT_FILE = "exit.json"


def write_exit(directory: Path, end: Exited, *, to_disk: bool) -> None:
    """Write how the container ended to its directory: a reader sees the whole record or none.

    `to_disk` waits until the disk has it. That is for when no daemon listens, so that this file alone knows; the daemon
    keeps records of its own, and one thread that waits for a disk holds up all containers.

    Raises:
        OSError: no room, or no directory.
    """
    partial = directory / f".{EXIT_FILE}"
    data = json.dumps({name: value for name, value in end.to_json().items() if name != "event"}).encode()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        if to_disk:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(partial, directory / EXIT_FILE)
    if to_disk:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_exit(directory: Path) -> Exited | None:
    """How the container of this directory ended the last time that it did; None if that isn't known.

    `Exited.started_at` tells of which run it is.
    """
    try:
        values: dict[str, Any] = json.loads((directory / EXIT_FILE).read_bytes())
        return Exited(**values)
    except (OSError, ValueError, TypeError):
        return None


def remove_exit(directory: Path) -> None:
    """Forget how an earlier run ended."""
    (directory / EXIT_FILE).unlink(missing_ok=True)
