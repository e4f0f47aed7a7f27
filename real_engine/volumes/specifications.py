"""One wish for a mount, read: `-v SOURCE:TARGET:MODE`, an object of `Mounts`, the options of a tmpfs.

The functions give the fields of a `mounts.MountPoint`. Rules and messages: moby volume/mounts/linux_parser.go,
validate.go, pkg/mount; the command line sends both forms.
"""

import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from real_engine.errors import InvalidParameter

Fields = dict[str, Any]

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_TYPES = ("bind", "volume", "tmpfs")
_CONSISTENCIES = ("consistent", "cached", "delegated")  # of Docker Desktop; without effect on Linux

# moby daemon/../pkg/mount validFlags, those that a tmpfs may have (oci_linux.go, mergeTmpfsOptions).
_TMPFS_FLAGS = frozenset(
    (
        *("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "defaults"),
        *("mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime"),
        *("nostrictatime", *PROPAGATIONS, "unbindable", "runbindable"),
    )
)
_TMPFS_VALUES = frozenset(("mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"))


def parse_bind(text: str, default_driver: str = "") -> Fields:
    """`SOURCE:TARGET[:MODE]`, or `TARGET` for an anonymous volume.

    Raises:
        InvalidParameter: another form, a mode that isn't known, a target that is relative or the root.
    """
    parts = text.split(":")
    if not text or len(parts) > 3 or not all(parts):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    source, target, mode = "", parts[0], ""
    if len(parts) > 1:
        source, target = parts[0], parts[1]
    if len(parts) == 3:
        mode = parts[2]
    kind = "bind" if source.startswith("/") else "volume"
    found = _read_mode(mode)
    spec: Fields = {"Type": kind, "Source": source, "Target": target}
    if "propagation" in found:
        spec["BindOptions"] = {"Propagation": found["propagation"]}
    if found.pop("nocopy", False):
        spec["VolumeOptions"] = {"NoCopy": True}
    try:
        fields = parse_mount(spec, default_driver)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid volume specification: '{text}': {error}") from error
    return fields | {"mode": mode, "writable": found["writable"], "make_source": kind == "bind"}


def _read_mode(mode: str) -> Fields:
    """Each of the words at most once, and of each sort at most one."""
    found: Fields = {"writable": True}
    seen: set[str] = set()
    for word in mode.split(",") if mode else ():
        if word in ("ro", "rw"):
            sort = "writable"
            found["writable"] = word == "rw"
        elif word in ("z", "Z"):
            sort = "label"
        elif word in PROPAGATIONS:
            sort = "propagation"
            found["propagation"] = word
        elif word == "nocopy":
            sort = "nocopy"
            found["nocopy"] = True
        elif word in _CONSISTENCIES:
            sort = "consistency"
        else:
            sort = ""
        if not sort or sort in seen:
            raise InvalidParameter(f"invalid mode: {mode}")
        seen.add(sort)
    return found


def parse_mount(spec: Mapping[str, Any], default_driver: str = "") -> Fields:
    """An object of `HostConfig.Mounts`.

    Raises:
        InvalidParameter: a field that is missing, that doesn't belong to the type, or of another type.
    """
    kind = _text(spec, "Type")
    if kind not in _TYPES:
        raise _invalid(kind, "mount type unknown")
    source, target = _text(spec, "Source"), _text(spec, "Target")
    if not target:
        raise _invalid(kind, "field Target must not be empty")
    place = posixpath.normpath(target).replace("//", "/")  # POSIX keeps two slashes at the beginning
    if place in ("/", "."):
        raise _invalid(kind, "invalid specification: destination can't be '/'")
    if not target.startswith("/"):
        raise _invalid(kind, f"invalid mount path: '{target}' mount path must be absolute")
    if "\0" in target or "\0" in source:
        raise _invalid(kind, "a path can't contain a NUL character")
    for field, owner in (("BindOptions", "bind"), ("VolumeOptions", "volume")):
        if spec.get(field) is not None and kind != owner:
            raise _invalid(kind, f"field {field} must not be specified")
    found: Fields = {
        "type": kind,
        "destination": place,
        "writable": not _flag(spec, "ReadOnly"),
    }
    if kind == "bind":
        return found | _bind_fields(spec, source)
    if kind == "volume":
        return found | _volume_fields(spec, source, default_driver)
    if source:
        raise _invalid(kind, "field Source must not be specified")
    options = _object(spec, "TmpfsOptions")
    size, mode = options.get("SizeBytes") or 0, options.get("Mode")
    if not isinstance(size, int) or not isinstance(mode, int | None):
        raise _invalid(kind, "SizeBytes and Mode must be numbers")
    return found | {"size_bytes": max(0, size), "file_mode": mode or None}


def _bind_fields(spec: Mapping[str, Any], source: str) -> Fields:
    options = _object(spec, "BindOptions")
    if not source:
        raise _invalid("bind", "field Source must not be empty")
    if not source.startswith("/"):
        raise _invalid("bind", f"invalid mount path: '{source}' mount path must be absolute")
    propagation = _text(options, "Propagation") or "rprivate"
    if propagation not in PROPAGATIONS:
        raise _invalid("bind", f"invalid propagation mode: {propagation}")
    return {
        "source": os.path.normpath(source),
        "propagation": propagation,
        "recursive": not _flag(options, "NonRecursive"),
        "make_source": _flag(options, "CreateMountpoint"),
    }


def _volume_fields(spec: Mapping[str, Any], source: str, default_driver: str) -> Fields:
    options = _object(spec, "VolumeOptions")
    if not source and _flag(spec, "ReadOnly"):
        raise _invalid("volume", "must not set ReadOnly mode when using anonymous volumes")
    driver = _object(options, "DriverConfig")
    subpath = _text(options, "Subpath")
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise _invalid("volume", f"subpath must be a relative path within the volume: '{subpath}'")
    return {
        "name": source,
        "driver": _text(driver, "Name") or default_driver,
        "copy_up": not _flag(options, "NoCopy"),
        "subpath": subpath,
        "labels": _pairs(options, "Labels"),
        "driver_options": _pairs(driver, "Options"),
        "anonymous": not source,
    }


def parse_volumes_from(text: str) -> tuple[str, str]:
    """`CONTAINER[:ro|rw]`; returns the container and the mode.

    Raises:
        InvalidParameter: empty, or another mode.
    """
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    name, _, mode = text.partition(":")
    if mode:
        words = _read_mode(mode)
        if "nocopy" in words or "propagation" in words:
            raise InvalidParameter(f"invalid mode: {mode}")
        return name, "rw" if words["writable"] else "ro"
    return name, "rw"


def parse_tmpfs(text: str) -> Fields:
    """The options of `--tmpfs PATH:OPTIONS`, for a mount that is nosuid, nodev and noexec unless they say otherwise.

    Raises:
        InvalidParameter: an option that a tmpfs doesn't have.
    """
    options = {"nosuid": "nosuid", "nodev": "nodev", "noexec": "noexec"}
    found: Fields = {}
    for option in filter(None, text.split(",")):
        key, equals, value = option.partition("=")
        if not equals and key in _TMPFS_FLAGS:
            options[f"no{key}" if key in ("suid", "dev", "exec") else key] = key
        elif equals and value and key in _TMPFS_VALUES:
            if key == "size":
                found["size_bytes"] = _size(value)
            if key == "mode":
                if not re.fullmatch(r"[0-7]{1,5}", value):
                    raise InvalidParameter(f'invalid tmpfs option ["mode" "{value}"]')
                found["file_mode"] = int(value, 8)
            options[key] = option
        else:
            shown = f'"{key}" "{value}"' if equals else f'"{key}"'
            raise InvalidParameter(f"invalid tmpfs option [{shown}]")
    return found | {"options": tuple(options.values()), "writable": "ro" not in options}


def _size(text: str) -> int:
    """Bytes of `64m`; 0 for a share of the memory (`50%`), which the kernel works out."""
    number = re.fullmatch(r"(\d{1,18})([kmgtKMGT%]?)", text)
    if number is None:
        raise InvalidParameter(f'invalid tmpfs option ["size" "{text}"]')
    if number[2] == "%":
        return 0
    return int(number[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[number[2].lower()]


def _invalid(kind: str, reason: str) -> InvalidParameter:
    return InvalidParameter(f'invalid mount config for type "{kind}": {reason}')


def _text(spec: Mapping[str, Any], field: str) -> str:
    value = spec.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidParameter(f"json: cannot unmarshal into Go struct field Mount.{field} of type string")
    return value


def _flag(spec: Mapping[str, Any], field: str) -> bool:
    value = spec.get(field)
    if value is not None and not isinstance(value, bool):
        raise InvalidParameter(f"json: cannot unmarshal into Go struct field Mount.{field} of type bool")
    return bool(value)


def _object(spec: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = spec.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidParameter(f"json: cannot unmarshal into Go struct field Mount.{field} of type object")
    return value


def _pairs(spec: Mapping[str, Any], field: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, _text({name: value}, name)) for name, value in _object(spec, field).items())
