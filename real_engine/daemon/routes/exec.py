"""The API's calls under /exec, and the one that makes what they are about."""

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers import fields
from real_engine.daemon.containers.attaching import frame, plain
from real_engine.daemon.containers.streams import parse_detach_keys
from real_engine.daemon.routes.containers import check_window, window_size
from real_engine.errors import EngineError, InvalidParameter
from real_engine.http.messages import MULTIPLEXED_STREAM, RAW_STREAM, Request, Response
from real_engine.http.router import Router

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon

_LARGEST_BODY = 4 << 20
_EXPLAIN_SECONDS = 3.0  # a client that reads nothing is not waited for longer


class ExecRoutes:
    """What a request about programs in a running container means."""

    def __init__(self, daemon: "Daemon") -> None:
        self._containers = daemon.containers
        self._execs = daemon.containers.execs

    def create(self, request: Request) -> Response:
        """POST /containers/{name}/exec."""
        execution = self._execs.create(
            request.match["name"], fields.checked("ExecConfig", fields.EXEC, _object(request))
        )
        return Response.json({"Id": execution.id}, status=201)

    def start(self, request: Request) -> Response | None:
        """POST /exec/{id}/start: without `Detach` the connection becomes the program's standard streams."""
        execution = self._execs.get(request.match["id"])
        options = fields.checked("ExecStartCheck", fields.EXEC_START, _object(request))
        self._execs.check_startable(execution)
        size = options.get("ConsoleSize")
        size = check_window(*size) if execution.terminal and size else None
        if options.get("Detach"):
            self._execs.launch(execution, None, framed=False, size=size)
            return Response(status=200)
        framed = not execution.terminal
        modern = request.version is None or request.version >= (1, 42)
        keys = parse_detach_keys(execution.settings.get("DetachKeys") or "")
        kind = MULTIPLEXED_STREAM if framed and modern else RAW_STREAM
        with request.hijack(content_type=kind) as hijacked, plain(hijacked) as descriptor:

            def explain(reason: str) -> None:
                # The answer's head is out, so what went wrong is told in the stream, as Docker does.
                line = f"{reason}\r\n".encode()
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
                    connection.settimeout(_EXPLAIN_SECONDS)
                    connection.sendall(frame("stdout", line) if framed else line)

            # It has been told in the stream, and there is nowhere else to tell it.
            with contextlib.suppress(EngineError):
                self._execs.launch(
                    execution,
                    descriptor,
                    framed=framed,
                    keys=keys,
                    pending=hijacked.buffered,
                    size=size,
                    explain=explain,
                )
        return None

    def resize(self, request: Request) -> Response:
        """POST /exec/{id}/resize."""
        execution = self._execs.get(request.match["id"])
        rows, columns = window_size(request)
        self._execs.resize(execution, rows, columns)
        return Response(status=200)

    def inspect(self, request: Request) -> Response:
        """GET /exec/{id}/json."""
        return Response.json(self._execs.inspect(request.match["id"]))


def register(router: Router, daemon: "Daemon") -> None:
    """Add the calls to the router."""
    routes = ExecRoutes(daemon)
    router.add("POST", "/containers/{name}/exec", routes.create)
    router.add("POST", "/exec/{id}/start", routes.start)
    router.add("POST", "/exec/{id}/resize", routes.resize)
    router.add("GET", "/exec/{id}/json", routes.inspect)


def _object(request: Request) -> dict[str, Any]:
    body = request.json(limit=_LARGEST_BODY)
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise InvalidParameter("the body must be a JSON object")
    return body
