"""What is raced: operations of the docker command, each a way to take one sample from one daemon."""

import contextlib
import os
import random
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from classroom.bench.engine.daemons import RunningDaemon
from real_engine.errors import EngineError

IMAGE = "onggi-bench"
_CLIENTS = 8
_BUILD_STEPS = 10
_PULL_LAYERS = 8
_COMMAND_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Contestant:
    """A daemon and the docker command for it."""

    daemon: RunningDaemon
    home: Path

    def docker(self, *words: str, given: bytes = b"") -> str:
        """Run a docker command; returns its output.

        Raises:
            EngineError: it failed, with its last words.
        """
        done = subprocess.run(
            ["docker", *words],
            input=given,
            capture_output=True,
            env=self._environment(),
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise EngineError(f"docker {' '.join(words)} on {self.daemon.name}: {said[0] if said else done.returncode}")
        return done.stdout.decode(errors="replace").strip()

    def timed(self, *words: str) -> float:
        """The seconds that a docker command takes, from its start to its end."""
        begin = time.perf_counter()
        self.docker(*words)
        return time.perf_counter() - begin

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home),
            "DOCKER_HOST": self.daemon.host,
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CLI_HINTS": "false",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(ABC):
    """One row of the table.

    `better` is `less` or `more`, `target` is what the project set itself, as a ratio, and `most` is how many samples
    are enough of a row that takes long and varies little.
    """

    name: str
    title: str
    unit: str = "s"
    better: str = "less"
    target: float | None = None
    most: int | None = None

    @contextlib.contextmanager
    def ready(self, one: Contestant) -> Iterator[None]:
        """What has to be there while samples are taken: nothing but the image, for most."""
        yield

    @abstractmethod
    def sample(self, one: Contestant) -> float:
        """One measurement, in the unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Operation):
    """`docker run --rm IMAGE true`, with a network of the kind."""

    network: str

    def sample(self, one: Contestant) -> float:
        """Seconds."""
        return one.timed("run", "--rm", "--network", self.network, IMAGE, "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec(Operation):
    """`docker exec` of `true` in a container that runs."""

    name: str = "exec"
    title: str = "docker exec CONTAINER true"
    target: float | None = 1 / 2

    @contextlib.contextmanager
    def ready(self, one: Contestant) -> Iterator[None]:
        """A container that sleeps."""
        one.docker("run", "--detach", "--name", "bench-exec", IMAGE, "sleep", "3600")
        try:
            yield
        finally:
            one.docker("rm", "--force", "bench-exec")

    def sample(self, one: Contestant) -> float:
        """Seconds."""
        return one.timed("exec", "bench-exec", "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyStarts(Operation):
    """Detached starts from eight clients at once."""

    count: int
    name: str = "starts_at_once"
    title: str = "docker run --detach from 8 clients at once"
    unit: str = "1/s"
    better: str = "more"
    target: float | None = 4.0

    def sample(self, one: Contestant) -> float:
        """Starts a second."""
        names = [f"bench-many-{number}" for number in range(self.count)]
        with ThreadPoolExecutor(_CLIENTS) as clients:
            begin = time.perf_counter()
            list(clients.map(lambda name: one.docker("run", "--detach", "--name", name, IMAGE, "sleep", "3600"), names))
            seconds = time.perf_counter() - begin
        one.docker("rm", "--force", *names)
        return self.count / seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleMemory(Operation):
    """The memory of the daemon and of what holds the containers, while many are idle."""

    count: int
    name: str = "idle_memory"
    title: str = "memory of the daemon with idle containers"
    unit: str = "MiB"
    target: float | None = 1 / 4
    most: int | None = 3

    def sample(self, one: Contestant) -> float:
        """MiB of proportional set size (proc_pid_smaps_rollup), the containers' own not counted."""
        names = [f"bench-idle-{number}" for number in range(self.count)]
        with ThreadPoolExecutor(_CLIENTS) as clients:
            list(clients.map(lambda name: one.docker("run", "--detach", "--name", name, IMAGE, "sleep", "3600"), names))
        try:
            return sum(_proportional_kib(pid) for pid in one.daemon.processes()) / 1024
        finally:
            one.docker("rm", "--force", *names)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmBuild(Operation):
    """A build of which every step is in the cache."""

    name: str = "warm_build"
    title: str = f"docker build of {_BUILD_STEPS} steps, all cached"
    target: float | None = 1.0

    @contextlib.contextmanager
    def ready(self, one: Contestant) -> Iterator[None]:
        """The context, built once."""
        context = self._context(one)
        context.mkdir(exist_ok=True)
        lines = [f"FROM {IMAGE}", "ENV GREETING=hello", "WORKDIR /work"]
        for number in range((_BUILD_STEPS - len(lines)) // 2):
            (context / f"file{number}").write_text(f"content {number}\n" * 1000)
            lines += [f"COPY file{number} .", f"RUN cat file{number} > copy{number}"]
        lines += ['CMD ["sh"]'] * (_BUILD_STEPS - len(lines))
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        self.sample(one)
        try:
            yield
        finally:
            one.docker("rmi", "bench-build")

    def sample(self, one: Contestant) -> float:
        """Seconds."""
        return one.timed("build", "--quiet", "--tag", "bench-build", str(self._context(one)))

    @staticmethod
    def _context(one: Contestant) -> Path:
        return one.home / "context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull(Operation):
    """A pull of a large image from a registry on this machine."""

    registry: str
    megabytes: int
    name: str = "pull"
    title: str = f"docker pull of {_PULL_LAYERS} layers from a registry on this machine"
    target: float | None = 1.0

    @contextlib.contextmanager
    def ready(self, one: Contestant) -> Iterator[None]:
        """The image in the registry; whoever comes first puts it there."""
        try:
            one.docker("pull", "--quiet", self._reference)
        except EngineError:
            self._push(one)
        yield

    def sample(self, one: Contestant) -> float:
        """Seconds, with nothing of the image there before."""
        one.docker("rmi", "--force", self._reference)
        return one.timed("pull", "--quiet", self._reference)

    @property
    def _reference(self) -> str:
        return f"{self.registry}/onggi/bench:1"

    def _push(self, one: Contestant) -> None:
        context = one.home / "large"
        context.mkdir(exist_ok=True)
        draw = random.Random(1)  # noqa: S311 -- filler
        lines = ["FROM scratch"]
        size = self.megabytes * 1_000_000 // _PULL_LAYERS
        for number in range(_PULL_LAYERS):
            # Half noise and half text: about as compressible as programs and their libraries are.
            text = b"the quick brown fox jumps over the lazy dog\n" * (size // 2 // 44 + 1)
            (context / f"part{number}").write_bytes(draw.randbytes(size // 2) + text[: size - size // 2])
            lines.append(f"COPY part{number} /")
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        one.docker("build", "--quiet", "--tag", self._reference, str(context))
        one.docker("push", "--quiet", self._reference)
        shutil.rmtree(context)
        one.docker("rmi", "--force", self._reference)


def operations(registry: str, *, quick: bool) -> list[Operation]:
    """All rows; `quick` ones are small, to see that they work."""
    return [
        Run(name="run_bridge", title="docker run --rm IMAGE true", network="bridge", target=1 / 3),
        Run(name="run_no_network", title="docker run --rm --network none IMAGE true", network="none", target=1 / 4),
        Exec(),
        ManyStarts(count=8 if quick else 50),
        IdleMemory(count=5 if quick else 100),
        WarmBuild(),
        Pull(registry=registry, megabytes=8 if quick else 200),
    ]


def _proportional_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0  # it ended while we looked
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
