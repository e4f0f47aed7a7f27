"""Which repositories of which registries are known to have a blob, so that a push can mount it instead of sending it.

One small file; a wrong or lost line costs a blob that is sent though it needn't be.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING

from real_engine.files import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_MOST_REPOSITORIES = 16  # of one blob in all registries: the latest ones are the likeliest to be still there


class Origins:
    """The repositories that are known to have a blob, kept in the file `path`. Safe for threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, list[str]] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for digest, names in json.loads(path.read_bytes()).items():
                self._known[str(digest)] = [str(name) for name in names]

    def remember(self, digests: Iterable[str], domain: str, repository: str, is_here: Callable[[str], bool]) -> None:
        """Note that a repository has these blobs; what `is_here` no longer knows is forgotten.

        Raises:
            OSError: no room.
        """
        name = f"{domain}/{repository}"
        with self._lock:
            before = json.dumps(self._known)
            for digest in digests:
                names = [one for one in self._known.get(digest, []) if one != name]
                self._known[digest] = [name, *names][:_MOST_REPOSITORIES]
            self._known = {digest: names for digest, names in self._known.items() if is_here(digest)}
            after = json.dumps(self._known)
            if after != before:
                write_durably(self._path, after.encode() + b"\n", 0o600)

    def repositories(self, digest: str, domain: str, but: str) -> list[str]:
        """Repositories of a registry that had the blob when it was last seen there, the latest first, without `but`."""
        prefix = f"{domain}/"
        with self._lock:
            names = self._known.get(digest, [])
            return [name.removeprefix(prefix) for name in names if name.startswith(prefix) and name != prefix + but]
