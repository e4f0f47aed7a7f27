"""The warmth ladder: how much of a start-up was done before it was asked for.

| rung | what the machine has | what a start still does |
|---|---|---|
| `cold` | nothing, or some layers of the image | pull and unpack what is missing, then as below |
| `disk-warm` | the image on disk | read what the start needs into the page cache, then the platform's phases |
| `memory-warm` | the image in the page cache | the platform's phases, as they were measured |
| `snapshot` | an instance paused or saved after its start | wake it up, by phases of its own |
| pool | instances that have started and wait | hand one out |

A rung is where a start *may* begin. What an earlier start on the same machine has pulled or read is there for the next:
the second cold start on a machine pulls nothing.
"""

from collections.abc import Generator, Hashable
from typing import Annotated, Any, Literal

from pydantic import Field
from simpy import Environment

from simulator.datacenter.disk import Disk
from simulator.datacenter.joint_work import JointWork
from simulator.records import NonNegative, StrictModel

Warmth = Literal["cold", "disk-warm", "memory-warm", "snapshot"]
"""From where a start begins, see above. A pool is not a way to start but instances that have: `PoolSettings`."""


class PoolSettings(StrictModel):
    """`[pool]`: instances that have started and wait, outside the balancer, to be handed out at once.

    Attributes:
        size: how many are kept waiting; one that is handed out is replaced by a start of the usual kind.
        hand_out_seconds: from asking for one until it takes requests.
    """

    size: Annotated[int, Field(ge=0, le=100_000)] = 0
    hand_out_seconds: NonNegative = 0.0


class PageCache:
    """What of the disk is in one machine's memory. Several that want the same pages wait for one read.

    Nothing falls out by itself: memory that files may keep is the concern of the machine's memory.

    Args:
        env: the SimPy environment.
        disk: from which is read.
    """

    def __init__(self, env: Environment, disk: Disk) -> None:
        self._env = env
        self._disk = disk
        self._kept: set[Hashable] = set()
        self._reading: dict[Hashable, JointWork] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def keep(self, key: Hashable) -> None:
        """Have `key` in memory, as after it was written or read."""
        self._kept.add(key)

    def forget(self, key: Hashable) -> None:
        """Drop `key`, if it is there."""
        self._kept.discard(key)

    def drop(self) -> None:
        """Drop everything, as `echo 3 > /proc/sys/vm/drop_caches` does (proc(5))."""
        self._kept.clear()

    def read(self, key: Hashable, mib: float, operations: float = 0.0) -> Generator[Any, Any, None]:
        """Have `key` in memory: at once if it is there, together with whoever reads it already, or from the disk.

        Args:
            key: what, e.g. a layer.
            mib: how much of it is read.
            operations: in how many operations.
        """
        if key in self._kept:
            return
        work = self._reading.get(key)
        if work is None or work.over:
            work = self._reading[key] = JointWork(self._env, self._from_disk(key, mib, operations))
        yield from work.join()

    def _from_disk(self, key: Hashable, mib: float, operations: float) -> Generator[Any, Any, None]:
        read = self._disk.submit(mib, operations)
        try:
            yield read
        finally:
            self._disk.cancel(read)
        self._kept.add(key)
        del self._reading[key]
