"""Mount points of a container: what a request wishes, put together by Docker's precedence.

A later wish replaces an earlier one at the same place: volumes of other containers (`VolumesFrom`), then `Binds`, then
`Mounts`; `Binds`, `Mounts` and `Tmpfs` may not meet. The image's and the request's `Volumes` get an anonymous volume
where nothing else is mounted. Source: moby daemon/volumes.go registerMountPoints, daemon/create_unix.go.
"""

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.volumes.contents import copy_up, is_directory_or_missing
from real_engine.volumes.local import DRIVER
from real_engine.volumes.specifications import parse_bind, parse_mount, parse_tmpfs, parse_volumes_from
from real_engine.volumes.store import Volumes

Json = dict[str, Any]
OtherContainers = Callable[[str], "Sequence[MountPoint]"]
"""The mount points of a container, by its name or id; raises `NotFound`."""


@dataclass(frozen=True, slots=True)
class MountPoint:
    """Something that is mounted in a container, at `destination`.

    `type` is `bind`, `volume` or `tmpfs`. `source` is the directory or file of this machine, empty for `tmpfs`. `mode`
    is what a bind's third part said. `propagation` is of binds alone. `copy_up` says that an empty volume gets the
    image's content; `subpath` is the part of a volume that is meant. `make_source` says that a missing directory is
    made (again, at every start). `size_bytes`, `file_mode` and `options` are a tmpfs's. `listed` is false for
    the map `HostConfig.Tmpfs`, which Docker doesn't show among a container's mounts. `declared` is what only `Volumes`
    of the image or the request asks for.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    recursive: bool = True
    copy_up: bool = False
    subpath: str = ""
    make_source: bool = False
    size_bytes: int = 0
    file_mode: int | None = None
    options: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    driver_options: tuple[tuple[str, str], ...] = ()
    anonymous: bool = False
    declared: bool = False
    listed: bool = True

    def to_api(self) -> Json:
        """As `Mounts` of a container's inspection has it."""
        found: Json = {"Type": self.type}
        if self.name:
            found["Name"] = self.name
        found |= {"Source": self.source, "Destination": self.destination}
        if self.driver:
            found["Driver"] = self.driver
        return found | {"Mode": self.mode, "RW": self.writable, "Propagation": self.propagation}

    def to_json(self) -> Json:
        """All of it, for a record on the disk: the API's fields, and what else is known under `Details`."""
        details = {key: value for key, value in asdict(self).items() if value != _DEFAULTS[key]}
        return self.to_api() | {"Details": details}

    @classmethod
    def from_json(cls, record: Json) -> "MountPoint":
        """What `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            details = dict(record["Details"])
            for key in ("options", "labels", "driver_options"):
                if key in details:
                    details[key] = tuple(tuple(item) if isinstance(item, list) else item for item in details[key])
            return cls(**details)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no record of a mount point: {error}") from error


_DEFAULTS: Json = {one.name: one.default for one in fields(MountPoint)}


def resolve_mounts(
    host_config: Mapping[str, Any],
    config: Mapping[str, Any],
    image_config: Mapping[str, Any] | None,
    volumes: Volumes,
    other_containers: OtherContainers,
    *,
    container_id: str = "",
    image_root: int | None = None,
) -> list[MountPoint]:
    """The mount points that a new container is to have; the volumes among them exist afterwards and are referred to.

    The `Volumes` of `config` and of the image's (None where `config` has them already) are united.
    `image_root` is the open root directory of the image,
    from whose content empty volumes are filled. Whatever is wrong is found before a volume is made. If a volume can't
    be made after others, the references to those end, and the anonymous among them are removed.

    Raises:
        InvalidParameter: a wish that makes no sense, or two at one place.
        NotFound: no such volume driver.
        Conflict: another driver has a volume of that name.
        EngineError: a driver's own words, or no room to fill a volume.
    """
    declared = {**((image_config or {}).get("Volumes") or {}), **(config.get("Volumes") or {})}
    points = _wishes(host_config, declared, other_containers)
    if image_root is not None:
        for point in points:
            if point.type == "volume" and point.declared and not is_directory_or_missing(image_root, point.destination):
                raise InvalidParameter(f"cannot mount volume over existing file, file exists {point.destination}")
    made: list[MountPoint] = []
    try:
        for point in points:
            made.append(_prepare(point, volumes, container_id, image_root))
    except BaseException:
        release_mounts(made, volumes, container_id, remove_anonymous=True)
        raise
    return made


def acquire_mounts(points: Sequence[MountPoint], volumes: Volumes, container_id: str) -> list[MountPoint]:
    """Make the sources of all mount points available, as a container starts; returns them with their true sources.

    Raises:
        NotFound: a volume is gone.
        InvalidParameter: the source of a bind is gone, or can't be made.
        EngineError: what a driver or the kernel says. What was acquired before is released.
    """
    ready: list[MountPoint] = []
    try:
        for point in points:
            if point.type == "volume":
                place = volumes.acquire(
                    point.name, container_id, destination=point.destination, writable=point.writable
                )
                ready.append(replace(point, source=str(place)))  # from here on it has to be released
                if point.subpath:
                    part = volumes.subpaths.acquire(place, point.subpath, container_id)
                    ready[-1] = replace(point, source=str(part), recursive=True)
                continue
            if point.type == "bind":
                _check_source(point)
            ready.append(point)
    except BaseException:
        end_mounts(ready, volumes, container_id)
        raise
    return ready


def end_mounts(points: Sequence[MountPoint], volumes: Volumes, container_id: str) -> None:
    """The container has ended: release what `acquire_mounts` acquired. Every volume is tried.

    Raises:
        EngineError: what the first driver said that failed.
    """
    failed: EngineError | None = None
    volumes.subpaths.release(container_id)
    for point in points:
        if point.type == "volume":
            try:
                volumes.release(point.name, container_id)
            except EngineError as error:
                failed = failed or error
    if failed is not None:
        raise failed


def release_mounts(
    points: Sequence[MountPoint], volumes: Volumes, container_id: str, *, remove_anonymous: bool = False
) -> None:
    """The container is gone: end its references, and remove its anonymous volumes, if asked, that no other uses."""
    names = {point.name for point in points if point.type == "volume"}
    for name in names:
        volumes.forget(name, container_id)
    if remove_anonymous:
        # As Docker, by how the volume came to be and not by its label: one that was asked for by its name stays.
        for name in {point.name for point in points if point.anonymous}:
            try:
                volumes.remove(name)
            except (Conflict, NotFound):  # another container uses it by --volumes-from, or somebody was faster
                continue


def _wishes(
    host_config: Mapping[str, Any], declared: Iterable[str], other_containers: OtherContainers
) -> list[MountPoint]:
    """What is to be mounted, by place, with everything checked that can be checked without making anything."""
    found: dict[str, MountPoint] = {}
    for text in host_config.get("VolumesFrom") or ():
        name, mode = parse_volumes_from(text)
        try:
            inherited = other_containers(name)
        except NotFound as error:
            raise InvalidParameter(str(error)) from error
        for point in inherited:
            if point.listed and point.type != "tmpfs":
                writable = point.writable and mode != "ro"
                # The volume has its content by now; what is anonymous to its first container isn't ours to remove
                # before that one is gone, which counting references takes care of.
                found[point.destination] = replace(point, writable=writable, mode="", copy_up=False)
    tmpfs = [_tmpfs_point(place, options) for place, options in (host_config.get("Tmpfs") or {}).items()]
    taken = {point.destination for point in tmpfs}
    default_driver = host_config.get("VolumeDriver") or ""
    binds = [MountPoint(**parse_bind(text, default_driver)) for text in host_config.get("Binds") or ()]
    wanted = [MountPoint(**parse_mount(spec, default_driver)) for spec in host_config.get("Mounts") or ()]
    for point in (*binds, *wanted):
        if point.destination in taken:
            raise InvalidParameter(f"Duplicate mount point: {point.destination}")
        taken.add(point.destination)
        found[point.destination] = point
    for point in tmpfs:  # it covers what other containers, or the image, have there
        found[point.destination] = point
    for path in declared:
        place = posixpath.normpath(f"/{path.lstrip('/')}")
        if place not in found:
            found[place] = MountPoint(
                "volume", place, driver=default_driver, copy_up=True, anonymous=True, declared=True
            )
    if "/" in found:
        raise InvalidParameter("invalid volume specification: '/': invalid specification: destination can't be '/'")
    return list(found.values())


def _tmpfs_point(place: str, options: str) -> MountPoint:
    if not place.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{place}' mount path must be absolute")
    return MountPoint("tmpfs", posixpath.normpath(place), listed=False, **parse_tmpfs(options))


def _prepare(point: MountPoint, volumes: Volumes, container_id: str, image_root: int | None) -> MountPoint:
    """The mount point with its volume or directory made."""
    if point.type == "bind":
        _check_source(point)
        return point
    if point.type != "volume":
        return point
    volume = volumes.create(
        point.name, point.driver, dict(point.driver_options), dict(point.labels) or None, container_id
    )
    mode = point.mode
    if not mode and not point.source and volume.driver == DRIVER and not point.declared:
        mode = "z"  # as Docker notes for its own driver, where nothing was said (SELinux's shared label)
    ready = replace(point, name=volume.name, driver=volume.driver, source=volume.mountpoint, mode=mode)
    if image_root is not None and point.copy_up and not point.subpath:
        try:
            _fill(ready, volumes, image_root)
        except BaseException:
            release_mounts([ready], volumes, container_id, remove_anonymous=True)
            raise
    return ready


def _fill(point: MountPoint, volumes: Volumes, image_root: int) -> None:
    """Give an empty volume what the image has at its place; it is mounted for that time."""
    with volumes.content(point.name) as place:
        try:
            copy_up(place, image_root, point.destination)
        except OSError as error:
            reason = error.strerror or error
            raise EngineError(f"cannot fill volume {point.name} from the image: {reason}") from error


def _check_source(point: MountPoint) -> None:
    """A bind's source: made as a directory where it is missing and may be made."""
    if os.path.lexists(point.source):
        return
    if not point.make_source:
        raise InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {point.source}')
    try:
        Path(point.source).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EngineError(
            f"error while creating mount source path '{point.source}': mkdir {error.filename}: {reason}"
        ) from error
