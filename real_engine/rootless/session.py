"""What `onggi engine serve` does for an ordinary user: it moves into the namespaces of its data root, and begins anew.

The process stays the same, so signals and exit status are the daemon's own, whoever watches over it. It executes itself
once more inside, since what it has loaded and noted as an ordinary user may not hold there; `resume` is how the second
one knows.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import real_engine
from real_engine.errors import EngineError, Unavailable
from real_engine.linux import outside
from real_engine.linux.processes import setns
from real_engine.rootless.keeper import LOG, SOCKET
from real_engine.rootless.namespaces import KINDS
from real_engine.rootless.outside import KeeperConnection
from real_engine.supervisor.protocol import ProtocolError, Receiver, bind_path, encode

VARIABLE = "ONGGI_ROOTLESS"
"""The environment variable by which a process hands its session to the one that it becomes."""

_START_SECONDS = 40.0
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Session:
    """A rootless engine's terms: how its namespaces came about, and what was chosen before it entered them.

    `uid` and `gid` are the user's outside. `single` says that there is one user inside, and `reason` why; `uplink` is
    pasta, slirp4netns or none, and `uplink_reason` why there is none. `descriptor` is the connection to the keeper.
    """

    uid: int
    gid: int
    single: bool
    reason: str
    uplink: str
    uplink_reason: str
    data_root: str
    hosts: tuple[str, ...]
    descriptor: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What this engine lacks, in a sentence each."""
        found = []
        if self.single:
            found.append(
                f"WARNING: one user id only ({self.reason}): all files of images belong to root in their containers, "
                "and programs cannot change their user"
            )
        if self.uplink == "none":
            found.append(
                f"WARNING: no network outside for containers ({self.uplink_reason}): they reach each other, and "
                "published ports lead to them"
            )
        return tuple(found)

    def open_outside(self) -> KeeperConnection:
        """Have ports and connections of the machine opened by the keeper from now on."""
        connection = KeeperConnection(socket.socket(fileno=self.descriptor))
        outside.open_through(connection)
        return connection


def resume() -> Session | None:
    """The session that this process has been executed for; None if for none.

    Raises:
        EngineError: the environment holds something else.
    """
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        fields = json.loads(text)
        session = Session(**{**fields, "hosts": tuple(fields["hosts"])})
        os.set_inheritable(session.descriptor, False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise EngineError(f"{VARIABLE} is set, and not by this program: unset it") from error
    return session


def enter(data_root: Path, hosts: Sequence[str], uplink_choice: str, argv: Sequence[str]) -> NoReturn:
    """Move into the namespaces of `data_root`, and execute `argv` there as root. Needs a process with one thread.

    Raises:
        EngineError: this can't be here, with the reason.
    """
    uid, gid, directory = os.geteuid(), os.getegid(), os.getcwd()
    run = data_root / "run"
    try:
        data_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        run.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise EngineError(f"cannot keep the engine's data in {data_root}: {error.strerror}; name another") from error
    connection, answer, descriptors = _join_keeper(run, uplink_choice)
    session = Session(
        uid=uid,
        gid=gid,
        single=bool(answer["single"]),
        reason=str(answer["reason"]),
        uplink=str(answer["uplink"]),
        uplink_reason=str(answer["uplink_reason"]),
        data_root=str(data_root),
        hosts=tuple(hosts),
        descriptor=connection.fileno(),
    )
    try:
        for descriptor, kind in zip(descriptors, KINDS.values(), strict=True):
            setns(descriptor, kind)
        # Our own ids are those that root inside stands for; groups of ours beside go on opening what they open.
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.chdir(directory)
        os.set_inheritable(connection.fileno(), True)
        os.execve(sys.executable, list(argv), {**os.environ, VARIABLE: json.dumps(asdict(session))})  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise EngineError(f"cannot enter the namespaces of {data_root}: {error.strerror}") from error


def _join_keeper(run: Path, uplink_choice: str) -> tuple[socket.socket, dict[str, object], list[int]]:
    """A connection to the keeper, which is started if there is none; its answer; and the namespaces' descriptors."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        found = _ask_keeper(run)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise Unavailable(f"the keeper of {run.parent} does not come up; see {run}/{LOG}")
        if not _start_keeper(run, uplink_choice):
            time.sleep(_PAUSE_SECONDS)  # another one has the lock: it comes up, or goes down, just now


def _ask_keeper(run: Path) -> tuple[socket.socket, dict[str, object], list[int]] | None:
    directory = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_START_SECONDS)
        connection.connect(bind_path(directory, SOCKET))
        connection.sendall(encode({"call": "enter"}))
        receiver = Receiver()
        while not (messages := receiver.receive(connection)):
            pass
        connection.settimeout(None)
        return connection, *messages[0]
    except (FileNotFoundError, ConnectionError, EOFError):
        connection.close()  # none listens, or it is just ending
        return None
    except (OSError, ProtocolError) as error:
        connection.close()
        raise Unavailable(f"the keeper of {run.parent} cannot be understood: {error}") from error
    finally:
        os.close(directory)


def _start_keeper(run: Path, uplink_choice: str) -> bool:
    """Start a keeper, and wait until it listens; False if another one has the data root.

    Raises:
        EngineError: it says why it can't be.
    """
    receive, send = os.pipe2(os.O_CLOEXEC)
    try:
        log = os.open(run / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            first = subprocess.Popen(
                [sys.executable, "-S", "-m", "real_engine.rootless", str(run), str(send), uplink_choice],
                cwd=Path(real_engine.__file__).parents[1],
                env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONUTF8": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(send,),
                start_new_session=True,
            )
        finally:
            os.close(log)
        os.close(send)
        send = -1
        first.wait()
        answer = _read_line(receive)
    finally:
        for descriptor in (receive, *([send] if send >= 0 else [])):
            os.close(descriptor)
    kind, _, text = answer.partition(" ")
    if kind in ("ready", "busy"):
        return kind == "ready"
    raise EngineError(f"a rootless engine cannot start here: {text or f'its keeper ended; see {run}/{LOG}'}")


def _read_line(descriptor: int) -> str:
    data = b""
    while not data.endswith(b"\n") and select.select([descriptor], [], [], _START_SECONDS)[0]:
        part = os.read(descriptor, 4096)
        if not part:
            break
        data += part
    return data.decode("utf-8", "replace").strip()
