"""Which users and groups exist in the user namespace: subordinate ids where there are some, else the user alone.

An ordinary user may only map itself into a namespace of its own. newuidmap(1) and newgidmap(1), which are set-user-id
root, map more: what /etc/subuid and /etc/subgid grant (subuid(5): `NAME or UID:FIRST:COUNT` in a line).
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from real_engine.errors import EngineError

_SECONDS = 20.0
_LARGEST_ID = 0xFFFF_FFFE  # uid_t has 32 bits, and -1 means none


@dataclass(frozen=True, slots=True)
class Extent:
    """Ids from `inside` on stand for those from `outside` on, `count` of them (user_namespaces(7))."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.count}"


@dataclass(frozen=True, slots=True)
class Identities:
    """The users and groups of a user namespace. `single` says that there is one of each; `reason` why."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]
    reason: str = ""

    @property
    def single(self) -> bool:
        """Whether the user itself, as root inside, is all there is."""
        return bool(self.reason)

    @property
    def last_gid(self) -> int:
        """The last group that exists inside; all from 0 on do."""
        return sum(extent.count for extent in self.gids) - 1


def identities(uid: int, gid: int, etc: Path = Path("/etc")) -> Identities:
    """Those that the user `uid` with the group `gid` can have here."""
    alone = (Extent(0, uid, 1),), (Extent(0, gid, 1),)
    missing = [name for name in ("newuidmap", "newgidmap") if shutil.which(name) is None]
    if missing:
        return Identities(*alone, f"no program {' and '.join(missing)} (package uidmap)")
    name = _name(uid)
    found = []
    for file, own in (("subuid", uid), ("subgid", gid)):
        try:
            text = (etc / file).read_text(errors="replace")
        except OSError as error:
            return Identities(*alone, f"{etc / file}: {error.strerror}")
        extents = mapping(own, subordinate_ranges(text, name, uid))
        if len(extents) == 1:
            return Identities(*alone, f"{etc / file} grants no ids to {name or uid}")
        found.append(extents)
    return Identities(found[0], found[1])


def subordinate_ranges(text: str, name: str, uid: int) -> list[range]:
    """What lines of subuid(5) or subgid(5) grant to a user, by name or number; lines that are none are passed over."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in {name, str(uid)} - {""}:
            continue
        first, count = fields[1], fields[2]
        if first.isascii() and first.isdigit() and count.isascii() and count.isdigit():
            granted = range(int(first), min(int(first) + int(count), _LARGEST_ID + 1))
            if granted:
                found.append(granted)
    return found


def mapping(own: int, granted: Iterable[range]) -> tuple[Extent, ...]:
    """Root stands for `own`, and the ids from 1 on for those that are granted, without a gap."""
    extents = [Extent(0, own, 1)]
    for ids in granted:
        last = extents[-1]
        taken = any(max(ids.start, each.outside) < min(ids.stop, each.outside + each.count) for each in extents)
        if not taken:  # the kernel takes no map that names an id twice
            extents.append(Extent(last.inside + last.count, ids.start, len(ids)))
    return tuple(extents)


def write_maps(pid: int, ids: Identities) -> None:
    """Give the user namespace of process `pid`, a child of ours, its ids. This can be done once.

    Raises:
        EngineError: newuidmap or newgidmap refuses.
        OSError: the kernel does.
    """
    if ids.single:
        # Groups can't be dropped then, lest a refusal by group be evaded (user_namespaces(7)).
        for name, text in (("setgroups", "deny"), ("uid_map", str(ids.uids[0])), ("gid_map", str(ids.gids[0]))):
            descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        return
    for program, extents in (("newuidmap", ids.uids), ("newgidmap", ids.gids)):
        words = [word for extent in extents for word in str(extent).split()]
        try:
            done = subprocess.run(
                [program, str(pid), *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{program}: {error}") from error
        if done.returncode:
            raise EngineError(done.stderr.strip() or f"{program} ended with status {done.returncode}")


def _name(uid: int) -> str:
    import pwd

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return ""
