"""What an autoscaler sees and says. One narrow interface; each policy is a module beside this one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PodMetrics:
    """What an autoscaler knows of one instance that is not being taken down (Kubernetes calls it a pod).

    Attributes:
        created_seconds: when it was asked for.
        ready_seconds: since when it is ready for requests, or None while it is not.
        usage_millicores: cores that it used on average over the last metric window, in thousandths; None when there is
            no sample of it.
        request_millicores: cores that are reserved for it, in thousandths.
    """

    created_seconds: float
    ready_seconds: float | None
    usage_millicores: int | None
    request_millicores: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """What an autoscaler knows of the whole service: its instances, and the requests that it has to do with.

    The means are over the time since the same autoscaler last looked.

    Attributes:
        pods: every instance that is not being taken down.
        concurrency: requests inside the service on average: in service, waiting at an instance, or waiting for one.
        requests_per_second: requests that arrived, the rejected ones included.
        queued: requests that wait at this moment, at an instance or because there is none.
        rejected_per_second: requests that were turned away.
    """

    pods: tuple[PodMetrics, ...]
    concurrency: float
    requests_per_second: float
    queued: int
    rejected_per_second: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What an autoscaler decided, and why, so that it can be shown.

    Attributes:
        seconds: when.
        current: instances asked for before.
        desired: instances asked for from now on.
        recommended: what the metric alone asked for, before stabilisation and limits.
        utilisation_percent: mean use of the reserved cores that it saw, or None if it saw no sample.
        reason: the arithmetic and what limited it, one sentence.
        mode: how the policy acts at the moment, if it has several ways: `stable` or `panic` of Knative's.
        excess_burst: requests at once that the ready instances could take beyond those inside and the burst to be ready
            for; where it is negative, requests wait at a common queue (Knative: the activator) rather than at an
            instance. None where the policy knows no such queue.
    """

    seconds: float
    current: int
    desired: int
    recommended: int
    utilisation_percent: int | None
    reason: str
    mode: str = ""
    excess_burst: int | None = None


class Autoscaler(Protocol):
    """Decides how many instances there should be."""

    @property
    def initial_instances(self) -> int:
        """Instances that run when the simulation begins."""

    @property
    def sync_seconds(self) -> float | None:
        """How often it decides, or None if never."""

    @property
    def wakes_on_arrival(self) -> bool:
        """Whether it is asked at once when a request finds no instance, because it may want none for a while."""

    def decide(self, now: float, pods: Sequence[PodMetrics], fleet: Fleet | None = None) -> Decision:
        """The wanted number of instances, given one entry for each that is wanted now.

        Args:
            now: simulated seconds.
            pods: every instance that is not being taken down.
            fleet: the same instances and the requests. A policy that needs it changes nothing without it.
        """
