"""`onggi engine build|pull|network|explain|trace|replay`: a daemon at work, and what is said to it.

What drives a daemon does so through the same API as docker, with a header by which the daemon tells each of its steps.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from classroom.commands.engine_records import Teller

Json = dict[str, Any]

_HOST_HELP = "the daemon: unix://PATH or tcp://HOST:PORT (default: $DOCKER_HOST, else onggi's own, else Docker's)"
LANGUAGES = ("en", "ko")


def add_language(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses a language."""
    parser.add_argument(
        "--lang", "--language", choices=LANGUAGES, default="en", help="language of what is explained (default: en)"
    )


def add_arguments(actions: Any) -> None:
    """Add the commands that watch a daemon."""

    def command(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=f"{summary}. {more}".strip())
        add_language(made)
        return made

    def driving(name: str, summary: str) -> argparse.ArgumentParser:
        made = command(name, summary)
        made.add_argument("-H", "--host", metavar="URL", help=_HOST_HELP)
        made.add_argument("--explain", action="store_true", help="print each step of the daemon, why, and its time")
        return made

    pull = driving("pull", "have a daemon pull an image")
    pull.add_argument("--platform", metavar="OS/ARCHITECTURE", help="for this platform, and not the daemon's own")
    pull.add_argument("image", metavar="IMAGE")
    build = driving("build", "have a daemon build an image from a directory")
    build.add_argument("-t", "--tag", metavar="NAME", help="what the image is called")
    build.add_argument("-f", "--file", metavar="FILE", help="the Dockerfile (default: DIRECTORY/Dockerfile)")
    build.add_argument("--no-cache", action="store_true", help="make each step anew")
    build.add_argument("--target", default="", metavar="STAGE", help="the stage to stop at")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="a value for ARG")
    build.add_argument("--every-step", action="store_true", help="explain each kernel step of each RUN, one by one")
    build.add_argument("directory", metavar="DIRECTORY")
    network = actions.add_parser("network", help="have a daemon make a network, or connect a container to one")
    inner = network.add_subparsers(dest="network_action", required=True, metavar="ACTION")
    create = inner.add_parser("create", help="make a bridge network")
    create.add_argument("--subnet", metavar="SUBNET", help="its addresses (default: the next free pool)")
    create.add_argument("--internal", action="store_true", help="without a way to the outside")
    create.add_argument("--ipv6", action="store_true", help="with IPv6 too")
    create.add_argument("network", metavar="NETWORK")
    connect = inner.add_parser("connect", help="give a container a place in a network")
    connect.add_argument("--alias", action="append", default=[], metavar="NAME", help="another name of it there")
    connect.add_argument("--ip", metavar="ADDRESS", help="its address (default: the next free one)")
    connect.add_argument("network", metavar="NETWORK")
    connect.add_argument("container", metavar="CONTAINER")
    for each in (create, connect):
        each.add_argument("-H", "--host", metavar="URL", help=_HOST_HELP)
        each.add_argument("--explain", action="store_true", help="print each step of the daemon, why, and its time")
        add_language(each)
    explain = command(
        "explain",
        "run a docker command, and print each step that the daemon does for it",
        "The exit status is the command's.",
    )
    trace = command(
        "trace",
        "run a docker command, and print what it and the daemon say to each other",
        "Secrets are neither shown nor recorded, nor is what is typed. The exit status is the command's.",
    )
    trace.add_argument("--explain", action="store_true", help="the daemon's steps too")
    for each in (explain, trace):
        each.add_argument("-H", "--host", metavar="URL", help=_HOST_HELP)
        each.add_argument("--record", metavar="FILE.jsonl", help="write it down, for `onggi engine replay`")
        each.add_argument(
            "command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="docker … or docker-compose …"
        )
    replay = command("replay", "show a recorded session", "It needs neither Linux nor a daemon.")
    replay.add_argument("--speed", type=_speed, default=0.0, metavar="N", help="N times as fast as it was (default: 0)")
    replay.add_argument("--step", action="store_true", help="wait for Enter before each request and step")
    replay.add_argument("--no-steps", action="store_true", help="only what was said")
    replay.add_argument("--no-exchange", action="store_true", help="only what the daemon did")
    replay.add_argument("file", metavar="FILE.jsonl")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    if arguments.action == "replay":
        return _replay(arguments)
    if arguments.action in ("explain", "trace"):
        return _watch(arguments)
    drive: dict[str, Callable[[argparse.Namespace, Any], int]] = {
        "pull": _pull,
        "build": _build,
        "network": _network,
        "run": _run,
    }
    with driven(arguments) as client:
        return drive[arguments.action](arguments, client)


# --- driving a daemon ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def driven(arguments: argparse.Namespace) -> Iterator[Any]:
    """The SDK's client for the daemon; with --explain, its steps are told meanwhile.

    Raises:
        EngineError: what the daemon refuses, in its own words.
    """
    from real_engine.compose.host import Host

    host = Host(arguments.host or "")
    with contextlib.ExitStack() as stack:
        client = host.client
        stack.callback(host.close)
        if arguments.explain:
            from classroom.commands.engine_records import Teller
            from real_engine.explain.client import HEADER, Explained

            many = arguments.action == "build" and not arguments.every_step
            teller = Teller(arguments.lang, exchange=False, phases=many)
            origin = time.perf_counter()
            stack.callback(lambda: teller.end(time.perf_counter() - origin))
            explained = stack.enter_context(Explained(host.url, teller, origin, time.perf_counter))
            client.headers[HEADER] = explained.token
            arguments.say = explained.say
        with host.errors():
            yield client


def _pull(arguments: argparse.Namespace, client: Any) -> int:
    from docker.utils import parse_repository_tag

    name, tag = parse_repository_tag(arguments.image)
    lines = client.pull(name, tag=tag or "latest", stream=True, decode=True, platform=arguments.platform)
    return _told(lines, arguments, quiet=arguments.explain)


def _build(arguments: argparse.Namespace, client: Any) -> int:
    directory = Path(arguments.directory)
    _refuse_unless(directory.is_dir(), f"{directory} is no directory, which the context of a build must be")
    given = dict(each.partition("=")[::2] for each in arguments.build_arg)
    lines = client.build(
        path=str(directory),
        dockerfile=arguments.file,
        tag=arguments.tag,
        nocache=arguments.no_cache,
        target=arguments.target,
        buildargs=given,
        rm=True,
        decode=True,
    )
    return _told(lines, arguments, quiet=False)


def _told(lines: Any, arguments: argparse.Namespace, *, quiet: bool) -> int:
    """Print what a pull or a build says, line by line; `quiet` leaves out how far it is.

    Where steps are explained, a line stands between them at its moment.

    Raises:
        EngineError: it failed, in the daemon's words.
    """
    from real_engine.errors import EngineError

    say: Callable[[Callable[[], None]], None] = getattr(arguments, "say", lambda show: show())
    text = ""
    for line in lines:
        if "error" in line:
            say(partial(print, text, end="", flush=True))
            raise EngineError(str(line["error"]))
        if "stream" in line:
            text += line["stream"]
            if text.endswith("\n"):
                say(partial(print, text, end="", flush=True))
                text = ""
        elif "status" in line and not line.get("progressDetail") and not (quiet and "id" in line):
            said = f"{line['id']}: {line['status']}" if "id" in line else line["status"]
            say(partial(print, said, flush=True))
    say(partial(print, text, end="", flush=True))
    return 0


def _network(arguments: argparse.Namespace, client: Any) -> int:
    if arguments.network_action == "connect":
        client.connect_container_to_network(
            arguments.container, arguments.network, aliases=arguments.alias or None, ipv4_address=arguments.ip
        )
        return 0
    pools = [{"Subnet": arguments.subnet}] if arguments.subnet else []
    made = client.create_network(
        arguments.network,
        driver="bridge",
        ipam={"Driver": "default", "Config": pools} if pools else None,
        check_duplicate=True,
        internal=arguments.internal,
        enable_ipv6=arguments.ipv6,
    )
    print(made["Id"])
    return 0


def _run(arguments: argparse.Namespace, client: Any) -> int:
    """`docker run --rm`, without a terminal and without input."""
    from docker.errors import ImageNotFound
    from docker.utils import parse_repository_tag

    options: Json = {
        "network_mode": arguments.network,
        "read_only": arguments.read_only,
        "tmpfs": dict.fromkeys(arguments.tmpfs, "") or None,
        "cap_add": arguments.cap_add or None,
        "cap_drop": arguments.cap_drop or None,
        "security_opt": arguments.security_opt or None,
        "mem_limit": arguments.memory,
        "nano_cpus": int(arguments.cpus * 1e9) if arguments.cpus else None,
        "pids_limit": arguments.pids_limit,
    }
    config: Json = {
        "command": arguments.command or None,
        "environment": [each if "=" in each else f"{each}={os.environ.get(each, '')}" for each in arguments.env],
        "hostname": arguments.hostname or None,
        "working_dir": arguments.workdir,
        "user": arguments.user,
        "host_config": client.create_host_config(**options),
    }
    try:
        made = client.create_container(arguments.image, **config)
    except ImageNotFound:
        name, tag = parse_repository_tag(arguments.image)
        _told(client.pull(name, tag=tag or "latest", stream=True, decode=True), arguments, quiet=True)
        made = client.create_container(arguments.image, **config)
    identifier = made["Id"]
    try:
        output = client.attach(identifier, stdout=True, stderr=True, stream=True, demux=True)
        client.start(identifier)
        for out, wrong in output:
            for stream, data in ((sys.stdout, out), (sys.stderr, wrong)):
                if data:
                    stream.buffer.write(data)
                    stream.buffer.flush()
        return int(client.wait(identifier)["StatusCode"])
    finally:
        client.remove_container(identifier, force=True, v=True)


# --- watching a command ----------------------------------------------------------------------------------------------


def _watch(arguments: argparse.Namespace) -> int:
    """Run a command with a proxy between it and the daemon."""
    import subprocess
    import tempfile

    from classroom.commands.engine_records import Teller
    from real_engine.compose.host import default_url
    from real_engine.errors import EngineError
    from real_engine.explain import client, session
    from real_engine.explain.proxy import Proxy

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    _refuse_unless(bool(command), f"say which command: onggi engine {arguments.action} -- docker run hello-world")
    url = arguments.host or default_url()
    client.connect(url).close()  # what is wrong with the daemon is said by us, and not by a command that was cut off
    steps, exchange = arguments.action == "explain" or arguments.explain, arguments.action == "trace"
    teller = Teller(arguments.lang, steps=steps, exchange=exchange)
    origin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        tell: Callable[[Json], None] = teller
        if arguments.record:
            recording = session.Recording(Path(arguments.record))
            stack.callback(recording.close)
            recording(session.header(command, daemon=_version(url)))
            tell = _both(recording, teller)
        extra = ""
        if steps:
            explained = client.Explained(url, tell, origin, time.perf_counter)
            stack.callback(lambda: teller.end(time.perf_counter() - origin))
            stack.enter_context(explained)
            extra, tell = explained.header, explained.place
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="onggi-"))
        path = Path(directory) / "docker.sock"

        def now() -> float:
            return time.perf_counter() - origin

        stack.enter_context(Proxy(path, lambda: client.connect(url), tell, now, extra))
        hidden = ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment["DOCKER_HOST"] = f"unix://{path}"
        try:
            child = subprocess.Popen(command, env=environment)
        except OSError as error:
            raise EngineError(f"cannot run {command[0]}: {error.strerror}") from error
        while True:
            try:
                status = child.wait()
                break
            except KeyboardInterrupt:
                continue  # it has got the same interrupt, and decides what it does
        return status if status >= 0 else 128 - status


def _both(recording: Callable[[Json], None], teller: Teller) -> Callable[[Json], None]:
    def tell(record: Json) -> None:
        recording(record)
        teller(record)

    return tell


def _version(url: str) -> str:
    """What the daemon calls itself."""
    import http.client
    import json

    from real_engine.explain.client import connect

    connection = http.client.HTTPConnection("daemon")
    connection.sock = connect(url)
    try:
        connection.request("GET", "/version")
        answer = json.loads(connection.getresponse().read(1 << 20))
        name = (answer.get("Platform") or {}).get("Name") or "docker"
        return f"{name} {answer.get('Version', '?')} (API {answer.get('ApiVersion', '?')})"
    except (OSError, ValueError, http.client.HTTPException):
        return "?"
    finally:
        connection.close()


def _replay(arguments: argparse.Namespace) -> int:
    """Show a recording."""
    from classroom.commands.engine_records import Teller
    from real_engine.explain.session import paced, read

    teller = Teller(
        arguments.lang, sys.stdout, steps=not arguments.no_steps, exchange=not arguments.no_exchange, phases=False
    )
    records = read(Path(arguments.file))
    if not arguments.step:
        records = paced(records, arguments.speed)
    waits = set(() if arguments.no_exchange else ("request",)) | set(() if arguments.no_steps else ("step",))
    for record in records:
        if arguments.step and record["kind"] in waits:
            try:
                input()
            except EOFError:
                return 0
        teller(record)
    teller.end()
    return 0


def _speed(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"`{text}` is no speed: 1 is as it was, 10 ten times as fast, 0 without pause")
    return number


def _refuse_unless(fine: bool, text: str) -> None:
    from real_engine.errors import InvalidParameter

    if not fine:
        raise InvalidParameter(text)
