"""The API's calls under /containers."""

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers import attaching, files, observation
from real_engine.daemon.containers.streams import parse_detach_keys
from real_engine.errors import InvalidParameter, NotFound
from real_engine.filters import parse_filters
from real_engine.http.messages import Request, Response
from real_engine.http.router import Router

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon

Json = dict[str, Any]

_LARGEST_BODY = 4 << 20
_LONGEST_NUMBER = 18  # digits: what a 64-bit number holds in any case


class ContainerRoutes:
    """What a request about containers means, and how the answer looks."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._containers = daemon.containers

    def list_all(self, request: Request) -> Response:
        """GET /containers/json."""
        filters = parse_filters(request.query.get("filters"))
        limit = request.query.integer("limit", 0)
        found = self._containers.list(
            filters, everything=request.query.flag("all"), limit=limit, size=request.query.flag("size")
        )
        return Response.json(found)

    def create(self, request: Request) -> Response:
        """POST /containers/create."""
        body = _object(request)
        for key in [key for key in body if key.lower() == "hostconfig"]:
            _without_removed(request, body[key])
        record, warnings = self._containers.create(body, request.query.get("name"), request.query.get("platform"))
        return Response.json({"Id": record.id, "Warnings": warnings}, status=201)

    def inspect(self, request: Request) -> Response:
        """GET /containers/{name}/json."""
        return Response.json(self._containers.inspect(request.match["name"], size=request.query.flag("size")))

    def start(self, request: Request) -> Response:
        """POST /containers/{name}/start."""
        parse_detach_keys(request.query.get("detachKeys"))  # nobody is attached here, but wrong ones are refused
        self._containers.lifecycle.start(request.match["name"])
        return Response(status=204)

    def stop(self, request: Request) -> Response:
        """POST /containers/{name}/stop."""
        self._containers.lifecycle.stop(request.match["name"], _seconds(request), request.query.get("signal"))
        return Response(status=204)

    def restart(self, request: Request) -> Response:
        """POST /containers/{name}/restart."""
        self._containers.lifecycle.restart(request.match["name"], _seconds(request), request.query.get("signal"))
        return Response(status=204)

    def kill(self, request: Request) -> Response:
        """POST /containers/{name}/kill."""
        self._containers.lifecycle.kill(request.match["name"], request.query.get("signal"))
        return Response(status=204)

    def pause(self, request: Request) -> Response:
        """POST /containers/{name}/pause."""
        self._containers.lifecycle.pause(request.match["name"])
        return Response(status=204)

    def unpause(self, request: Request) -> Response:
        """POST /containers/{name}/unpause."""
        self._containers.lifecycle.unpause(request.match["name"])
        return Response(status=204)

    def rename(self, request: Request) -> Response:
        """POST /containers/{name}/rename."""
        self._containers.rename(request.match["name"], request.query.get("name"))
        return Response(status=204)

    def update(self, request: Request) -> Response:
        """POST /containers/{name}/update."""
        body = _object(request)
        _without_removed(request, body)
        return Response.json({"Warnings": self._containers.update(request.match["name"], body)})

    def resize(self, request: Request) -> Response:
        """POST /containers/{name}/resize."""
        rows, columns = window_size(request)
        self._containers.resize(request.match["name"], rows, columns)
        return Response(status=200)

    def remove(self, request: Request) -> Response:
        """DELETE /containers/{name}."""
        query = request.query
        if query.flag("link"):
            raise NotFound(f"No such link: {request.match['name']}")
        self._containers.removal.remove(request.match["name"], force=query.flag("force"), volumes=query.flag("v"))
        return Response(status=204)

    def prune(self, request: Request) -> Response:
        """POST /containers/prune."""
        deleted, reclaimed = self._containers.removal.prune(parse_filters(request.query.get("filters")))
        return Response.json({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})

    def top(self, request: Request) -> Response:
        """GET /containers/{name}/top."""
        record = self._containers.get(request.match["name"])
        shown = observation.top(self._containers, record, request.query.get("ps_args", "-ef"))
        self._containers.publish(record, "top")
        return Response.json(shown)

    def changes(self, request: Request) -> Response:
        """GET /containers/{name}/changes."""
        record = self._containers.get(request.match["name"])
        return Response.json(files.changes(self._containers, record) or None)

    def export(self, request: Request) -> Response:
        """GET /containers/{name}/export."""
        record = self._containers.get(request.match["name"])
        return Response(body=files.export(self._containers, record), content_type="application/octet-stream")

    def stats(self, request: Request) -> Response:
        """GET /containers/{name}/stats."""
        record = self._containers.get(request.match["name"])
        stream = request.query.flag("stream", default=True)
        one_shot = request.query.flag("one-shot")
        if stream and one_shot:
            raise InvalidParameter("cannot have stream=true and one-shot=true")
        samples = observation.stats(self._containers, record, request, stream=stream, one_shot=one_shot)
        return Response(body=samples, content_type="application/json")

    def logs(self, request: Request) -> Response:
        """GET /containers/{name}/logs."""
        record = self._containers.get(request.match["name"])
        options = observation.LogOptions.from_query(request.query)
        body = observation.logs(self._containers, record, options, request)
        return Response(body=body, content_type=_stream_type(request, record.terminal))

    def wait(self, request: Request) -> Response:
        """POST /containers/{name}/wait: the head is sent at once, and the answer when the time has come."""
        condition = request.query.get("condition") or "not-running"
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidParameter(f'invalid condition: "{condition}"')
        record = self._containers.get(request.match["name"])
        answer = self._wait(record.id, condition, request)
        next(answer)  # it waits from now on, before the client learns that it may start the container
        return Response(body=answer)

    def _wait(self, identifier: str, condition: str, request: Request) -> Iterator[bytes]:
        with self._containers.waiting(identifier, condition) as waiter:
            yield b""
            if request.poll(waiter.fileno(), None) == "ready":
                answer: Json = {"StatusCode": waiter.exit_code}
                if waiter.error:
                    answer["Error"] = {"Message": waiter.error}
                yield json.dumps(answer).encode() + b"\n"

    def attach(self, request: Request) -> None:
        """POST /containers/{name}/attach: the connection becomes the container's standard streams."""
        record = self._containers.get(request.match["name"])
        attaching.check_attachable(record)
        keys = parse_detach_keys(request.query.get("detachKeys"))
        attaching.attach(self._containers, record, request, keys, multiplexed=not record.terminal)

    def attach_websocket(self, request: Request) -> None:
        """GET /containers/{name}/attach/ws."""
        record = self._containers.get(request.match["name"])
        attaching.check_attachable(record)
        keys = parse_detach_keys(request.query.get("detachKeys"))
        attaching.attach_websocket(self._containers, record, request, keys)

    def archive_head(self, request: Request) -> Response:
        """HEAD /containers/{name}/archive."""
        record = self._containers.get(request.match["name"])
        status = files.path_status(self._containers, record, _path(request))
        return Response(status=200, headers={"X-Docker-Container-Path-Stat": _encoded(status)})

    def archive_get(self, request: Request) -> Response:
        """GET /containers/{name}/archive."""
        record = self._containers.get(request.match["name"])
        status, body = files.read_archive(self._containers, record, _path(request))
        headers = {"X-Docker-Container-Path-Stat": _encoded(status)}
        return Response(body=body, headers=headers, content_type="application/x-tar")

    def archive_put(self, request: Request) -> Response:
        """PUT /containers/{name}/archive."""
        record = self._containers.get(request.match["name"])
        query = request.query
        files.write_archive(
            self._containers,
            record,
            _path(request),
            request.body,
            keep_kinds=query.flag("noOverwriteDirNonDir"),
            copy_owner=query.flag("copyUIDGID"),
        )
        return Response(status=200)


def register(router: Router, daemon: "Daemon") -> None:
    """Add the calls to the router."""
    routes = ContainerRoutes(daemon)
    router.add("GET", "/containers/json", routes.list_all)
    router.add("POST", "/containers/create", routes.create)
    router.add("POST", "/containers/prune", routes.prune)
    for method, action, handler in (
        ("GET", "json", routes.inspect),
        ("GET", "top", routes.top),
        ("GET", "logs", routes.logs),
        ("GET", "changes", routes.changes),
        ("GET", "export", routes.export),
        ("GET", "stats", routes.stats),
        ("POST", "resize", routes.resize),
        ("POST", "start", routes.start),
        ("POST", "stop", routes.stop),
        ("POST", "restart", routes.restart),
        ("POST", "kill", routes.kill),
        ("POST", "update", routes.update),
        ("POST", "rename", routes.rename),
        ("POST", "pause", routes.pause),
        ("POST", "unpause", routes.unpause),
        ("POST", "wait", routes.wait),
        ("POST", "attach", routes.attach),
        ("GET", "attach/ws", routes.attach_websocket),
        ("HEAD", "archive", routes.archive_head),
        ("GET", "archive", routes.archive_get),
        ("PUT", "archive", routes.archive_put),
    ):
        router.add(method, f"/containers/{{name}}/{action}", handler)
    router.add("DELETE", "/containers/{name}", routes.remove)


def window_size(request: Request) -> tuple[int, int]:
    """The rows and columns that a request to resize a terminal names.

    Raises:
        InvalidParameter: no numbers.
    """
    texts = [request.query.get(name) for name in ("h", "w")]
    for text in texts:
        if not (text.isascii() and text.removeprefix("-").isdigit()):
            raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
        if len(text) > _LONGEST_NUMBER:
            raise InvalidParameter(f'strconv.Atoi: parsing "{text}": value out of range')
    rows, columns = map(int, texts)
    return check_window(rows, columns)


def check_window(rows: int, columns: int) -> tuple[int, int]:
    """The rows and columns, if a terminal may have so many.

    Raises:
        InvalidParameter: it may not.
    """
    if not (0 <= rows < 65536 and 0 <= columns < 65536):
        raise InvalidParameter("a terminal has from 0 to 65535 rows and columns")
    return rows, columns


def _object(request: Request) -> Json:
    body = request.json(limit=_LARGEST_BODY)
    if not isinstance(body, dict):
        raise InvalidParameter("the body must be a JSON object")
    return body


def _without_removed(request: Request, host_config: Any) -> None:
    """Take out what the client's API has no more: limits of the kernel's memory, since 1.42."""
    if isinstance(host_config, dict) and (request.version is None or request.version >= (1, 42)):
        for key in [key for key in host_config if key.lower() == "kernelmemory"]:
            del host_config[key]


def _seconds(request: Request) -> int | None:
    text = request.query.get("t")
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from error


def _path(request: Request) -> str:
    path = request.query.path("path")
    if not path:
        raise InvalidParameter('bad parameter: "path" cannot be empty')
    return path


def _encoded(status: Json) -> str:
    return base64.b64encode(json.dumps(status).encode()).decode()


def _stream_type(request: Request, terminal: bool) -> str:
    """The media type of a container's output: since API 1.42 a client is told whether it is framed."""
    if terminal or (request.version is not None and request.version < (1, 42)):
        return "application/vnd.docker.raw-stream"
    return "application/vnd.docker.multiplexed-stream"
