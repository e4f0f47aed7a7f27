"""When it is of use to ask a registry again, and after how long."""

from __future__ import annotations

import ssl

from real_engine.registry.errors import RegistryError
from real_engine.registry.replies import UnexpectedStatus
from real_engine.registry.transport import Cancelled, Unreachable

ATTEMPTS = 5
MOST_PATIENCE_SECONDS = 60.0
"""How long a server may ask us to wait (`Retry-After`) before another attempt; who asks for more is given up."""


def may_pass(error: Exception) -> bool:
    """Whether trying again is of use: a connection that broke, or a server that was overloaded."""
    if isinstance(error, Cancelled):
        return False
    if isinstance(error, Unreachable):
        return not error.lasting
    if isinstance(error, RegistryError):  # as Docker does, we take its word, unless it says that it is for a moment
        return error.status == 429 and _is_soon(error.retry_after_seconds)
    if isinstance(error, UnexpectedStatus):
        return error.retry_after_seconds is None or _is_soon(error.retry_after_seconds)
    return isinstance(error, (ConnectionError, TimeoutError, ssl.SSLError))


def pause_before(error: Exception, seconds: float) -> float:
    """How long to wait before another attempt: `seconds`, or longer if the server has asked for that."""
    return max(seconds, getattr(error, "retry_after_seconds", None) or 0.0)


def _is_soon(seconds: float | None) -> bool:
    return seconds is not None and seconds <= MOST_PATIENCE_SECONDS
