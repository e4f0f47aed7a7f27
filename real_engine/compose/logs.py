"""The output of a project's containers, line by line, each with its container's name before it.

A thread follows each container. Lines go out whole: two containers that write at once don't mix within a line.
"""

import codecs
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from real_engine.compose.fleet import Fleet
from real_engine.compose.host import Container, Host, HostLost
from real_engine.errors import EngineError, NotFound

# Codes of colours (ECMA-48, 8.3.117) that are easy to tell apart, red left for errors; then their bright versions.
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_LONGEST_LINE = 1 << 16  # bytes; a line that is longer is written in pieces


class LogPrinter:
    """Writes lines to `stream`. Thread-safe."""

    def __init__(self, stream: TextIO, *, colour: bool, prefix: bool = True) -> None:
        self._stream, self._colour, self._prefix = stream, colour, prefix
        self._lock = threading.Lock()
        self._width = 0
        self._colours: dict[str, int] = {}
        self._next = itertools.cycle(_COLOURS)

    def expect(self, names: Sequence[str]) -> None:
        """Make the column of names wide enough for these."""
        with self._lock:
            self._width = max([self._width, *map(len, names)])

    def write(self, name: str, line: str) -> None:
        """Write a line of the container `name`."""
        with self._lock:
            self._stream.write(f"{self._head(name)}{line}\n")
            self._stream.flush()

    def _head(self, name: str) -> str:
        if not self._prefix:
            return ""
        self._width = max(self._width, len(name))
        head = f"{name:<{self._width}}  | "
        if not self._colour:
            return head
        code = self._colours.setdefault(name, next(self._next)) if name not in self._colours else self._colours[name]
        return f"\x1b[{code}m{head}\x1b[0m"


class LogFollower:
    """Follows containers of a fleet; `ended` is told when one has ended that was followed, with its exit status."""

    def __init__(
        self,
        fleet: Fleet,
        printer: LogPrinter,
        ended: Callable[[Container, int], None] = lambda container, status: None,
    ) -> None:
        self._fleet, self._printer, self._ended = fleet, printer, ended
        self._threads: dict[tuple[str, str], threading.Thread] = {}
        self._lock = threading.Lock()

    def follow(self, host: Host, container: Container, *, since: float | None = None, tail: int | str = "all") -> None:
        """Follow a container, if nobody does yet, until it ends."""
        key = (host.name, container.id)
        with self._lock:
            known = self._threads.get(key)
            if known is not None and known.is_alive():
                return
            thread = threading.Thread(
                target=self._run, args=(host, container, since, tail), name=f"logs {container.name}", daemon=True
            )
            self._threads[key] = thread
        thread.start()

    def alive(self) -> bool:
        """Whether any container is still followed."""
        with self._lock:
            return any(thread.is_alive() for thread in self._threads.values())

    def join(self, seconds: float) -> None:
        """Give the threads some time to write what is left."""
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(seconds)

    def _run(self, host: Host, container: Container, since: float | None, tail: int | str) -> None:
        title = title_of(host, container)
        try:
            for line in read_logs(host, container.id, follow=True, since=since, tail=tail):
                self._printer.write(title, line)
            state = host.inspect(container.id)["State"]
        except HostLost:
            self._printer.write(title, f"(lost: the daemon {host} is gone)")
            return
        except (NotFound, EngineError):  # removed while we looked: whoever did it tells so
            return
        if not state.get("Running"):
            self._printer.write(title, f"exited with code {state['ExitCode']}")
            self._ended(container, int(state["ExitCode"]))


def title_of(host: Host, container: Container) -> str:
    """What stands before a container's lines: its name without the project's, and its daemon among several."""
    project = container.labels.get("com.docker.compose.project", "")
    name = container.name.removeprefix(f"{project}-").removeprefix(f"{project}_")
    return f"{name}@{host.name}" if host.name else name


def read_logs(
    host: Host,
    identifier: str,
    *,
    follow: bool = False,
    since: float | None = None,
    until: float | None = None,
    tail: int | str = "all",
    timestamps: bool = False,
) -> Iterator[str]:
    """The lines of a container's log. Bytes that are no UTF-8 become replacement characters.

    Raises:
        EngineError: the daemon can't give them.
    """
    options: dict[str, Any] = {"stream": True, "follow": follow, "tail": tail, "timestamps": timestamps}
    if since is not None:
        options["since"] = since
    if until is not None:
        options["until"] = until
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    with host.errors():
        for piece in host.client.logs(identifier, **options):
            rest += decoder.decode(piece)
            *lines, rest = rest.split("\n")
            for line in lines:
                yield line.rstrip("\r")
            if len(rest) > _LONGEST_LINE:
                yield rest
                rest = ""
    rest += decoder.decode(b"", True)
    if rest:
        yield rest


def print_logs(
    fleet: Fleet,
    project: str,
    services: Sequence[str],
    printer: LogPrinter,
    *,
    follow: bool = False,
    tail: int | str = "all",
    timestamps: bool = False,
    since: float | None = None,
    until: float | None = None,
) -> None:
    """Write the logs of the services' containers (all, without names); with `follow` until they have ended.

    Raises:
        EngineError: what a daemon says.
    """
    pairs = fleet.containers(project, services)
    printer.expect([title_of(host, container) for host, container in pairs])
    failures: list[BaseException] = []
    options: dict[str, Any] = {"follow": follow, "tail": tail, "timestamps": timestamps, "since": since, "until": until}

    def run(host: Host, container: Container) -> None:
        try:
            for line in read_logs(host, container.id, **options):
                printer.write(title_of(host, container), line)
        except NotFound:
            return  # removed in the meantime
        except EngineError as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
        if not follow:
            thread.join()  # in the order of their names
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # so that Ctrl-C is noticed
    if failures:
        raise failures[0]
