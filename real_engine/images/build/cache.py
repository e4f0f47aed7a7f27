"""The layer cache: the image that an instruction made before, upon the same parent and with the same configuration.

As in the classic builder (moby image/cache): a step is known by the image below it and by the configuration of its
container, whose command is the instruction, for COPY and ADD with the digest of the files. Once a step of a stage
isn't found, none after it is looked for.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from real_engine.images.store import Image

_COMPARED = ("AttachStdout", "AttachStderr", "User", "Tty", "OpenStdin", "Cmd", "Env", "Entrypoint")
_SHOWN = 120  # characters of a value, where a difference is told
_COMPARED_AS_SETS = ("Labels", "ExposedPorts", "Volumes")


class CacheStore(Protocol):
    """What the cache asks of the image store."""

    def children(self, image_id: str) -> "Sequence[Image]":
        """The images made here upon that one; those upon nothing for ""."""

    def create(self, config: dict[str, Any], *, parent: str = "") -> "Image":
        """Make an image of layers that are here."""


class StageCache:
    """The cache for one stage. `sources` are the images of `--cache-from`: then only what they hold counts.

    A source that was pulled has no parents here, but a history: what it says of a step is made an image again.
    """

    def __init__(self, store: CacheStore, enabled: bool = True, sources: "Sequence[Image]" = ()) -> None:
        self._store = store
        self._sources = tuple(sources)
        self._missed = not enabled

    def probe(self, parent: "Image | None", config: Mapping[str, Any]) -> "Image | None":
        """The image of this step upon `parent` (None for scratch), the newest if there are several."""
        if self._missed:
            return None
        found = self._local(parent.id if parent is not None else "", config)
        if self._sources and (found is None or not self._in_sources(found)):
            found = self._from_sources(parent, config)
        self._missed = found is None
        return found

    def explain(self, parent: "Image | None", config: Mapping[str, Any], found: "Image | None") -> str:
        """In words, what `probe` looked for and which part made the difference. It asks the store once more."""
        command = " ".join(config.get("Cmd") or ())
        below = parent.id[:19] + "…" if parent is not None else "scratch"
        if found is not None:
            return f"{command} upon {below}: {found.id[:19]}…"
        children = self._store.children(parent.id if parent is not None else "")
        recorded = [child.config["container_config"] for child in children if child.config.get("container_config")]
        nearest = min((_differences(config, one) for one in recorded), key=len, default=None)
        if nearest == []:
            reason = "not looked for: a step before it was made anew, or --no-cache"
        elif nearest is None:
            reason = "nothing was made upon this parent yet"
        else:
            reason = "the nearest differs in " + "; ".join(nearest)
        return f"{command} upon {below}: {reason}"

    def _local(self, parent: str, config: Mapping[str, Any]) -> "Image | None":
        wanted = identity(config)
        found: Image | None = None
        for child in self._store.children(parent):
            recorded = child.config.get("container_config")
            if recorded and identity(recorded) == wanted and (found is None or _created(found) < _created(child)):
                found = child
        return found

    def _in_sources(self, image: "Image") -> bool:
        """Whether a source is this image, or has been built upon it."""
        return any(source.id == image.id or _begins_with(source, image) for source in self._sources)

    def _from_sources(self, parent: "Image | None", config: Mapping[str, Any]) -> "Image | None":
        command = " ".join(config.get("Cmd") or ())
        index = len(_history(parent)) if parent is not None else 0
        for source in self._sources:
            history = _history(source)
            if len(history) <= index or history[index].get("created_by") != command:
                continue
            if parent is not None and not _begins_with(source, parent):
                continue
            self._sources = (source,)  # no going to and fro between them
            if index + 1 == len(history):
                return source
            layers = sum(1 for entry in history[: index + 1] if not entry.get("empty_layer"))
            restored = {
                "architecture": source.config.get("architecture"),
                "config": {**config, "Cmd": (source.config.get("config") or {}).get("Cmd")},
                "container_config": dict(config),
                "created": history[index].get("created"),
                "history": history[: index + 1],
                "os": source.config.get("os"),
                "rootfs": {"type": "layers", "diff_ids": _layers(source)[:layers]},
            }
            return self._store.create(restored, parent=parent.id if parent is not None else "")
        return None


def _differences(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two configurations of a step differ, each as `Cmd: old → new`."""
    return [
        f"{name}: {_shown(other.get(name))} → {_shown(config.get(name))}"
        for name in (*_COMPARED, *_COMPARED_AS_SETS)
        if (config.get(name) or None) != (other.get(name) or None)
    ]


def _shown(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def identity(config: Mapping[str, Any]) -> str:
    """What of a container's configuration makes a step the same."""
    fields: dict[str, Any] = {name: config.get(name) or None for name in _COMPARED}
    for name in _COMPARED_AS_SETS:
        fields[name] = sorted((config.get(name) or {}).items())
    return json.dumps(fields)


def _begins_with(image: "Image", below: "Image") -> bool:
    history, layers = _history(below), _layers(below)
    return _history(image)[: len(history)] == history and _layers(image)[: len(layers)] == layers


def _history(image: "Image") -> list[dict[str, Any]]:
    return list(image.config.get("history") or ())


def _layers(image: "Image") -> list[str]:
    return list((image.config.get("rootfs") or {}).get("diff_ids") or ())


def _created(image: "Image") -> str:
    return str(image.config.get("created") or "")
