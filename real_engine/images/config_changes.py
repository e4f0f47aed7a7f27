"""Changes to a configuration that are written as instructions: `docker commit --change`, `docker import --change`.

The instructions themselves are the builder's, in `build.configuration`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from real_engine.images.build.configuration import apply_changes, complete

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["apply_change", "apply_changes", "complete"]


def apply_change(config: Mapping[str, Any], instruction: str) -> dict[str, Any]:
    """The configuration after one instruction, such as `ENV LANG=C.UTF-8`.

    Raises:
        InvalidParameter: an instruction that is wrong, or that would do more than change the configuration.
    """
    return apply_changes(config, (instruction,))
