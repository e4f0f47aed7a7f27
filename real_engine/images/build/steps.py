"""What the builder needs from those who run containers: a RUN step is a container whose changes become a layer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from real_engine.images.store import Image

Output = Callable[[str, bytes], None]
"""Takes what a step writes, as it comes: the stream ("stdout" or "stderr") and the bytes."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended: its exit code, and its upper directory above the layers of its image (the lowest first).

    The upper directory is the builder's from then on: it may leave an empty one in its place.
    """

    exit_code: int
    upper: Path
    lower: tuple[Path, ...]


class StepRunner(Protocol):
    """Runs the steps of builds, several at once."""

    def create(self, image: "Image | None", config: dict[str, Any], host_config: dict[str, Any]) -> str:
        """Make a container, and return its whole id; `config` and `host_config` are as in `POST /containers/create`.

        `config` is complete, so that merging the image's own configuration into it changes nothing. Its `Entrypoint` is
        `[""]`, which is Docker's word for none at all. Without an image (`FROM scratch`) the root is empty.
        """

    def run(self, container_id: str, output: Output, cancelled: Callable[[], bool]) -> StepResult:
        """Start it, hand over what it writes, wait for its end. `cancelled` is asked from time to time: then kill it.

        All that it has written has been handed over when this returns.

        Raises:
            EngineError: it could not be started.
        """

    def remove(self, container_id: str) -> None:
        """Remove the container with its anonymous volumes; it may never have been started, or be gone already."""
