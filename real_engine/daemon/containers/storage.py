"""What a container keeps: its volumes and other mount points, and how much it has written."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers.record import Record
from real_engine.errors import EngineError, NotFound
from real_engine.images.rootfs import mounted
from real_engine.images.trees import size_bytes
from real_engine.volumes.mounts import MountPoint, acquire_mounts, end_mounts, release_mounts, resolve_mounts

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

Json = dict[str, Any]


class Storage:
    """The mount points of all containers. Thread-safe."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers
        self._lock = threading.Lock()
        self._acquired: dict[str, list[MountPoint]] = {}

    def make_mounts(self, record: Record) -> list[Json]:
        """The mount points of a container that is being made; its volumes are made, and filled from the image.

        Raises:
            InvalidParameter: a wish that makes no sense.
            NotFound: no such volume driver, or container to take volumes from.
        """
        volumes = self._containers.daemon.volumes
        with contextlib.ExitStack() as stack:
            layers = self._containers.layers_below(record)
            root = stack.enter_context(mounted(layers)) if self._has_volumes(record) else None
            points = resolve_mounts(
                record.host_config,
                record.config,
                None,
                volumes,
                self._points_of_other,
                container_id=record.id,
                image_root=root,
            )
        return [point.to_json() for point in points]

    def acquire(self, record: Record) -> list[MountPoint]:
        """Make the sources of a container that starts available; returns them.

        Raises:
            NotFound: a volume has gone.
            InvalidParameter: the source of a bind has gone.
        """
        points = acquire_mounts(self._points(record), self._containers.daemon.volumes, record.id)
        with self._lock:
            self._acquired[record.id] = points
        return points

    @contextlib.contextmanager
    def borrowed(self, record: Record) -> Iterator[list[MountPoint]]:
        """The mount points of a container that does not run, with their sources made available for a while.

        Raises:
            NotFound: a volume has gone.
            InvalidParameter: the source of a bind has gone.
        """
        volumes, user = self._containers.daemon.volumes, f"{record.id}-{os.urandom(4).hex()}"
        points = acquire_mounts(self._points(record), volumes, user)
        try:
            yield points
        finally:
            end_mounts(points, volumes, user)
            if record.volumes_go:  # the container was removed meanwhile, but could not remove what we used
                self.forget(record, anonymous=True)

    def adopt(self, record: Record) -> None:
        """Know again what a running container of an earlier daemon uses."""
        try:
            self.acquire(record)
        except EngineError as error:
            self._containers.daemon.log_error(f"a volume of {record.name}: {error}", error)

    def known(self, record: Record) -> None:
        """Know again which volumes a container of an earlier daemon refers to."""
        for point in self._points(record):
            if point.name:
                self._containers.daemon.volumes.refer(point.name, record.id)

    def release(self, record: Record) -> None:
        """The container has ended: what was made available for it is needed no more."""
        with self._lock:
            points = self._acquired.pop(record.id, None)
        if points is None:
            return
        try:
            end_mounts(points, self._containers.daemon.volumes, record.id)
        except EngineError as error:  # a driver's plugin is away, say: the container has ended all the same
            self._containers.daemon.log_error(f"a volume of {record.name}: {error}", error)

    def forget(self, record: Record, *, anonymous: bool) -> None:
        """The container is removed, and with it, if asked to, its anonymous volumes."""
        release_mounts(self._points(record), self._containers.daemon.volumes, record.id, remove_anonymous=anonymous)

    def sizes(self, record: Record) -> tuple[int, int]:
        """The bytes that it has written, and those of its whole root file system.

        Raises:
            NotFound: it has just been removed.
        """
        try:
            written = size_bytes(self._containers.path(record) / "upper")
        except FileNotFoundError as error:
            raise NotFound(f"No such container: {record.id}") from error
        try:
            image = self._containers.images.resolve(record.image_id).size
        except NotFound:
            image = 0
        return written, written + image

    def _points(self, record: Record) -> list[MountPoint]:
        return [MountPoint.from_json(one) for one in record.mounts]

    def _points_of_other(self, name: str) -> list[MountPoint]:
        return self._points(self._containers.get(name))

    @staticmethod
    def _has_volumes(record: Record) -> bool:
        host = record.host_config
        return bool(record.config["Volumes"] or host["Binds"] or host.get("Mounts") or host["VolumesFrom"])
