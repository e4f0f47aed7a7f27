"""Restart policies: whether a container that has ended is to run again, and when."""

import contextlib
import threading
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


class Restarts:
    """The restarts to come."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers
        self._lock = threading.Lock()
        self._timers: dict[str, threading.Timer] = {}
        self._waits: dict[str, float] = {}

    def wanted(self, record: Record, status: int) -> bool:
        """Whether the policy wants a container that has just ended with `status` to run again."""
        if record.stopped_by_hand or record.state.removing:
            return False
        policy = record.host_config["RestartPolicy"]
        if policy["Name"] in ("always", "unless-stopped"):
            return True
        most = policy["MaximumRetryCount"]
        return policy["Name"] == "on-failure" and status != 0 and (most == 0 or record.restart_count < most)

    def wanted_at_start(self, record: Record) -> bool:
        """Whether a container that does not run is to be started because the daemon was."""
        if record.state.running or not record.started_once:
            return False
        name = record.host_config["RestartPolicy"]["Name"]
        return name == "always" or (name == "unless-stopped" and not record.stopped_by_hand)

    def schedule(self, record: Record, ran_nanoseconds: int) -> None:
        """Start it again after a while; its lock is held."""
        with self._lock:
            wait = self._waits.get(record.id, 0.0) * 2
            if wait == 0.0 or ran_nanoseconds >= _GOOD_RUN_NANOSECONDS:
                wait = _FIRST_WAIT_SECONDS
            wait = min(wait, _LONGEST_WAIT_SECONDS)
            self._waits[record.id] = wait
            timer = threading.Timer(wait, self._start, (record,))
            timer.daemon = True
            self._timers[record.id] = timer
        timer.start()

    def cancel(self, record: Record) -> bool:
        """Give up a restart to come; whether there was one. Its lock is held."""
        with self._lock:
            timer = self._timers.pop(record.id, None)
            self._waits.pop(record.id, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def close(self) -> None:
        """Restart nothing any more."""
        with self._lock:
            timers, self._timers = list(self._timers.values()), {}
        for timer in timers:
            timer.cancel()

    def _start(self, record: Record) -> None:
        with record.lock:
            with self._lock:
                if self._timers.get(record.id) is not threading.current_thread():
                    return  # cancelled while we waited for the lock
                del self._timers[record.id]
            if not record.state.restarting or record.state.removing:
                return
            record.restart_count += 1
            try:
                self._containers.start_now(record)
            except EngineError as error:
                self._containers.daemon.log_error(f"cannot restart {record.name}: {error}", error)
                with contextlib.suppress(OSError):
                    record.save(self._containers.path(record))
                self._containers.table.wake(record, ("not-running",), record.state.exit_code, str(error))
