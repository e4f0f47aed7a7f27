"""How containers go: one by one, all that do not run, or those that could not be made."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from real_engine.daemon.containers import listing
from real_engine.daemon.containers.record import Record
from real_engine.errors import Conflict, EngineError, NotFound
from real_engine.explain import recorder
from real_engine.filters import Filters
from real_engine.images.trees import remove_tree

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers


class Removal:
    """Removes the containers of a daemon. Thread-safe."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers
        self._sweeps = ThreadPoolExecutor(1, thread_name_prefix="sweep")

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it, and its anonymous volumes if asked to.

        Raises:
            Conflict: it runs, and is not to be forced.
            EngineError: it does not end, even by SIGKILL.
        """
        record = self._containers.get(name)
        with record.lock:
            state = record.state
            if state.running and not force:
                kind, what = ("paused", "Unpause and then stop") if state.paused else ("running", "Stop")
                raise Conflict(
                    f"You cannot remove a {kind} container {record.id}. "
                    f"{what} the container before attempting removal or force remove"
                )
            if state.removing:
                raise Conflict(f"removal of container {name} is already in progress")
            state.removing = True
        try:
            self._containers.lifecycle.end_by_force(record)
        except BaseException:
            record.state.removing = False
            raise
        self.take_away(record, volumes=volumes)

    def prune(self, filters: Filters) -> tuple[list[str], int]:
        """Remove all that do not run; returns their ids and the bytes that are free now."""
        filters.check(("label", "label!", "until"))
        deleted, reclaimed = [], 0
        for record in self._containers.table:
            if record.state.running or not listing.prunable(record, filters):
                continue
            with contextlib.suppress(NotFound, Conflict):  # someone was faster
                size = self._containers.storage.sizes(record)[0]
                self.remove(record.id)
                deleted.append(record.id)
                reclaimed += size
        self._containers.daemon.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return deleted, reclaimed

    def take_away(self, record: Record, *, volumes: bool) -> None:
        """Take away one that has ended and is marked for removal; if that fails, it can be tried again.

        Its directory is moved out of the way at once, and deleted behind the client's back.
        """
        containers = self._containers
        with recorder.span("end", "RemoveContainer", "rename(containers/ID, tmp/removed-…)"), record.lock:
            try:
                record.volumes_go = volumes
                if volumes and record.mounts:
                    containers.keep(record)  # a killed daemon's successor goes on: its volumes may have gone by then
                try:
                    containers.storage.forget(record, anonymous=volumes)
                except EngineError as error:  # a driver's plugin is away, say: the container goes all the same
                    containers.daemon.log_error(f"a volume of {record.name}: {error}", error)
                containers.networking.forget(record)
                self._move_away(containers.path(record))
            except BaseException:
                record.state.removing = False
                raise
            record.state.running = record.state.restarting = record.state.paused = False
            record.state.dead = True
            containers.execs.forget(record)
        containers.publish(record, "destroy")
        containers.table.remove(record)
        if containers.daemon.built("supervisor"):
            with contextlib.suppress(EngineError):  # it has gone, and the connections with it
                containers.supervisor.acknowledge(record.id)  # who is attached waits for a start that will not come
        if record.image_id and containers.images.search(record.image_id) is None:
            # The image was removed by force, and its layers were kept for this container.
            self._sweeps.submit(containers.images.collect)

    def discard(self, record: Record) -> None:
        """Undo what was made of a container that could not be created."""
        self._containers.storage.forget(record, anonymous=True)
        self._move_away(self._containers.path(record))

    def discard_unmade(self, directory: Path) -> None:
        """Remove the directory of a container that was being made when the daemon was killed."""
        self._move_away(directory)

    def close(self) -> None:
        """Wait until what has been moved away is deleted."""
        self._sweeps.shutdown(wait=True)

    def _move_away(self, directory: Path) -> None:
        away = self._containers.daemon.config.data_root / "tmp" / f"removed-{directory.name[:12]}-{os.urandom(4).hex()}"
        try:
            directory.rename(away)
        except FileNotFoundError:
            return
        self._sweeps.submit(remove_tree, away)
