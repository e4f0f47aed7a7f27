"""TLS for the API: both sides show a certificate of the same authority, as `dockerd --tlsverify` wants it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from real_engine.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


def mutual_context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer, that takes only clients with a certificate signed by `authority`.

    Raises:
        EngineError: a file that can't be read or is no certificate or key.
    """
    context = server_context(certificate, key)
    _load("--tlscacert", authority, lambda: context.load_verify_locations(authority))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer, that takes any client.

    Raises:
        EngineError: a file that can't be read or is no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load("--tlscert or --tlskey", certificate, lambda: context.load_cert_chain(certificate, key))
    return context


def _load(option: str, path: Path, load: object) -> None:
    try:
        load()  # type: ignore[operator]
    except ssl.SSLError as error:
        raise EngineError(f"{option}: {path} can't be used: {error.reason or error}") from error
    except OSError as error:
        raise EngineError(f"{option}: cannot read {path}: {error.strerror}") from error
