"""The event loop: descriptors that are ready, times that have come, and long work in small pieces between them."""

import heapq
import select
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR  # told whether or not it was asked for


class Timer:
    """A call that will be made, unless it is cancelled."""

    __slots__ = ("call", "due_seconds")

    def __init__(self, due_seconds: float, call: Callable[[], None]) -> None:
        self.due_seconds = due_seconds
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: "Timer") -> bool:
        return self.due_seconds < other.due_seconds

    def cancel(self) -> None:
        """Don't make it. Doing so twice, or afterwards, does no harm."""
        self.call = None


class Loop:
    """Waits for descriptors with epoll(7), level-triggered, and calls what was registered for each."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._jobs: deque[Iterator[None]] = deque()
        self._forgotten: set[int] = set()
        self._running = False

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with what happened whenever one of `events` has; `GONE` is told always."""
        self._epoll.register(descriptor, events)
        self._callbacks[descriptor] = callback

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a descriptor that is watched."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no more; to be done before it is closed. None that isn't watched does harm."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
            self._forgotten.add(descriptor)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Make a call after so many seconds."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def work(self, job: Iterator[None]) -> None:
        """Do a long job piece by piece: one whenever nothing else is to be done, and one in each turn at least."""
        self._jobs.append(job)

    def run(self) -> None:
        """Go on until `stop`.

        A callback that raises is a bug. It must not end every container: it is written to standard error, and its
        descriptor is watched no more, lest it happen again at once.
        """
        self._running = True
        while self._running:
            ready = self._epoll.poll(self._patience())
            self._forgotten.clear()
            for descriptor, events in ready:
                # An earlier callback may have closed it, and its number may be that of another by now.
                callback = self._callbacks.get(descriptor)
                if callback is not None and descriptor not in self._forgotten and not _done(callback, events):
                    self.forget(descriptor)
            self._call_what_is_due()
            self._do_a_piece()

    def stop(self) -> None:
        """End `run` after the present turn."""
        self._running = False

    def close(self) -> None:
        """Give the epoll descriptor back."""
        self._epoll.close()

    def _patience(self) -> float:
        """For how many seconds nothing has to be done; -1 is for ever."""
        if self._jobs:
            return 0
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].due_seconds - time.monotonic()) if self._timers else -1

    def _call_what_is_due(self) -> None:
        while self._timers and self._timers[0].due_seconds <= time.monotonic():
            call = heapq.heappop(self._timers).call
            if call is not None:
                _done(call)

    def _do_a_piece(self) -> None:
        if self._jobs:
            job = self._jobs.popleft()
            _done(self._advance, job)

    def _advance(self, job: Iterator[None]) -> None:
        for _ in job:
            self._jobs.append(job)
            break


def _done(call: Callable[..., None], *arguments: object) -> bool:
    """Make a call; returns whether it came back without an exception."""
    try:
        call(*arguments)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return False
    return True
