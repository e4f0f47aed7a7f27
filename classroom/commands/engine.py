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

    from rich.console import Console

    from classroom.commands.engine_records import Reasons
    from real_engine.container.container import Container
    from real_engine.container.engine import Engine
    from real_engine.container.spec import ContainerSpec
    from real_engine.images.busybox import Image

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIDE_BY_SIDE = 110  # columns from which what is done and why stand beside one another
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
    rows = [
        (phase.name, operation.describe(), operation.why, type(operation).__name__, ())
        for phase in engine.plan(spec)
        for operation in phase.operations
    ]
    _print_rows(reasons, rows, ())


def _print_steps(container: Container, language: str) -> None:
    """Every step with its time, and the time of each phase, on standard error: the output is the container's."""
    from classroom.commands.engine_records import Reasons, columns, pad, pad_left

    reasons = Reasons(language)
    words = reasons.words
    rows = [
        (step.phase, step.call, step.why, step.operation, (_microseconds(step.wall_seconds, step.cpu_seconds)))
        for step in container.steps
    ]
    names = tuple(words(f"engine.column.{name}") for name in ("wall", "cpu"))
    _print_rows(reasons, rows, names)
    console = _console()
    whole = words("engine.whole")
    heads = (*names, words("engine.column.steps"))
    wide = columns(whole) + 2
    console.print()
    first = pad(words("engine.column.phase"), wide) + "".join(
        pad_left(head, 2 + max(10, columns(head))) for head in heads
    )
    console.print(first, style="bold", markup=False, highlight=False, no_wrap=True, overflow="ignore")
    wall = container.started_seconds - container.requested_seconds
    cpu = sum(phase.cpu_seconds for phase in container.phases)
    for name, figures in (
        *(
            (
                reasons.phase(phase.name),
                _microseconds(
                    phase.wall_seconds,
                    phase.cpu_seconds,
                    sum(step.wall_seconds for step in container.steps if step.phase == phase.name),
                ),
            )
            for phase in container.phases
        ),
        (whole, _microseconds(wall, cpu)),
    ):
        shown = (pad_left(figure, 2 + max(10, columns(head))) for figure, head in zip(figures, heads, strict=False))
        console.print(pad(name, wide) + "".join(shown), markup=False, highlight=False, no_wrap=True, overflow="ignore")
    console.print(words("engine.between"), style="italic", markup=False, highlight=False)


def _microseconds(*seconds: float) -> tuple[str, ...]:
    return tuple(f"{each * 1e6:.0f}" for each in seconds)


def _print_rows(
    reasons: Reasons, rows: Sequence[tuple[str, str, str, str, tuple[str, ...]]], figures: tuple[str, ...]
) -> None:
    """A table of steps: phase, figures, what is done, and why beside it or, where there is little room, below."""
    from classroom.commands.engine_records import columns, pad_left, print_row, printable

    console = _console()
    beside = console.width >= _SIDE_BY_SIDE
    words = reasons.words
    head = [words(f"engine.column.{name}") for name in ("step", "calls", "why")]
    names = [reasons.phase(row[0]) for row in rows]
    first = max(columns(each) for each in (*names, head[0]))
    sizes = [max(7, columns(each)) for each in figures]
    room = console.width - first - sum(sizes) - 2 * (len(sizes) + 1)
    texts = [room * 11 // 20 - 2, room - room * 11 // 20] if beside else [room]
    widths = [first, *sizes, *texts]
    shown = [pad_left(each, size) for each, size in zip(figures, sizes, strict=True)]
    print_row(console, widths, [head[0], *shown, *head[1 : 3 if beside else 2]], ["bold underline"] * len(widths))
    styles = ["", *[""] * len(sizes), "", "italic"]
    last = ""
    for name, (_, call, why, operation, times) in zip(names, rows, strict=True):
        reason = reasons.why({"why": why, "operation": operation})
        told = words("engine.same") if reason == last else reason
        last = reason
        doing = printable(reasons.call({"call": call, "operation": operation}))
        times = tuple(pad_left(each, size) for each, size in zip(times, sizes, strict=True))
        print_row(console, widths, [name, *times, doing, told], styles, None if beside else len(sizes) + 1)


def _console() -> Console:
    """Standard error; where that is no terminal, wide enough for all columns."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal else Console(stderr=True, width=160, highlight=False)
