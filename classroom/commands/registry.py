"""`onggi registry serve`: a registry to push images to and pull them from, as the OCI distribution spec 1.1 says."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

    from real_engine.registry.server import Registry

_DEFAULT_LISTEN = "127.0.0.1:5000"
_SWEEP_SECONDS = 3600.0
_ENDING_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `onggi registry` understands to its parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    serve = actions.add_parser("serve", help="serve a registry until SIGTERM or Ctrl-C")
    add = serve.add_argument
    add(
        "--listen",
        default=_DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help=f"where to listen (default: {_DEFAULT_LISTEN}, for this machine alone; port 0 takes a free one)",
    )
    add("--data-root", required=True, metavar="DIR", help="where images are kept")
    add("--tls-cert", metavar="FILE", help="certificate, PEM, with its chain: serve by https")
    add("--tls-key", metavar="FILE", help="the certificate's key, PEM")
    add("--htpasswd", metavar="FILE", help="names and bcrypt hashes of who may use it (htpasswd -B)")
    add("--read-only", action="store_true", help="take no pushes and delete nothing")
    add("--no-delete", action="store_true", help="delete nothing")
    collect = actions.add_parser("gc", help="remove blobs that no manifest refers to; the registry may be running")
    add = collect.add_argument
    add("--data-root", required=True, metavar="DIR", help="where images are kept")
    add(
        "--grace",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="leave what is younger, as a push may be about to refer to it (default: 3600)",
    )
    add("--untagged", action="store_true", help="remove also the manifests that no tag leads to")
    entry = actions.add_parser("htpasswd", help="print a line for --htpasswd; the password is read, not shown")
    entry.add_argument("name", metavar="NAME", help="the user's name")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        EngineError: it can't be done; what's wrong in one line.
    """
    if arguments.action == "gc":
        return _collect(arguments)
    if arguments.action == "htpasswd":
        return _print_entry(arguments.name)
    return _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    import signal
    import threading
    from pathlib import Path

    from real_engine.http import Server
    from real_engine.http.listeners import TcpListener
    from real_engine.http.tls import server_context
    from real_engine.registry.passwords import Passwords
    from real_engine.registry.server import Registry
    from real_engine.signals import Signals

    host, port = _address(arguments.listen)
    _check_exposure(arguments, host)
    context = None
    if arguments.tls_cert:
        context = server_context(Path(arguments.tls_cert), Path(arguments.tls_key))
    passwords = Passwords(Path(arguments.htpasswd)) if arguments.htpasswd else None
    storage = _storage(arguments.data_root)
    storage.serve_alone()
    registry = Registry(storage, passwords, arguments.read_only, not arguments.no_delete)
    listener = TcpListener(host, port, context)
    server = Server(registry, [listener])
    ended = threading.Event()
    with Signals((signal.SIGTERM, signal.SIGINT)) as signals:  # what arrives while we still begin ends us too
        server.start()
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if context else "http"
        print(f"onggi registry: listening on {scheme}://{shown}:{listener.port}", file=sys.stderr, flush=True)
        if not arguments.read_only:
            threading.Thread(target=_sweep, args=(registry, ended), name="sweep", daemon=True).start()
        signals.wait()
        signals.insist()
        ended.set()
        server.stop(_ENDING_SECONDS)
    return 0


def _sweep(registry: Registry, ended: threading.Event) -> None:
    """At the start and every hour: uploads that nobody will finish, and blobs that no manifest refers to."""
    from real_engine.registry.errors import RegistryError
    from real_engine.registry.garbage import collect

    while True:
        try:
            registry.uploads.expire()
            collect(registry.storage)
        except (OSError, RegistryError) as error:
            print(f"onggi registry: garbage is not collected: {error}", file=sys.stderr, flush=True)
        if ended.wait(_SWEEP_SECONDS):
            return


def _collect(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from real_engine.errors import EngineError
    from real_engine.registry.garbage import collect

    if not (Path(arguments.data_root) / "repositories").is_dir():
        raise EngineError(f"there is no registry in {arguments.data_root}")
    removed = collect(_storage(arguments.data_root), max(arguments.grace, 0.0), arguments.untagged)
    print(f"removed {removed.blobs} blobs ({removed.bytes} bytes) and {removed.manifests} manifests")
    return 0


def _print_entry(name: str) -> int:
    from getpass import getpass

    from real_engine.errors import EngineError
    from real_engine.registry.passwords import hash_password

    if not name or ":" in name or any(character.isspace() for character in name):
        raise EngineError(f"`{name}` is no name: it may hold neither a colon nor blanks")
    password = getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password:
        raise EngineError("no password")
    print(f"{name}:{hash_password(password)}")
    return 0


def _storage(data_root: str):  # type: ignore[no-untyped-def]  # imported only when it is needed
    from pathlib import Path

    from real_engine.errors import EngineError
    from real_engine.registry.storage import Storage

    try:
        return Storage(Path(data_root).absolute())
    except OSError as error:
        raise EngineError(f"cannot keep a registry in {data_root}: {error.strerror or error}") from error


def _address(text: str) -> tuple[str, int]:
    """HOST:PORT, [IPv6]:PORT or :PORT (all addresses of the machine).

    Raises:
        EngineError: it is none.
    """
    from real_engine.errors import EngineError

    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise EngineError(f"`{text}` is no address to listen on: write HOST:PORT, as in {_DEFAULT_LISTEN}")
    return host or "0.0.0.0", int(port)  # noqa: S104 -- only where it was asked for; `_check_exposure` has its say


def _check_exposure(arguments: argparse.Namespace, host: str) -> None:
    """See that no password crosses a network in the clear.

    Raises:
        EngineError: it would, or a certificate without its key (or the other way round).
    """
    import ipaddress

    from real_engine.errors import EngineError

    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise EngineError("--tls-cert and --tls-key belong together")
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if local or arguments.tls_cert:
        return
    if arguments.htpasswd:
        raise EngineError(
            f"passwords would cross the network in the clear on {host}: give --tls-cert and --tls-key, or listen on "
            "127.0.0.1"
        )
    print(
        f"onggi registry: warning: anybody who reaches {host} may read and, without --read-only, write here",
        file=sys.stderr,
        flush=True,
    )
