"""Our own additions to the API, beneath /onggi: what a client's requests make the daemon do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from real_engine.errors import Conflict, InvalidParameter, NotFound
from real_engine.explain.recorder import line_of
from real_engine.http.messages import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from real_engine.daemon.app import Daemon
    from real_engine.explain.recorder import Listener
    from real_engine.http.messages import Request
    from real_engine.http.router import Router

_TOKEN_LENGTHS = (16, 128)  # a token is to be guessed by nobody, and kept by us


class ExplainRoutes:
    """What a request about explanations means."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def listen(self, request: Request) -> Response:
        """GET /onggi/explain?token=…: each step of the requests that carry the token, as lines of JSON.

        The first line is `{"kind": "listening", "clock": …}`: the daemon's `time.perf_counter`, in seconds.
        """
        listener = self._daemon.explanations.listen(_token(request))
        if listener is None:
            raise Conflict("somebody listens with this token, or too many listen: name another, or wait")
        return Response(200, self._lines(request, listener), content_type="application/x-ndjson")

    def finish(self, request: Request) -> Response:
        """POST /onggi/explain/end?token=…: the listener gets what was told before this, and its stream ends."""
        if not self._daemon.explanations.finish(_token(request)):
            raise NotFound("nobody listens with this token")
        return Response(204)

    def _lines(self, request: Request, listener: Listener) -> Iterator[bytes]:
        try:
            yield line_of({"kind": "listening", "clock": time.perf_counter()})
            while True:
                if request.poll(listener.fileno(), None) == "gone":
                    return
                records = listener.take()
                if records:
                    yield b"".join(map(line_of, records))
                if any(record["kind"] == "end" for record in records):
                    return
        finally:
            self._daemon.explanations.leave(listener)


def _token(request: Request) -> str:
    token = request.query.get("token")
    least, most = _TOKEN_LENGTHS
    if not least <= len(token) <= most or not token.isascii() or not token.isalnum():
        raise InvalidParameter(f"a token has from {least} to {most} letters and digits")
    return token


def register(router: Router, daemon: Daemon) -> None:
    """Add the calls to the router."""
    routes = ExplainRoutes(daemon)
    router.add("GET", "/onggi/explain", routes.listen)
    router.add("POST", "/onggi/explain/end", routes.finish)
