"""How daemon and supervisor speak: messages of JSON on a UNIX socket, each after its length, with descriptors beside.

A message is 4 bytes of big-endian length and as many bytes of JSON. One with `"descriptors": n` carries n of them
(SCM_RIGHTS), sent along with its first byte; so they have arrived when the message has.

The first message of each side is a greeting, `{"hello": VERSION, …}`. Then the daemon sends requests, `{"id": 7,
"call": "signal", …}`, and gets for each `{"id": 7, "result": …}` or `{"id": 7, "error": {"kind", "message", …}}`, in
the order in which they are done. Between the answers come events (`real_engine.supervisor.events`).
"""

import array
import contextlib
import json
import os
import socket
import struct
from typing import Any

VERSION = 1
SOCKET = "supervisor.sock"  # in the directory `run` of the data root, as are the next two
LOCK = "supervisor.lock"
LOG = "supervisor.log"

_LENGTH = struct.Struct("!I")
_LARGEST_MESSAGE = 16 << 20  # bytes
_LARGEST_GREETING = 65536  # bytes
_MOST_DESCRIPTORS = 253  # SCM_MAX_FD (include/net/scm.h)
_PIECE = 65536  # bytes
_BACKLOG = 16  # daemons that may wait at once to be taken

Message = dict[str, Any]


class ProtocolError(Exception):
    """The other side sent what is no message of this protocol; the connection is of no more use."""


def encode(message: Message) -> bytes:
    """The message as it is sent.

    Raises:
        ProtocolError: longer than 16 MiB.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > _LARGEST_MESSAGE:
        raise ProtocolError(f"a message of {len(body)} bytes is too long")
    return _LENGTH.pack(len(body)) + body


def send_with_descriptors(connection: socket.socket, data: bytes, descriptors: tuple[int, ...], flags: int = 0) -> int:
    """Send the beginning of `data`, and all descriptors; returns how many bytes went.

    Raises:
        OSError: as send(2).
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    return connection.sendmsg([data], rights, flags | socket.MSG_NOSIGNAL)


def receive_first(connection: socket.socket) -> Message:
    """Wait for the first message of a connection, the greeting, and read nothing that comes after it.

    Raises:
        EOFError: the other side has closed.
        ProtocolError: no message.
        OSError: as recv(2); TimeoutError where the connection has a time-out.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _LARGEST_GREETING:
        raise ProtocolError(f"a greeting of {length} bytes is too long")
    try:
        message = json.loads(_exactly(connection, length))
    except ValueError as error:
        raise ProtocolError(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError("a message must be an object")
    return message


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError("the connection was closed")
        data += piece
    return data


class Receiver:
    """Puts the messages of a connection together. Descriptors that nobody has taken are closed by `close`."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._descriptors: list[int] = []

    def receive(self, connection: socket.socket, flags: int = 0) -> list[tuple[Message, list[int]]]:
        """Read once, and return the messages that are whole by now, each with its descriptors (close-on-exec).

        Raises:
            EOFError: the other side has closed.
            BlockingIOError: there is nothing to read, where `flags` say not to wait.
            ProtocolError: no message, or descriptors without one.
            OSError: as recvmsg(2).
        """
        space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, status, _ = connection.recvmsg(_PIECE, space, flags | socket.MSG_CMSG_CLOEXEC)
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(rights[: len(rights) - len(rights) % received.itemsize])
                self._descriptors += received
        if status & socket.MSG_CTRUNC:
            raise ProtocolError("descriptors were lost: none is free, perhaps")
        if not data:
            raise EOFError("the connection was closed")
        self._bytes += data
        return self._take()

    def _take(self) -> list[tuple[Message, list[int]]]:
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > _LARGEST_MESSAGE:
                raise ProtocolError(f"a message of {length} bytes is too long")
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                break
            try:
                message = json.loads(self._bytes[_LENGTH.size : end])
            except ValueError as error:
                raise ProtocolError(f"no JSON: {error}") from error
            del self._bytes[:end]
            if not isinstance(message, dict):
                raise ProtocolError("a message must be an object")
            count = message.pop("descriptors", 0)
            if not isinstance(count, int) or not 0 <= count <= len(self._descriptors):
                raise ProtocolError("a message came without its descriptors")
            messages.append((message, self._descriptors[:count]))
            del self._descriptors[:count]
        return messages

    def close(self) -> None:
        """Close the descriptors that came and belong to no message."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def bind_path(directory: int, name: str) -> str:
    """A path to the socket `name` in an open directory that is short enough for any socket.

    (sun_path holds 108 bytes, and a data root may lie deeper.)
    """
    return f"/proc/self/fd/{directory}/{name}"


def listen(directory: int, name: str) -> socket.socket:
    """A socket `name` in an open directory, for its owner only (mode 0600), that doesn't block.

    One that is there already is replaced: the caller holds the lock, so whoever made it has gone.

    Raises:
        OSError: it can't be made there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        before = os.umask(0o177)  # so that it is nobody else's from its first moment
        try:
            listener.bind(bind_path(directory, name))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
