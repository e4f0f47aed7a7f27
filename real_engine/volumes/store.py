"""The volumes of a data root: made, found, listed, removed, and who uses them.

A container *refers* to a volume from its creation to its removal; that keeps the volume. It *acquires* the volume while
it runs; that keeps the volume's content mounted. References are not written down: the daemon tells them again when it
starts, from its containers.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.files import write_durably
from real_engine.filters import Filters
from real_engine.images.trees import size_bytes
from real_engine.plugins.store import Plugins
from real_engine.volumes.drivers import DriverVolume, VolumeDriver
from real_engine.volumes.local import DRIVER, LocalDriver, record_of
from real_engine.volumes.subpaths import Subpaths

Json = dict[str, Any]
Listener = Callable[[str, str, dict[str, str]], None]
"""Is told (action, volume's name, attributes)."""

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_FILTERS = ("dangling", "driver", "label", "name")
_PRUNE_FILTERS = ("label", "label!", "all")

_log = logging.getLogger("onggi")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume. `mountpoint` is where its content is on this machine, empty where that isn't known before its use."""

    name: str
    driver: str
    mountpoint: str
    created_at: str = ""
    scope: str = "local"
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        """Whether nobody gave it a name."""
        return ANONYMOUS_LABEL in (self.labels or {})

    def to_json(self) -> Json:
        """As the API has it."""
        found: Json = {
            "CreatedAt": self.created_at,
            "Driver": self.driver,
            "Labels": self.labels,
            "Mountpoint": self.mountpoint,
            "Name": self.name,
            "Options": self.options,
            "Scope": self.scope,
        }
        if self.created_at == "":
            del found["CreatedAt"]
        if self.status:
            found["Status"] = dict(self.status)
        return found


class Volumes:
    """All volumes of a data root. Thread-safe. `on_event` is told what happens to them."""

    def __init__(self, data_root: Path, plugins: Plugins | None = None) -> None:
        self.plugins = plugins or Plugins(data_root)
        self.on_event: Listener = lambda action, name, attributes: None
        self._local = LocalDriver(data_root / "volumes")
        self.subpaths = Subpaths(data_root / "volumes" / ".subpaths")
        self._records = data_root / "volumes" / ".drivers"  # what is known of the volumes of other drivers
        self._lock = threading.Lock()
        self._creating: dict[str, threading.Lock] = {}
        self._references: dict[str, dict[str, int]] = {}
        self._acquired: dict[tuple[str, str], int] = {}
        self._foreign = self._load_foreign()

    @property
    def drivers(self) -> list[str]:
        """The names of the drivers that can be used."""
        return sorted({DRIVER, *self.plugins.volume_driver_names()})

    # --- one volume --------------------------------------------------------------------------------------------------

    def create(
        self,
        name: str | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        container_id: str = "",
    ) -> Volume:
        """Make a volume, or find the one that has this name; a container that is named refers to it from now on.

        Without a name it is anonymous. What is asked of a volume that exists already is not compared with what it is,
        but for the driver (moby volume/service/store.go).

        Raises:
            InvalidParameter: a name or option that can't be.
            NotFound: no such driver.
            Conflict: another driver has a volume of that name.
            EngineError: the driver's own words.
        """
        if not name:
            name = os.urandom(32).hex()
            labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        with _told("create", name), self._creation(name):
            found = self._known(name)
            wanted = self._driver(driver or (found or DRIVER))
            if found is not None and wanted.name != found:
                raise Conflict(f"driver '{found}' already has volume '{name}': volume name must be unique")
            if found is None:
                made = self._make(name, wanted, options, labels)
            else:
                made = self._describe(wanted, wanted.get(name))
            if container_id:
                self.refer(name, container_id)
        if found is None or not container_id:
            self.on_event("create", name, {"driver": made.driver})
        return made

    def get(self, name: str) -> Volume:
        """The volume of that name.

        Raises:
            NotFound: there is none.
            EngineError: its driver doesn't answer.
        """
        with _told("get", name):
            known = self._known(name)
            if known is not None:
                driver = self._driver(known)
                return self._describe(driver, driver.get(name))
            for other in self.plugins.volume_driver_names():  # a plugin may have volumes that we never heard of
                with contextlib.suppress(EngineError):
                    driver = self._driver(other)
                    return self._describe(driver, driver.get(name))
            raise NotFound("no such volume")

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its content. `force` does nothing where there is none, and forgets what a driver lost.

        Raises:
            NotFound: there is none.
            Conflict: containers refer to it; their ids are told.
            EngineError: the driver's own words.
        """
        try:
            volume = self.get(name)
        except NotFound:
            if force:
                self._forget_foreign(name)
                return
            raise
        with _told("remove", name), self._creation(name):
            users = self.users(name)
            if users:
                raise Conflict(f"volume is in use - [{', '.join(users)}]")
            try:
                self._driver(volume.driver).remove(name)
            except EngineError:
                if not force:
                    raise
            self._forget_foreign(name)
        self.on_event("destroy", name, {"driver": volume.driver})

    # --- who uses it -------------------------------------------------------------------------------------------------

    def refer(self, name: str, container_id: str) -> None:
        """The container has the volume among its mounts: it may not be removed. Counted."""
        with self._lock:
            counts = self._references.setdefault(name, {})
            counts[container_id] = counts.get(container_id, 0) + 1

    def forget(self, name: str, container_id: str) -> None:
        """The container is gone: all its references to the volume end."""
        with self._lock:
            counts = self._references.get(name)
            if counts is not None:
                counts.pop(container_id, None)
                if not counts:
                    del self._references[name]

    def users(self, name: str) -> list[str]:
        """The ids of the containers that refer to a volume."""
        with self._lock:
            return list(self._references.get(name, ()))

    def used_of_driver(self, driver: str) -> list[str]:
        """The volumes of a driver that containers refer to."""
        with self._lock:
            return [name for name in self._references if self._foreign.get(name, {}).get("Driver") == driver]

    def acquire(
        self, name: str, container_id: str, *, destination: str = "", writable: bool = True, propagation: str = ""
    ) -> Path:
        """Make the content available to a container that starts; returns the directory. Counted by container.

        Raises:
            NotFound: there is no such volume.
            EngineError: what the driver or the kernel says.
        """
        known, place = self._mount(name, container_id)
        with self._lock:
            self._acquired[name, container_id] = self._acquired.get((name, container_id), 0) + 1
        attributes = {"driver": known, "container": container_id, "destination": destination}
        self.on_event("mount", name, attributes | {"read/write": str(writable).lower(), "propagation": propagation})
        return place

    def release(self, name: str, container_id: str) -> None:
        """A container has ended that had acquired the volume. What was never acquired is no error.

        Raises:
            EngineError: what the driver says.
        """
        with self._lock:
            left = self._acquired.get((name, container_id), 0) - 1
            if left < 0:
                return
            if left:
                self._acquired[name, container_id] = left
            else:
                del self._acquired[name, container_id]
        known = self._known(name) or DRIVER
        if left == 0:
            self._driver(known).unmount(name, container_id)
        self.on_event("unmount", name, {"driver": known, "container": container_id})

    @contextlib.contextmanager
    def content(self, name: str) -> Iterator[Path]:
        """The directory of a volume's content, for the engine itself: nobody is told.

        Raises:
            NotFound: there is no such volume.
            EngineError: what the driver or the kernel says.
        """
        identifier = os.urandom(8).hex()
        known, place = self._mount(name, identifier)
        try:
            yield place
        finally:
            self._driver(known).unmount(name, identifier)

    def settle(self) -> None:
        """After a start, when the daemon has told who uses what: remove what a crash has left."""
        self.subpaths.sweep()
        self._local.sweep()

    # --- all of them -------------------------------------------------------------------------------------------------

    def find(self, filters: Filters | None = None) -> tuple[list[Volume], list[str]]:
        """The volumes that pass the filters, by name, and what kept a driver from telling its own.

        Raises:
            InvalidParameter: an unknown filter, or a value that can't be.
        """
        filters = filters or Filters()
        filters.check(_FILTERS)
        dangling = filters.flag("dangling") if filters.get("dangling") else None
        found = {volume.name: self._describe(self._local, volume) for volume in self._local.list()}
        warnings = []
        for name in self.plugins.volume_driver_names():
            try:
                driver = self._driver(name)
                for volume in driver.list():
                    found.setdefault(volume.name, self._describe(driver, volume))
            except EngineError as error:
                warnings.append(f"error listing volumes from driver '{name}': {error}")
        passed = [
            volume
            for name, volume in sorted(found.items())
            if (dangling is None or dangling != bool(self.users(name)))
            and filters.exact("driver", volume.driver)
            and filters.search("name", name)
            and filters.match_labels(volume.labels or {})
        ]
        return passed, warnings

    def prune(self, filters: Filters | None = None, *, everything: bool = False) -> tuple[list[str], int]:
        """Remove the local volumes that no container refers to; returns their names and the bytes won.

        Anonymous ones only, unless `everything` or the filter `all` (API 1.42) asks for more.

        Raises:
            InvalidParameter: an unknown filter.
        """
        filters = filters or Filters()
        filters.check(_PRUNE_FILTERS)
        everything = filters.flag("all", everything)
        names, total = [], 0
        for volume in self.find()[0]:
            unwanted = volume.driver == DRIVER and (everything or volume.anonymous) and not self.users(volume.name)
            if not unwanted or not filters.match_labels(volume.labels or {}):
                continue
            size = size_bytes(Path(volume.mountpoint))
            try:
                self.remove(volume.name)
            except (Conflict, NotFound):  # somebody was faster
                continue
            names.append(volume.name)
            total += size
        self.on_event("prune", "", {"reclaimed": str(total)})
        return names, total

    def disk_usage(self) -> list[Json]:
        """Every volume as the API has it, with its size in bytes and the number of containers that refer to it."""
        found = []
        for volume in self.find()[0]:
            size = -1  # what another driver keeps is not on this disk
            if volume.driver == DRIVER:
                size = size_bytes(Path(volume.mountpoint))
            usage = {"Size": size, "RefCount": len(self.users(volume.name))}
            found.append(volume.to_json() | {"UsageData": usage})
        return found

    # --- inside ------------------------------------------------------------------------------------------------------

    def _mount(self, name: str, identifier: str) -> tuple[str, Path]:
        """Mount a volume for a user; returns its driver's name and the directory."""
        known = self._known(name)
        if known is None:
            known = self.get(name).driver
        try:
            return known, self._driver(known).mount(name, identifier)
        except NotFound as error:
            raise NotFound(f"get {name}: {error}") from error
        except EngineError as error:
            shown = self._local.root / name / "_data" if known == DRIVER else name
            raise error.reworded(f"error while mounting volume '{shown}': {error}") from error

    def _driver(self, name: str) -> VolumeDriver:
        if name == DRIVER:
            return self._local
        try:
            return self.plugins.volume_driver(name)
        except NotFound as error:
            raise NotFound(f"error looking up volume plugin {name}: {error}") from error
        except EngineError as error:
            raise EngineError(f"error looking up volume plugin {name}: {error}") from error

    def _known(self, name: str) -> str | None:
        """The driver that has a volume, as far as we know without asking plugins."""
        try:
            self._local.get(name)
        except NotFound:
            with self._lock:
                record = self._foreign.get(name)
            return None if record is None else str(record["Driver"])
        return DRIVER

    def _make(
        self, name: str, driver: VolumeDriver, options: Mapping[str, str] | None, labels: Mapping[str, str] | None
    ) -> Volume:
        if driver.name == DRIVER:
            self._local.create(name, options or {}, labels)
        else:
            driver.create(name, options or {})
            record = record_of(name, driver.name, options, labels)
            self._records.mkdir(exist_ok=True, mode=0o700)
            write_durably(self._foreign_file(name), json.dumps(record).encode(), mode=0o600)
            with self._lock:
                self._foreign[name] = record
        return self._describe(driver, driver.get(name))

    def _describe(self, driver: VolumeDriver, told: DriverVolume) -> Volume:
        """What the driver says of a volume, with what we wrote down about it."""
        if driver.name == DRIVER:
            record = self._local.record(told.name)
        else:
            with self._lock:
                record = self._foreign.get(told.name, {})
        described = Volume(
            name=told.name,
            driver=driver.name,
            mountpoint=told.mountpoint,
            created_at=told.created_at or str(record.get("CreatedAt") or ""),
            scope=driver.scope,
            labels=record.get("Labels"),
            options=record.get("Options") or None,
        )
        return replace(described, status=told.status) if told.status else described

    @contextlib.contextmanager
    def _creation(self, name: str) -> Iterator[None]:
        """Hold the name: two who make or remove the same volume do so one after the other."""
        with self._lock:
            lock = self._creating.setdefault(name, threading.Lock())
        with lock:
            yield

    def _foreign_file(self, name: str) -> Path:
        return (
            self._records / f"{hashlib.sha256(name.encode()).hexdigest()}.json"
        )  # another driver's names may be paths

    def _forget_foreign(self, name: str) -> None:
        with self._lock:
            known = self._foreign.pop(name, None)
        if known is not None:
            self._foreign_file(name).unlink(missing_ok=True)

    def _load_foreign(self) -> dict[str, Json]:
        found = {}
        for path in self._records.glob("*.json"):
            try:
                record = json.loads(path.read_bytes())
                found[str(record["Name"])] = {**record, "Driver": str(record["Driver"])}
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.error("the record of a volume, %s, cannot be read: %s", path, error)
        return found


@contextlib.contextmanager
def _told(operation: str, name: str) -> Iterator[None]:
    """Put the operation and the volume before an error's text, as Docker does (moby volume/service/errors.go)."""
    try:
        yield
    except EngineError as error:
        text = str(error)
        if text.startswith((f"get {name}: ", f"{operation} {name}: ")):
            raise
        raise error.reworded(f"{operation} {name}: {text}") from error


def check_text_map(value: object, name: str) -> dict[str, str] | None:
    """`value` as a JSON object of strings, or None.

    Raises:
        InvalidParameter: it is something else.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidParameter(f"json: cannot unmarshal into Go struct field {name} of type map[string]string")
    return value
