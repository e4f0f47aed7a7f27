"""One thread that waits for many sockets, for the resolver and the userland proxy, and does what others ask it to."""

import contextlib
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger("onggi")

_Result = TypeVar("_Result")
_AGAIN_SECONDS = 1.0  # until the next round, when the one that was to say so has failed

Ready = Callable[[int], None]
"""Is told which of the events have happened (`selectors.EVENT_READ`, `EVENT_WRITE`)."""


class EventThread:
    """Calls what is registered for a socket when that is ready; starts with the first task, and ends with `close`.

    `turn` is called after each round, and says how many seconds the next one may wait. All calls are made by the thread
    itself, so that what only they use needs no locks. `run` and `close` may be called by others, `watch` only by it.
    """

    def __init__(self, name: str, turn: Callable[[], float]) -> None:
        self._name = name
        self._turn = turn
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._tasks: deque[Callable[[], None]] = deque()
        self._closing = False

    def run(self, task: Callable[[], None]) -> bool:
        """Have the thread do something; False if it does nothing more."""
        with self._lock:
            if self._closing:
                return False
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()
            os.eventfd_write(self._wake, 1)
        return True

    def watch(self, watched: socket.socket, events: int, ready: Ready | None = None) -> None:
        """Call `ready` when one of `events` happens; 0: no more, which is to be said before a socket is closed."""
        if watched.fileno() < 0:
            return
        known = watched.fileno() in self._selector.get_map()
        if events and known:
            self._selector.modify(watched, events, ready)
        elif events:
            self._selector.register(watched, events, ready)
        elif known:
            self._selector.unregister(watched)

    def close(self, finish: Callable[[], None]) -> None:
        """End the thread, then call `finish`, which may still forget sockets."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            thread = self._thread
            os.eventfd_write(self._wake, 1)
        if thread is not None:
            thread.join()
        finish()
        self._selector.close()
        os.close(self._wake)

    def _loop(self) -> None:
        seconds = 0.0
        while not self._closing:
            for key, mask in self._selector.select(timeout=seconds):
                if key.fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                    while self._tasks:
                        self._call(self._tasks.popleft())
                elif self._selector.get_map().get(key.fd) == key:  # still watched: those before it may have ended it
                    self._call(key.data, mask)
            seconds = self._call(self._turn) or _AGAIN_SECONDS
        while self._tasks:  # somebody may be waiting for them to be done
            self._call(self._tasks.popleft())

    def _call(self, call: Callable[..., _Result], *arguments: int) -> _Result | None:
        """What fails here is a bug, which one container's bytes must not turn into the end of everybody's service."""
        try:
            return call(*arguments)
        except Exception:
            _log.exception("the %s failed at a socket", self._name)
            return None
