"""Several compose files as one: a later one adds to and replaces parts of an earlier one.

Source: compose-spec, 13-merge.md. Both are in the canonical form, in which what is known by a name is a mapping.
"""

from collections.abc import Callable, Mapping
from typing import Any

from real_engine.compose.documents import RESET, Override

# Lists that are replaced as a whole: two commands make no command.
_REPLACED = frozenset(("command", "entrypoint", "test"))

_IDENTITIES: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "ports": lambda port: (port.get("host_ip"), port.get("published"), port.get("target"), port.get("protocol", "tcp")),
    "volumes": lambda mount: mount.get("target"),
    "secrets": lambda grant: grant.get("target") or f"/run/secrets/{grant.get('source')}",
    "configs": lambda grant: grant.get("target") or f"/{grant.get('source')}",
    "devices": lambda device: device.get("target"),
    "env_file": lambda file: file.get("path"),
}


def merge(earlier: Any, later: Any, key: str = "") -> Any:
    """What `later` makes of `earlier`, under `key`. Neither is changed."""
    if later is RESET:
        return RESET
    if isinstance(later, Override):
        return without_marks(later.value)
    if isinstance(earlier, dict) and isinstance(later, dict):
        merged = dict(earlier)
        for name, value in later.items():
            result = merge(earlier[name], value, name) if name in earlier else without_marks(value)
            if result is RESET:
                merged.pop(name, None)
            else:
                merged[name] = result
        return merged
    if isinstance(earlier, list) and isinstance(later, list) and key not in _REPLACED:
        identity = _IDENTITIES.get(key)
        if identity is None or not all(isinstance(item, dict) for item in (*earlier, *later)):
            return [*earlier, *(item for item in later if item not in earlier)]
        found = {identity(item): item for item in earlier}
        for item in later:
            one = identity(item)
            found[one] = {**found[one], **item} if one in found and key not in ("ports",) else item
        return list(found.values())
    if later is None:
        return earlier
    return without_marks(later)


def without_marks(value: Any) -> Any:
    """`value` without `!reset` and `!override`, which mean nothing where there is nothing before."""
    if value is RESET:
        return RESET
    if isinstance(value, Override):
        return without_marks(value.value)
    if isinstance(value, dict):
        plain = {key: without_marks(inner) for key, inner in value.items()}
        return {key: inner for key, inner in plain.items() if inner is not RESET}
    if isinstance(value, list):
        return [without_marks(inner) for inner in value if inner is not RESET]
    return value
