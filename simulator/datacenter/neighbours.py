"""Noisy neighbours: threads of somebody else that want a machine's cores all the time."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from simulator.records import NonNegative, Positive, StrictModel


class Neighbour(StrictModel):
    """`[[machines.neighbours]]`: who else runs on the machines. It needs `cores = "shared"`.

    Attributes:
        machine: on which one (`machine-0`); None: on every one that is there when the run begins.
        threads: that always want to run.
        cpu_weight: of all of them together, against the instances' `application.cpu_weight`.
        cpu_limit: the most cores that they get; None: as many as are left over, or their weight gives them.
        from_seconds, until_seconds: when they run; None: to the end.
    """

    machine: str | None = None
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    cpu_weight: Positive = 1.0
    cpu_limit: Positive | None = None
    from_seconds: NonNegative = 0.0
    until_seconds: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.until_seconds is not None and self.until_seconds <= self.from_seconds:
            raise ValueError(
                f"`until_seconds` {self.until_seconds:g} must be after `from_seconds` {self.from_seconds:g}"
            )
        return self
