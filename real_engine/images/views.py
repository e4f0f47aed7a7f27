"""Images as Docker's API shows them: in a list, in full, and their history."""

from __future__ import annotations

import calendar
import re
import time
from typing import TYPE_CHECKING, Any

from real_engine.errors import EngineError
from real_engine.images.build.patterns import compile_glob
from real_engine.images.config_changes import complete
from real_engine.images.removal import chain_ids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from real_engine.images.references import Reference
    from real_engine.images.store import Image, ImageStore

Json = dict[str, Any]

_NEVER = "0001-01-01T00:00:00Z"
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(?:Z|([+-])(\d\d):(\d\d))")
_SECOND = 1_000_000_000
_BEFORE_EVERYTHING = -62135596800 * _SECOND  # Go's zero time


def created_ns(text: str) -> int:
    """Nanoseconds since 1970 of a time in a configuration; Go's zero time where there is none, or none that is one."""
    matched = _MOMENT.fullmatch(text)
    if matched is None:
        return _BEFORE_EVERYTHING
    try:
        seconds = calendar.timegm(time.strptime(matched[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return _BEFORE_EVERYTHING
    if matched[3]:
        offset = int(matched[4]) * 3600 + int(matched[5]) * 60
        seconds += offset if matched[3] == "-" else -offset
    return seconds * _SECOND + int((matched[2] or "").ljust(9, "0") or "0")


def summary(image: Image, references: Iterable[Reference]) -> Json:
    """An entry of the list, with those of its names that were asked for."""
    names = list(references)
    return {
        "Containers": -1,
        "Created": created_ns(image.created) // _SECOND,
        "Id": image.id,
        "Labels": image.labels or None,
        "ParentId": image.parent,
        "RepoDigests": [name.familiar for name in names if name.digest],
        "RepoTags": [name.familiar for name in names if not name.digest],
        "SharedSize": -1,
        "Size": image.size,
        "VirtualSize": image.size,
    }


def matches(pattern: str, reference: Reference) -> bool:
    """Whether a reference, or its repository, is of the pattern (distribution/reference FamiliarMatch).

    Raises:
        InvalidParameter: the pattern is malformed.
    """
    expression = compile_glob(pattern)
    return any(expression.fullmatch(text) for text in (reference.familiar, reference.familiar_name))


def shared_sizes(store: ImageStore, images: Iterable[Image]) -> tuple[dict[str, int], int]:
    """For each image the bytes of layers that other images have too, and the bytes of all layers, each once.

    A layer is the same only upon the same layers (its chain id), as Docker counts.
    """
    users: dict[str, int] = {}
    sizes: dict[str, int] = {}
    chains: dict[str, list[str]] = {}
    for image in images:
        chains[image.id] = chain_ids(image.diff_ids)
        for chain, diff_id in zip(chains[image.id], image.diff_ids, strict=True):
            users[chain] = users.get(chain, 0) + 1
            if chain not in sizes:
                sizes[chain] = store.layers.get(diff_id).size
    shared = {
        identifier: sum(sizes[chain] for chain in chain_list if users[chain] > 1)
        for identifier, chain_list in chains.items()
    }
    return shared, sum(sizes.values())


def details(image: Image) -> Json:
    """All about an image: the answer of GET /images/NAME/json."""
    config = image.config
    answer: Json = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": config.get("comment") or "",
        "Created": image.created or _NEVER,
        "Container": config.get("container") or "",
        "ContainerConfig": _configuration(config.get("container_config")),
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or "",
        "Config": _configuration(config["config"]) if config.get("config") is not None else None,
        "Architecture": image.architecture,
    }
    if config.get("variant"):
        answer["Variant"] = config["variant"]
    answer["Os"] = image.os
    if config.get("os.version"):
        answer["OsVersion"] = config["os.version"]
    return answer | {
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Data": _overlay(image), "Name": "overlay2"},
        "RootFS": {"Type": "layers", **({"Layers": list(image.diff_ids)} if image.diff_ids else {})},
        "Metadata": {"LastTagTime": _moment(image.last_tagged)},
    }


def history(store: ImageStore, image: Image) -> list[Json]:
    """The steps that made an image, the last first; an id for those that were made here.

    Raises:
        EngineError: the configuration tells of more layers than there are.
    """
    entries: list[Json] = []
    left = [store.layers.get(diff_id).size for diff_id in image.diff_ids]
    for step in image.config.get("history") or ():
        size = 0
        if not step.get("empty_layer"):
            if not left:
                raise EngineError("too many non-empty layers in History section")
            size = left.pop(0)
        entries.append(
            {
                "Comment": step.get("comment") or "",
                "Created": created_ns(str(step.get("created") or "")) // _SECOND,
                "CreatedBy": step.get("created_by") or "",
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            }
        )
    entries.reverse()
    made: Image | None = image
    for entry in entries:
        if made is None:
            break
        entry["Id"] = made.id
        entry["Tags"] = list(made.repo_tags) or None
        made = store.resolve(made.parent) if made.parent else None
    return entries


def _configuration(config: Json | None) -> Json:
    """A configuration with every field that Docker shows; variables are null and not a list where there are none."""
    whole = complete(config)
    if not whole["Env"]:
        whole["Env"] = None
    return whole


def _overlay(image: Image) -> Json:
    """Where the layers are, in the terms of overlayfs: the highest is what a container's upper directory is to it."""
    if not image.layers:
        return {}
    *below, top = image.layers
    data = {"LowerDir": ":".join(str(layer) for layer in reversed(below))} if below else {}
    place = top.parent
    return data | {
        "MergedDir": str(place / "merged"),
        "UpperDir": str(top),
        "WorkDir": str(place / "work"),
    }


def _moment(nanoseconds: int) -> str:
    if not nanoseconds:
        return _NEVER
    seconds, rest = divmod(nanoseconds, _SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f"{fraction}Z"
