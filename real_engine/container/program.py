"""The last steps: the program's standard streams, its terminal, and the program itself."""

# ruff: noqa: D102 -- execute and describe are told once, in Operation

import contextlib
import ctypes
import errno
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from real_engine.container.places import AS_THE_CONTAINER_SEES, STRICTLY
from real_engine.container.spec import DEFAULT_PATH
from real_engine.container.steps import Operation, Site
from real_engine.linux import mounts, processes, terminals
from real_engine.linux.processes import openat2

REPORT = 3  # the one descriptor beside the standard three that lives until execve


@dataclass(slots=True)
class OpenTerminal(Operation):
    """Make a terminal in the container's own devpts, take its slave for all streams, and send the engine the master.

    `console` puts the slave at /dev/console too, which the container's first program may expect.
    """

    why: ClassVar[str] = "a terminal of the container's own, which no path of the host leads to; checked to be one"
    console: bool

    def execute(self, site: Site) -> None:
        if "/dev/pts" in site.trees:
            ptmx = openat2(site.trees["/dev/pts"], "ptmx", os.O_RDWR | os.O_NOCTTY, STRICTLY)
        else:
            ptmx = openat2(site.trees["/"], "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, AS_THE_CONTAINER_SEES)
        try:
            slave = terminals.open_slave(ptmx, site.terminal_size)
            if site.credentials.uid:
                with contextlib.suppress(OSError):  # a user namespace without such a user: a later step tells
                    os.fchown(slave, site.credentials.uid, -1)
            if self.console and "/dev" in site.trees and "/dev/pts" in site.trees:
                self._put_console(site, terminals.number_of(ptmx), slave)
            with socket.socket(fileno=os.dup(site.terminal_channel)) as channel:
                socket.send_fds(channel, [b"terminal"], [ptmx])
        finally:
            os.close(ptmx)
        site.stdio = (slave, slave, slave)

    def _put_console(self, site: Site, number: int, slave: int) -> None:
        tree = mounts.open_tree_clone(str(number), site.trees["/dev/pts"])
        if os.fstat(tree).st_rdev != os.fstat(slave).st_rdev:
            raise OSError(errno.ENODEV, "another device in the terminal's place", f"/dev/pts/{number}")
        place = os.open(
            "console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=site.trees["/dev"]
        )
        mounts.move_mount(tree, place)
        os.close(place)
        os.close(tree)

    def describe(self) -> str:
        console = ', move_mount("/dev/console")' if self.console else ""
        return f'open("/dev/pts/ptmx"), ioctl(TIOCSPTLCK, TIOCSWINSZ, TIOCGPTPEER){console}, sendmsg(SCM_RIGHTS)'


@dataclass(slots=True)
class ConnectStreams(Operation):
    """Connect standard input and outputs, and close every other descriptor."""

    why: ClassVar[str] = "no open directory of the host to step out by (CVE-2024-21626); pipes belong to the user"

    def execute(self, site: Site) -> None:
        # Moved out of the way of 0, 1, 2 first, for any of these may be one of those.
        sources = [os.dup(descriptor) for descriptor in site.stdio]
        report = os.dup(site.report)
        for number, descriptor in enumerate(sources):
            os.dup2(descriptor, number, inheritable=True)
        site.stdio = (0, 1, 2)
        site.report = os.dup2(report, REPORT, inheritable=False)
        processes.close_from(REPORT + 1)
        if site.credentials.uid:
            for number in site.stdio:
                # So that a program may open /dev/stdout, as with Docker. Files and terminals may be somebody's.
                if stat.S_ISFIFO(os.fstat(number).st_mode):
                    with contextlib.suppress(OSError):  # a user namespace doesn't know its owner, or the new one
                        os.fchown(number, site.credentials.uid, -1)

    def describe(self) -> str:
        return f"dup3(0, 1, 2, {REPORT}), close_range({REPORT + 1}, ~0)"


@dataclass(slots=True)
class NewSession(Operation):
    """Leave the engine's session, and begin one with the terminal of the container's own, if it has one."""

    why: ClassVar[str] = "no controlling terminal of the host's to push keystrokes into"
    terminal: bool = False

    def execute(self, site: Site) -> None:
        os.setsid()
        if self.terminal:
            terminals.make_controlling(0)

    def describe(self) -> str:
        return "setsid(), ioctl(0, TIOCSCTTY)" if self.terminal else "setsid()"


@dataclass(slots=True)
class Execute(Operation):
    """Become the container's program."""

    why: ClassVar[str] = "the program takes the place of the engine's copy; signals act as they do by default"
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    # Made ready in the engine: in the child each page of memory that is written to has to be copied first.
    _argv: "ctypes.Array[ctypes.c_char_p]" = field(init=False)
    _pairs: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._argv = processes.strings([os.fsencode(argument) for argument in self.argv])
        self._pairs = [os.fsencode(f"{name}={value}") for name, value in self.environment.items()]

    def execute(self, site: Site) -> None:
        os.umask(0o022)
        home = [] if "HOME" in self.environment else [os.fsencode(f"HOME={site.credentials.home}")]
        argv, pairs = self._argv, processes.strings([*home, *self._pairs])
        processes.set_default_actions()
        processes.unblock_signals()
        refused: OSError = FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", self.argv[0])
        for path in site.programs:
            try:
                raise processes.execve(os.fsencode(path), argv, pairs)
            except (FileNotFoundError, NotADirectoryError) as error:
                if "/" in self.argv[0]:
                    refused = error
            except PermissionError as error:
                refused = error  # as the shells do: go on looking, and tell of this if nothing else is found
        raise refused

    def describe(self) -> str:
        return f"execve({' '.join(self.argv)})"


def program_candidates(name: str, environment: Mapping[str, str]) -> list[str]:
    """The paths at which execvp(3) would look for the program `name`, in order."""
    if "/" in name:
        return [name]
    directories = environment.get("PATH", DEFAULT_PATH).split(":")
    return [os.path.join(directory or ".", name) for directory in directories]
