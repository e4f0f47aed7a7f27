"""`onggi engine inspect-kernel CONTAINER`: what the kernel shows of a container, beside what it shows of the host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from real_engine.explain.kernel import KernelView

_NARROW = 110  # columns from which what it means has a column of its own
_PLAIN_WIDTH = 160
_MOST_OTHERS = 64


def add_arguments(actions: Any) -> None:
    """Add the command."""
    from classroom.commands.engine_watch import _HOST_HELP, add_language

    parser: argparse.ArgumentParser = actions.add_parser(
        "inspect-kernel",
        help="show a running container as the kernel shows it, beside the host",
        description="Show namespaces, ids, capabilities, seccomp, cgroups, mounts, limits, interfaces, routes and "
        "ports of a running container, beside the host's. Only reads, through /proc, /sys and netlink. Exit status 2 "
        "if it doesn't run here, or we have no right to look.",
    )
    parser.add_argument("-H", "--host", metavar="URL", help=_HOST_HELP)
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_language(parser)
    parser.add_argument("container", metavar="CONTAINER")


def run(arguments: argparse.Namespace) -> int:
    """Look, and print.

    Raises:
        EngineError: there is no such container, it doesn't run here, or we may not look.
    """
    from real_engine.errors import Conflict, EngineError

    if sys.platform != "linux":
        raise EngineError("the kernel to be looked at is Linux; `onggi engine replay` works here")
    from real_engine.compose.host import Host
    from real_engine.explain.kernel import view

    host = Host(arguments.host or "")
    try:
        client = host.client
        with host.errors():
            found = client.inspect_container(arguments.container)
            pid = int(found["State"]["Pid"])
            if not found["State"]["Running"] or pid <= 0:
                raise Conflict(f"container {arguments.container} is not running")
            others = {}
            for each in client.containers()[:_MOST_OTHERS]:
                if each["Id"] != found["Id"]:
                    others[each["Names"][0].lstrip("/")] = int(client.inspect_container(each["Id"])["State"]["Pid"])
    finally:
        host.close()
    seen = view(pid, others, _daemon(host.url))
    if arguments.json:
        import json

        print(json.dumps({"container": found["Name"].lstrip("/"), **seen.to_json()}, ensure_ascii=False, indent=2))
    else:
        show(seen, found["Name"].lstrip("/"), arguments.lang)
    return 0


def _daemon(url: str) -> int | None:
    """The process at the other end of the daemon's socket, if that is one of this machine."""
    import socket
    import struct

    from real_engine.explain.client import connect

    if not url.startswith("unix://"):
        return None
    with connect(url) as connection:
        pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid or None


def show(seen: KernelView, name: str, language: str, width: int | None = None) -> None:
    """Print a table a section."""
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from classroom.commands.engine_records import printable
    from simulator.words import Words

    words = Words(Path(__file__).parent, language)
    console = Console(highlight=False, width=width)
    if not console.is_terminal and width is None:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    console.print(words("kernel.title", name=name, pid=seen.pid), style="bold", markup=False)
    for section in seen.sections:
        if not section.rows:
            continue
        wide = console.width >= _NARROW
        table = Table(title=words(f"kernel.{section.key}"), title_justify="left", box=None, pad_edge=False, expand=True)
        table.add_column("", ratio=3, overflow="fold", style="bold")
        table.add_column(words("kernel.container"), ratio=5, overflow="fold")
        table.add_column(words("kernel.host"), ratio=4, overflow="fold", style="cyan")
        if wide:
            table.add_column(words("kernel.note"), ratio=5, overflow="fold", style="italic dim")
        for row in section.rows:
            cells = [Text(printable(each)) for each in (row.name, row.container, row.host)]
            note = words.get(f"kernel.meaning.{row.note}", row.note) if row.note else ""
            if wide:
                cells.append(Text(note))
            table.add_row(*cells)
            if note and not wide:
                table.add_row("", Text(note, "italic dim"), "")
        console.print(table)
        console.print()
