"""What the disk refuses, told as Docker tells it: `no space left on device`, not `[Errno 28] No space left …`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from real_engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def disk_errors_told() -> Iterator[None]:
    """Make an error of the engine of each that the disk has in the block; also a decorator of functions.

    An error of the connection that the data comes by stays what it is.

    Raises:
        EngineError: no room, or the disk fails.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        if error.strerror is None:
            raise
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        raise EngineError(f"{place}{error.strerror.lower()}") from error
