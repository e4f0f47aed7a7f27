"""The figures that an autoscaler can follow, read from what it sees."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from simulator.control.autoscaler import Fleet, PodMetrics

SignalName = Literal["utilisation", "requests-per-instance"]
"""`utilisation` in percent of the reserved cores; `requests-per-instance` in arrivals a second for each ready one."""


class Signal(NamedTuple):
    """A figure, how many instances it was taken over, and how a person would say it."""

    value: float
    instances: int
    words: str


def read_signal(name: SignalName, pods: Sequence[PodMetrics], fleet: Fleet | None) -> Signal | None:
    """The figure `name` over `pods`, or None where it is not known.

    Args:
        name: which figure.
        pods: the instances to take it over; those that are not ready, or lack a sample, are left out.
        fleet: the requests.
    """
    ready = [pod for pod in pods if pod.ready_seconds is not None]
    if name == "requests-per-instance":
        if fleet is None or not ready:
            return None
        value = fleet.requests_per_second / len(ready)
        return Signal(value, len(ready), f"{value:.4g} requests/s each over {len(ready)} instances")
    sampled = [(pod.usage_millicores, pod.request_millicores) for pod in ready if pod.usage_millicores is not None]
    reserved = sum(request for _, request in sampled)
    if not reserved:
        return None
    value = 100 * sum(usage for usage, _ in sampled) / reserved
    return Signal(value, len(sampled), f"utilisation {value:.4g} % over {len(sampled)} instances")


def ready_instances(pods: Sequence[PodMetrics]) -> int:
    """How many take requests."""
    return sum(pod.ready_seconds is not None for pod in pods)


class WarmUp:
    """Which instances have been ready for long enough that their figures mean something.

    Source: Amazon EC2 Auto Scaling user guide, "Set the default instance warmup".

    Args:
        seconds: how long an instance must have been ready.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._first_look: float | None = None

    def warm(self, now: float, pods: Sequence[PodMetrics]) -> list[PodMetrics]:
        """Those of `pods` that are warm. What was ready at the first look had been running since before the story."""
        if self._first_look is None:
            self._first_look = now
        return [
            pod
            for pod in pods
            if pod.ready_seconds is not None
            and (pod.ready_seconds <= self._first_look or now >= pod.ready_seconds + self._seconds)
        ]
