"""The steps by which a container joins a network: each can be described before it is done, and is timed.

They are what `--explain` shows of the network. Their site is another than that of a container's start: the sockets to
the kernel in the two namespaces that a cable joins.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from real_engine.container.steps import Step
from real_engine.linux.netlink import RouteSocket

Observer = Callable[[Step], None]
PHASE = "network"


@dataclass(slots=True)
class Site:
    """What the steps hand to one another: sockets in the host's namespace and the container's, and what they made."""

    host: RouteSocket
    inside: RouteSocket
    namespace: int
    index: int = 0


class Operation(ABC):
    """One step: something asked of the kernel, that knows how to say what it does and why."""

    why: ClassVar[str]

    @abstractmethod
    def execute(self, site: Site) -> None:
        """Do it.

        Raises:
            OSError: the kernel refused.
        """

    @abstractmethod
    def describe(self) -> str:
        """The messages to the kernel, in the words of ip(8) and nft(8)."""


def run(operations: Iterable[Operation], site: Site, observer: Observer | None) -> None:
    """Execute them in order; `observer` is told of each.

    Raises:
        OSError: the kernel refused one; those before it are done.
    """
    for operation in operations:
        if observer is None:
            operation.execute(site)
        else:
            with Timed(operation.describe(), operation.why, observer, type(operation).__name__):
                operation.execute(site)


@dataclass(slots=True)
class Timed:
    """A context that tells its observer, at its end, what was done in it and how long that took."""

    call: str
    why: str
    observer: Observer | None
    operation: str = ""
    _begin: float = field(default=0.0, init=False)
    _cpu: float = field(default=0.0, init=False)

    def __enter__(self) -> None:
        self._begin, self._cpu = time.perf_counter(), time.thread_time()

    def __exit__(self, *exception: object) -> None:
        if self.observer is not None:
            cpu, end = time.thread_time() - self._cpu, time.perf_counter()
            self.observer(Step(PHASE, self.call, self.why, self._begin, end, cpu, self.operation))
