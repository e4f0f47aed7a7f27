"""This terminal, or these pipes, connected to a process in a container: `exec` and `run`.

With a terminal in the container its output is raw, and ours is put into raw mode; without, output comes in frames of
an 8-byte header (stream, 3 zero bytes, length) and the payload (Docker Engine API, "Attach to a container").
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from real_engine.compose.host import Host
from real_engine.compose.tls_stream import TlsStream, hijack
from real_engine.errors import EngineError

_CHUNK = 1 << 16
_HEADER = struct.Struct(">BxxxL")
_STDERR = 2


def execute(
    host: Host,
    container_id: str,
    argv: Sequence[str],
    *,
    terminal: bool,
    interactive: bool = True,
    user: str = "",
    workdir: str = "",
    environment: Sequence[str] = (),
    privileged: bool = False,
    detach: bool = False,
) -> int:
    """Run a command in a container that runs; returns its exit status.

    Raises:
        EngineError: what the daemon says.
    """
    with host.errors():
        identifier = host.client.exec_create(
            container_id,
            list(argv),
            stdin=interactive and not detach,
            tty=terminal,
            user=user,
            workdir=workdir or None,
            environment=list(environment) or None,
            privileged=privileged,
        )["Id"]
        if detach:
            host.client.exec_start(identifier, detach=True)
            return 0
        if _over_tls(host):
            body = json.dumps({"Detach": False, "Tty": terminal}).encode()
            connection = hijack(host.client, f"/exec/{identifier}/start", body)
        else:
            connection = host.client.exec_start(identifier, tty=terminal, socket=True)
    with _raw_socket(connection) as raw, contextlib.ExitStack() as stack:
        if terminal:
            stack.enter_context(_raw_mode())
            stack.enter_context(_following_size(lambda rows, columns: _resize_exec(host, identifier, rows, columns)))
        pump(raw, framed=not terminal, interactive=interactive)
    with host.errors():
        return int(host.client.exec_inspect(identifier)["ExitCode"] or 0)


def attach_and_start(host: Host, container_id: str, *, terminal: bool, interactive: bool) -> int:
    """Connect to a container, start it, and wait for its end; returns its exit status.

    Raises:
        EngineError: what the daemon says.
    """
    with host.errors():
        parameters = {"stdin": int(interactive), "stdout": 1, "stderr": 1, "stream": 1, "logs": 0}
        if _over_tls(host):
            connection = hijack(host.client, f"/containers/{container_id}/attach", parameters=parameters)
        else:
            connection = host.client.attach_socket(container_id, params=parameters)
    with _raw_socket(connection) as raw, contextlib.ExitStack() as stack:
        host.start(container_id)
        if terminal:
            stack.enter_context(_raw_mode())
            stack.enter_context(_following_size(lambda rows, columns: _resize(host, container_id, rows, columns)))
        pump(raw, framed=not terminal, interactive=interactive)
    with host.errors():
        return int(host.client.wait(container_id, timeout=None)["StatusCode"])


def _over_tls(host: Host) -> bool:
    return str(host.client.base_url).startswith("https://")


def pump(connection: socket.socket | TlsStream, *, framed: bool, interactive: bool) -> None:
    """Pass our input to the connection and what comes from it to our outputs, until it ends."""
    if interactive:
        threading.Thread(target=_send_input, args=(connection,), daemon=True).start()
    else:
        with contextlib.suppress(OSError):  # it has ended already
            connection.shutdown(socket.SHUT_WR)
    for stream, data in frames(connection) if framed else _raw(connection):
        target = sys.stderr.buffer if stream == _STDERR else sys.stdout.buffer
        target.write(data)
        target.flush()


def frames(connection: socket.socket | TlsStream) -> Iterator[tuple[int, bytes]]:
    """The (stream, payload) of each frame."""
    while True:
        header = _exactly(connection, _HEADER.size)
        if len(header) < _HEADER.size:
            return
        stream, length = _HEADER.unpack(header)
        while length:
            data = connection.recv(min(length, _CHUNK))
            if not data:
                return
            length -= len(data)
            yield stream, data


def _raw(connection: socket.socket | TlsStream) -> Iterator[tuple[int, bytes]]:
    while data := connection.recv(_CHUNK):
        yield 1, data


def _exactly(connection: socket.socket | TlsStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def _send_input(connection: socket.socket | TlsStream) -> None:
    descriptor = sys.stdin.fileno()
    try:
        while True:
            select.select([descriptor], [], [])
            data = os.read(descriptor, _CHUNK)
            if not data:
                break
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:  # the other side has ended: whoever reads notices too
        return


@contextlib.contextmanager
def _raw_socket(connection: Any) -> Iterator[socket.socket | TlsStream]:
    """The SDK hands out a file around the socket, or the socket."""
    raw = getattr(connection, "_sock", connection)
    raw.settimeout(None)
    try:
        yield raw
    finally:
        raw.close()
        # The response holds the connection; the SDK keeps it here so that it isn't collected before.
        response = getattr(connection, "_response", None)
        if response is not None:
            response.close()


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    """Our terminal passes every key on, until the end; nothing to do for a pipe."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _following_size(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Keep the terminal in the container as large as ours."""

    def follow(*_: object) -> None:
        columns, rows = shutil.get_terminal_size()
        resize(rows, columns)

    if not sys.stdout.isatty():
        yield
        return
    before = signal.signal(signal.SIGWINCH, follow)
    try:
        follow()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _resize(host: Host, container_id: str, rows: int, columns: int) -> None:
    with contextlib.suppress(EngineError), host.errors():  # it has ended in this moment
        host.client.resize(container_id, rows, columns)


def _resize_exec(host: Host, identifier: str, rows: int, columns: int) -> None:
    with contextlib.suppress(EngineError), host.errors():  # it has ended in this moment
        host.client.exec_resize(identifier, rows, columns)
