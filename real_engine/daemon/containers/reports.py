"""What the supervisor tells, and whom it concerns: ends of programs, detached clients, memory, and logs that fail."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from real_engine.daemon.containers.adoption import mourn
from real_engine.explain import recorder
from real_engine.supervisor.client import (
    Detached,
    Event,
    Exited,
    LogFailed,
    LogRecovered,
    Lost,
    OutOfMemory,
    Replaced,
)

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

_THREADS = 8


class Reports:
    """Deals with the supervisor's reports: those about one container in their order, those about several at once."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Event]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="reports")
        self._closed = False

    def take(self, event: Event) -> None:
        """Take a report; called by the supervisor client's reader thread, so the work is done by another.

        Once the daemon ends, reports are left to the next one: the supervisor keeps what nobody has acknowledged.
        """
        about = str(getattr(event, "container_id", ""))
        with self._lock:
            if self._closed:
                return
            if about in self._waiting:
                self._waiting[about].append(event)
                return
            self._waiting[about] = deque([event])
            self._pool.submit(self._work, about)

    def close(self) -> None:
        """Take no more of them, and wait until those that are being dealt with are."""
        with self._lock:
            self._closed = True
            for events in self._waiting.values():
                events.clear()
        self._pool.shutdown(wait=True)

    def _work(self, about: str) -> None:
        """Deal with the reports about one container until there are no more."""
        while True:
            with self._lock:
                if not self._waiting[about]:
                    del self._waiting[about]
                    return
                event = self._waiting[about].popleft()
            try:
                self._deal_with(event)
            except Exception as error:  # a thread of a pool keeps its errors to itself
                self._containers.daemon.log_error(f"while dealing with {event}: {error!r}", error)

    def _deal_with(self, event: Event) -> None:
        containers = self._containers
        log_error = containers.daemon.log_error
        match event:
            case Exited(is_exec=True):
                containers.execs.ended(event)
            case Exited():
                self._ended(event)
            case Detached() if event.target_id != event.container_id:
                containers.execs.detached(event.target_id)
            case Lost():
                mourn(containers)
            case Replaced():
                log_error("another daemon has taken over the supervisor; this one has no containers any more")
            case Detached() | OutOfMemory() | LogFailed() | LogRecovered():
                record = containers.table.find(event.container_id)
                if record is None:  # it has been removed meanwhile
                    return
                match event:
                    case Detached():
                        containers.publish(record, "detach")
                    case OutOfMemory():
                        containers.lifecycle.ran_out_of_memory(record)
                    case LogFailed():
                        log_error(f"the log of {record.name} cannot be written: {event.message}")
                    case LogRecovered():
                        log_error(f"the log of {record.name} is written again, and lacks {event.dropped} entries")

    def _ended(self, event: Exited) -> None:
        record = self._containers.table.find(event.container_id)
        try:
            if record is not None:
                with recorder.following(record.id):
                    self._containers.lifecycle.ended(
                        record, event.status, event.oom_killed, event.finished_at, started_at=event.started_at
                    )
        finally:
            self._containers.supervisor.acknowledge(event.target_id)
