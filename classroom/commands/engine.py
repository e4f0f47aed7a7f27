"""`onggi engine run IMAGE COMMAND…`: a container on onggi's own engine; `--explain` shows how it comes to be.

`onggi engine serve` is the engine as a daemon.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from classroom.commands.engine_records import Reasons
    from real_engine.container.container import Container
    from real_engine.container.engine import Engine
    from real_engine.container.spec import ContainerSpec
    from real_engine.container.steps import Operation
    from real_engine.images.busybox import Image

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_PATIENCE = 3  # as many interrupts as docker run takes before it gives up on a container that doesn't react


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `onggi engine` understands to its parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    from classroom.commands import engine_kernel, engine_serve, engine_watch

    serve_parser = actions.add_parser(
        "serve", help="serve Docker's Engine API, for docker and docker-compose", description=engine_serve.DESCRIPTION
    )
    engine_serve.add_arguments(serve_parser)
    engine_watch.add_arguments(actions)
    engine_kernel.add_arguments(actions)
    run_parser = actions.add_parser(
        "run",
        help="run a command in a new container",
        description="Run a command in a new container and remove the container afterwards. The exit status is the "
        "command's, or 125 if the engine failed, 126 if the command can't be executed, 127 if it isn't found, and "
        "128 + n after signal n.",
    )
    add = run_parser.add_argument
    add("-H", "--host", metavar="URL", help="let the daemon there run it, unix://PATH or tcp://HOST:PORT, and not us")
    engine_watch.add_language(run_parser)
    add("--root", metavar="DIRECTORY", help="where images and containers are kept (default: /var/lib/onggi for root)")
    add("-m", "--memory", type=_size, metavar="BYTES", help="memory limit, with a unit b, k, m or g: 64m")
    add("--cpus", type=float, metavar="NUMBER", help="CPU limit: 0.5 is half a core")
    add("--pids-limit", type=int, metavar="NUMBER", help="most processes and threads at once")
    add(
        "--network",
        metavar="none|host|NETWORK",
        help="its own loopback only, or the host's; of a daemon, any network (default: none, or the daemon's bridge)",
    )
    add("--hostname", default="", metavar="NAME", help="host name (default: the container's id)")
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set an environment variable, or pass ours",
    )
    add("-w", "--workdir", metavar="DIRECTORY", help="working directory")
    add("-u", "--user", metavar="USER[:GROUP]", help="run as this user, by name or number")
    add("--read-only", action="store_true", help="nothing in the root file system may be written")
    add("--tmpfs", action="append", default=[], metavar="PATH", help="mount an empty memory file system there")
    add("--cap-add", action="append", default=[], metavar="CAPABILITY", help="add a capability, or ALL")
    add("--cap-drop", action="append", default=[], metavar="CAPABILITY", help="drop a capability, or ALL")
    add(
        "--security-opt", action="append", default=[], metavar="seccomp=PROFILE", help="a profile's file, or unconfined"
    )
    add("--explain", action="store_true", help="print each kernel call of the start, why it is made, and its time")
    add("--dry-run", action="store_true", help="print the kernel calls of the start, and make none")
    add("image", metavar="IMAGE", help="busybox: built in, made from this machine's own static busybox")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command and its arguments (default: a shell)")


def run(arguments: argparse.Namespace) -> int:
    """Run the container and return its exit status, as `docker run` would; or serve."""
    if arguments.action == "serve":
        from classroom.commands import engine_serve

        return engine_serve.run(arguments)
    if arguments.action == "inspect-kernel":
        from classroom.commands import engine_kernel

        return engine_kernel.run(arguments)
    if arguments.action != "run" or arguments.host:
        from classroom.commands import engine_watch

        return engine_watch.run(arguments)
    from real_engine.errors import EngineError

    if sys.platform != "linux":
        raise EngineError("containers need a Linux kernel; `onggi compare` and `onggi run` work here")
    from pathlib import Path

    from real_engine.container.container import StartError
    from real_engine.container.engine import Engine, default_root

    root = Path(arguments.root) if arguments.root else default_root()
    engine = Engine(root)
    spec = _spec(arguments, _image(arguments.image, root))
    if arguments.dry_run:
        _print_plan(engine, spec, arguments.lang)
        return 0
    try:
        return _run(engine, spec, arguments.lang if arguments.explain else "")
    except StartError as error:
        print(f"onggi: {error}", file=sys.stderr)
        return error.status


def _run(engine: Engine, spec: ContainerSpec, explain: str) -> int:
    """Start the container, pass signals on to it, and wait; `explain` is the language for its steps, or ""."""
    import signal

    forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    # What arrives before there is a container waits for it; without a handler it would end us and leave that behind.
    early: list[int] = []
    for number in forwarded:
        signal.signal(number, lambda number, _: early.append(number))
    with engine.start(spec) as container:
        received = 0

        def forward(number: int, _: object) -> None:
            nonlocal received
            received += number in (signal.SIGINT, signal.SIGTERM)
            # Process 1 of a namespace ignores what it doesn't handle, so somebody who insists means SIGKILL.
            container.kill(number if received < _PATIENCE else signal.SIGKILL)

        for number in forwarded:
            signal.signal(number, forward)
        for one in early:
            forward(one, None)
        if explain:
            _print_steps(container, explain)
        return container.wait()


def _spec(arguments: argparse.Namespace, image: Image) -> ContainerSpec:
    """The container that the command line asks for.

    Raises:
        EngineError: an option whose value can't be meant.
    """
    from real_engine.container.spec import ContainerSpec, Limits
    from real_engine.errors import EngineError

    if arguments.network not in (None, "none", "host"):
        raise EngineError(f"network `{arguments.network}`: without a daemon there is none and host; name one with -H")
    seccomp = "default"
    for option in arguments.security_opt:
        name, separator, value = option.replace(":", "=", 1).partition("=")
        if option in ("no-new-privileges", "no-new-privileges=true"):
            continue  # always so here
        if name != "seccomp" or not separator or not value:
            raise EngineError(f"unknown security option `{option}`: use seccomp=FILE or seccomp=unconfined")
        seccomp = value
    return ContainerSpec(
        layers=image.layers,
        argv=tuple(arguments.command) or image.command,
        environment=dict(image.environment) | dict(_environment(arguments.env)),
        hostname=arguments.hostname,
        workdir=arguments.workdir or image.workdir,
        user=arguments.user or image.user,
        limits=Limits(arguments.memory, arguments.cpus, arguments.pids_limit),
        network=arguments.network or "none",
        read_only=arguments.read_only,
        add_capabilities=tuple(arguments.cap_add),
        drop_capabilities=tuple(arguments.cap_drop),
        seccomp=seccomp,
        tmpfs=tuple(arguments.tmpfs),
    )


def _image(name: str, root: Path) -> Image:
    from real_engine.errors import EngineError
    from real_engine.images.busybox import NAME, builtin_image

    if name.removesuffix(":latest") != NAME:
        raise EngineError(f"no image `{name}`: the one that is built in is `{NAME}`")
    return builtin_image(root)


def _environment(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """NAME=VALUE sets; NAME alone passes our own variable on, if we have it."""
    for option in options:
        name, separator, value = option.partition("=")
        if separator:
            yield name, value
        elif name in os.environ:
            yield name, os.environ[name]


def _size(text: str) -> int:
    """A number of bytes, with a unit of Docker's: 64m, 1.5g."""
    lowered = text.lower().removesuffix("ib") if text.lower().endswith("ib") else text.lower()
    if len(lowered) > 1 and lowered.endswith("b") and not lowered[-2].isdigit():
        lowered = lowered[:-1]  # kb, mb, gb
    number, unit = (lowered[:-1], lowered[-1]) if lowered and not lowered[-1].isdigit() else (lowered, "")
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"`{text}` is no amount of memory: write 64m or 1g") from error


def _print_plan(engine: Engine, spec: ContainerSpec, language: str) -> None:
    from classroom.commands.engine_records import Reasons

    reasons = Reasons(language)
    table = _table(*(reasons.words(f"engine.column.{name}") for name in ("step", "calls", "why")))
    for phase in engine.plan(spec):
        for operation in phase.operations:
            table.add_row(phase.name, operation.describe(), _why(reasons, operation))
    _print(table)


def _print_steps(container: Container, language: str) -> None:
    """Every step with its time, and the time of each phase, on standard error: the output is the container's."""
    from classroom.commands.engine_records import Reasons

    reasons = Reasons(language)
    names = ("step", "calls", "why", "wall", "cpu")
    table = _table(*(reasons.words(f"engine.column.{name}") for name in names))
    for step in container.steps:
        times = (f"{seconds * 1e6:.0f}" for seconds in (step.wall_seconds, step.cpu_seconds))
        table.add_row(step.phase, step.call, reasons.why({"why": step.why, "operation": step.operation}), *times)
    _print(table)
    phases = _table(*(reasons.words(f"engine.column.{name}") for name in ("phase", "wall", "cpu")))
    for phase in container.phases:
        phases.add_row(phase.name, f"{phase.wall_seconds * 1e6:.0f}", f"{phase.cpu_seconds * 1e6:.0f}")
    phases.add_section()
    wall = container.started_seconds - container.requested_seconds
    cpu = sum(phase.cpu_seconds for phase in container.phases)
    phases.add_row(reasons.words("engine.whole"), f"{wall * 1e6:.0f}", f"{cpu * 1e6:.0f}")
    _print(phases)


def _why(reasons: Reasons, operation: Operation) -> str:
    return reasons.why({"why": operation.why, "operation": type(operation).__name__})


def _table(*columns: str):  # type: ignore[no-untyped-def]  # rich is imported only when something is shown
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        if str(column.header).endswith("µs"):
            column.justify = "right"
            column.no_wrap = True
    table.columns[0].no_wrap = True
    return table


def _print(table: object) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=160)
    console.print(table, markup=False, highlight=False)
