"""The types of the API's fields: values that a client sent, held against them as Go's JSON decoder would.

A kind is the name of a simple one (`string`, `bool`, `int`, `any`), or `Array`, `Map` or `Struct` of others. Null is
the zero value of every kind, and stays None here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from real_engine.errors import InvalidParameter

_SIMPLE: dict[str, type] = {"string": str, "bool": bool, "int": int}
_SHOWN = {"int": "int64", "any": "struct {}"}
_MOST_INTEGER = 1 << 63  # Go's int64


@dataclass(frozen=True, slots=True)
class Array:
    """A list. With `length`, Go's array: padded with zeros, and cut off behind that many."""

    of: "Kind"
    length: int = 0


@dataclass(frozen=True, slots=True)
class Map:
    """An object whose keys are the client's."""

    of: "Kind"


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with fields. Their names are read without regard to case, as Go does; others are left as they are."""

    fields: Mapping[str, "Kind"]
    name: str = "object"


Kind = str | Array | Map | Struct

STRINGS = Array("string")


def checked(name: str, kind: Kind, value: Any) -> Any:
    """`value`, if it is of the kind; the names of fields in it are as we write them.

    Raises:
        InvalidParameter: it, or something in it, is of another kind; names the field.
    """
    if value is None:
        return None
    if isinstance(kind, Array):
        return _array(name, kind, value)
    if isinstance(kind, Map):
        if not isinstance(value, dict):
            raise _wrong(name, value, kind)
        return {key: checked(name, kind.of, one) for key, one in value.items()}
    if isinstance(kind, Struct):
        return _struct(name, kind, value)
    if kind == "command" and isinstance(value, str):
        return [value]  # as Docker's own StrSlice reads it
    if kind == "command":
        return checked(name, STRINGS, value)
    if kind == "any":
        if not isinstance(value, dict):
            raise _wrong(name, value, kind)
        return value
    if not isinstance(value, _SIMPLE[kind]) or (kind == "int" and isinstance(value, bool)):
        raise _wrong(name, value, kind)
    if isinstance(value, int) and not -_MOST_INTEGER <= value < _MOST_INTEGER:
        raise InvalidParameter(f"json: cannot unmarshal number {value} into Go struct field {name} of type int64")
    return value


def _array(name: str, kind: Array, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, value, kind)
    zero: Any = {} if isinstance(kind.of, Struct) else {"string": "", "int": 0, "bool": False}.get(str(kind.of))
    items = [zero if item is None else checked(name, kind.of, item) for item in value]
    if kind.length:
        items = (items + [zero] * kind.length)[: kind.length]
    return items


def _struct(name: str, kind: Struct, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, value, kind)
    known = {field.lower(): field for field in kind.fields}
    found = {}
    for key, one in value.items():
        field = known.get(key.lower())
        found[field or key] = checked(f"{name}.{field}", kind.fields[field], one) if field else one
    return found


def _wrong(name: str, value: Any, kind: Kind) -> InvalidParameter:
    kinds = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}
    return InvalidParameter(
        f"json: cannot unmarshal {kinds.get(type(value), 'null')} into Go struct field {name} of type {_shown(kind)}"
    )


def _shown(kind: Kind) -> str:
    if isinstance(kind, Array):
        return f"[{kind.length or ''}]{_shown(kind.of)}"
    if isinstance(kind, Map):
        return f"map[string]{_shown(kind.of)}"
    if isinstance(kind, Struct):
        return kind.name
    return "strslice.StrSlice" if kind == "command" else _SHOWN.get(kind, kind)


# --- the structures of the API, by the names of its description -----------------------------------------------------

LABELS = Map("string")
HEALTH_CHECK = Struct(
    {"Test": STRINGS, "Interval": "int", "Timeout": "int", "StartPeriod": "int", "Retries": "int"},
    "container.HealthConfig",
)
LOG_CONFIG = Struct({"Type": "string", "Config": LABELS}, "container.LogConfig")
RESTART_POLICY = Struct({"Name": "string", "MaximumRetryCount": "int"}, "container.RestartPolicy")
PORT_MAP = Map(Array(Struct({"HostIp": "string", "HostPort": "string"}, "nat.PortBinding")))
ULIMITS = Array(Struct({"Name": "string", "Soft": "int", "Hard": "int"}, "units.Ulimit"))
WEIGHTS = Array(Struct({"Path": "string", "Weight": "int"}, "blkiodev.WeightDevice"))
RATES = Array(Struct({"Path": "string", "Rate": "int"}, "blkiodev.ThrottleDevice"))
DEVICES = Array(
    Struct(
        {"PathOnHost": "string", "PathInContainer": "string", "CgroupPermissions": "string"}, "container.DeviceMapping"
    )
)
DEVICE_REQUESTS = Array(
    Struct(
        {
            "Driver": "string",
            "Count": "int",
            "DeviceIDs": STRINGS,
            "Capabilities": Array(STRINGS),
            "Options": LABELS,
        },
        "container.DeviceRequest",
    )
)
MOUNTS = Array(
    Struct(
        {
            "Type": "string",
            "Source": "string",
            "Target": "string",
            "ReadOnly": "bool",
            "Consistency": "string",
            "BindOptions": Struct({"Propagation": "string", "NonRecursive": "bool"}, "mount.BindOptions"),
            "VolumeOptions": Struct(
                {
                    "NoCopy": "bool",
                    "Labels": LABELS,
                    "DriverConfig": Struct({"Name": "string", "Options": LABELS}, "mount.Driver"),
                    "Subpath": "string",
                },
                "mount.VolumeOptions",
            ),
            "TmpfsOptions": Struct({"SizeBytes": "int", "Mode": "int"}, "mount.TmpfsOptions"),
        },
        "mount.Mount",
    )
)
ENDPOINT = Struct(
    {
        "IPAMConfig": Struct(
            {"IPv4Address": "string", "IPv6Address": "string", "LinkLocalIPs": STRINGS}, "network.EndpointIPAMConfig"
        ),
        "Links": STRINGS,
        "Aliases": STRINGS,
        "MacAddress": "string",
        "DriverOpts": LABELS,
    },
    "network.EndpointSettings",
)
NETWORKING = Struct({"EndpointsConfig": Map(ENDPOINT)}, "network.NetworkingConfig")
EXEC = Struct(
    {
        "User": "string",
        "Privileged": "bool",
        "Tty": "bool",
        "ConsoleSize": Array("int", 2),
        "AttachStdin": "bool",
        "AttachStderr": "bool",
        "AttachStdout": "bool",
        "Detach": "bool",
        "DetachKeys": "string",
        "Env": STRINGS,
        "WorkingDir": "string",
        "Cmd": STRINGS,
    },
    "types.ExecConfig",
)
EXEC_START = Struct({"Detach": "bool", "Tty": "bool", "ConsoleSize": Array("int", 2)}, "types.ExecStartCheck")
