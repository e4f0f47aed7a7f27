"""The race: all contestants on one machine in one run, their samples taken in turns and in random order."""

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from classroom.bench.engine import runtimes
from classroom.bench.engine.daemons import RunningDaemon, dockerd, onggi, tar_of
from classroom.bench.engine.operations import IMAGE, Contestant, Operation, operations
from real_engine.errors import EngineError
from real_engine.images.busybox import builtin_image
from real_engine.linux.interfaces import set_up
from real_engine.linux.processes import CLONE_NEWNET, unshare

Samples = dict[str, dict[str, list[float]]]
"""By operation and contestant."""
Progress = Callable[[int, int], None]

_REGISTRY = "127.0.0.1:5000"
_REGISTRY_SECONDS = 30


def race(
    runs: int, *, quick: bool, names: Sequence[str] = (), progress: Progress | None = None
) -> tuple[Samples, list[str], list[str]]:
    """Measure; returns the samples, the peers that are not installed, and remarks on the others.

    Everything happens in a network namespace of its own, which this process enters for good: nothing of the machine's
    network is touched, and both daemons meet the same rules.

    Raises:
        EngineError: a daemon does not start, or a command fails.
    """
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise EngineError("the race needs root: it starts daemons in a network namespace of its own") from error
    set_up("lo")
    missing: list[str] = []
    remarks: list[str] = []
    with (
        _ended_in_order(),
        tempfile.TemporaryDirectory(prefix="onggi-bench-") as temporary,
        contextlib.ExitStack() as stack,
    ):
        directory = Path(temporary)
        contestants = [_enter(stack, onggi(directory / "onggi"), directory)]
        try:
            contestants.append(_enter(stack, dockerd(directory / "dockerd"), directory))
        except EngineError as error:
            if "there is no dockerd" not in str(error):
                raise
            missing.append("dockerd")
        layer = builtin_image(directory / "busybox").layers[0]
        archive = tar_of(layer)
        for one in contestants:
            one.docker("import", "-", IMAGE, given=archive)
        alone: list[runtimes.Runtime] = []
        try:
            bundle = runtimes.make_bundle(directory / "bundle", layer)
        except EngineError:
            missing += runtimes.RUNTIMES
        else:
            alone, unusable, remarks = stack.enter_context(runtimes.usable(bundle))
            missing += unusable
        stack.enter_context(_registry(directory / "registry"))
        wanted = [one for one in operations(_REGISTRY, quick=quick) if not names or one.name in names]
        return _samples(wanted, contestants, alone, runs, progress), missing, remarks


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: with the daemons that it started."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _samples(
    wanted: Sequence[Operation],
    contestants: Sequence[Contestant],
    alone: Sequence[runtimes.Runtime],
    runs: int,
    progress: Progress | None,
) -> Samples:
    draw = random.Random(0)  # noqa: S311 -- an order
    found: Samples = {}
    counts = [runs if one.most is None else min(runs, one.most) for one in wanted]
    total, done = sum(counts), 0
    for operation, count in zip(wanted, counts, strict=True):
        taken: dict[str, list[float]] = {}
        with contextlib.ExitStack() as stack:
            for one in contestants:
                stack.enter_context(operation.ready(one))
                operation.sample(one)  # not counted: caches fill, and code is loaded
            for _ in range(count):
                turns: list[tuple[str, Callable[[], float]]] = [
                    (one.daemon.name, partial(operation.sample, one)) for one in contestants
                ]
                if operation.name == "run_no_network":
                    turns += [(runtime.name, runtime.sample) for runtime in alone]
                draw.shuffle(turns)
                for name, take in turns:
                    taken.setdefault(name, []).append(take())
                done += 1
                if progress is not None:
                    progress(done, total)
        found[operation.name] = taken
    return found


def _enter(
    stack: contextlib.ExitStack, daemon: "contextlib.AbstractContextManager[RunningDaemon]", directory: Path
) -> Contestant:
    running = stack.enter_context(daemon)
    home = directory / f"home-{running.name}"
    home.mkdir()
    return Contestant(running, home)


@contextlib.contextmanager
def _registry(directory: Path) -> Iterator[None]:
    """Our registry, for both."""
    import http.client

    directory.mkdir()
    command = [sys.executable, "-P", "-m", "classroom.cli", "registry", "serve"]
    command += ["--listen", _REGISTRY, "--data-root", str(directory)]
    with (directory.parent / "registry.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _REGISTRY_SECONDS
        while True:
            connection = http.client.HTTPConnection(_REGISTRY, timeout=5)
            try:
                connection.request("GET", "/v2/")
                if connection.getresponse().status == 200:
                    break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise EngineError("the registry did not start") from error
                time.sleep(0.05)
            finally:
                connection.close()
        yield
    finally:
        process.terminate()
        process.wait(10)
