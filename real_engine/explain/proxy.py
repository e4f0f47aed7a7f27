"""A socket between a client and a daemon: all that passes is decoded, and nothing of it is changed but a header added.

Each connection has a thread for each direction, so that one can end before the other, as `docker attach` needs it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError
from real_engine.explain.dialogue import Dialogue

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK_BYTES = 256 << 10
_JOIN_SECONDS = 2.0


class Proxy:
    """Listens at `path`, which it makes for its owner alone, and connects to the daemon by `connect`.

    `tell` gets the records of `session`, from several threads, one at a time; `now` is the seconds since its beginning.
    `extra` is a header line that each request gets.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], socket.socket],
        tell: Callable[[dict[str, Any]], None],
        now: Callable[[], float],
        extra: str = "",
    ) -> None:
        self._connect = connect
        self._tell = tell
        self._now = now
        self._extra = extra
        self._exchanges = itertools.count(1)
        self._connections = itertools.count(1)
        self._lock = threading.Lock()  # around all decoding: records come in the order of what has passed
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            self._socket.close()
            raise EngineError(f"cannot listen at {path}: {error.strerror}") from error
        finally:
            os.umask(mask)
        self._socket.listen(64)
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections, let those that there are end for a moment, and end them."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in list(self._threads):
            thread.join(_JOIN_SECONDS / 4)
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(_JOIN_SECONDS)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return  # closed
            thread = threading.Thread(target=self._serve, args=(client,), name="proxy-client", daemon=True)
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                daemon = self._connect()
            except (OSError, EngineError):
                return  # the client sees its connection end, as if the daemon had ended it
            with daemon:
                with self._lock:
                    self._open |= {client, daemon}
                dialogue = Dialogue(
                    next(self._connections), lambda: next(self._exchanges), self._tell, self._now, self._extra
                )
                back = threading.Thread(target=self._answers, args=(daemon, client, dialogue), daemon=True)
                back.start()
                self._requests(client, daemon, dialogue)
                back.join()
                with self._lock:
                    dialogue.ended()
                    self._open -= {client, daemon}

    def _requests(self, client: socket.socket, daemon: socket.socket, dialogue: Dialogue) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_BLOCK_BYTES):
                with self._lock:
                    passed = dialogue.client(data)
                daemon.sendall(passed)
            held = dialogue.client_ended()
            if held:
                daemon.sendall(held)
        with contextlib.suppress(OSError):
            daemon.shutdown(socket.SHUT_WR)

    def _answers(self, daemon: socket.socket, client: socket.socket, dialogue: Dialogue) -> None:
        with contextlib.suppress(OSError):
            while data := daemon.recv(_BLOCK_BYTES):
                with self._lock:
                    dialogue.server(data)
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RD)  # the daemon has gone: nothing that the client sends is of use
