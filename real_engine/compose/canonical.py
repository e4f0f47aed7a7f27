"""The short forms of a compose file in their long forms, so that files can be merged and one model reads them.

Source: compose-spec, 05-services.md. What has neither form is left as it is: the model says what is wrong with it.
"""

import re
import shlex
from collections.abc import Callable
from typing import Any

from real_engine.compose.documents import RESET, Override
from real_engine.errors import InvalidParameter

_PORT = re.compile(
    r"(?:(?:\[(?P<ip6>[0-9a-fA-F:.]+)\]|(?P<ip>\d{1,3}(?:\.\d{1,3}){3})):)?"
    r"(?:(?P<published>\d+(?:-\d+)?)?:)?(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>[a-z]+))?"
)
_BIND = re.compile(r"[./~]")
_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")


def canonical_document(document: dict[str, Any]) -> dict[str, Any]:
    """A whole document, with its services in the long form."""
    found = dict(document)
    services = document.get("services")
    if isinstance(services, dict):
        found["services"] = {
            name: canonical_service(service, f"services.{name}") if isinstance(service, dict) else service
            for name, service in services.items()
        }
    for kind in ("networks", "volumes", "secrets", "configs"):
        entries = document.get(kind)
        if isinstance(entries, dict):
            found[kind] = {name: _resource(entry, f"{kind}.{name}") for name, entry in entries.items()}
    return found


def canonical_service(service: dict[str, Any], where: str) -> dict[str, Any]:
    """One service in the long form.

    Raises:
        InvalidParameter: a short form that can't be read.
    """
    return {key: _apply(_FORMS.get(key), value, f"{where}.{key}") for key, value in service.items()}


def _apply(form: Callable[[Any, str], Any] | None, value: Any, where: str) -> Any:
    if form is None or value is None or value is RESET:
        return value
    if isinstance(value, Override):
        return Override(_apply(form, value.value, where))
    return form(value, where)


def _resource(entry: Any, where: str) -> Any:
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        return entry
    found = {
        key: _apply(_mapping if key in ("labels", "driver_opts") else None, value, where)
        for key, value in entry.items()
    }
    external = found.get("external")
    if isinstance(external, dict):  # the form of the 2.x and 3.x file formats
        found["external"] = True
        found.setdefault("name", external.get("name"))
    return found


def _scalar(value: Any) -> Any:
    """A value of a mapping of texts: numbers and truth values as YAML writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


def _mapping(value: Any, where: str) -> Any:
    """`[A=1, B]` as `{A: "1", B: null}`."""
    if isinstance(value, list):
        found: dict[str, Any] = {}
        for item in value:
            if not isinstance(item, str):
                raise InvalidParameter(f"{where}: every item must be text of the form NAME=VALUE")
            name, equals, text = item.partition("=")
            found[name] = text if equals else None
        return found
    if isinstance(value, dict):
        return {name: _scalar(inner) for name, inner in value.items()}
    return value


def _labels(value: Any, where: str) -> Any:
    found = _mapping(value, where)
    return {name: "" if text is None else text for name, text in found.items()} if isinstance(found, dict) else found


def _hosts(value: Any, where: str) -> Any:
    """`[name:address, name=address]` as `{name: [addresses]}`."""
    if isinstance(value, list):
        found: dict[str, list[str]] = {}
        for item in value:
            name, separator, address = str(item).partition("=" if "=" in str(item) else ":")
            if not separator or not name or not address:
                raise InvalidParameter(f"{where}: `{item}` is not of the form NAME:ADDRESS")
            found.setdefault(name, []).append(address.strip("[]"))
        return found
    if isinstance(value, dict):
        return {name: inner if isinstance(inner, list) else [str(inner)] for name, inner in value.items()}
    return value


def _command(value: Any, where: str) -> Any:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise InvalidParameter(f"{where}: {error}: {value!r}") from error
    return [_scalar(word) for word in value] if isinstance(value, list) else value


def _texts(value: Any, where: str) -> Any:
    return [value] if isinstance(value, str) else value


def _names(value: Any, where: str) -> Any:
    """A list of names as a mapping of nothing."""
    return dict.fromkeys(value) if isinstance(value, list) else value


def _dependencies(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return {name: {"condition": "service_started", "required": True} for name in value}
    return value


def _ports(value: Any, where: str) -> Any:
    if not isinstance(value, list):
        return value
    found: list[Any] = []
    for item in value:
        if isinstance(item, dict):
            found.append(
                {**item, **({"published": str(item["published"])} if item.get("published") is not None else {})}
            )
        else:
            found.extend(parse_port(str(item), where))
    return found


def parse_port(text: str, where: str = "ports") -> list[dict[str, Any]]:
    """`[[HOST_IP:][HOST_PORT]:]PORT[/PROTOCOL]` in the long form; a range is one entry for each port.

    Raises:
        InvalidParameter: another form, or ranges of different lengths.
    """
    found = _PORT.fullmatch(text.strip())
    if found is None:
        raise InvalidParameter(f"{where}: `{text}` is no port: write 80, 8080:80 or 127.0.0.1:8080:80/tcp")
    targets = _range(found["target"], text, where)
    published = _range(found["published"], text, where) if found["published"] else None
    address = found["ip6"] or found["ip"]
    entries = []
    for index, target in enumerate(targets):
        entry: dict[str, Any] = {"target": target, "protocol": found["protocol"] or "tcp", "mode": "ingress"}
        if address:
            entry["host_ip"] = address
        if published is not None:
            if len(targets) == 1 and len(published) > 1:
                entry["published"] = f"{published[0]}-{published[-1]}"
            elif len(published) != len(targets):
                raise InvalidParameter(f"{where}: `{text}`: the two ranges have different lengths")
            else:
                entry["published"] = str(published[index])
        entries.append(entry)
    return entries


def _range(text: str, whole: str, where: str) -> range:
    first, _, last = text.partition("-")
    begin, end = int(first), int(last or first)
    if not 0 < begin <= end <= 65535:
        raise InvalidParameter(f"{where}: `{whole}`: a port is a number from 1 to 65535")
    return range(begin, end + 1)


def _volumes(value: Any, where: str) -> Any:
    if not isinstance(value, list):
        return value
    return [item if isinstance(item, dict) else parse_volume(str(item), where) for item in value]


def parse_volume(text: str, where: str = "volumes") -> dict[str, Any]:
    """`[SOURCE:]TARGET[:MODE]` in the long form. A source that begins with `.`, `/` or `~` is a path.

    Raises:
        InvalidParameter: another form, or an unknown word in the mode.
    """
    parts = text.split(":")
    if not all(parts) or len(parts) > 3:
        raise InvalidParameter(f"{where}: `{text}` is no volume: write TARGET, SOURCE:TARGET or SOURCE:TARGET:MODE")
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0]}
    source, target = parts[0], parts[1]
    kind = "bind" if _BIND.match(source) else "volume"
    found: dict[str, Any] = {"type": kind, "source": source, "target": target}
    options: dict[str, Any] = {"create_host_path": True} if kind == "bind" else {}
    for word in parts[2].split(",") if len(parts) == 3 else ():
        if word in ("ro", "rw"):
            found["read_only"] = word == "ro"
        elif word in ("z", "Z") and kind == "bind":
            options["selinux"] = word
        elif word in _PROPAGATIONS and kind == "bind":
            options["propagation"] = word
        elif word == "nocopy" and kind == "volume":
            options["nocopy"] = True
        elif word not in ("z", "Z", "cached", "consistent", "delegated"):
            raise InvalidParameter(f"{where}: `{text}`: unknown mode `{word}`")
    if options:
        found[kind] = options
    return found


def _grants(value: Any, where: str) -> Any:
    """Secrets and configs: a name alone is its source."""
    if not isinstance(value, list):
        return value
    return [{"source": item} if isinstance(item, str) else item for item in value]


def _devices(value: Any, where: str) -> Any:
    if not isinstance(value, list):
        return value
    found = []
    for item in value:
        if isinstance(item, dict):
            found.append(item)
            continue
        source, _, rest = str(item).partition(":")
        target, _, permissions = rest.partition(":")
        if target and not target.startswith("/"):
            target, permissions = "", target
        found.append({"source": source, "target": target or source, "permissions": permissions or "rwm"})
    return found


def _env_files(value: Any, where: str) -> Any:
    items = value if isinstance(value, list) else [value]
    return [{"path": item, "required": True} if isinstance(item, str) else item for item in items]


def _build(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return {"context": value}
    if not isinstance(value, dict):
        return value
    found = dict(value)
    for key, form in (("args", _mapping), ("labels", _labels), ("extra_hosts", _hosts), ("cache_from", _texts)):
        if key in found:
            found[key] = _apply(form, found[key], f"{where}.{key}")
    return found


def _health(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return value
    test = value.get("test")
    if isinstance(test, str):
        return {**value, "test": ["CMD-SHELL", test]}
    return value


def _ulimits(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: limit if isinstance(limit, dict) else {"soft": limit, "hard": limit} for name, limit in value.items()}


def _extends(value: Any, where: str) -> Any:
    return {"service": value} if isinstance(value, str) else value


_FORMS: dict[str, Callable[[Any, str], Any]] = {
    "annotations": _labels,
    "build": _build,
    "command": _command,
    "configs": _grants,
    "depends_on": _dependencies,
    "devices": _devices,
    "dns": _texts,
    "dns_opt": _texts,
    "dns_search": _texts,
    "entrypoint": _command,
    "env_file": _env_files,
    "environment": _mapping,
    "extends": _extends,
    "extra_hosts": _hosts,
    "healthcheck": _health,
    "labels": _labels,
    "networks": _names,
    "ports": _ports,
    "secrets": _grants,
    "sysctls": _mapping,
    "tmpfs": _texts,
    "ulimits": _ulimits,
    "volumes": _volumes,
}
