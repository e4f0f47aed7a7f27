"""An image of a bare file system: `docker import`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from real_engine.images.build.committing import timestamp
from real_engine.images.config_changes import apply_changes
from real_engine.images.disk_errors import disk_errors_told

if TYPE_CHECKING:
    from collections.abc import Iterable

    from real_engine.images.compression import Source
    from real_engine.images.store import Image, ImageStore


@disk_errors_told()
def import_tar(
    store: ImageStore,
    stream: Source,
    *,
    architecture: str,
    comment: str = "",
    changes: Iterable[str] = (),
    engine_version: str = "",
    variant: str = "",
) -> Image:
    """Make an image of one layer: the files of a tar archive, compressed or not.

    `changes` are instructions for its configuration.

    Raises:
        InvalidParameter: a change that is wrong, or a damaged archive.
        EngineError: no room.
    """
    config = apply_changes(None, changes)
    layer = store.layers.apply(stream)
    created = timestamp(time.time_ns())
    # The names in order, as Docker writes them (moby image.Image MarshalJSON).
    made = {
        "architecture": architecture,
        "comment": comment,
        "config": config,
        "container_config": apply_changes(None, ()),
        "created": created,
        "docker_version": engine_version,
        "history": [{"created": created, "comment": comment}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    if variant:
        made["variant"] = variant
    return store.create(made)
