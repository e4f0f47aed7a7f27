"""A client of `/onggi/explain`: what a daemon does for requests that carry our token."""

from __future__ import annotations

import contextlib
import heapq
import http.client
import itertools
import json
import os
import secrets
import socket
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from real_engine.errors import EngineError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = "X-Onggi-Explain"
_SECONDS = 10.0
_MOST_LINE_BYTES = 1 << 20
_LATE_SECONDS = 0.03  # so long what has come waits for what was earlier and comes later


def connect(url: str) -> socket.socket:
    """A connection to a daemon: `unix://PATH` or `tcp://HOST:PORT`, the latter with TLS as docker's variables say.

    Raises:
        Unavailable: nobody is there.
        EngineError: an address of another kind.
    """
    parts = urlsplit(url)
    try:
        if parts.scheme == "unix":
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.connect(parts.path)
            except BaseException:
                made.close()
                raise
            return made
        if parts.scheme != "tcp":
            raise EngineError(f"`{url}` is no daemon's address: write unix://PATH or tcp://HOST:PORT")
        made = socket.create_connection((parts.hostname or "", parts.port or 2376), _SECONDS)
        made.settimeout(None)
        if os.environ.get("DOCKER_TLS_VERIFY"):
            return _secured(made, parts.hostname or "")
        return made
    except OSError as error:
        raise Unavailable(f"cannot connect to the daemon at {url}: {error.strerror or error}") from error


def _secured(made: socket.socket, host: str) -> socket.socket:
    import ssl

    directory = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context.wrap_socket(made, server_hostname=host)


class _Connection(http.client.HTTPConnection):
    def __init__(self, url: str) -> None:
        super().__init__("daemon")
        self._url = url

    def connect(self) -> None:
        self.sock = connect(self._url)


class Explained:
    """Listens to what the daemon at `url` does for requests with `header`, and gives each record to `tell`.

    `tell` is called by a thread of its own. In its records `begin` has become `at`, seconds since `origin` on this
    machine's `clock` (time.perf_counter where nothing else is said).

    Raises:
        EngineError: the daemon isn't one of ours, or away.
    """

    def __init__(
        self, url: str, tell: Callable[[dict[str, Any]], None], origin: float, clock: Callable[[], float]
    ) -> None:
        self.token = secrets.token_hex(16)
        self.header = f"{HEADER}: {self.token}"
        self._url = url
        self._tell = tell
        self._connection = _Connection(url)
        try:
            self._connection.request("GET", f"/onggi/explain?token={self.token}")
            self._response = self._connection.getresponse()
        except http.client.HTTPException as error:
            raise EngineError(f"the daemon at {url} doesn't speak HTTP: {error!r}") from error
        if self._response.status != 200:
            self._connection.close()
            raise EngineError(
                f"the daemon at {url} can't explain itself, so it isn't onggi's: name one that is with -H, or see what "
                "is said to it with `onggi engine trace`"
            )
        first = self._record()
        self._shift = clock() - origin - (float(first["clock"]) if first else 0.0)
        self._clock, self._origin = clock, origin
        self._order = threading.Lock()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="explained", daemon=True)
        self._thread.start()
        # What is shown takes longer than what is heard, so another thread shows it: in the order of its moments.
        self._shower = threading.Thread(target=self._show, name="shown", daemon=True)
        self._shower.start()

    def __enter__(self) -> Explained:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, show: Callable[[], None]) -> None:
        """Call `show` soon: behind the records of what was done until now, and before those of what is done later."""
        self._put(self._now(), show)

    def place(self, record: dict[str, Any]) -> None:
        """Tell of a record that came from elsewhere, at its place among the daemon's."""
        self._put(float(record["at"]), partial(self._tell, record))

    def _now(self) -> float:
        return self._clock() - self._origin

    def _put(self, moment: float, show: Callable[[], None]) -> None:
        with self._order:
            heapq.heappush(self._waiting, (moment, next(self._numbers), show))

    def _show_until(self, moment: float) -> None:
        while True:
            with self._order:
                if not self._waiting or self._waiting[0][0] > moment:
                    return
                show = heapq.heappop(self._waiting)[2]
            show()

    def _show(self) -> None:
        while not self._ended.wait(_LATE_SECONDS / 4):
            self._show_until(self._now() - _LATE_SECONDS)
        self._show_until(float("inf"))

    def close(self) -> None:
        """Wait until all that was done is told, and listen no more."""
        with contextlib.suppress(EngineError, OSError, http.client.HTTPException):
            ending = _Connection(self._url)
            try:
                ending.request("POST", f"/onggi/explain/end?token={self.token}")
                ending.getresponse().read()
            finally:
                ending.close()
        self._thread.join(_SECONDS)
        self._ended.set()
        self._shower.join()
        self._connection.close()

    def _record(self) -> dict[str, Any] | None:
        try:
            line = self._response.readline(_MOST_LINE_BYTES)
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            return None  # the daemon has gone, or we have closed
        if not line:
            return None
        record: dict[str, Any] = json.loads(line)
        return record

    def _listen(self) -> None:
        while (record := self._record()) is not None and record["kind"] != "end":
            begin = record.pop("begin", None)
            record["at"] = 0.0 if begin is None else round(max(0.0, begin + self._shift), 6)
            moment = self._now() if begin is None else record["at"]
            self._put(moment + (record["seconds"] if record["kind"] == "step" else 0.0), partial(self._tell, record))
