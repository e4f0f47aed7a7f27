"""The containers of a data root, by id and by name; and who waits for one of them to change."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from real_engine.daemon.containers.names import random_name
from real_engine.daemon.containers.record import Record
from real_engine.errors import Conflict, NotFound


class Waiter:
    """Becomes readable (see `fileno`) when its container has changed as its condition says."""

    def __init__(self, condition: str, starts: int) -> None:
        self.condition = condition
        self.exit_code = 0
        self.error = ""
        self.starts = starts
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._descriptor

    def wake(self, exit_code: int, error: str = "") -> None:
        """The change has come."""
        self.exit_code, self.error = exit_code, error
        os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class ContainerTable:
    """All containers. Thread-safe; the records themselves are guarded each by its own lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._ids: dict[str, str] = {}  # by name
        self._waiters: dict[str, list[Waiter]] = {}

    def __iter__(self) -> Iterator[Record]:
        with self._lock:
            return iter(list(self._records.values()))

    def path(self, record: Record) -> Path:
        """The container's directory."""
        return self.directory / record.id

    def get(self, name: str) -> Record:
        """By id, name, or the beginning of an id.

        Raises:
            NotFound: there is none.
            Conflict: several ids begin so.
        """
        wanted = name.removeprefix("/")
        with self._lock:
            if wanted in self._records:
                return self._records[wanted]
            named = self._records.get(self._ids.get(wanted, ""))  # a name may be held for one that isn't made yet
            if named is not None:
                return named
            found = [identifier for identifier in self._records if wanted and identifier.startswith(wanted)]
            if len(found) == 1:
                return self._records[found[0]]
        if found and re.fullmatch("[0-9a-f]+", wanted):
            raise Conflict(f"Multiple IDs found with provided prefix: {wanted}")
        raise NotFound(f"No such container: {name}")

    def find(self, name: str) -> Record | None:
        """As `get`, or None."""
        try:
            return self.get(name)
        except (NotFound, Conflict):
            return None

    @contextmanager
    def naming(self, name: str, identifier: str) -> Iterator[str]:
        """Hold a name, a random one if it is empty, for the container about to be made; free again if that fails.

        Raises:
            Conflict: another container has it.
        """
        with self._lock:
            name = name or random_name(self._ids.__contains__)
            self._reserve(name, identifier)
        try:
            yield name
        except BaseException:
            with self._lock:
                del self._ids[name]
            raise

    def add(self, record: Record) -> None:
        """A container that exists from now on."""
        with self._lock:
            self._records[record.id] = record
            self._ids[record.name] = record.id

    def rename(self, record: Record, name: str) -> None:
        """Give the container another name.

        Raises:
            Conflict: another container has it.
            NotFound: it has been removed.
        """
        with self._lock:
            if record.id not in self._records:  # removed meanwhile: the name would never be free again
                raise NotFound(f"No such container: {record.id}")
            self._reserve(name, record.id)
            self._ids.pop(record.name, None)
            record.name = name

    def remove(self, record: Record) -> None:
        """It exists no more. Whoever waits for it to be removed is woken."""
        with self._lock:
            self._records.pop(record.id, None)
            self._ids.pop(record.name, None)
        self.wake(record, ("removed",), record.state.exit_code)
        self.wake(record, ("not-running", "next-exit"), record.state.exit_code)

    @contextmanager
    def waiting(self, record: Record, condition: str, starts: int = 0) -> Iterator[Waiter]:
        """A waiter for `not-running`, `next-exit` or `removed`."""
        waiter = Waiter(condition, starts)
        with self._lock:
            self._waiters.setdefault(record.id, []).append(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                waiters = self._waiters[record.id]
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[record.id]
            waiter.close()

    def wake(self, record: Record, conditions: tuple[str, ...], exit_code: int, error: str = "") -> None:
        """Wake who waits for one of the conditions."""
        with self._lock:
            for waiter in self._waiters.get(record.id, ()):
                if waiter.condition in conditions:
                    waiter.wake(exit_code, error)

    def used_images(self) -> Callable[[str], list[tuple[str, bool]]]:
        """A function that tells for an image's id which containers use it: (id, running)."""

        def used_by(image_id: str) -> list[tuple[str, bool]]:
            return [(record.id, record.state.running) for record in self if record.image_id == image_id]

        return used_by

    def _reserve(self, name: str, identifier: str) -> None:
        owner = self._ids.get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._ids[name] = identifier
