"""`RUN --mount`: what a step sees beside its image: caches, other files to read, memory. Nothing of it gets in a layer.

The syntax is that of the Dockerfile reference, "RUN --mount". Secrets and SSH agents can't come through the classic
`POST /build`: where they are not required, the step goes without, as it does elsewhere when none was given.
"""

import csv
import hashlib
import os
import posixpath
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_engine.errors import InvalidParameter, NotImplementedHere
from real_engine.images.trees import remove_tree, size_bytes

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class RunMount:
    """One `--mount`; sizes in bytes."""

    kind: str
    target: str
    source: str = ""
    origin: str = ""
    identity: str = ""
    writable: bool = False
    sharing: str = "shared"
    required: bool = False
    size: int = 0
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


def parse_mount(text: str, working_directory: str = "/") -> RunMount:
    """Read the value of a `--mount`.

    Raises:
        InvalidParameter: a key or a value that doesn't exist.
    """
    kind, target, source, origin, identity, sharing = "bind", "", "", "", "", "shared"
    writable: bool | None = None
    required = False
    numbers = {"size": 0, "mode": 0o755, "uid": 0, "gid": 0}
    for part in next(csv.reader([text]), []):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if key in ("ro", "readonly", "rw", "readwrite", "required"):
            flag = _boolean(key, value) if equals else True
            if key == "required":
                required = flag
            else:
                writable = flag if key.startswith("rw") or key == "readwrite" else not flag
            continue
        if not equals:
            raise InvalidParameter(f"invalid field '{part}' must be a key=value pair")
        if key == "type":
            if value.lower() not in _TYPES:
                raise InvalidParameter(f'unsupported mount type "{value}"')
            kind = value.lower()
        elif key in ("target", "dst", "destination"):
            target = value
        elif key in ("source", "src"):
            source = value
        elif key == "from":
            origin = value
        elif key == "id":
            identity = value
        elif key == "sharing":
            if value.lower() not in _SHARING:
                raise InvalidParameter(f'unsupported sharing value "{value}"')
            sharing = value.lower()
        elif key in numbers:
            numbers[key] = _number(key, value)
        elif key != "env":
            raise InvalidParameter(f"unexpected key '{key}' in '{part}'")
    if kind not in ("secret", "ssh"):
        if not target:
            raise InvalidParameter("invalid mount: target path is required")
        target = posixpath.normpath(posixpath.join("/", working_directory, target))
        if target == "/":
            raise InvalidParameter('invalid mount target "/"')
    if writable is None:
        writable = kind != "bind"
    return RunMount(
        kind,
        target,
        source,
        origin,
        identity or target,
        writable,
        sharing,
        required,
        numbers["size"],
        numbers["mode"],
        numbers["uid"],
        numbers["gid"],
    )


def check_available(mount: RunMount) -> bool:
    """Whether the mount can be made; an optional secret or agent is left out.

    Raises:
        NotImplementedHere: one that is required.
    """
    if mount.kind not in ("secret", "ssh"):
        return True
    if mount.required:
        raise NotImplementedHere(
            f"{mount.kind} {mount.identity or 'default'}: not found: the classic build API (DOCKER_BUILDKIT=0) "
            "can't carry secrets or SSH agents"
        )
    return False


def as_container_mount(mount: RunMount, source: Path | None) -> dict[str, Any]:
    """The mount as `POST /containers/create` takes it in `HostConfig.Mounts`."""
    if mount.kind == "tmpfs":
        options = {"SizeBytes": mount.size} if mount.size else {}
        return {"Type": "tmpfs", "Target": mount.target, "TmpfsOptions": options}
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": mount.target,
        "ReadOnly": not mount.writable,
        "BindOptions": {"Propagation": "rprivate"},
    }


class CacheDirectories:
    """The directories of `--mount=type=cache`, which outlive builds, beneath a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._removing = threading.Lock()
        self._exclusive: dict[str, threading.Lock] = {}
        self._users: dict[str, int] = {}

    @contextmanager
    def borrowed(self, mount: RunMount) -> Iterator[Path]:
        """The cache's directory while a step uses it: alone (`locked`), or one of several copies (`private`)."""
        with ExitStack() as stack:
            name = hashlib.sha256(f"{mount.identity}\0{mount.origin}\0{mount.source}".encode()).hexdigest()[:32]
            if mount.sharing == "locked":
                with self._lock:
                    lock = self._exclusive.setdefault(name, threading.Lock())
                stack.enter_context(lock)
            with self._lock:
                if mount.sharing == "private":
                    number = 0
                    while self._users.get(f"{name}-{number}"):
                        number += 1
                    name = f"{name}-{number}"
                self._users[name] = self._users.get(name, 0) + 1
                directory = self.directory / name
                if not directory.is_dir():
                    self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    directory.mkdir(mode=0o700)
                    os.chown(directory, mount.uid, mount.gid)
                    os.chmod(directory, mount.mode)
            stack.callback(self._give_back, name)
            yield directory

    def entries(self) -> list[dict[str, Any]]:
        """The caches, as `GET /system/df` tells of them."""
        found = []
        for name in self._names():
            directory = self.directory / name
            try:
                status = directory.stat()
            except FileNotFoundError:
                continue
            with self._lock:
                in_use = bool(self._users.get(name))
            found.append(
                {
                    "ID": name,
                    "Type": "exec.cachemount",
                    "Description": "a cache mount of RUN",
                    "InUse": in_use,
                    "Shared": False,
                    "Size": size_bytes(directory),
                    "UsageCount": 1,
                    "CreatedNanoseconds": status.st_ctime_ns,
                    "UsedNanoseconds": status.st_mtime_ns,
                }
            )
        return found

    def remove_unused(self, before_nanoseconds: int | None = None) -> tuple[list[str], int]:
        """Remove the caches that no step uses, or those last used before a moment; returns their names, and bytes."""
        removed, reclaimed = [], 0
        with self._removing:
            for left in self._names(hidden=True):  # of an engine that was killed
                remove_tree(self.directory / left)
            for name in self._names():
                directory, gone = self.directory / name, self.directory / f".{name}.removed"
                with self._lock:
                    if self._users.get(name):
                        continue
                    if before_nanoseconds is not None and directory.stat().st_mtime_ns >= before_nanoseconds:
                        continue
                    directory.rename(gone)
                reclaimed += size_bytes(gone)
                remove_tree(gone)
                removed.append(name)
        return removed, reclaimed

    def _names(self, *, hidden: bool = False) -> list[str]:
        if not self.directory.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.directory) if entry.name.startswith(".") == hidden)

    def _give_back(self, name: str) -> None:
        with self._lock:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]


def _boolean(key: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InvalidParameter(f"invalid value for {key}: {value}")


def _number(key: str, value: str) -> int:
    if key == "mode" and re.fullmatch("[0-7]{1,5}", value):
        return int(value, 8)
    if key == "size":
        match = re.fullmatch(r"([0-9]{1,15})([bkmg]?)b?", value.lower())
        if match:
            return int(match[1]) * _SIZES[match[2]]
    elif key != "mode" and re.fullmatch("[0-9]{1,10}", value):
        return int(value)
    raise InvalidParameter(f"invalid value for {key}: {value}")
