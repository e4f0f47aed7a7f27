"""A log that is written behind the program's back: `--log-opt mode=non-blocking`.

Usually what a program writes is logged before more is read of it: while its log can't be written as fast, its pipe
fills, and it has to wait. In this mode its lines are put into a buffer, from which a thread writes them, and the
program never waits for a disk. What comes while the buffer is full is dropped: the new line, and not one that waits, as
Docker's releases have it (moby, daemon/logger/ring.go).

Everything else in the supervisor is one thread. While this one lives, a start takes one fork more
(`real_engine.linux.processes`), so it lives only where it was asked for, and as long as its container. It does nothing
but write, rename and compress files, and holds no lock that a child of the fork would need.
"""

import os
import signal
import sys
import threading
import time
import traceback
import zlib  # noqa: F401 -- now, and not by the thread, which a fork must not find loading a library
from collections import deque
from collections.abc import Callable, Iterator

from real_engine.supervisor.log_options import LogOptions
from real_engine.supervisor.log_writer import LogWriter, Report
from real_engine.supervisor.loop import READABLE, Loop

_AT_ONCE_BYTES = 65536  # taken out of the buffer, and written, in one piece


class BufferedLogWriter(LogWriter):
    """A `LogWriter` whose entries wait in a buffer of `options.buffer_bytes` until a thread of its own writes them.

    An entry counts as long as it is in the file. One alone may be longer than the buffer. `failed`, `recovered` and the
    `done` of `close` are called by `loop`.

    Raises:
        EngineError: an option whose value can't be meant.
        OSError: the file can't be opened.
    """

    def __init__(
        self,
        options: LogOptions,
        *,
        failed: Report,
        recovered: Callable[[int], None],
        loop: Loop,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._most_bytes = options.buffer_bytes or 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._done: Callable[[], None] | None = None
        self.overflowed = 0
        super().__init__(
            options,
            failed=lambda reason: self._call(lambda: failed(reason)),
            recovered=lambda missing: self._call(lambda: recovered(missing)),
            work=_at_once,
            clock=clock,
        )
        self._loop = loop
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.watch(self._wake, READABLE, self._make_calls)
        # The supervisor ends when no container's log is open any more; should it fail, this must not keep it.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def close(self, done: Callable[[], None] | None = None) -> None:
        """Take no more; the thread writes what waits, closes the file and ends. Then the loop calls `done`."""
        for stream in self._lines:
            self.end(stream)
        with self._changed:
            self._closing, self._done = True, done
            self._changed.notify()

    def _append(self, entries: list[bytes]) -> None:
        with self._changed:
            for entry in entries:
                if self._waiting and self._waiting_bytes + len(entry) > self._most_bytes:
                    self.overflowed += 1
                    continue
                self._waiting.append(entry)
                self._waiting_bytes += len(entry)
            self._changed.notify()

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the loop
        try:
            while entries := self._taken():
                super()._append(entries)
        except Exception:  # a bug: the container must be able to end all the same
            traceback.print_exc(file=sys.stderr)
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            with self._changed:
                while not self._closing:
                    self._changed.wait()
            self._call(self._finish)

    def _taken(self) -> list[bytes]:
        """The entries that are to be written next; none when that was all."""
        taken: list[bytes] = []
        size = 0
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            while self._waiting and size < _AT_ONCE_BYTES:
                entry = self._waiting.popleft()
                taken.append(entry)
                size += len(entry)
            self._waiting_bytes -= size
        return taken

    def _call(self, call: Callable[[], None]) -> None:
        """Have the loop make a call."""
        self._calls.append(call)
        os.eventfd_write(self._wake, 1)

    # --- in the loop -------------------------------------------------------------------------------------------------

    def _make_calls(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while self._calls:
            self._calls.popleft()()

    def _finish(self) -> None:
        self._thread.join()  # this call was its last act
        self._loop.forget(self._wake)
        os.close(self._wake)
        if self._done is not None:
            self._done()


def _at_once(job: Iterator[None]) -> None:
    for _ in job:
        pass
