"""What a program in the foreground does until somebody ends it: it waits for a signal."""

import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Self


class Signals:
    """The signals of these numbers as something to wait for. Outside, everything is as it was.

    Only the main thread of a process can do this.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = tuple(numbers)
        self._reading, self._writing = socket.socketpair()
        self._insisting = False

    def __enter__(self) -> Self:
        self._writing.setblocking(False)
        self._before = {number: signal.signal(number, self._take) for number in self._numbers}
        # The C handler writes here whichever thread the kernel chose; the main thread wakes in any case.
        self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reading.close()
        self._writing.close()

    def wait(self) -> int:
        """The number of the next signal."""
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        while True:
            poll.poll()
            number = self._reading.recv(1)[0]
            if number in self._numbers:
                return number

    def insist(self) -> None:
        """From now on, one more signal to end is meant at once."""
        self._insisting = True

    def _take(self, number: int, _: object) -> None:
        if self._insisting and number != signal.SIGHUP:
            os._exit(128 + number)
