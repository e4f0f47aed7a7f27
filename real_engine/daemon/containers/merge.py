"""A container's configuration from what was asked for and what its image says, as Docker merges the two."""

from collections.abc import Mapping
from typing import Any

from real_engine.errors import InvalidParameter

Json = dict[str, Any]

_HEALTH_DEFAULTS = ("Test", "Interval", "Timeout", "StartPeriod", "Retries")


def merge(config: Json, image: Mapping[str, Any]) -> None:
    """Complete `config`, in place, by the image's own (the `config` of its OCI configuration).

    What was asked for wins. Variables, labels, exposed ports and volumes are united. An image's command counts only
    where neither a command nor an entry point was asked for.
    """
    config["User"] = config["User"] or image.get("User") or ""
    config["WorkingDir"] = config["WorkingDir"] or image.get("WorkingDir") or ""
    for name in ("ExposedPorts", "Volumes", "Labels"):
        united = {**(image.get(name) or {}), **(config[name] or {})}
        config[name] = united or ({} if name == "Labels" else None)
    _merge_environment(config, image.get("Env") or [])
    if not config["Entrypoint"]:
        if not config["Cmd"]:
            config["Cmd"] = image.get("Cmd")
        if config["Entrypoint"] is None:
            config["Entrypoint"] = image.get("Entrypoint")
    if config["Entrypoint"] == [""]:
        config["Entrypoint"] = None  # asked to be none, though the image has one
    for name in ("StopSignal", "Shell"):
        if not config.get(name) and image.get(name):
            config[name] = image[name]
    _merge_health_check(config, image.get("Healthcheck"))


def command(config: Mapping[str, Any]) -> list[str]:
    """The program and its arguments.

    Raises:
        InvalidParameter: neither the request nor the image names one.
    """
    argv = [*(config["Entrypoint"] or []), *(config["Cmd"] or [])]
    if not argv:
        raise InvalidParameter("No command specified")
    return argv


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a complete configuration. A name without `=` unsets what the engine would set."""
    pairs = (pair.partition("=") for pair in config["Env"] or [])
    return {name: value for name, separator, value in pairs if separator}


def _merge_environment(config: Json, inherited: list[str]) -> None:
    own = list(config["Env"] or [])
    names = {pair.partition("=")[0] for pair in own}
    united = own + [pair for pair in inherited if pair.partition("=")[0] not in names]
    config["Env"] = united or None


def _merge_health_check(config: Json, inherited: Mapping[str, Any] | None) -> None:
    if not inherited:
        return
    own = config.get("Healthcheck")
    if not own:
        config["Healthcheck"] = dict(inherited)
        return
    for name in _HEALTH_DEFAULTS:
        if not own.get(name) and inherited.get(name):
            own[name] = inherited[name]
