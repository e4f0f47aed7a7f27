"""Runs a daemon in the foreground: where it listens, what signals mean to it, and in which order it begins and ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from real_engine.daemon.app import Daemon
from real_engine.daemon.config import API_VERSION
from real_engine.errors import EngineError, InvalidParameter
from real_engine.http.listeners import Listener, TcpListener, UnixListener, check_unix_path
from real_engine.http.server import Server
from real_engine.http.trace import TraceFile
from real_engine.signals import Signals

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from real_engine.daemon.config import DaemonConfig

_log = logging.getLogger("onggi")

_TLS_PORT = 2376  # IANA: docker-s
_GRACE_SECONDS = 5.0
_GROUP = "docker"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place to listen: `unix` with a path, or `tcp` with a host and a port."""

    kind: Literal["unix", "tcp"]
    path: Path = Path()
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """`unix://PATH` or `tcp://HOST[:PORT]`; the port is 2376 where none is given, and any free one for 0.

        Raises:
            InvalidParameter: it is neither, or can't be listened on.
        """
        scheme, separator, rest = text.partition("://")
        if separator and scheme == "unix":
            path = Path(rest) if rest else default_socket()
            check_unix_path(path)
            return cls("unix", path=path.absolute())
        if separator and scheme == "tcp":
            host, port = _host_and_port(rest.rstrip("/"), text)
            return cls("tcp", host=host, port=port)
        raise InvalidParameter(f"cannot listen on `{text}`: write unix://PATH or tcp://HOST:PORT")

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    def listen(self, group: str | None, context: ssl.SSLContext | None) -> Listener:
        """Begin to listen there.

        Raises:
            EngineError: the place is taken, or there is no right to it.
        """
        if self.kind == "unix":
            return UnixListener(self.path, group)
        if context is None:
            raise InvalidParameter(
                f"cannot listen on {self} without TLS: whoever reaches that port would be root here; add "
                " --tlsverify with --tlscacert, --tlscert and --tlskey"
            )
        return TcpListener(self.host, self.port, context)


def default_socket() -> Path:
    """Where a daemon listens that is told nothing: /run/onggi/onggi.sock, or in the user's own run directory.

    Raises:
        InvalidParameter: there is no such directory.
    """
    if os.geteuid() == 0:
        return Path("/run/onggi/onggi.sock")
    directory = os.environ.get("XDG_RUNTIME_DIR")
    if not directory:
        raise InvalidParameter("XDG_RUNTIME_DIR is not set, so there is no place for the socket: say -H unix://PATH")
    return Path(directory) / "onggi.sock"


def default_group() -> str | None:
    """The group that may use the socket where none is named: `docker` where root serves and there is such a group."""
    if os.geteuid() != 0:
        return None
    import grp

    with contextlib.suppress(KeyError):
        return grp.getgrnam(_GROUP).gr_name
    return None


def serve(
    config: DaemonConfig,
    endpoints: Sequence[Endpoint],
    *,
    group: str | None = None,
    context: ssl.SSLContext | None = None,
    prepare: Callable[[Daemon], None] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status: 0, or 130 at a second signal, which ends at once.

    Only the main thread of a process can do this. `prepare` may add hooks to the daemon before it starts.

    Raises:
        EngineError: it can't start, with the reason in one line. Nothing is left then.
    """
    check_unique(endpoints)
    daemon = Daemon(config)
    if prepare is not None:
        prepare(daemon)
    _allow_descriptors()
    with Signals(_SIGNALS) as signals, contextlib.ExitStack() as ending:
        daemon.start()
        ending.callback(daemon.stop)
        trace = None
        if config.trace is not None:
            trace = _trace_file(config.trace)
            ending.callback(trace.close)
        listeners: list[Listener] = []
        try:
            for endpoint in endpoints:
                listeners.append(endpoint.listen(group, context))
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        server = Server(daemon, listeners, trace=trace)
        server.start()
        places = ", ".join(listener.address for listener in listeners)
        print(
            f"onggi engine: listening on {places} (API {API_VERSION[0]}.{API_VERSION[1]})", file=sys.stderr, flush=True
        )
        while (number := signals.wait()) == signal.SIGHUP:
            _log.info("SIGHUP: there is nothing to load again; options are given when the engine starts")
        _log.info("%s: ending; containers go on running", signal.Signals(number).name)
        daemon.ready = False
        signals.insist()
        if not server.stop(_GRACE_SECONDS):
            _log.warning("requests were still running after %.0f seconds, and have been cut off", _GRACE_SECONDS)
    return 0


def check_unique(endpoints: Sequence[Endpoint]) -> None:
    """Refuse no place at all, and one that is named twice.

    Raises:
        InvalidParameter: so it is.
    """
    if not endpoints:
        raise InvalidParameter("there is no place to listen: say -H unix://PATH")
    seen = set()
    for endpoint in endpoints:
        if endpoint in seen and (endpoint.kind == "unix" or endpoint.port):
            raise InvalidParameter(f"-H names {endpoint} twice")
        seen.add(endpoint)


def _host_and_port(text: str, whole: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_TLS_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidParameter(f"cannot listen on `{whole}`: write tcp://HOST:PORT, with a port from 0 to 65535")
    return host, int(port)


def _trace_file(path: Path) -> TraceFile:
    try:
        return TraceFile(path)
    except OSError as error:
        raise EngineError(f"--trace: cannot write {path}: {error.strerror}") from error


def _allow_descriptors() -> None:
    """Each connection takes a descriptor, and each container some: take as many as this process may have."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
