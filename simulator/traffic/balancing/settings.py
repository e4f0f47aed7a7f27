"""`balancer`: the name of a policy, or a table with its name as `kind` and its settings."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simulator.records import Positive, StrictModel


class PlainBalancer(StrictModel):
    """A policy without settings."""

    kind: Literal["random", "round-robin", "least-connections", "join-idle-queue"]


class WeightedBalancer(StrictModel):
    """Smooth weighted round robin."""

    kind: Literal["weighted"]
    weights: tuple[Positive, ...] = Field(default=(1.0,), min_length=1)
    """Of the instances in the order of their creation; begun anew when there are more instances."""


class PowerOfChoicesBalancer(StrictModel):
    """The least loaded of a few instances drawn."""

    kind: Literal["power-of-choices"]
    choices: Annotated[int, Field(ge=1, le=8)] = 2
    """How many are drawn."""


class PeakEwmaBalancer(StrictModel):
    """The better of two instances drawn, by a moving average of their response times."""

    kind: Literal["peak-ewma"]
    decay_seconds: Positive = 10.0
    """Time constant of the average."""


class BoundedHashBalancer(StrictModel):
    """Consistent hashing with bounded loads: requests of one key go to one instance while that is not overloaded."""

    kind: Literal["bounded-hash"]
    keys: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Different keys that requests have, all equally likely."""
    bound: Annotated[float, Field(gt=1, le=100)] = 1.25
    """No instance may hold more than so many times the mean."""


def _from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Balancer = Annotated[
    Annotated[
        PlainBalancer | WeightedBalancer | PowerOfChoicesBalancer | PeakEwmaBalancer | BoundedHashBalancer,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_from_name, json_schema_input_type=str | dict[str, Any]),
]
"""Any policy, by name or with settings."""
