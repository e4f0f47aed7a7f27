"""Where a stage of a build is, between two instructions."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from real_engine.errors import EngineError
from real_engine.images.build.build_arguments import BuildArguments
from real_engine.images.build.cache import StageCache
from real_engine.images.build.configuration import Config
from real_engine.images.build.options import Platform

if TYPE_CHECKING:
    from real_engine.images.store import Image


class BuildFailed(EngineError):
    """A step's program failed; `code` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class StageState:
    """The stage's image so far (None for scratch), and the configuration that the next one gets."""

    arguments: BuildArguments
    cache: StageCache
    image: "Image | None" = None
    config: Config = field(default_factory=dict)
    author: str = ""
    command_set: bool = False
    platform: Platform | None = None

    @property
    def image_id(self) -> str:
        """The id of the image so far; "" for scratch."""
        return self.image.id if self.image is not None else ""
