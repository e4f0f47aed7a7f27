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
    """Print a table a section: what a thing is in the container, on the host, and what that means."""
    from pathlib import Path

    from rich.console import Console

    from classroom.commands.engine_records import Phrases, columns, print_row, printable
    from simulator.words import Words

    words = Words(Path(__file__).parent, language)
    tables = ("name", "value", "limit", "meaning")  # limits are said as proc_pid_limits(5) says them
    names, values, limits, meanings = (Phrases(words, f"kernel.{table}") for table in tables)
    console = Console(highlight=False, width=width)
    if not console.is_terminal and width is None:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    console.print(words("kernel.title", name=name, pid=seen.pid), style="bold", markup=False)
    for section in seen.sections:
        if not section.rows:
            continue
        rows = []
        for row in section.rows:
            inset = " " * (len(row.name) - len(row.name.lstrip()))
            label = inset + names(row.name.lstrip())
            amount = limits if section.key == "limits" else values
            cells = (label, amount(row.container), amount(row.host), meanings(row.note))
            rows.append([printable(each) for each in cells])
        longest = max(columns(cells[0]) for cells in rows)
        heads = ["", words("kernel.container"), words("kernel.host"), words("kernel.note")]
        widths = _widths(console.width, longest)
        console.print()
        console.print(words(f"kernel.{section.key}"), style="bold reverse", markup=False)
        print_row(console, widths, heads if len(widths) == 4 else heads[:3], ("", *("bold underline",) * 3))
        for shown in rows:
            print_row(console, widths, shown, ("bold", "", "cyan", "italic"), 1)


def _widths(width: int, longest: int) -> tuple[int, ...]:
    """Columns of name, container, host and, where there is room for it, meaning."""
    name = min(longest, width // 4 + 4)
    room = width - name - 2
    if width < _NARROW:
        return name, room * 5 // 9 - 2, room - room * 5 // 9
    return name, room * 5 // 14 - 2, room * 4 // 14 - 2, room - room * 5 // 14 - room * 4 // 14
