"""Health checks: a command that is executed in the container now and then, and what its results say."""

import contextlib
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers.record import Record, timestamp
from real_engine.errors import EngineError

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

# Docker's defaults (moby daemon/health.go).
_INTERVAL_SECONDS = 30.0
_TIMEOUT_SECONDS = 30.0
_RETRIES = 3
_MOST_OUTPUT = 4096  # bytes kept of a check's output
_MOST_RESULTS = 5
_SECOND = 1_000_000_000


def has_check(record: Record) -> bool:
    """Whether the container has a health check."""
    test = (record.config.get("Healthcheck") or {}).get("Test") or []
    return bool(test) and test[0] in ("CMD", "CMD-SHELL") and len(test) > 1


class HealthMonitor:
    """Checks one running container until it is stopped."""

    def __init__(self, containers: "Containers", record: Record) -> None:
        self._containers = containers
        self._record = record
        check = record.config["Healthcheck"]
        self._test: list[str] = check["Test"]
        self._interval = (check.get("Interval") or 0) / _SECOND or _INTERVAL_SECONDS
        self._timeout = (check.get("Timeout") or 0) / _SECOND or _TIMEOUT_SECONDS
        self._start_period = (check.get("StartPeriod") or 0) / _SECOND
        self._retries = check.get("Retries") or _RETRIES
        self._began = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"health-{record.short_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Check no more. (A check that runs ends with its container.)"""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            if self._record.state.paused:
                continue
            began = timestamp()
            try:
                status, output = self._check()
            except (EngineError, OSError) as error:
                status, output = -1, str(error).encode()
            if self._stopped.is_set():
                return
            result = {
                "Start": began,
                "End": timestamp(),
                "ExitCode": status,
                "Output": output[:_MOST_OUTPUT].decode("utf-8", "replace")
                + ("..." if len(output) > _MOST_OUTPUT else ""),
            }
            self._note(result)

    def _check(self) -> tuple[int, bytes]:
        """Execute the command; its exit status and output. A check that takes too long is killed, and has failed."""
        if self._test[0] == "CMD":
            command = self._test[1:]
        else:
            command = [*(self._record.config.get("Shell") or ["/bin/sh", "-c"]), self._test[1]]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            execution = self._containers.execs.make(
                self._record, {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
            )
            with self._containers.execs.finishing(execution) as finished:
                self._containers.execs.launch(execution, theirs.fileno(), framed=False)
                theirs.close()
                output = _read(ours, self._timeout)
                if output is None or not _wait(finished, max(0.1, self._timeout)):
                    with contextlib.suppress(EngineError):
                        self._containers.supervisor.signal(execution.id, 9)
                    return -1, f"Health check exceeded timeout ({self._timeout:g}s)".encode()
            return execution.exit_code or 0, output

    def _note(self, result: dict[str, Any]) -> None:
        record = self._record
        with record.lock:
            health = record.health
            if health is None or self._stopped.is_set():
                return
            before = health.status
            health.log = [*health.log, result][-_MOST_RESULTS:]
            if result["ExitCode"] == 0:
                health.failing_streak, health.status = 0, "healthy"
            else:
                starting = health.status == "starting" and time.monotonic() - self._began < self._start_period
                if not starting:
                    health.failing_streak += 1
                    if health.failing_streak >= self._retries:
                        health.status = "unhealthy"
            with contextlib.suppress(OSError):  # a full disk must not end the checks
                record.save(self._containers.path(record))
        if health.status != before:
            self._containers.publish(record, f"health_status: {health.status}")


def _read(connection: socket.socket, seconds: float) -> bytes | None:
    """All that comes until the end, but no more than is kept of it; None if the end doesn't come in time."""
    deadline = time.monotonic() + seconds
    output = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        connection.settimeout(left)
        try:
            part = connection.recv(65536)
        except TimeoutError:
            return None
        if not part:
            return bytes(output)
        output += part[: max(0, _MOST_OUTPUT + 1 - len(output))]


def _wait(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
