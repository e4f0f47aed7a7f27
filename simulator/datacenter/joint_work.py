"""Work that several wait for and that is done once: the download of a layer, a page that comes from the disk."""

from collections.abc import Generator
from typing import Any

from simpy import Environment, Interrupt, Process


class JointWork:
    """Work in progress that goes on as long as somebody waits for it, whoever began it.

    Each that waits calls `enter`, waits for `done`, and calls `leave` whatever happened; `join` does all three.

    Args:
        env: the SimPy environment.
        work: what is done; interrupted when the last of those that wait leaves before the end.

    Attributes:
        done: triggers at the end.
        over: it has ended, or nobody waited any more; whoever comes now must begin anew.
    """

    def __init__(self, env: Environment, work: Generator[Any, Any, None]) -> None:
        self.over = False
        self._waiting = 0
        self.done: Process = env.process(self._run(work))

    def enter(self) -> None:
        """Wait for it from now on."""
        self._waiting += 1

    def leave(self) -> None:
        """Wait for it no longer."""
        self._waiting -= 1
        if not self._waiting and not self.over:
            self.over = True
            self.done.interrupt("nobody waits any more")

    def join(self) -> Generator[Any, Any, None]:
        """Wait until it is done (`yield from` it in a process)."""
        self.enter()
        try:
            yield self.done
        finally:
            self.leave()

    def _run(self, work: Generator[Any, Any, None]) -> Generator[Any, Any, None]:
        try:
            yield from work
        except Interrupt:
            return
        finally:
            self.over = True
