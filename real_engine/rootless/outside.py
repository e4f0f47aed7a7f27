"""What the keeper does for the daemon in the machine's own network namespace, and how the daemon asks for it.

A request is a message (`real_engine.supervisor.protocol`) that brings a socket for the answer. So requests of many
threads need no numbers, one that takes long holds up no other, and who has given up just closes its end. The answer
brings the socket that was opened. Connections are made by a fork of the keeper each: looking up a name may take long.
"""

import os
import socket
import threading
from typing import Any

from real_engine.errors import Unavailable
from real_engine.linux import outside
from real_engine.supervisor.protocol import Message, ProtocolError, Receiver, encode, send_with_descriptors

_ANSWER_SECONDS = 30.0
_GONE = (
    "the keeper of this rootless engine has gone: no port can be opened and nothing be pulled; start the engine again"
)


class KeeperConnection:
    """The daemon's end of its connection to the keeper; an `outside.Opener`. Thread-safe."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def listen(self, protocol: str, address: str, port: int) -> socket.socket:
        """As `outside.listen`, in the machine's network.

        Raises:
            Unavailable: the keeper has gone.
        """
        return self._ask({"call": "listen", "protocol": protocol, "address": address, "port": port}, _ANSWER_SECONDS)

    def connect(self, host: str, port: int, timeout_seconds: float | None) -> socket.socket:
        """As `outside.connect`, from the machine's network.

        Raises:
            Unavailable: the keeper has gone.
        """
        message = {"call": "connect", "host": host, "port": port, "timeout": timeout_seconds}
        opened = self._ask(message, None)
        opened.settimeout(timeout_seconds)
        return opened

    def close(self) -> None:
        """End the connection: the keeper knows then that this daemon needs nothing more."""
        self._connection.close()

    def _ask(self, message: Message, seconds: float | None) -> socket.socket:
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs, self._lock:
                    # Its length is far below what a UNIX socket takes at once.
                    send_with_descriptors(self._connection, encode({**message, "descriptors": 1}), (theirs.fileno(),))
                ours.settimeout(seconds)
                receiver = Receiver()
                while not (answers := receiver.receive(ours)):
                    pass
            except (OSError, EOFError, ProtocolError) as error:
                raise Unavailable(_GONE) from error
        answer, descriptors = answers[0]
        if descriptors:
            opened = socket.socket(fileno=descriptors[0])
            opened.setblocking(False)
            return opened
        raise _error(answer)


def serve(message: Message, reply: socket.socket) -> None:
    """Open what a request asks for, and answer it.

    Raises:
        OSError: who asked has gone.
    """
    try:
        if message["call"] == "listen":
            opened = outside.open_port(str(message["protocol"]), str(message["address"]), int(message["port"]))
        else:
            opened = outside.open_connection(str(message["host"]), int(message["port"]), message["timeout"])
    except socket.gaierror as error:
        reply.sendall(encode({"lookup": error.errno, "text": error.strerror}))
    except TimeoutError as error:
        reply.sendall(encode({"timeout": True, "address": error.filename}))
    except OSError as error:
        reply.sendall(encode({"errno": error.errno, "address": error.filename}))
    else:
        with opened:
            send_with_descriptors(reply, encode({"descriptors": 1}), (opened.fileno(),))


def _error(answer: dict[str, Any]) -> OSError:
    if "lookup" in answer:
        return socket.gaierror(answer["lookup"], answer["text"])
    if "timeout" in answer:
        failure: OSError = TimeoutError("timed out")
        failure.filename = answer["address"]
        return failure
    number = int(answer["errno"] or 0)
    return OSError(number, os.strerror(number), answer["address"])
