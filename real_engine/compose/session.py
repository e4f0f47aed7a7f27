"""`up` in the foreground: the services' output until they have ended, or until Ctrl-C stops them in order.

The first Ctrl-C (or SIGTERM) stops every container that this `up` shows, each service after those that depend on it;
the second one kills them.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType

from real_engine.compose.balancer import Balancer
from real_engine.compose.convergence import Convergence
from real_engine.compose.fleet import Fleet
from real_engine.compose.host import Container, Host, HostLost
from real_engine.compose.logs import LogFollower, LogPrinter, title_of
from real_engine.compose.ordering import at_once
from real_engine.compose.progress import Reporter
from real_engine.compose.project import Project
from real_engine.compose.removal import stop_containers
from real_engine.compose.watch import Watch
from real_engine.errors import EngineError

INTERRUPTED = 130  # 128 + SIGINT
_WATCH_SECONDS = 2.0
_LAST_LINES_SECONDS = 1.0


class Session:
    """Shows the services of these names (all, without names) of a project that has been converged."""

    def __init__(
        self,
        project: Project,
        fleet: Fleet,
        services: Sequence[str],
        printer: LogPrinter,
        reporter: Reporter,
        *,
        seconds: int | None = None,
        stop_with: str = "",
        stop_with_any: bool = False,
    ) -> None:
        self._project, self._fleet, self._services = project, fleet, services
        self._printer, self._reporter = printer, reporter
        self._seconds, self._stop_with, self._stop_with_any = seconds, stop_with, stop_with_any
        self._interrupts = 0
        self._wake = threading.Event()
        self._status: int | None = None
        self._follower = LogFollower(fleet, printer, self._ended)
        self._begun: set[str] = set()

    def run(self, convergence: Convergence, running_before: Collection[str], balancer: Balancer | None = None) -> int:
        """Follow until the end; returns the exit status. `running_before` are containers whose past isn't wanted.

        Raises:
            EngineError: what a daemon says.
        """
        self._follow(running_before)
        watch = Watch(
            self._project, self._fleet, convergence, self._say, balancer, self._follow, services=self._services
        )
        watch.balance()  # a port that is taken is the end of it, here and not later
        with _handling(self._interrupt):
            next_look = time.monotonic()
            while not self._interrupts and self._status is None:
                if self._fleet.several and time.monotonic() >= next_look:
                    watch.step()
                    next_look = time.monotonic() + _WATCH_SECONDS
                elif not self._fleet.several:
                    if not self._follower.alive() and not self._running():
                        break
                    self._follow()
                self._wake.wait(0.5)
                self._wake.clear()
            if self._interrupts or self._status is not None:
                self._stop()
        self._follower.join(_LAST_LINES_SECONDS)
        if self._status is not None:
            return self._status
        return INTERRUPTED if self._interrupts else 0

    def _pairs(self) -> list[tuple[Host, Container]]:
        wanted = list(self._project.select(self._services)) if self._services else list(self._project.services)
        pairs = self._fleet.containers(self._project.name, wanted)
        return [pair for pair in pairs if self._project.document.services[pair[1].service].attach]

    def _running(self) -> bool:
        return any(container.running for _, container in self._pairs())

    def _follow(self, running_before: Collection[str] = ()) -> None:
        """Follow what runs and isn't followed; a container that is started again goes on from where it was."""
        pairs = self._pairs()
        self._printer.expect([title_of(host, container) for host, container in pairs])
        for host, container in pairs:
            known = container.id in self._begun
            if not container.running and known:
                continue
            fresh = not known and container.id not in running_before
            self._begun.add(container.id)
            self._follower.follow(host, container, since=None if fresh else time.time())

    def _ended(self, container: Container, status: int) -> None:
        if self._stop_with_any or container.service == self._stop_with:
            if self._status is None and (not self._stop_with or container.service == self._stop_with):
                self._status = status
            self._wake.set()

    def _interrupt(self) -> None:
        self._interrupts += 1
        self._wake.set()
        if self._interrupts == 2:
            # Beside those who wait for the containers to stop by themselves: their wait ends with the containers.
            threading.Thread(target=self._kill, name="kill").start()

    def _stop(self) -> None:
        if self._interrupts:
            self._say("Gracefully stopping... (press Ctrl+C again to force)")
        try:
            stop_containers(self._pairs(), self._reporter, self._seconds)
        except HostLost as error:
            self._say(str(error))

    def _kill(self) -> None:
        self._say("Killing")

        def kill(pair: tuple[Host, Container]) -> None:
            host, container = pair
            if container.running:
                with contextlib.suppress(EngineError):  # it has ended in this moment
                    host.kill(container.id)

        at_once(self._pairs(), kill)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def _handling(interrupt: Callable[[], None]) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        interrupt()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
