"""Docker's own command line, driven against one daemon, and what of its output is the same on any."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    status: int
    stdout: str
    stderr: str = ""


@dataclass(frozen=True)
class Step:
    """A command to run: `docker` and `words`.

    `types` is given on standard input, or typed at a terminal if `rows` is set: a list of what to wait for and what to
    type then. `compare` says what of the outcome must be the same on both daemons: `all`, `status`, `lines` (in any
    order), or `nothing`.
    """

    words: tuple[str, ...]
    given: bytes | None = None
    typed: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    compare: str = "all"
    directory: Path | None = None


@dataclass
class CommandLine:
    """The docker command for the daemon at `host`. `home` keeps its configuration away from the user's own."""

    host: str
    home: Path
    program: str = "docker"
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Skip the test where there is no such program."""
        if shutil.which(self.program) is None:
            pytest.skip(f"there is no {self.program} on this machine: make peers")

    def __call__(
        self, *words: str, given: bytes | None = None, seconds: float = 60, directory: Path | None = None
    ) -> Outcome:
        done = subprocess.run(
            [self.program, *self.arguments, *words],
            input=given or b"",
            capture_output=True,
            env=self.variables(),
            timeout=seconds,
            cwd=directory or self.home,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def variables(self) -> dict[str, str]:
        """The environment that it gets."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(self.home / ".docker"),
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CLI_HINTS": "false",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            **self.environment,
        }

    def run(self, one: Step) -> Outcome:
        """One step."""
        if one.rows:
            return self.at_terminal(*one.words, typed=one.typed, rows=one.rows)
        return self(*one.words, given=one.given, directory=one.directory)

    def at_terminal(
        self,
        *words: str,
        typed: Sequence[tuple[str, str]] = (),
        rows: int = 33,
        columns: int = 101,
        seconds: float = 30,
    ) -> Outcome:
        """The same at a terminal of that size: each of `typed` is what to wait for, and what to type then."""
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(self.home)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(self.program, [self.program, *self.arguments, *words], self.variables())
        shown = bytearray()
        deadline = time.monotonic() + seconds
        waiting = list(typed)
        seen = 0
        try:
            while time.monotonic() < deadline:
                ready, _, _ = select.select([master], [], [], 0.1)
                if ready:
                    try:
                        part = os.read(master, 65536)
                    except OSError:  # EIO: its end
                        break
                    if not part:
                        break
                    shown += part
                while waiting and waiting[0][0].encode() in shown[seen:]:
                    seen = shown.index(waiting[0][0].encode(), seen) + len(waiting[0][0])
                    os.write(master, waiting.pop(0)[1].encode())
            else:
                os.kill(pid, 9)
        finally:
            _, status = os.waitpid(pid, 0)
            os.close(master)
        return Outcome(os.waitstatus_to_exitcode(status), shown.decode(errors="replace"))


_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_VARIABLE = (
    (re.compile(r"sha256:[0-9a-f]{12,64}"), "sha256:DIGEST"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{12}\b"), "SHORT"),
    (re.compile(r"\b\d{12}\b"), "SHORT"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|UTC|[+-]\d{4}( UTC)?|[+-]\d\d:\d\d))?"), "TIME"),
    (re.compile(r"(Less than a second|About a minute|About an hour|\d+ (seconds?|minutes?|hours?|days?)) ago"), "AGO"),
    (re.compile(r"Up (Less than a second|About a minute|\d+ seconds?)"), "Up SPAN"),
    (re.compile(r"\b172\.\d+\.\d+\.\d+\b"), "ADDRESS"),
    (re.compile(r"\b02:42(:[0-9a-f]{2}){4}\b"), "MAC"),
    (re.compile(r"file:[0-9a-f]{8,64}"), "file:SUM"),
)


def normalised(text: str) -> str:
    """The text without what differs from run to run: ids, times, addresses, and the width of columns that hold them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    # A column is as wide as its widest value, so runs of blanks mean no more than one.
    return re.sub(r"[ \t]+", " ", "\n".join(line.rstrip() for line in text.splitlines())).strip()
