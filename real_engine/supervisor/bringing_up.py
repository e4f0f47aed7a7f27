"""The daemon finds the supervisor of its data root, or starts it."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import real_engine
from real_engine.errors import EngineError, Unavailable
from real_engine.linux.interpreter import read_only_interpreter
from real_engine.supervisor.protocol import LOG, SOCKET, VERSION, ProtocolError, bind_path, encode, receive_first

START_SECONDS = 15.0  # for a supervisor to come up
_LARGEST_LOG = 1 << 20  # bytes of the supervisor's own log, after which it is begun anew


def connect(data_root: Path) -> tuple[socket.socket, int] | None:
    """A connection on which greetings have been exchanged, and the supervisor's pid; None if none listens.

    Raises:
        Unavailable: it speaks another version, or it is none.
    """
    try:
        directory = os.open(data_root / "run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(START_SECONDS)
        connection.connect(bind_path(directory, SOCKET))
        connection.sendall(encode({"hello": VERSION, "pid": os.getpid()}))
        greeting = receive_first(connection)
        if "error" in greeting:
            raise Unavailable(str(greeting["error"]))
        connection.settimeout(None)
        return connection, int(greeting["pid"])
    except (ProtocolError, KeyError, TimeoutError) as error:
        connection.close()
        raise Unavailable(f"what listens at {data_root}/run/{SOCKET} is no supervisor: {error}") from error
    except (FileNotFoundError, ConnectionError, EOFError):
        connection.close()  # none listens, or it is just ending
        return None
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)


def start(data_root: Path) -> bool:
    """Start a supervisor, and wait until it listens; False if another one has the data root.

    Raises:
        EngineError: it says why it can't be.
    """
    (data_root / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
    log = data_root / "run" / LOG
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LARGEST_LOG:
            log.unlink()
    receive, send = os.pipe2(os.O_CLOEXEC)
    program, inherited = _interpreter()
    try:
        stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # `-S`, and nothing of our environment: what it needs is the standard library and this package, and what
            # other packages hang into every interpreter's start would stay in its memory.
            first = subprocess.Popen(
                [sys.executable, "-S", "-m", "real_engine.supervisor", str(data_root), str(send)],
                executable=program,
                cwd=Path(real_engine.__file__).parents[1],
                env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONUTF8": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=(send, *inherited),
                start_new_session=True,
            )
        finally:
            os.close(stderr)
        os.close(send)
        send = -1
        first.wait()
        answer = _read_line(receive)
    finally:
        for descriptor in (receive, *inherited, *([send] if send >= 0 else [])):
            os.close(descriptor)
    kind, _, text = answer.partition(" ")
    if kind in ("ready", "busy"):
        return kind == "ready"
    raise EngineError(f"cannot start the supervisor: {text or 'it ended; see ' + str(log)}")


def _interpreter() -> tuple[str, tuple[int, ...]]:
    """The program for a supervisor, and descriptors that it needs to be found.

    It is this Python, on a read-only mount where we may make one: containers can see the supervisor's executable.
    """
    try:
        descriptor = read_only_interpreter()
    except OSError:  # no right to, or an old kernel: the check before execve has to do
        return sys.executable, ()
    return f"/proc/self/fd/{descriptor}", (descriptor,)


def _read_line(descriptor: int) -> str:
    data = b""
    while not data.endswith(b"\n") and (part := os.read(descriptor, 4096)):
        data += part
    return data.decode("utf-8", "replace").strip()
