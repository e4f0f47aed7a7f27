"""What clients do that do not get an answer: time-outs, and retries within a budget."""

from typing import Annotated

from pydantic import Field

from simulator.records import NonNegative, Positive, StrictModel


class RetryBudget(StrictModel):
    """`[client.budget]`: retries are a fraction of what arrives, so that they do not make an overload worse.

    As in Finagle (twitter.github.io/finagle/guide/Clients.html#retries), whose default is a fifth.
    """

    fraction: NonNegative = 0.2
    """Retries for each request that arrives."""
    burst: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    """How many may be saved up; so many there are at the beginning."""


class ClientSettings(StrictModel):
    """`[client]`: how long a client waits, and how often it tries again."""

    timeout_seconds: Positive | None = None
    """After which it gives up an attempt; without one it waits for ever. What is in service then is served in vain."""
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    """How often it tries again what was rejected, lost or too late."""
    backoff_seconds: NonNegative = 0.1
    """Wait before the first retry."""
    backoff_factor: Annotated[float, Field(ge=1, le=10)] = 2.0
    """The next wait is so many times the last."""
    backoff_cap_seconds: NonNegative = 10.0
    """The longest wait."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A wait is shortened by a random part of up to this fraction, so that clients do not come back all at once."""
    budget: RetryBudget | None = None
    """Without one, every failure may be tried again."""
