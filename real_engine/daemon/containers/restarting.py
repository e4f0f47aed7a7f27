"""Restart policies: whether a container that has ended is to run again, and when."""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from real_engine.daemon.containers.record import Record
from real_engine.errors import EngineError

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

# As moby's restartmanager: 100 ms, doubled at each restart up to a minute, and from the start again after ten good
# seconds.
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 60.0
_GOOD_RUN_NANOSECONDS = 10_000_000_000
_STARTS_AT_ONCE = 8  # when the daemon starts


class Restarts:
    """The restarts to come."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers
        self._lock = threading.Lock()
        self._timers: dict[str, threading.Timer] = {}
        self._waits: dict[str, float] = {}
        self._closed = False

    def wanted(self, record: Record, status: int) -> bool:
        """Whether the policy wants a container that has just ended with `status` to run again."""
        if record.stopped_by_hand or record.state.removing:
            return False
        policy = record.host_config["RestartPolicy"]
        if policy["Name"] in ("always", "unless-stopped"):
            return True
        most = policy["MaximumRetryCount"]
        return policy["Name"] == "on-failure" and status != 0 and (most == 0 or record.restart_count < most)

    def resume(self, records: Iterable[Record]) -> None:
        """The daemon has started: start what waited for its restart, and what is always to run."""
        pool = ThreadPoolExecutor(_STARTS_AT_ONCE, thread_name_prefix="restart")
        for record in records:
            with record.lock:
                if record.state.restarting:
                    self.schedule(record, 0)
                elif self._wanted_at_start(record):
                    pool.submit(self._start_at_start, record)
        pool.shutdown(wait=False)  # its threads end when all have been started

    def schedule(self, record: Record, ran_nanoseconds: int) -> None:
        """Start it again after a while; its lock is held. A daemon that ends leaves that to the next one."""
        with self._lock:
            if self._closed:
                return
            wait = self._waits.get(record.id, 0.0) * 2
            if wait == 0.0 or ran_nanoseconds >= _GOOD_RUN_NANOSECONDS:
                wait = _FIRST_WAIT_SECONDS
            wait = min(wait, _LONGEST_WAIT_SECONDS)
            self._waits[record.id] = wait
            timer = threading.Timer(wait, self._start_after_wait, (record,))
            timer.daemon = True
            self._timers[record.id] = timer
        timer.start()

    def cancel(self, record: Record) -> None:
        """Give up a restart to come, if there is one. Its lock is held."""
        with self._lock:
            timer = self._timers.pop(record.id, None)
            self._waits.pop(record.id, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Restart nothing any more."""
        with self._lock:
            self._closed = True
            timers, self._timers = list(self._timers.values()), {}
        for timer in timers:
            timer.cancel()

    @staticmethod
    def _wanted_at_start(record: Record) -> bool:
        """Whether a container that does not run is to be started because the daemon was."""
        if record.state.running or record.state.removing or record.state.dead or not record.started_once:
            return False
        name = record.host_config["RestartPolicy"]["Name"]
        return name == "always" or (name == "unless-stopped" and not record.stopped_by_hand)

    def _start_at_start(self, record: Record) -> None:
        with record.lock:
            if not self._closed and self._wanted_at_start(record):  # a client may have been faster
                self._start(record)

    def _start_after_wait(self, record: Record) -> None:
        with record.lock:
            with self._lock:
                if self._timers.get(record.id) is not threading.current_thread():
                    return  # cancelled while we waited for the lock
                del self._timers[record.id]
            if record.state.restarting and not record.state.removing:
                record.restart_count += 1
                self._start(record)

    def _start(self, record: Record) -> None:
        containers = self._containers
        try:
            containers.lifecycle.start_now(record)
        except (EngineError, OSError) as error:
            containers.daemon.log_error(f"cannot start {record.name} again: {error}", error)
            containers.table.wake(record, ("not-running",), record.state.exit_code, str(error))
