"""No autoscaler: the number of instances stays as it is."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from simulator.control.autoscaler import Decision, Fleet, PodMetrics
from simulator.records import StrictModel


class FixedSettings(StrictModel):
    """A fixed number of instances."""

    kind: Literal["fixed"]
    instances: Annotated[int, Field(ge=1, le=10_000)]

    def build(self) -> "FixedInstances":
        """The policy with these settings."""
        return FixedInstances(self)


class FixedInstances:
    """Keeps the number of instances."""

    sync_seconds = None
    wakes_on_arrival = False

    def __init__(self, settings: FixedSettings) -> None:
        self.initial_instances = settings.instances

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """Always the same number."""
        return Decision(now, len(pods), self.initial_instances, self.initial_instances, None, "the number is fixed")
