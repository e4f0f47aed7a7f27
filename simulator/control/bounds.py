"""The least and the most instances, which every policy that moves has."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from simulator.records import StrictModel

Instances = Annotated[int, Field(ge=1, le=10_000)]
"""A number of instances that is not none."""


class BoundedSettings(StrictModel):
    """What the settings of every policy share that moves between two bounds.

    Attributes:
        min_instances: it never wants fewer, and begins with so many.
        max_instances: it never wants more.
    """

    min_instances: Instances = 1
    max_instances: Instances

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"`min_instances` {self.min_instances} must not exceed `max_instances` {self.max_instances}"
            )
        return self

    def within(self, wanted: int) -> tuple[int, str]:
        """`wanted` held within the bounds, and which bound held it, or nothing."""
        if wanted > self.max_instances:
            return self.max_instances, f"limited to max_instances {self.max_instances}"
        if wanted < self.min_instances:
            return self.min_instances, f"limited to min_instances {self.min_instances}"
        return wanted, ""


def sentence(*parts: str) -> str:
    """The parts that say something, one after the other."""
    return "; ".join(part for part in parts if part)
