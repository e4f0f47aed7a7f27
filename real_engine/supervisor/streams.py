"""The pipes and terminals between the supervisor and a program."""

import errno
import os
from collections import deque
from collections.abc import Callable

from real_engine.supervisor.loop import GONE, READABLE, WRITABLE, Loop

_READ_BYTES = 1 << 17
_LARGE_PIPE_BYTES = 1 << 20
_FULL_BYTES = 65536  # of input that the program hasn't taken; then no more is read from the clients

# One for all streams: there is one thread, and what is kept of it is copied.
_buffer = bytearray(_READ_BYTES)
_view = memoryview(_buffer)


class Output:
    """A stream that the program writes. `take` gets what it wrote, which is valid until it returns; `ended` the end.

    A program that fills its pipe gets a larger one, for it writes much: fewer switches between it and us.
    """

    __slots__ = ("_descriptor", "_ended", "_large", "_loop", "_paused", "_take", "name")

    def __init__(
        self,
        loop: Loop,
        descriptor: int,
        name: str,
        take: Callable[[str, memoryview], None],
        ended: Callable[[], None],
        *,
        terminal: bool,
    ) -> None:
        os.set_blocking(descriptor, False)
        self.name = name
        self._loop, self._descriptor, self._take, self._ended = loop, descriptor, take, ended
        self._large = terminal  # a terminal has a buffer of its own, and no size to set
        self._paused = False
        loop.watch(descriptor, READABLE, self._ready)

    @property
    def open(self) -> bool:
        """Whether its end hasn't been seen yet."""
        return self._descriptor >= 0

    def pause(self) -> None:
        """Read no more for now: the program has to wait once its pipe is full."""
        if self.open and not self._paused:
            self._loop.forget(self._descriptor)  # and not only ask for nothing: an end is told whatever one asks for
            self._paused = True

    def resume(self) -> None:
        """Read again."""
        if self.open and self._paused:
            self._paused = False
            self._loop.watch(self._descriptor, READABLE, self._ready)

    def drain(self) -> None:
        """Take all that is there now, paused or not. The program has ended: it is a pipeful at most."""
        left = 2 * _LARGE_PIPE_BYTES
        while left > 0 and self.open:
            count = self._read()
            if count == 0:
                return
            left -= count

    def close(self) -> None:
        """Read no more, for ever."""
        if self.open:
            if not self._paused:
                self._loop.forget(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _ready(self, _: int) -> None:
        self._read()

    def _read(self) -> int:
        """Take what one read gives; returns how much, 0 if there is nothing now."""
        try:
            count = os.readv(self._descriptor, [_buffer])
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when nobody has it open on the other side
                raise
            count = 0
        if count == 0:
            self.close()
            self._ended()
            return 0
        if count >= _FULL_BYTES and not self._large:
            self._large = True
            _enlarge(self._descriptor)
        self._take(self.name, _view[:count])
        return count


class Input:
    """The stream that the program reads. What it doesn't take at once is kept; `drained` is called when that has gone.

    Once the program has closed its side, what is written is dropped.
    """

    __slots__ = ("_closing", "_descriptor", "_drained", "_kept", "_kept_bytes", "_loop")

    def __init__(self, loop: Loop, descriptor: int, drained: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._loop, self._descriptor, self._drained = loop, descriptor, drained
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._closing = False

    @property
    def full(self) -> bool:
        """Whether the clients should wait."""
        return self._kept_bytes >= _FULL_BYTES

    def write(self, data: bytes) -> None:
        """Pass `data` on, now or later."""
        if self._descriptor < 0 or self._closing or not data:
            return
        if not self._kept:
            data = data[self._write(data) :]
            if not data or self._descriptor < 0:
                return
            self._loop.watch(self._descriptor, WRITABLE, self._ready)
        self._kept.append(data)
        self._kept_bytes += len(data)

    def end(self) -> None:
        """Close it as soon as all is passed on: the program reads its end."""
        self._closing = True
        if not self._kept:
            self.close()

    def close(self) -> None:
        """Close it now."""
        if self._descriptor >= 0:
            self._loop.forget(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._kept.clear()
            self._kept_bytes = 0

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE, or EIO of a terminal: nobody will read it
            self.close()
            return len(data)

    def _ready(self, events: int) -> None:
        if events & GONE and not events & WRITABLE:
            self.close()
        while self._kept:
            count = self._write(self._kept[0])
            if self._descriptor < 0:
                break
            self._kept_bytes -= count
            if count < len(self._kept[0]):
                self._kept[0] = self._kept[0][count:]
                return
            self._kept.popleft()
        if self._descriptor >= 0:
            self._loop.forget(self._descriptor)
            if self._closing:
                self.close()
        self._drained()


def _enlarge(pipe: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _LARGE_PIPE_BYTES)
    except OSError as error:  # the limit of this user's pipes, or of one pipe: it works as it is
        if error.errno not in (errno.EPERM, errno.EBUSY):
            raise
