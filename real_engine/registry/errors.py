"""Errors in the words of the distribution specification: a code, a message, and what it is about."""

from typing import Any

from real_engine.errors import EngineError

# Codes and statuses: OCI distribution-spec v1.1, "Error codes"; statuses where it leaves them open, as
# distribution/distribution answers them.
STATUSES = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNKNOWN": 500,
    "UNSUPPORTED": 405,
}


class RegistryError(EngineError):
    """A registry says no: by its own code, as `{"errors": [{"code", "message", "detail"}]}` carries it."""

    def __init__(self, code: str, message: str, detail: Any = None, status: int | None = None) -> None:
        super().__init__(f"{code.lower().replace('_', ' ')}: {message}")
        self.code = code
        self.message = message
        self.detail = detail
        self.status = status if status is not None else STATUSES.get(code, 500)
        self.retry_after_seconds: float | None = None
        """When to ask again, if the registry has said so."""
