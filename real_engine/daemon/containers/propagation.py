"""Whether mounts of the host's can be passed on by a bind: its source has to be on a mount that is itself shared.

Without it `rshared` would be granted and do nothing (moby, daemon/oci_linux.go: ensureShared, ensureSharedOrSlave).
"""

import os
import re
from collections.abc import Sequence

from real_engine.errors import EngineError
from real_engine.volumes.mounts import MountPoint


def check_propagation(points: Sequence[MountPoint], mountinfo: str = "/proc/self/mountinfo") -> None:
    """Look at the mounts that sources are on.

    Raises:
        EngineError: one that passes nothing on, in Docker's words.
    """
    wanted = [point for point in points if point.type == "bind" and point.propagation.endswith(("shared", "slave"))]
    if not wanted:
        return
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    for point in wanted:
        place, tags = _mount_of(os.path.realpath(point.source), lines)
        shared = any(tag.startswith("shared:") for tag in tags)
        if point.propagation.endswith("shared") and not shared:
            raise EngineError(f"path {point.source} is mounted on {place} but it is not a shared mount")
        if not shared and not any(tag.startswith("master:") for tag in tags):
            raise EngineError(f"path {point.source} is mounted on {place} but it is not a shared or slave mount")


def _mount_of(path: str, lines: list[str]) -> tuple[str, list[str]]:
    """Where the mount is that `path` is on, and the optional fields of that: proc_pid_mountinfo(5)."""
    found: tuple[str, list[str]] = ("/", [])
    for line in lines:
        fields = line.partition(" - ")[0].split(" ")
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        # Of several at one place the last is on top.
        if f"{path}/".startswith(f"{place.rstrip('/')}/") and len(place) >= len(found[0]):
            found = place, fields[6:]
    return found
