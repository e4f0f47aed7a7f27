"""`onggi engine serve`: the engine as a daemon that docker, docker-compose and the SDK drive."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from real_engine.daemon.config import AddressPool

_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}
DESCRIPTION = (
    "Serve Docker's Engine API in the foreground, until SIGTERM or Ctrl-C; containers go on running, and the next "
    "engine on the same data root takes them over. It tells on standard error when it is ready. Whoever may use the "
    "socket is root on this machine: it is for its owner and one group, and TCP is only to be had with certificates "
    "on both sides. An ordinary user's engine is rootless: root in namespaces of its own, and that user outside."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `onggi engine serve` understands to its parser."""
    add = parser.add_argument
    add("--data-root", metavar="DIRECTORY", help="where everything is kept (default: /var/lib/onggi/daemon for root)")
    add(
        "-H",
        "--host",
        action="append",
        default=[],
        metavar="unix://PATH|tcp://HOST:PORT",
        help="where to listen; may be given several times (default: unix:///run/onggi/onggi.sock for root, else "
        "$XDG_RUNTIME_DIR/onggi.sock)",
    )
    add("-G", "--group", metavar="GROUP", help="who may use the socket (default: docker, if there is such a group)")
    add("--tlsverify", action="store_true", help="TLS, and only for clients with a certificate: needed for tcp://")
    for option, what in (("--tlscacert", "the authority's certificate"), ("--tlscert", "our certificate")):
        add(option, metavar="FILE", help=f"{what} (PEM)")
    add("--tlskey", metavar="FILE", help="our key (PEM)")
    add("--bridge", default="", metavar="NAME", help="host interface of the default network, or none")
    add(
        "--default-address-pool",
        action="append",
        default=[],
        type=address_pool,
        metavar="base=SUBNET,size=LENGTH",
        help="where networks that name no subnet get one, as base=10.99.0.0/16,size=24",
    )
    add("--registry-mirror", action="append", default=[], metavar="URL", help="ask this one before Docker Hub")
    add("--insecure-registry", action="append", default=[], metavar="HOST[:PORT]", help="a registry without TLS")
    add("--label", action="append", default=[], metavar="NAME=VALUE", help="a label of the engine")
    add("--log-level", choices=tuple(_LEVELS), default="info", help="what is told on standard error (default: info)")
    add("--trace", metavar="FILE", help="write each request and its answer to a file, without secrets (JSON lines)")
    add(
        "--userland-proxy",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a proxy for published ports where the kernel's own forwarding doesn't reach (default: on)",
    )
    add(
        "--uplink",
        choices=("auto", "pasta", "slirp4netns", "none"),
        default="auto",
        help="what connects the containers of an ordinary user's engine to the world (default: pasta or slirp4netns, "
        "whichever is installed)",
    )
    add("--mtu", type=_mtu, default=0, metavar="BYTES", help="largest packet on our networks (default: the kernel's)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it.

    Raises:
        EngineError: it can't start, with the reason in one line.
    """
    from real_engine.errors import EngineError

    if sys.platform != "linux":
        raise EngineError("the engine needs a Linux kernel; `onggi compare` and `onggi run` work here")
    import logging

    from real_engine.container.engine import default_root
    from real_engine.daemon.config import DaemonConfig
    from real_engine.daemon.serving import Endpoint, check_unique, default_group, default_socket, serve
    from real_engine.rootless import session as rootless

    session = rootless.resume()
    hosts = session.hosts if session else arguments.host
    endpoints = [Endpoint.parse(text) for text in hosts] or [Endpoint("unix", path=default_socket())]
    context = _tls(arguments, any(endpoint.kind == "tcp" for endpoint in endpoints))
    # Logs of the engine, and not of the libraries that it uses.
    logging.basicConfig(format="onggi engine: %(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("onggi").setLevel(_LEVELS[arguments.log_level])
    root = Path(arguments.data_root) if arguments.data_root else default_root() / "daemon"
    if session is None and os.geteuid() != 0:
        _check_rootless(arguments)
        check_unique(endpoints)
        again = [sys.executable, *sys.orig_argv[1:]]
        rootless.enter(root.absolute(), [str(endpoint) for endpoint in endpoints], arguments.uplink, again)
    if session is not None:
        root = Path(session.data_root)
        for warning in session.warnings:
            logging.getLogger("onggi").warning("%s", warning.removeprefix("WARNING: "))
    config = DaemonConfig(
        data_root=root.absolute(),
        bridge=arguments.bridge,
        default_address_pools=tuple(arguments.default_address_pool),
        registry_mirrors=tuple(arguments.registry_mirror),
        insecure_registries=tuple(arguments.insecure_registry),
        userland_proxy=arguments.userland_proxy,
        mtu=arguments.mtu,
        labels=tuple(arguments.label),
        trace=Path(arguments.trace).absolute() if arguments.trace else None,
        hosts=tuple(str(endpoint) for endpoint in endpoints),
        warnings=session.warnings if session else (),
    )
    if session is not None:
        with contextlib.closing(session.open_outside()):
            return serve(config, endpoints, context=context)
    group = default_group() if arguments.group is None else arguments.group
    return serve(config, endpoints, group=group, context=context)


def _check_rootless(arguments: argparse.Namespace) -> None:
    """Refuse what an ordinary user's engine can't do.

    Raises:
        InvalidParameter: it was asked for.
    """
    from real_engine.errors import InvalidParameter

    if arguments.group:
        raise InvalidParameter("the socket of a rootless engine is its user's alone: leave --group away")
    if not arguments.userland_proxy:
        raise InvalidParameter("a rootless engine has no other way to published ports than its userland proxy")


def _tls(arguments: argparse.Namespace, needed: bool) -> ssl.SSLContext | None:
    """The TLS that the options ask for.

    Raises:
        EngineError: TCP without it, half of it, or files that can't be used.
    """
    from real_engine.errors import InvalidParameter

    files = {option: getattr(arguments, option) for option in ("tlscacert", "tlscert", "tlskey")}
    if not arguments.tlsverify:
        if needed:
            raise InvalidParameter(
                "tcp:// is only served with TLS on both sides, on loopback too, since whoever reaches the port would "
                "be root here: add --tlsverify --tlscacert FILE --tlscert FILE --tlskey FILE"
            )
        if any(files.values()):
            raise InvalidParameter("certificates are of no use without --tlsverify")
        return None
    missing = [f"--{option}" for option, file in files.items() if not file]
    if missing:
        raise InvalidParameter(f"--tlsverify needs {', '.join(missing)} too")
    from real_engine.http.tls import mutual_context

    return mutual_context(Path(files["tlscacert"]), Path(files["tlscert"]), Path(files["tlskey"]))


def address_pool(text: str) -> AddressPool:
    """`base=10.99.0.0/16,size=24`.

    Raises:
        argparse.ArgumentTypeError: it is no such pool.
    """
    import ipaddress

    from real_engine.daemon.config import AddressPool

    fields = dict(part.partition("=")[::2] for part in text.split(","))
    try:
        if set(fields) != {"base", "size"}:
            raise ValueError("write base=SUBNET,size=LENGTH")
        base, size = ipaddress.ip_network(fields["base"]), int(fields["size"])
        if not base.prefixlen <= size <= base.max_prefixlen - 2:
            raise ValueError(f"a subnet's length must be from {base.prefixlen} to {base.max_prefixlen - 2}")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is no address pool: {error}") from error
    return AddressPool(str(base), size)


def _mtu(text: str) -> int:
    """A packet's size: IPv4 needs 68 bytes (RFC 791), and a packet has at most 65535."""
    number = int(text) if text.isascii() and text.isdigit() else -1
    if number != 0 and not 68 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"`{text}` is no packet size: write a number from 68 to 65535")
    return number
