"""A supervisor of the tests' own, clients that attach to its containers, and what it tells."""

import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from real_engine.container.spec import ContainerSpec, ExecSpec
from real_engine.images.busybox import Image, builtin_image
from real_engine.linux import cgroups
from real_engine.supervisor.client import Event, Exited, LogOptions, Started, SupervisorClient
from real_engine.supervisor.logs import read_log
from real_engine.supervisor.runtime import group_name

E = TypeVar("E", bound=Event)
SECONDS = 10.0  # after which a test gives up


class Events:
    """What the supervisor has told, and a way to wait for more."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._more = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._more:
            self.seen.append(event)
            self._more.notify_all()

    def wait(self, kind: type[E], target: str = "") -> E:
        """The first event of a kind, and of a target, that has come or comes."""
        found: list[E] = []

        def arrived() -> bool:
            found[:] = [
                event
                for event in self.seen
                if isinstance(event, kind) and target in ("", getattr(event, "target_id", ""))
            ]
            return bool(found)

        with self._more:
            assert self._more.wait_for(arrived, SECONDS), f"no {kind.__name__} {target} among {self.seen}"
        return found[0]

    def forget(self) -> None:
        with self._more:
            self.seen.clear()


class Attached:
    """A client's end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(SECONDS)
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end_input(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def read_to_end(self) -> bytes:
        while data := self.socket.recv(1 << 16):
            self.received += data
        return self.received

    def read_until(self, text: bytes) -> bytes:
        """Read until `text` has come; what came up to its end. The rest is kept."""
        while text not in self.received:
            data = self.socket.recv(1 << 16)
            assert data, f"the connection ended after {self.received!r}, without {text!r}"
            self.received += data
        before, self.received = self.received.split(text, 1)
        return before + text

    def streams(self) -> tuple[bytes, bytes]:
        """All output to the end of the connection, by its frames: standard output and standard error."""
        data = self.read_to_end()
        found = {1: b"", 2: b""}
        while data:
            number, length = struct.unpack_from("!BxxxI", data)
            assert len(data) >= 8 + length, "a frame was cut"
            found[number] += data[8 : 8 + length]
            data = data[8 + length :]
        return found[1], found[2]

    @property
    def silent(self) -> bool:
        """Whether nothing comes, and no end, for a while."""
        return not select.select([self.socket], [], [], 0.15)[0]


class Supervised:
    """A data root with its supervisor, and the client that a daemon would be."""

    def __init__(self, root: Path, image: Image) -> None:
        self.root, self.image = root, image
        self.events = Events()
        self.client = SupervisorClient.connect_or_start(root, self.events)
        self.pids = {self.client.pid}
        self._numbers = iter(range(1000))

    def reconnect(self) -> None:
        """As a new daemon."""
        self.events = Events()
        self.client = SupervisorClient.connect_or_start(self.root, self.events)
        self.pids.add(self.client.pid)

    def new_id(self) -> str:
        container_id = f"c{os.getpid():x}x{next(self._numbers)}"
        for name in ("upper", "work"):
            (self.root / "containers" / container_id / name).mkdir(parents=True)
        return container_id

    def directory(self, container_id: str) -> Path:
        return self.root / "containers" / container_id

    def spec(self, container_id: str, *command: str, **options: Any) -> ContainerSpec:
        argv = ("sh", "-c", command[0]) if len(command) == 1 else command
        directory = self.directory(container_id)
        return ContainerSpec(self.image.layers, argv, upper=directory / "upper", work=directory / "work", **options)

    def log_options(self, container_id: str, driver: str = "json-file", **options: str) -> LogOptions:
        path = self.directory(container_id) / f"{container_id}-json.log"
        return LogOptions(str(path), driver, {name.replace("_", "-"): value for name, value in options.items()})

    def start(self, container_id: str, *command: str, log: LogOptions | None = None, **options: Any) -> Started:
        names = ("open_stdin", "stdin_once", "terminal_size", "network_namespace", "observe")
        how = {name: options.pop(name) for name in names if name in options}
        log = log or self.log_options(container_id)
        return self.client.start(container_id, self.spec(container_id, *command, **options), log=log, **how)

    def attach(self, target: str, *, stdin: bool = False, framed: bool = True, **options: Any) -> Attached:
        ours, theirs = socket.socketpair()
        with theirs:
            streams = {name: options.pop(name, True) for name in ("stdout", "stderr")}
            self.client.attach(target, theirs.fileno(), stdin=stdin, framed=framed, **streams, **options)
        return Attached(ours)

    def exec(self, container_id: str, exec_id: str, *command: str, stdin: bool = False, **options: Any) -> int:
        argv = ("sh", "-c", command[0]) if len(command) == 1 else command
        size = options.pop("terminal_size", None)
        return self.client.exec(container_id, exec_id, ExecSpec(argv, **options), stdin=stdin, terminal_size=size).pid

    def end_of(self, target: str) -> Exited:
        """Wait for its end, and acknowledge it."""
        end = self.events.wait(Exited, target)
        self.client.acknowledge(target)
        return end

    def run(self, *command: str, **options: Any) -> tuple[int, bytes, bytes]:
        """Status and output of a container that is attached to from before its start."""
        container_id = self.new_id()
        attached = self.attach(container_id)
        self.start(container_id, *command, **options)
        end = self.end_of(container_id)
        return end.status, *attached.streams()

    def logged(self, container_id: str) -> list[tuple[str, bytes]]:
        path = self.log_options(container_id).path
        return [(entry.stream, entry.data) for entry in read_log(path)]

    def groups(self) -> list[Path]:
        """The cgroups that containers of this data root have."""
        parents = [each.parent for each in cgroups.hierarchies(parent=group_name(self.root))]
        return [path for parent in parents if parent.exists() for path in parent.iterdir() if path.is_dir()]

    def parents(self) -> list[Path]:
        """The groups that hold those."""
        parents = [each.parent for each in cgroups.hierarchies(parent=group_name(self.root))]
        return [parent for parent in parents if parent.exists()]

    def own_log(self) -> str:
        return (self.root / "run/supervisor.log").read_text()

    def close(self) -> None:
        for pid in self.pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(is_alive, self.pids)))
        cgroups.destroy(self.parents())  # where a test has failed, and for those that kill the supervisor


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return builtin_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def supervised(tmp_path: Path, image: Image) -> Iterator[Supervised]:
    """A supervisor of this test's own. In the end nothing is left, and it has not complained."""
    one = Supervised(tmp_path, image)
    try:
        yield one
        if is_alive(one.client.pid):
            one.client.shutdown()
            eventually(lambda: not is_alive(one.client.pid))
            assert [] == one.parents()
        assert [] == one.groups()
        assert "" == one.own_log()
    finally:
        one.close()
