"""The namespaces of a rootless engine: made, or, where its supervisor runs already, found again.

They are held by descriptors, and by a process in them, the *anchor*, by whose number other programs (newuidmap, pasta,
slirp4netns) can find them.
"""

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from real_engine.errors import EngineError
from real_engine.linux import mounts
from real_engine.linux.interfaces import set_up
from real_engine.linux.libc import AT_FDCWD
from real_engine.linux.network_namespaces import write_setting
from real_engine.linux.processes import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    PR_SET_PDEATHSIG,
    clone3,
    prctl,
    unblock_signals,
)
from real_engine.rootless.identities import Extent, Identities, identities, write_maps

KINDS = {"user": CLONE_NEWUSER, "mnt": CLONE_NEWNS, "net": CLONE_NEWNET}
"""The namespaces by the names of their files in /proc/PID/ns, in the order in which they have to be entered."""

RESOLV_CONF = "resolv.conf"
"""In the data root's directory `run`: what stands at /etc/resolv.conf inside."""

_WAIT_SECONDS = 20.0
_REFUSED = (
    "no user namespace can be made by an ordinary user here ({reason}): see the sysctls user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns, or run the engine as root"
)


@dataclass(slots=True)
class Namespaces:
    """Open descriptors by the names of `KINDS`; the anchor's number and descriptor; and the ids that exist inside.

    `ours` says that the anchor is a child of ours, to be ended with them.
    """

    descriptors: dict[str, int]
    pid: int
    pidfd: int
    ids: Identities
    ours: bool

    def close(self) -> None:
        """Let them go; whoever else is in them keeps them."""
        for descriptor in (*self.descriptors.values(), self.pidfd):
            os.close(descriptor)
        self.descriptors.clear()
        if self.ours:
            os.kill(self.pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
            os.waitpid(self.pid, 0)


def create(run: Path) -> Namespaces:
    """New ones, with subordinate ids where they can be had. `run` is the data root's directory of that name.

    Raises:
        EngineError: this user may make none here, or something in them could not be set up.
    """
    ids = identities(os.geteuid(), os.getegid())
    try:
        return _create(run, ids)
    except _NoMaps as error:
        alone = Identities(ids.uids[:1], ids.gids[:1], str(error))
        return _create(run, alone)


def adopt(pid: int, pidfd: int) -> Namespaces:
    """Those of a supervisor that runs; `pidfd` becomes theirs.

    Raises:
        EngineError: it has no user namespace of its own.
        OSError: it has ended.
    """
    directory = Path(f"/proc/{pid}/ns")
    if os.readlink(directory / "user") == os.readlink("/proc/self/ns/user"):
        raise EngineError(f"the supervisor of this data root (process {pid}) was started otherwise, by root perhaps")
    found: dict[str, int] = {}
    try:
        for name in KINDS:
            found[name] = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
        counts = {
            kind: [tuple(map(int, line.split())) for line in Path(f"/proc/{pid}/{kind}_map").read_text().splitlines()]
            for kind in ("uid", "gid")
        }
        if select.select([pidfd], [], [], 0)[0]:
            raise ProcessLookupError("it has ended")  # and what we have opened may be another's
    except BaseException:
        for descriptor in found.values():
            os.close(descriptor)
        raise
    uids, gids = (tuple(Extent(*line) for line in counts[kind]) for kind in ("uid", "gid"))
    single = sum(extent.count for extent in uids) == 1
    reason = "its supervisor was started so: end its containers, and start it again" if single else ""
    return Namespaces(found, pid, pidfd, Identities(uids, gids, reason), ours=False)


class _NoMaps(Exception):
    """Subordinate ids could not be mapped."""


def _create(run: Path, ids: Identities) -> Namespaces:
    go, set_off = os.pipe2(os.O_CLOEXEC)
    reading, report = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid, pidfd = clone3(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
        except OSError as error:
            raise EngineError(_REFUSED.format(reason=error.strerror)) from error
        if pid == 0:
            _be_anchor(go, set_off, report, run, ids)
        found: dict[str, int] = {}
        try:
            try:
                write_maps(pid, ids)
            except EngineError as error:
                raise _NoMaps(str(error)) from error
            except OSError as error:
                raise EngineError(_REFUSED.format(reason=error.strerror)) from error
            os.write(set_off, b"!")
            os.close(report)
            report = -1
            if not select.select([reading], [], [], _WAIT_SECONDS)[0]:
                raise EngineError("the namespaces could not be set up: their process gives no answer")
            answer = os.read(reading, 4096).decode("utf-8", "replace")
            if answer != "ready":
                raise EngineError(f"the namespaces could not be set up: {answer or 'their process has ended'}")
            for name in KINDS:
                found[name] = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            Namespaces(found, pid, pidfd, ids, ours=True).close()
            raise
        return Namespaces(found, pid, pidfd, ids, ours=True)
    finally:
        for descriptor in (go, set_off, reading, *([report] if report >= 0 else [])):
            os.close(descriptor)


def _be_anchor(go: int, set_off: int, report: int, run: Path, ids: Identities) -> NoReturn:
    """The first process in the namespaces: sets them up, and then is there until its parent ends it, or ends."""
    try:
        os.close(set_off)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        unblock_signals()
        if os.read(go, 1) != b"!":
            os._exit(0)  # our parent has ended, before the kernel was told to tell us
        try:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
            _set_up(run, ids)
            os.write(report, b"ready")
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            os.write(report, f"{where}{error.strerror}".encode())
            os._exit(1)
        os.close(report)
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _set_up(run: Path, ids: Identities) -> None:
    """In the new namespaces: what the daemon and its containers find there."""
    # What the machine mounts later shows inside; nothing of ours ever shows outside.
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_SLAVE)
    set_up("lo")
    # `ping` without rights, for all groups that exist here (icmp(7)): a rootless container may have no more.
    with contextlib.suppress(OSError):  # a kernel without that
        write_setting("net/ipv4/ping_group_range", f"0 {ids.last_gid}")
    place = os.path.realpath("/etc/resolv.conf")
    if os.path.exists(place):
        tree = mounts.open_tree_clone(str(run / RESOLV_CONF), AT_FDCWD)
        target = os.open(place, os.O_PATH | os.O_CLOEXEC)
        mounts.move_mount(tree, target)
        os.close(tree)
        os.close(target)
