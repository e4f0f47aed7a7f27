"""What the command line of `onggi compose` understands; its words are those of docker compose."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `onggi compose` understands to its parser."""
    add = parser.add_argument
    add("-f", "--file", action="append", default=[], metavar="FILE", help="a compose file; a later one adds to it")
    add("-p", "--project-name", default="", metavar="NAME", help="name of the project (default: the directory's)")
    add("--project-directory", metavar="DIRECTORY", help="from where paths count (default: the first file's)")
    add("--env-file", action="append", default=[], metavar="FILE", help="variables for the file (default: .env)")
    add("--profile", action="append", default=[], metavar="NAME", help="enable services of this profile; * for all")
    add("-H", "--host", action="append", default=[], metavar="[NAME=]URL", help="the daemon; several need names")
    add("--quiet", action="store_true", help="say nothing about what is being done")
    add("--ansi", choices=("auto", "always", "never"), default="auto", help="colours (default: on a terminal)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for define in (_define_up, _define_removal, _define_looking, _define_running, _define_images, _define_hosts):
        define(actions)


def _define_up(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, summary in (
        ("up", "make what runs be as the file says, and show its output"),
        ("create", "make the containers, and start none"),
        ("scale", "change how many containers services have: SERVICE=NUMBER"),
    ):
        parser = actions.add_parser(name, help=summary)
        add = parser.add_argument
        add("--no-deps", action="store_true", help="leave alone what the services depend on")
        if name == "scale":
            add("services", nargs="+", metavar="SERVICE=NUMBER")
            continue
        add("--build", action="store_true", help="build images before")
        add("--pull", choices=("always", "missing", "never"), default="", help="when to pull images")
        add("--force-recreate", action="store_true", help="make all containers anew")
        add("--no-recreate", action="store_true", help="leave containers that exist as they are")
        add("--remove-orphans", action="store_true", help="remove containers whose service the file has no more")
        add("--scale", action="append", default=[], metavar="SERVICE=NUMBER", help="how many containers")
        add("-t", "--timeout", type=int, metavar="SECONDS", help="how long a container has to stop")
        add("-V", "--renew-anon-volumes", action="store_true", help="do not keep anonymous volumes of old containers")
        if name == "up":
            add("-d", "--detach", action="store_true", help="do not wait, and show no output")
            add("--wait", action="store_true", help="wait until all run and are healthy, then detach")
            add("--wait-timeout", type=float, metavar="SECONDS", help="how long to wait for that")
            add("--no-start", action="store_true", help="make the containers, and start none")
            add("--no-log-prefix", action="store_true", help="no names before lines of output")
            add("--no-color", action="store_true", help="no colours")
            add("--abort-on-container-exit", action="store_true", help="stop all when one has ended")
            add("--exit-code-from", default="", metavar="SERVICE", help="stop all with this one, and end as it did")
        add("services", nargs="*", metavar="SERVICE")


def _define_removal(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    down = actions.add_parser("down", help="stop and remove containers and networks")
    down.add_argument(
        "-v", "--volumes", action="store_true", help="and the volumes that the file names, and anonymous ones"
    )
    down.add_argument("--rmi", choices=("local", "all"), default="", help="and images: those without a name, or all")
    down.add_argument("--remove-orphans", action="store_true", help="and containers of services that are no more")
    down.add_argument("-t", "--timeout", type=int, metavar="SECONDS", help="how long a container has to stop")
    for name, summary in (("stop", "stop services"), ("start", "start them again"), ("restart", "stop and start them")):
        parser = actions.add_parser(name, help=summary)
        if name != "start":
            parser.add_argument("-t", "--timeout", type=int, metavar="SECONDS", help="how long a container has to stop")
        parser.add_argument("services", nargs="*", metavar="SERVICE")
    kill = actions.add_parser("kill", help="send a signal to containers")
    kill.add_argument("-s", "--signal", default="SIGKILL")
    kill.add_argument("services", nargs="*", metavar="SERVICE")
    remove = actions.add_parser("rm", help="remove containers that have ended")
    remove.add_argument("-f", "--force", action="store_true", help="do not ask")
    remove.add_argument("-s", "--stop", action="store_true", help="stop them before")
    remove.add_argument("-v", "--volumes", action="store_true", help="and their anonymous volumes")
    remove.add_argument("services", nargs="*", metavar="SERVICE")


def _define_looking(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ps = actions.add_parser("ps", help="list containers")
    ps.add_argument("-a", "--all", action="store_true", help="those that have ended too")
    ps.add_argument("-q", "--quiet", dest="only_ids", action="store_true", help="ids alone")
    ps.add_argument("--services", dest="only_services", action="store_true", help="names of services alone")
    ps.add_argument("--format", choices=("table", "json"), default="table")
    ps.add_argument("services", nargs="*", metavar="SERVICE")
    logs = actions.add_parser("logs", help="show the output of services")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until they have ended")
    logs.add_argument("-n", "--tail", default="all", metavar="NUMBER", help="lines from the end of each")
    logs.add_argument("-t", "--timestamps", action="store_true")
    logs.add_argument("--since", default="", metavar="TIME", help="from then on: 10m ago, or 2026-01-02T03:04:05")
    logs.add_argument("--until", default="", metavar="TIME", help="and until then")
    logs.add_argument("--no-log-prefix", action="store_true")
    logs.add_argument("--no-color", action="store_true", help="no colours")
    logs.add_argument("services", nargs="*", metavar="SERVICE")
    top = actions.add_parser("top", help="list processes")
    top.add_argument("services", nargs="*", metavar="SERVICE")
    config = actions.add_parser("config", help="show the file as it is understood")
    config.add_argument("--format", choices=("yaml", "json"), default="yaml")
    config.add_argument("-q", "--quiet", dest="only_check", action="store_true", help="check it, and show nothing")
    for kind in ("services", "volumes", "networks", "images", "profiles"):
        config.add_argument(f"--{kind}", dest="only", action="store_const", const=kind, help=f"names of {kind} alone")
    port = actions.add_parser("port", help="show where a port is published")
    port.add_argument("--protocol", choices=("tcp", "udp"), default="tcp")
    port.add_argument("--index", type=int, default=1, metavar="NUMBER")
    port.add_argument("service", metavar="SERVICE")
    port.add_argument("private_port", type=int, metavar="PORT")


def _define_running(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    execute = actions.add_parser("exec", help="run a command in a container that runs")
    execute.add_argument("--index", type=int, default=0, metavar="NUMBER", help="which container of the service")
    execute.add_argument("--privileged", action="store_true")
    run = actions.add_parser("run", help="run a command in a container of its own")
    run.add_argument("--rm", action="store_true", help="remove it afterwards")
    run.add_argument("--name", default="")
    run.add_argument("--entrypoint", metavar="COMMAND")
    run.add_argument("--no-deps", action="store_true", help="leave alone what the service depends on")
    run.add_argument("-P", "--service-ports", action="store_true", help="publish the service's ports")
    run.add_argument("-v", "--volume", action="append", default=[], metavar="SOURCE:TARGET")
    run.add_argument("-l", "--label", action="append", default=[], metavar="NAME=VALUE")
    for parser in (execute, run):
        parser.add_argument("-d", "--detach", action="store_true", help="do not wait")
        parser.add_argument("-T", "--no-tty", "--no-TTY", action="store_true", help="no terminal")
        for usual in ("-i", "-t"):  # what `docker exec` needs to be told, and what is so here anyway
            parser.add_argument(usual, action="store_true", help=argparse.SUPPRESS)
        parser.add_argument("-u", "--user", default="")
        parser.add_argument("-w", "--workdir", default="")
        parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
        parser.add_argument("service", metavar="SERVICE")
        parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")


def _define_images(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = actions.add_parser("build", help="build images")
    build.add_argument("--no-cache", action="store_true")
    build.add_argument("--pull", action="store_true", help="pull newer base images")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    build.add_argument("services", nargs="*", metavar="SERVICE")
    pull = actions.add_parser("pull", help="pull images")
    pull.add_argument("services", nargs="*", metavar="SERVICE")


def _define_hosts(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    actions.add_parser("balance", help="stand in front of spread services until Ctrl-C")
    actions.add_parser("watch", help="watch the daemons, and start replicas of a lost one on the others")
