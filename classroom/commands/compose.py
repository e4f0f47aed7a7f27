"""`onggi compose up`: the services of a compose file on one daemon of Docker's API, or spread over several.

Without -f, the file is compose.yaml, compose.yml, docker-compose.yml or docker-compose.yaml here or above. The daemon
is the one that -H or DOCKER_HOST names, else onggi's own, else Docker's. With several (`-H a=unix:///… -H b=unix:///…`,
or `x-onggi: {hosts: …}` in the file), the replicas of services with ports are spread over them, with a balancer in
front.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from classroom.commands.compose_options import add_arguments

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from real_engine.compose.fleet import Fleet
    from real_engine.compose.host import Container, Host
    from real_engine.compose.progress import Reporter
    from real_engine.compose.project import Project

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Do what the action asks; returns the exit status."""
    from pathlib import Path

    from real_engine.compose.fleet import fleet_of
    from real_engine.compose.progress import reporter_for
    from real_engine.compose.project import load_project

    project = load_project(
        [Path(name) for name in arguments.file],
        name=arguments.project_name,
        directory=Path(arguments.project_directory) if arguments.project_directory else None,
        env_files=[Path(name) for name in arguments.env_file],
        profiles=arguments.profile,
    )
    for text in project.warnings:
        _warn(text)
    if arguments.action == "config":
        return _config(project, arguments)
    fleet = fleet_of(project.document.spreading, arguments.host)
    reporter = reporter_for(sys.stderr, quiet=arguments.quiet)
    try:
        return _ACTIONS[arguments.action](project, fleet, reporter, arguments)
    finally:
        reporter.close()
        fleet.close()


def _warn(text: str) -> None:
    print(f"onggi: warning: {text}", file=sys.stderr)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _check_hosts(fleet: Fleet) -> None:
    """Of several daemons, leave out those that can't be reached, and say so."""
    if fleet.several:
        for name in fleet.check()[0]:
            trouble = fleet.host(name).trouble
            _warn(f"host {name} is left out" + (f": {trouble}" if trouble else ""))


def _pairs_of(texts: list[str], what: str) -> dict[str, str]:
    from real_engine.errors import InvalidParameter

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidParameter(f"`{text}` is not of the form {what}")
        found[name] = value
    return found


def _scales(texts: list[str]) -> dict[str, int]:
    from real_engine.errors import InvalidParameter

    found = {}
    for name, value in _pairs_of(texts, "SERVICE=NUMBER").items():
        if not value.isdigit():
            raise InvalidParameter(f"`{name}={value}`: a number of containers is 0 or more")
        found[name] = int(value)
    return found


def _up(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from real_engine.compose.convergence import Convergence, UpOptions

    watching = arguments.action == "up" and not (arguments.detach or arguments.wait or arguments.no_start)
    options = UpOptions(
        scales=_scales(arguments.scale),
        build=arguments.build,
        pull=arguments.pull,
        force_recreate=arguments.force_recreate,
        no_recreate=arguments.no_recreate,
        no_deps=arguments.no_deps,
        remove_orphans=arguments.remove_orphans,
        renew_anonymous_volumes=arguments.renew_anon_volumes,
        start=arguments.action == "up" and not arguments.no_start,
        seconds=arguments.timeout,
    )
    if arguments.exit_code_from if arguments.action == "up" else False:
        project.service(arguments.exit_code_from)
    _check_hosts(fleet)
    running_before = {container.id for _, container in fleet.containers(project.name) if container.running}
    convergence = Convergence(project, fleet, reporter, options, _warn, _say)
    convergence.up(arguments.services)
    reporter.close()
    if arguments.action == "up" and arguments.wait:
        return _wait(project, fleet, reporter, arguments)
    if not watching:
        return 0
    again = Convergence(
        project, fleet, reporter, replace(options, build=False, force_recreate=False, pull=""), _warn, _say
    )
    return _show(project, fleet, reporter, again, running_before, arguments)


def _show(
    project: Project,
    fleet: Fleet,
    reporter: Reporter,
    convergence: object,
    running_before: set[str],
    arguments: argparse.Namespace,
) -> int:
    """Show the output until the end, with a balancer in front where there are several daemons."""
    import contextlib

    from real_engine.compose.balancer import Balancer
    from real_engine.compose.logs import LogPrinter
    from real_engine.compose.session import Session

    printer = LogPrinter(sys.stdout, colour=_colour(arguments), prefix=not arguments.no_log_prefix)
    session = Session(
        project,
        fleet,
        arguments.services,
        printer,
        reporter,
        seconds=arguments.timeout,
        stop_with=arguments.exit_code_from,
        stop_with_any=arguments.abort_on_container_exit or bool(arguments.exit_code_from),
    )
    with contextlib.ExitStack() as stack:
        balancer = stack.enter_context(Balancer()) if fleet.several else None
        return session.run(convergence, running_before, balancer)  # type: ignore[arg-type]  # made in _up


def _colour(arguments: argparse.Namespace) -> bool:
    if getattr(arguments, "no_color", False):
        return False
    return bool(arguments.ansi == "always" or (arguments.ansi == "auto" and sys.stdout.isatty()))


def _wait(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    import time

    from real_engine.compose.convergence import wait_for

    deadline = None if arguments.wait_timeout is None else time.monotonic() + arguments.wait_timeout
    # Whoever others wait for until it has done its work is not to run: its end is what is waited for here too.
    completing = {
        other
        for service in project.document.services.values()
        for other, dependency in service.depends_on.items()
        if dependency.condition == "service_completed_successfully"
    }
    for host, container in fleet.containers(project.name, list(project.select(arguments.services))):
        completes = container.service in completing
        condition = "service_completed_successfully" if completes else "running_or_healthy"
        wait_for(host, container, condition, reporter, deadline)
    return 0


def _scale(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.convergence import Convergence, UpOptions

    scales = _scales(arguments.services)
    options = UpOptions(scales=scales, no_recreate=True, no_deps=arguments.no_deps)
    _check_hosts(fleet)
    Convergence(project, fleet, reporter, options, _warn, _say).up(list(scales))
    return 0


def _down(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.removal import down

    _check_hosts(fleet)
    down(
        project,
        fleet,
        reporter,
        volumes=arguments.volumes,
        images=arguments.rmi,
        remove_orphans=arguments.remove_orphans,
        seconds=arguments.timeout,
    )
    return 0


def _chosen(project: Project, fleet: Fleet, names: list[str]) -> list[tuple[Host, Container]]:
    for name in names:
        project.service(name)
    _check_hosts(fleet)
    return fleet.containers(project.name, names)


def _stop(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.removal import stop_containers

    stop_containers(_chosen(project, fleet, arguments.services), reporter, arguments.timeout)
    return 0


def _start(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.ordering import in_order
    from real_engine.compose.project import dependencies
    from real_engine.errors import NotFound

    pairs = _chosen(project, fleet, arguments.services)
    if not pairs:
        raise NotFound("there are no containers to start: see `onggi compose up`")
    by_service: dict[str, list[tuple[Host, Container]]] = {}
    for pair in pairs:
        by_service.setdefault(pair[1].service, []).append(pair)

    def start(name: str) -> None:
        for host, container in by_service[name]:
            if not container.running:
                reporter.report("Container", container.name, "Starting")
                host.start(container.id)
                reporter.report("Container", container.name, "Started")

    services = project.document.services
    in_order(by_service, {name: dependencies(services[name]) for name in by_service if name in services}, start)
    return 0


def _restart(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.ordering import at_once

    def restart(pair: tuple[Host, Container]) -> None:
        host, container = pair
        reporter.report("Container", container.name, "Restarting")
        host.restart(container.id, arguments.timeout)
        reporter.report("Container", container.name, "Started")

    at_once(_chosen(project, fleet, arguments.services), restart)
    return 0


def _kill(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    for host, container in _chosen(project, fleet, arguments.services):
        if container.running:
            host.kill(container.id, arguments.signal)
            reporter.report("Container", container.name, "Killed")
    return 0


def _remove(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.removal import remove_containers

    pairs = _chosen(project, fleet, arguments.services)
    chosen = [pair for pair in pairs if arguments.stop or not pair[1].running]
    if not chosen:
        _say("No stopped containers")
        return 0
    if not arguments.force:
        names = ", ".join(container.name for _, container in chosen)
        if not sys.stdin.isatty() or input(f"Going to remove {names}: are you sure? [yN] ").lower() not in ("y", "yes"):
            _say("nothing is removed: say yes, or use --force")
            return 1
    remove_containers(chosen, reporter, volumes=arguments.volumes)
    return 0


def _ps(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    import json

    from real_engine.compose.listing import container_table, describe

    pairs = [pair for pair in _chosen(project, fleet, arguments.services) if arguments.all or pair[1].running]
    if arguments.only_ids:
        print(*(container.id for _, container in pairs), sep="\n", end="\n" if pairs else "")
    elif arguments.only_services:
        names = dict.fromkeys(container.service for _, container in pairs)
        print(*names, sep="\n", end="\n" if names else "")
    elif arguments.format == "json":
        for host, container in pairs:
            print(json.dumps(describe(host, container)))
    else:
        print(container_table(pairs))
    return 0


def _logs(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.logs import LogPrinter, print_logs
    from real_engine.errors import InvalidParameter

    if arguments.tail != "all" and not arguments.tail.isdigit():
        raise InvalidParameter(f"--tail: `{arguments.tail}` is neither a number nor all")
    _chosen(project, fleet, arguments.services)
    printer = LogPrinter(sys.stdout, colour=_colour(arguments), prefix=not arguments.no_log_prefix)
    print_logs(
        fleet,
        project.name,
        arguments.services,
        printer,
        follow=arguments.follow,
        tail="all" if arguments.tail == "all" else int(arguments.tail),
        timestamps=arguments.timestamps,
        since=_moment(arguments.since),
        until=_moment(arguments.until),
    )
    return 0


def _moment(text: str) -> float | None:
    """Seconds since 1970 of a moment as a person gives it: `10m` ago, a date, or such seconds."""
    from real_engine.times import parse_moment

    nanoseconds = parse_moment(text)
    return None if nanoseconds is None else nanoseconds / 1e9


def _top(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.listing import process_table

    _chosen(project, fleet, arguments.services)
    print(process_table(fleet, project.name, arguments.services))
    return 0


def _config(project: Project, arguments: argparse.Namespace) -> int:
    from real_engine.compose.images import image_name
    from real_engine.compose.listing import render

    if arguments.only_check:
        return 0
    names = {
        "services": list(project.services),
        "volumes": list(project.document.volumes),
        "networks": list(project.document.networks),
        "images": [image_name(project, name) for name in project.services],
        "profiles": sorted({one for service in project.document.services.values() for one in service.profiles}),
    }
    if arguments.only:
        print(*names[arguments.only], sep="\n")
    else:
        print(render(project, arguments.format))
    return 0


def _port(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.errors import NotFound

    _, container = _one_container(project, fleet, arguments.service, arguments.index)
    for port in container.ports:
        if (port["PrivatePort"], port.get("Type")) == (
            arguments.private_port,
            arguments.protocol,
        ) and "PublicPort" in port:
            print(f"{port.get('IP', '0.0.0.0')}:{port['PublicPort']}")  # noqa: S104 -- shown, not bound
            return 0
    raise NotFound(f"no port {arguments.private_port}/{arguments.protocol} for container {container.name}")


def _one_container(project: Project, fleet: Fleet, service: str, index: int) -> tuple[Host, Container]:
    from real_engine.errors import NotFound

    pairs = [pair for pair in _chosen(project, fleet, [service]) if pair[1].running]
    for pair in pairs:
        if index in (0, pair[1].number):
            return pair
    raise NotFound(f'service "{service}" is not running' + (f" container #{index}" if index else ""))


def _exec(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.terminal import execute
    from real_engine.errors import InvalidParameter

    host, container = _one_container(project, fleet, arguments.service, arguments.index)
    if not arguments.command:
        raise InvalidParameter("a command is missing: onggi compose exec SERVICE COMMAND")
    return execute(
        host,
        container.id,
        arguments.command,
        terminal=not arguments.no_tty and sys.stdin.isatty() and sys.stdout.isatty() and not arguments.detach,
        user=arguments.user,
        workdir=arguments.workdir,
        environment=arguments.env,
        privileged=arguments.privileged,
        detach=arguments.detach,
    )


def _run(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    import shlex

    from real_engine.compose.convergence import Convergence, UpOptions
    from real_engine.compose.running import run_once

    Convergence(project, fleet, reporter, UpOptions(), _warn, _say).prepare_run(
        arguments.service, with_dependencies=not arguments.no_deps
    )
    reporter.close()
    terminal = not arguments.no_tty and sys.stdin.isatty() and sys.stdout.isatty() and not arguments.detach
    return run_once(
        project,
        fleet,
        arguments.service,
        arguments.command,
        environment=_pairs_of(arguments.env, "NAME=VALUE"),
        entrypoint=None if arguments.entrypoint is None else shlex.split(arguments.entrypoint),
        name=arguments.name,
        user=arguments.user,
        workdir=arguments.workdir,
        volumes=arguments.volume,
        tags=_pairs_of(arguments.label, "NAME=VALUE"),
        service_ports=arguments.service_ports,
        terminal_wanted=terminal,
        interactive=not arguments.detach,
        detach=arguments.detach,
        remove=arguments.rm,
    )


def _build(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.images import build_image

    names = arguments.services or [name for name, service in project.services.items() if service.build is not None]
    values = _pairs_of(arguments.build_arg, "NAME=VALUE")
    for host in fleet:
        for name in names:
            build_image(project, name, host, reporter, no_cache=arguments.no_cache, pull=arguments.pull, args=values)
    return 0


def _pull(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    from real_engine.compose.images import image_name, pull_image, pulled_services
    from real_engine.compose.ordering import at_once

    names = {image_name(project, name): name for name in pulled_services(project, arguments.services)}
    wanted = [(host, image) for host in fleet for image in names]
    at_once(wanted, lambda pair: pull_image(pair[1], pair[0], reporter), most_at_once=4)
    return 0


def _balance(project: Project, fleet: Fleet, reporter: Reporter, arguments: argparse.Namespace) -> int:
    import contextlib
    import threading

    from real_engine.compose.balancer import Balancer
    from real_engine.compose.convergence import Convergence, UpOptions
    from real_engine.compose.watch import Watch
    from real_engine.errors import InvalidParameter

    if not fleet.several:
        raise InvalidParameter("one daemon publishes its ports itself: name several with -H, or in the file's x-onggi")
    _check_hosts(fleet)
    options = UpOptions(start=arguments.action == "watch")
    convergence = Convergence(project, fleet, reporter, options, _warn, _say)
    with contextlib.ExitStack() as stack:
        balancer = stack.enter_context(Balancer()) if arguments.action == "balance" else None
        watch = Watch(project, fleet, convergence, _say, balancer, converges=arguments.action == "watch")
        if balancer is not None:
            watch.balance()
        with contextlib.suppress(KeyboardInterrupt):
            watch.run(threading.Event())
    return 0


_ACTIONS: dict[str, Callable[[Project, Fleet, Reporter, argparse.Namespace], int]] = {
    "balance": _balance,
    "build": _build,
    "create": _up,
    "down": _down,
    "exec": _exec,
    "kill": _kill,
    "logs": _logs,
    "port": _port,
    "ps": _ps,
    "pull": _pull,
    "restart": _restart,
    "rm": _remove,
    "run": _run,
    "scale": _scale,
    "start": _start,
    "stop": _stop,
    "top": _top,
    "up": _up,
    "watch": _balance,
}
