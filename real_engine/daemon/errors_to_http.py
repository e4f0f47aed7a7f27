"""Which status of HTTP each kind of error has."""

from real_engine.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotImplementedHere,
    NotModified,
    Unauthorized,
    Unavailable,
)
from real_engine.http.messages import Response

_STATUS: dict[type[EngineError], int] = {
    InvalidParameter: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    NotModified: 304,
    NotImplementedHere: 501,
    Unavailable: 503,
}


def status_of(error: EngineError) -> int:
    """The status of an error's kind; 500 for one that has none of its own."""
    for kind in type(error).__mro__:
        status = _STATUS.get(kind)
        if status is not None:
            return status
    return 500


def response_of(error: EngineError) -> Response:
    """The answer that tells an error. 304 has no body."""
    status = status_of(error)
    return Response(status) if status == 304 else Response.error(status, str(error))
