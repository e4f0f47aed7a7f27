"""Several worker processes that wait at a gate, are released at one moment, and are held until all are done.

Processes and not threads: threads of one Python would take turns at the interpreter, and the queue for it would be
measured instead of the kernel's. Holding them until all are done keeps the clean-up of the first from slowing the last.
"""

import ctypes
import os
import pickle
import signal
import struct
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, NoReturn, Self, TypeVar

Answer = TypeVar("Answer")

_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("!I")


class Cohort(Generic[Answer]):
    """`size` forked workers, each about to call `job` once and to answer with what it returns (a thing to pickle).

    `prepare` runs in each worker before it waits at the gate. A worker that was just forked still shares its memory
    with its parent, and its first steps would pay for copying it; a rehearsal there pays beforehand.
    `job` is given the moment of release, on `time.monotonic`.
    `finish` runs in each worker after all have answered, to stop what its job had started.

    Must be made by a process with a single thread: a child of fork has only the thread that forked, and locks that
    others held stay locked in it for ever.
    """

    def __init__(
        self,
        size: int,
        job: Callable[[float], Answer],
        *,
        prepare: Callable[[], None] | None = None,
        finish: Callable[[], None] | None = None,
    ) -> None:
        """Fork the workers, and wait until all of them stand at the gate.

        Raises:
            OSError: a worker could not be forked, or ended in `prepare`.
        """
        self._job = job
        self._prepare = prepare
        self._finish = finish
        self._pids: list[int] = []
        self._answers: list[int] = []
        # Both gates open by being closed: the end of a pipe wakes every reader at the same moment.
        self._start_gate = os.pipe()
        self._stop_gate = os.pipe()
        self._moment = os.memfd_create("moment-of-release")
        os.ftruncate(self._moment, 8)
        parent = os.getpid()
        try:
            for _ in range(size):
                read_end, write_end = os.pipe()
                pid = os.fork()
                if pid == 0:
                    self._work(parent, write_end)
                self._pids.append(pid)
                self._answers.append(read_end)
                os.close(write_end)
            for answer in self._answers:
                _read_exactly(answer, 1)  # it has been scheduled, and now waits at the gate
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def release(self) -> list[Answer]:
        """Let all workers go at once; return what the job of each returned, in the order of the workers.

        Raises:
            Exception: what a worker's job raised.
        """
        os.pwrite(self._moment, struct.pack("d", time.monotonic()), 0)
        os.close(self._start_gate[1])
        self._start_gate = (self._start_gate[0], -1)
        results: list[Answer] = []
        for answer in self._answers:
            (length,) = _LENGTH.unpack(_read_exactly(answer, _LENGTH.size))
            outcome = pickle.loads(_read_exactly(answer, length))  # noqa: S301 -- from our own child, through our own pipe
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        return results

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = self._end()
        if failed and error is None:
            raise OSError(f"{failed} of the measurement's workers could not stop what they had started")

    def _end(self) -> int:
        """Open both gates, so that each worker stops what it started, reap them all, and count those that failed."""
        for read_end, write_end in (self._start_gate, self._stop_gate):
            os.close(read_end)
            if write_end >= 0:
                os.close(write_end)
        os.close(self._moment)
        for answer in self._answers:
            os.close(answer)
        failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in self._pids)
        self._pids, self._answers = [], []
        return failed

    def _work(self, parent: int, answer: int) -> NoReturn:
        """The life of a worker. It never returns into the caller's code, which belongs to the parent."""
        status = 1
        try:
            # Ctrl-C reaches the whole foreground group. The parent decides what it means; we end when its gates do.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(status)
            for end in (self._start_gate[1], self._stop_gate[1], *self._answers):
                os.close(end)
            if self._prepare is not None:
                self._prepare()
            os.write(answer, b"\0")
            os.read(self._start_gate[0], 1)
            (released_at,) = struct.unpack("d", os.pread(self._moment, 8, 0))
            outcome: object
            try:
                if released_at:
                    outcome = self._job(released_at)
                else:
                    outcome = InterruptedError("the cohort was ended before it was released")
            except Exception as error:
                outcome = error
            message = pickle.dumps(outcome)
            # A parent that was interrupted no longer listens; what was started must end all the same.
            with suppress(BrokenPipeError):
                os.write(answer, _LENGTH.pack(len(message)) + message)
            os.read(self._stop_gate[0], 1)
            if self._finish is not None:
                self._finish()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)


def _read_exactly(descriptor: int, size: int) -> bytes:
    received = b""
    while len(received) < size:
        chunk = os.read(descriptor, size - len(received))
        if not chunk:
            raise OSError("a worker of the measurement ended before it had answered")
        received += chunk
    return received
