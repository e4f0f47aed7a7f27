"""Starts that fail, and how long is waited before the next attempt."""

from collections.abc import Callable, Generator
from typing import Annotated, Any

from pydantic import Field, model_validator
from simpy import Environment

from simulator.records import NonNegative, Positive, StrictModel


class BackOff(StrictModel):
    """How long to wait after one failure, after the next, and so on.

    The defaults are the kubelet's, for a container that ends again and again (CrashLoopBackOff) as for an image that
    cannot be pulled (ImagePullBackOff): Kubernetes documentation, Pod Lifecycle and Images: 10 s, 20 s, 40 s, … 300 s.

    Attributes:
        first_seconds: after the first failure.
        factor: each wait is so many times the one before.
        cap_seconds: but never longer than this.
    """

    first_seconds: NonNegative = 10.0
    factor: Annotated[float, Field(ge=1, le=1000)] = 2.0
    cap_seconds: NonNegative = 300.0

    def seconds(self, failures: int) -> float:
        """How long to wait after the `failures`-th failure in a row: `min(first * factor ** (failures - 1), cap)`."""
        if failures < 1:
            return 0.0
        try:
            return min(self.first_seconds * self.factor ** (failures - 1), self.cap_seconds)
        except OverflowError:
            return self.cap_seconds if self.first_seconds else 0.0


class StartFailures(StrictModel):
    """`[start_failures]`: how often a start fails, and what follows.

    Attributes:
        probability: that one start fails, found out at its end: the program comes up and ends with an error.
        back_off: how long to wait before the next attempt.
        most_attempts: then the instance has failed for good; None: it is tried for ever, as Kubernetes does.
        reset_after_seconds: an instance that ran this long without a failure begins again with the shortest wait
            (Kubernetes documentation, Pod Lifecycle: 10 minutes).
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    back_off: BackOff = BackOff()
    most_attempts: Annotated[int, Field(ge=1)] | None = None
    reset_after_seconds: Positive = 600.0

    @model_validator(mode="after")
    def _ends(self) -> "StartFailures":
        if self.probability == 1 and self.most_attempts is None:
            raise ValueError(
                "`probability` 1 lets no instance ever start: lower it, or set `most_attempts` to give up after some"
            )
        return self


def start_in_spite_of_failures(
    env: Environment,
    start: Callable[[], Generator[Any, Any, float]],
    failures: StartFailures,
    draw: Callable[[], float],
    *,
    failed: Callable[[int, float], None] | None = None,
) -> Generator[Any, Any, bool]:
    """Start, and after a failure wait and start again (`yield from` it in a process).

    Args:
        env: the SimPy environment.
        start: makes one attempt, e.g. `lambda: start_up(machine, profile)`.
        failures: how often, and what follows.
        draw: a uniform number of [0, 1) for each attempt. It is drawn even where nothing fails, so that another
            probability meets the same numbers.
        failed: called with the number of failures in a row and the seconds until the next attempt.

    Returns:
        Whether it started: False where `most_attempts` have failed.
    """
    count = 0
    while True:
        yield from start()
        if draw() >= failures.probability:
            return True
        count += 1
        if count == failures.most_attempts:
            return False
        wait = failures.back_off.seconds(count)
        if failed is not None:
            failed(count, wait)
        yield env.timeout(wait)
