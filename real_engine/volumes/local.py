"""The driver `local`: a volume is a directory of the data root, or a file system that is mounted on it while in use.

    volumes/NAME/_data/         what the containers see
    volumes/NAME/volume.json    what is known of it (written by the store)

A directory comes to be under a hidden name and is renamed when it is whole, and is renamed before it is deleted: a
crash leaves hidden names only, which `sweep` removes.
"""

import errno
import json
import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.files import write_durably
from real_engine.images.trees import remove_tree
from real_engine.linux import mounts
from real_engine.times import now, rfc3339
from real_engine.volumes.drivers import DriverVolume

DRIVER = "local"
RECORD = "volume.json"

# moby volume/local/local.go and daemon/names: the first character, and at least one more.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_GRAMMAR = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_LONGEST_NAME = 255
_SECOND = 1_000_000_000
_KNOWN_OPTIONS = ("type", "o", "device", "size")

# The options of mount(8) that are flags of a mount, and not of its file system.
_ATTRIBUTES: dict[str, tuple[int, bool]] = {
    "ro": (mounts.MOUNT_ATTR_RDONLY, True),
    "rw": (mounts.MOUNT_ATTR_RDONLY, False),
    "nosuid": (mounts.MOUNT_ATTR_NOSUID, True),
    "suid": (mounts.MOUNT_ATTR_NOSUID, False),
    "nodev": (mounts.MOUNT_ATTR_NODEV, True),
    "dev": (mounts.MOUNT_ATTR_NODEV, False),
    "noexec": (mounts.MOUNT_ATTR_NOEXEC, True),
    "exec": (mounts.MOUNT_ATTR_NOEXEC, False),
}
_WITHOUT_EFFECT = ("defaults", "auto", "noauto", "nouser", "user", "_netdev")
_BINDS = {"bind": False, "rbind": True}


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a local volume.

    Raises:
        InvalidParameter: too short, too long, or with other characters.
    """
    if len(name) == 1:
        raise InvalidParameter("volume name is too short, names should be at least two alphanumeric characters")
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f'"{name}" includes invalid characters for a local volume name, only "{_GRAMMAR}" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    if len(name) > _LONGEST_NAME:
        raise InvalidParameter(f"volume name is too long: a name has at most {_LONGEST_NAME} characters")


def check_options(options: Mapping[str, str]) -> None:
    """Refuse options that this driver can't follow.

    Raises:
        InvalidParameter: an option that is unknown, missing, or needs quotas.
    """
    for option in options:
        if option not in _KNOWN_OPTIONS:
            raise InvalidParameter(f'invalid option: "{option}"')
    if options.get("size"):
        raise InvalidParameter("quota size requested but no quota support")
    if (options.get("type") or options.get("o")) and not options.get("device"):
        raise InvalidParameter('missing required option: "device"')
    if options.get("device") and not options.get("type"):
        raise InvalidParameter('missing required option: "type"')


class LocalDriver:
    """Volumes in the directory `root`. Thread-safe."""

    name = DRIVER
    scope = "local"

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o701)
        self._users: dict[str, set[str]] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._lock = threading.Lock()

    # --- the driver's calls ------------------------------------------------------------------------------------------

    def create(self, name: str, options: Mapping[str, str], labels: Mapping[str, str] | None = None) -> None:
        """Make a volume, if there is none of that name yet.

        Raises:
            InvalidParameter: its name or an option can't be.
        """
        check_name(name)
        check_options(options)
        with self._volume_lock(name):
            if (self.root / name).is_dir():
                return
            record = record_of(name, DRIVER, options, labels)
            partial = self.root / f".creating-{os.urandom(6).hex()}"
            partial.mkdir(mode=0o701)
            try:
                (partial / "_data").mkdir()
                os.chmod(partial / "_data", 0o755)  # noqa: S103 -- what containers see, whatever our umask
                write_durably(partial / RECORD, json.dumps(record).encode(), mode=0o600)
                os.rename(partial, self.root / name)
            except BaseException:
                remove_tree(partial)
                raise
            _sync(self.root)

    def remove(self, name: str) -> None:
        """Remove a volume and all that is in it.

        Raises:
            NotFound: there is none.
            Conflict: a file system is mounted in it.
        """
        with self._volume_lock(name):
            directory = self._existing(name)
            if self._users.get(name):
                raise Conflict("volume has active mounts")
            self._unmount_stale(directory)
            beneath = [point for point in _mount_points() if point.startswith(f"{directory}/")]
            if beneath:  # whatever it is, it is somebody else's: don't delete into it
                raise Conflict(f"something is mounted in it, at {beneath[0]}")
            away = self.root / f".removing-{os.urandom(6).hex()}"
            os.rename(directory, away)
        remove_tree(away)
        with self._lock:
            self._locks.pop(name, None)

    def get(self, name: str) -> DriverVolume:
        """The volume of that name.

        Raises:
            NotFound: there is none.
        """
        if not _NAME.fullmatch(name):
            raise NotFound("no such volume")
        directory = self._existing(name)
        return DriverVolume(name, str(directory / "_data"), str(self.record(name).get("CreatedAt", "")))

    def list(self) -> Sequence[DriverVolume]:
        """Every volume, by name."""
        found = []
        for entry in sorted(os.scandir(self.root), key=lambda entry: entry.name):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                found.append(self.get(entry.name))
        return found

    def mount(self, name: str, identifier: str) -> Path:
        """Make the content available: for a volume with a device, mount that the first time.

        Raises:
            NotFound: there is none.
            EngineError: the kernel refuses; its reason is told.
        """
        with self._volume_lock(name):
            directory = self._existing(name)
            target = directory / "_data"
            users = self._users.setdefault(name, set())
            if not users:
                options = self.record(name).get("Options") or {}
                if options.get("device") and str(target) not in _mount_points():
                    mount_device(options, target)
            users.add(identifier)
            return target

    def unmount(self, name: str, identifier: str) -> None:
        """The user needs it no more; the last one's leave unmounts the device."""
        with self._volume_lock(name):
            users = self._users.get(name)
            if users is None or identifier not in users:
                return
            users.discard(identifier)
            if not users:
                del self._users[name]
                self._unmount_stale(self.root / name)

    # --- what the store asks besides ---------------------------------------------------------------------------------

    def record(self, name: str) -> dict[str, Any]:
        """What was written down about a volume when it was made; empty if that can't be read."""
        try:
            found = json.loads((self.root / name / RECORD).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def sweep(self) -> None:
        """Remove what a crash has left: half-made and half-removed volumes, and mounts that nobody uses."""
        for entry in os.scandir(self.root):
            if entry.name.startswith((".creating-", ".removing-")):
                remove_tree(entry.path)
        for volume in self.list():
            with self._volume_lock(volume.name):
                if not self._users.get(volume.name):
                    self._unmount_stale(self.root / volume.name)

    def _existing(self, name: str) -> Path:
        directory = self.root / name
        if not directory.is_dir():
            raise NotFound("no such volume")
        return directory

    def _volume_lock(self, name: str) -> threading.RLock:
        with self._lock:
            return self._locks.setdefault(name, threading.RLock())

    def _unmount_stale(self, directory: Path) -> None:
        target = str(directory / "_data")
        while target in _mount_points():
            try:
                mounts.umount2(target, mounts.MNT_DETACH)
            except OSError as error:
                raise EngineError(f"cannot unmount {target}: {_reason(error)}") from error


def record_of(
    name: str, driver: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None
) -> dict[str, Any]:
    """What is written down about a volume that is made now."""
    return {
        "Name": name,
        "Driver": driver,
        "CreatedAt": rfc3339(now() // _SECOND * _SECOND),
        "Options": dict(options) if options else None,
        "Labels": None if labels is None else dict(labels),
    }


def mount_device(options: Mapping[str, str], target: Path) -> None:
    """Mount what `type`, `o` and `device` describe on the directory `target`, as mount(8) would.

    Raises:
        EngineError: the kernel refuses, or a server's name isn't known; the reason is told in Docker's words.
    """
    fstype, device, text = options.get("type", ""), options["device"], options.get("o", "")
    attributes = 0
    recursive: bool | None = None
    data: list[str] = []
    for option in filter(None, text.split(",")):
        if option in _ATTRIBUTES:
            bit, wanted = _ATTRIBUTES[option]
            attributes = attributes | bit if wanted else attributes & ~bit
        elif option in _BINDS:
            recursive = _BINDS[option]
        elif option not in _WITHOUT_EFFECT:
            data.append(option)
    shown = f"failed to mount local volume: mount {device}:{target}"
    flags = attributes | (0 if recursive is None else mounts.MS_BIND | (mounts.MS_REC if recursive else 0))
    shown += (f", flags: {flags:#x}" if flags else "") + (f", data: {','.join(data)}" if data else "")
    try:
        if recursive is not None:
            tree = mounts.open_tree_clone(device, recursive=recursive)
        else:
            tree = _new_file_system(fstype, device, data, attributes)
        try:
            place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                mounts.move_mount(tree, place)
            finally:
                os.close(place)
            if recursive is not None and attributes:
                try:
                    mounts.set_attributes(tree, attributes)
                except OSError:
                    mounts.umount2(str(target), mounts.MNT_DETACH)
                    raise
        finally:
            os.close(tree)
    except OSError as error:
        raise EngineError(f"{shown}: {_reason(error)}") from error


def _new_file_system(fstype: str, device: str, data: Sequence[str], attributes: int) -> int:
    """A mount in no place yet, of a file system with the options `data`."""
    settings: dict[str, str | None] = {"source": device}
    for option in data:
        key, equals, value = option.partition("=")
        if key == "addr" and fstype in ("nfs", "nfs4", "cifs", "smb3"):
            value = _address(value)  # the kernel knows no names
        settings[key] = value if equals else None
    return mounts.new_mount(fstype, settings, attributes)


def _address(server: str) -> str:
    try:
        return str(socket.getaddrinfo(server, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise OSError(errno.EHOSTUNREACH, f"error resolving passed in network volume address: {error}") from error


def _reason(error: OSError) -> str:
    """The error in the words of Go's library, which begin small."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def _mount_points() -> set[str]:
    """Every place of this mount namespace at which something is mounted."""
    found = set()
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            place = line.split(b" ", 5)[4]
            # The kernel writes blanks, tabs, line ends and backslashes as octal numbers.
            plain = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), place)
            found.add(os.fsdecode(plain))
    return found


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
