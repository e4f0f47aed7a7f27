"""What a registry's answer means when it isn't the one that was hoped for."""

from __future__ import annotations

import contextlib
import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from real_engine.errors import EngineError
from real_engine.registry.errors import RegistryError

if TYPE_CHECKING:
    from real_engine.registry.transport import Reply

_LIMIT_BYTES = 64 << 10


class UnexpectedStatus(EngineError):
    """A status that says nothing of what was asked (5xx, mostly)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"received unexpected HTTP status: {status} {reason}".rstrip())
        self.status = status
        self.retry_after_seconds: float | None = None
        """When to ask again, if the server has said so."""


def error_of(reply: Reply) -> EngineError:
    """The error that an answer holds, in Docker's words (distribution's registry/client/errors.go)."""
    if not 400 <= reply.status < 500:
        unexpected = UnexpectedStatus(reply.status, reply.reason)
        unexpected.retry_after_seconds = _retry_after(reply)
        return unexpected
    error = _refusal(reply)
    error.retry_after_seconds = _retry_after(reply)
    return error


def _retry_after(reply: Reply) -> float | None:
    """The seconds of `Retry-After`, which has a number or a date (RFC 9110 10.2.3); None if there is none."""
    text = reply.header("Retry-After").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _refusal(reply: Reply) -> RegistryError:
    from real_engine.registry.authentication import parse_challenges

    for challenge in parse_challenges(reply.headers.get_all("WWW-Authenticate") or ()):
        word = challenge.parameters.get("error", "") if challenge.scheme == "bearer" else ""
        if word == "insufficient_scope":
            message = challenge.parameters.get("error_description") or "requested access to the resource is denied"
            return RegistryError("DENIED", message, status=reply.status)
        if word == "invalid_token":
            message = challenge.parameters.get("error_description") or "authentication required"
            return RegistryError("UNAUTHORIZED", message, status=reply.status)
    try:
        content = reply.read(_LIMIT_BYTES)
    except OSError:
        content = b""
    return _from_body(content, reply.status) or _from_status(reply, content)


def _from_body(content: bytes, status: int) -> RegistryError | None:
    """The first error of the body's list; or the one text that servers of tokens give instead."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    errors = value.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        code = str(errors[0].get("code") or "UNKNOWN")
        message = str(errors[0].get("message") or "") or code.lower().replace("_", " ")
        return RegistryError(code.upper().replace(" ", "_"), message, errors[0].get("detail"), status)
    for key in ("details", "error_description", "message", "error"):
        text = value.get(key)
        if isinstance(text, str) and text:
            code = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}.get(status, "UNKNOWN")
            return RegistryError(code, text, status=status)
    return None


def _from_status(reply: Reply, content: bytes) -> RegistryError:
    if reply.status == 401:
        return RegistryError("UNAUTHORIZED", "authentication required", status=401)
    if reply.status == 403:
        return RegistryError("DENIED", "requested access to the resource is denied", status=403)
    if reply.status == 429:
        return RegistryError("TOOMANYREQUESTS", "too many requests", status=429)
    said = content[:256].decode(errors="replace").strip()
    return RegistryError(
        "UNKNOWN",
        f"error parsing HTTP {reply.status} response body: {said!r}" if said else reply.reason,
        status=reply.status,
    )
