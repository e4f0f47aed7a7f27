"""What moves a container from state to state: start, stop, kill, pause, and the end of its program.

Every change of a container's state is made under its lock. That its program has ended is told by the supervisor (see
`reports`), so whoever stops a container waits for that report, without its lock.
"""

import contextlib
import select
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from real_engine.container.container import StartError
from real_engine.daemon.containers import requests, views
from real_engine.daemon.containers.health import HealthMonitor, has_check
from real_engine.daemon.containers.merge import environment
from real_engine.daemon.containers.propagation import check_propagation
from real_engine.daemon.containers.record import Health, Record, State
from real_engine.daemon.containers.translate import container_spec
from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound, NotModified
from real_engine.explain import recorder
from real_engine.supervisor import log_options
from real_engine.supervisor.client import LogOptions
from real_engine.times import from_rfc3339, rfc3339

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

Json = dict[str, Any]

_STOP_SECONDS = 10  # how long a container has to end by itself, as Docker's
_KILL_SECONDS = 10.0  # how long the kernel may take to end it then
_LOOK_SECONDS = 0.5  # how often we see meanwhile whether somebody has paused it
_SIGKILL, _SIGTERM = 9, 15


class Lifecycle:
    """Starts and ends the containers of a daemon. Thread-safe."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers
        self._monitors: dict[str, HealthMonitor] = {}
        self._being_restarted: Counter[str] = Counter()

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start it.

        Raises:
            NotModified: it runs.
            Conflict: it is paused, or being removed.
            InvalidParameter: its program cannot be executed.
            EngineError: anything else that went wrong.
        """
        record = self._containers.get(name)
        with record.lock:
            _check_startable(record)
            if record.state.running and not record.state.restarting:
                raise NotModified(f"Container {record.id} is already running")
            self._containers.restarts.cancel(record)
            record.stopped_by_hand = False
            record.restart_count = 0
            self.start_now(record)

    def start_now(self, record: Record, observe: bool = False) -> list[Json]:
        """Start a container whose lock is held; returns the steps of the start when `observe` is set."""
        containers = self._containers
        attached = None
        explained = recorder.current()
        begin = time.perf_counter()
        try:
            with recorder.span("start", "MountVolumes", "volumes of the container"):
                points = containers.storage.acquire(record)
                check_propagation(points)
            with recorder.span("network", "AttachNetwork", "attach"):
                attached = containers.networking.attach(record)
            spec = container_spec(containers, record, attached, points)
            recorder.follow(record.id)  # before it starts: it may end at once
            started = containers.supervisor.start(
                record.id,
                spec,
                log=self._log_options(record),
                open_stdin=record.config["OpenStdin"],
                stdin_once=record.config["StdinOnce"],
                terminal_size=_console_size(record) if record.terminal else None,
                network_namespace=None if attached is None else attached.namespace,
                observe=observe or explained is not None,
            )
            if explained is not None:
                recorder.tell_plain(explained, started.steps)
        except BaseException as error:
            self._release(record)
            self._failed(record, error)
            if isinstance(error, StartError):
                raise _as_docker_says(error) from error
            raise
        finally:
            if attached is not None:
                attached.close()
        note_start(record, started.pid, started.started_at, started.group_paths)
        if has_check(record):
            record.health = Health()
        self.check_health(record)
        containers.keep(record)
        if explained is not None:
            call = f"container {record.id[:12]} runs as process {started.pid}"
            recorder.tell("start", "StartInSupervisor", call, begin, time.perf_counter())
        containers.publish(record, "start")
        return started.steps

    def check_health(self, record: Record) -> None:
        """Watch the health of a container that runs, if it has a health check."""
        if has_check(record):
            self._monitors[record.id] = HealthMonitor(self._containers, record)

    def _failed(self, record: Record, error: BaseException) -> None:
        """A start has failed: note it, and remove the container where it was to be removed at its end."""
        status = error.status if isinstance(error, StartError) else 128
        record.state.running = record.state.restarting = False
        record.state.pid = 0
        record.state.exit_code = status
        record.state.error = str(_as_docker_says(error) if isinstance(error, StartError) else error)
        self._containers.keep(record)
        if record.host_config["AutoRemove"] and not record.state.removing:
            record.state.removing = True
            self._containers.removal.take_away(record, volumes=True)

    def _log_options(self, record: Record) -> LogOptions:
        logging = record.host_config["LogConfig"]
        facts = {
            "ID": record.id,
            "Name": record.name,
            "ImageID": record.image_id,
            "ImageName": record.config["Image"],
            "DaemonName": "onggi",
        }
        carried = log_options.attributes(
            logging["Config"], labels=record.labels, environment=environment(record.config), facts=facts
        )
        path = str(views.log_path(record, self._containers.path(record)))
        return LogOptions(path=path, driver=logging["Type"], options=logging["Config"], attributes=carried)

    # --- stop --------------------------------------------------------------------------------------------------------

    def stop(self, name: str, seconds: int | None = None, signal: str = "") -> None:
        """Ask it to end, and end it after `seconds`; negative seconds leave it all the time that it takes.

        Raises:
            NotModified: it does not run.
        """
        record = self._containers.get(name)
        if not record.state.running:
            raise NotModified(f"Container {record.id} is already stopped")
        self._stop(record, seconds, signal, by_hand=True)
        self._containers.publish(record, "stop")

    def restart(self, name: str, seconds: int | None = None, signal: str = "") -> None:
        """Stop it if it runs, and start it."""
        record = self._containers.get(name)
        with self._to_be_started_again(record):
            if record.state.running:
                self._stop(record, seconds, signal, by_hand=False)
                self._containers.publish(record, "stop")
            with record.lock:
                _check_startable(record)
                if not record.state.running or record.state.restarting:  # another client may have been faster
                    self._containers.restarts.cancel(record)
                    record.stopped_by_hand = False
                    self.start_now(record)
        self._containers.publish(record, "restart")

    def kill(self, name: str, signal: str = "") -> None:
        """Send it a signal, and with SIGKILL wait for its end.

        Raises:
            Conflict: it does not run.
            EngineError: it does not end.
        """
        record = self._containers.get(name)
        number = requests.signal_number(signal) if signal else _SIGKILL
        with record.lock:
            if not record.state.running or record.state.restarting:
                raise Conflict(f"Cannot kill container: {name}: Container {record.id} is not running")
            stop_signal = requests.signal_number(record.config.get("StopSignal") or "TERM")
            if number in (_SIGKILL, stop_signal):
                record.stopped_by_hand = True
            self._send(record, number)
        if number == _SIGKILL and not self._await_killed(record):
            raise EngineError(f"Cannot kill container: {name}: {_UNKILLABLE}")

    def end_by_force(self, record: Record) -> None:
        """End one that is to be removed; nothing to do where it does not run.

        Raises:
            EngineError: it does not end.
        """
        with record.lock:
            record.stopped_by_hand = True
            self._containers.restarts.cancel(record)
            if not record.state.running or record.state.restarting:
                return
            self._send(record, _SIGKILL)
        if not self._await_killed(record):
            raise EngineError(f'cannot remove container "/{record.name}": could not kill: {_UNKILLABLE}')

    def _stop(self, record: Record, seconds: int | None, signal: str, *, by_hand: bool) -> None:
        number = requests.signal_number(signal or record.config.get("StopSignal") or "TERM")
        if seconds is None:
            asked = record.config.get("StopTimeout")
            seconds = _STOP_SECONDS if asked is None else int(asked)
        with record.lock:
            record.stopped_by_hand = by_hand
            if record.state.restarting:
                self._containers.restarts.cancel(record)
                record.state.running = record.state.restarting = False
                self._containers.keep(record)
                self._containers.table.wake(record, ("not-running",), record.state.exit_code)
            if not record.state.running:
                return
            self._send(record, number)
        if self._await_end(record, None if seconds < 0 else float(seconds)):
            return
        with record.lock:
            self._send(record, _SIGKILL)
        if not self._await_killed(record):
            raise EngineError(f"Cannot stop container: {record.id}: {_UNKILLABLE}")

    @contextlib.contextmanager
    def _to_be_started_again(self, record: Record) -> Iterator[None]:
        """Meanwhile its end does not remove it, though it is to be removed at its end."""
        with record.lock:
            self._being_restarted[record.id] += 1
        try:
            yield
        finally:
            with record.lock:
                self._being_restarted[record.id] -= 1
                self._being_restarted += Counter()  # without those that are zero

    def _send(self, record: Record, number: int) -> None:
        """Send a signal to one whose lock is held; a frozen one is thawed if the signal is to end it."""
        if record.state.paused and number in (_SIGKILL, _SIGTERM):
            with contextlib.suppress(Conflict):  # it has ended
                self.unpause(record.id)
        with contextlib.suppress(NotFound):  # it has ended, and the report of it is on its way
            self._containers.supervisor.signal(record.id, number)
        self._containers.publish(record, "kill", {"signal": str(number)})

    def _await_killed(self, record: Record) -> bool:
        """Wait until one that was sent SIGKILL runs no more; whether that came about in time.

        Who pauses it between the signal and its end would hold it up: a frozen process does not end.
        """
        deadline = time.monotonic() + _KILL_SECONDS
        while not self._await_end(record, _LOOK_SECONDS):
            if time.monotonic() > deadline:
                return False
            with record.lock:
                if record.state.paused:
                    self._send(record, _SIGKILL)
        return True

    def _await_end(self, record: Record, seconds: float | None) -> bool:
        """Wait until it runs no more; whether that came about in time."""
        with self._containers.table.waiting(record, "next-exit") as waiter:
            with record.lock:
                if not record.state.running or record.state.restarting:
                    return True
            poll = select.poll()
            poll.register(waiter, select.POLLIN)
            return bool(poll.poll(None if seconds is None else seconds * 1000))

    # --- pause -------------------------------------------------------------------------------------------------------

    def pause(self, name: str) -> None:
        """Freeze it.

        Raises:
            Conflict: it does not run, is paused, or is being removed.
        """
        containers = self._containers
        record = containers.get(name)
        with record.lock:
            if not record.state.running:
                raise not_running(record)
            if record.state.paused:
                raise Conflict(f"Container {record.id} is already paused")
            if record.state.restarting:
                raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
            if record.state.removing:
                raise Conflict(f"Container {record.id} is marked for removal and cannot be paused")
            try:
                containers.supervisor.pause(record.id)
            except NotFound as error:  # it has ended, and the report of it is on its way
                raise not_running(record) from error
            record.state.paused = True
            containers.keep(record)
        containers.publish(record, "pause")

    def unpause(self, name: str) -> None:
        """Thaw it.

        Raises:
            Conflict: it is not paused.
        """
        containers = self._containers
        record = containers.get(name)
        with record.lock:
            if not record.state.paused:
                raise Conflict(f"Container {record.id} is not paused")
            try:
                containers.supervisor.unpause(record.id)
            except NotFound as error:
                raise not_running(record) from error
            record.state.paused = False
            containers.keep(record)
        containers.publish(record, "unpause")

    # --- what the kernel did -----------------------------------------------------------------------------------------

    def ran_out_of_memory(self, record: Record) -> None:
        """The kernel kills a process of it for want of memory. It may go on with others.

        It is noted at once: `OOMKilled` of the API (1.43) is about any process since the container was last started.
        """
        with record.lock:
            if not record.state.running:
                return
            if not record.state.oom_killed:
                record.state.oom_killed = True
                self._containers.keep(record)
            self._containers.publish(record, "oom")

    def ended(
        self, record: Record, status: int, oom_killed: bool, finished_at: int, *, started_at: int | None = None
    ) -> None:
        """Its program has ended. Times are nanoseconds since 1970.

        `started_at` says which run that was: what is told late of an earlier run changes nothing.
        """
        containers = self._containers
        with record.lock:
            state = record.state
            if not state.running or state.restarting:
                return
            if started_at is not None and rfc3339(started_at) != state.started_at:
                return
            monitor = self._monitors.pop(record.id, None)
            if monitor is not None:
                monitor.stop()
            ran = finished_at - from_rfc3339(state.started_at)
            state.pid = 0
            state.exit_code = status
            state.finished_at = rfc3339(finished_at)
            state.paused = False
            with recorder.span("end", "ProgramEnded", f"waitid(pidfd): status {status}"):
                pass
            self._release(record)
            again = containers.restarts.wanted(record, status)
            if again:
                state.restarting = True
            else:
                state.running = False
            goes = record.host_config["AutoRemove"] and not (state.removing or self._being_restarted[record.id])
            if goes:
                state.removing = True  # before anybody else has the lock, and starts it
            containers.execs.container_ended(record)
            if oom_killed and not state.oom_killed:  # no daemon was there when it happened
                state.oom_killed = True
                containers.publish(record, "oom")
            containers.keep(record)
            lasted = str(max(0, ran) // 1_000_000_000)
            containers.publish(record, "die", {"exitCode": str(status), "execDuration": lasted})
            containers.table.wake(record, ("not-running", "next-exit"), status)
            if again:
                containers.restarts.schedule(record, ran)
        if goes:
            containers.removal.take_away(record, volumes=True)

    def _release(self, record: Record) -> None:
        """Give back what it had while it ran. What goes wrong with that does not keep it from having ended."""
        for what, release in (
            ("ReleaseNetwork", self._containers.networking.release),
            ("ReleaseVolumes", self._containers.storage.release),
        ):
            try:
                with recorder.span("end", what, "release"):
                    release(record)
            except (EngineError, OSError) as error:
                self._containers.daemon.log_error(f"{what} of {record.name}: {error}", error)

    def close(self) -> None:
        """Check the health of no container any more; they go on."""
        for monitor in list(self._monitors.values()):
            monitor.stop()


_UNKILLABLE = "tried to kill container, but did not receive an exit event"


def note_start(record: Record, pid: int, started_at: int, group_paths: dict[str, str]) -> None:
    """Note that it runs since `started_at` (nanoseconds since 1970), as process `pid`."""
    record.state = State(running=True, pid=pid, started_at=rfc3339(started_at), finished_at=record.state.finished_at)
    record.groups = group_paths
    record.started_once = True


def not_running(record: Record) -> Conflict:
    """What is answered where a container would have to run."""
    return Conflict(f"Container {record.id} is not running")


def _check_startable(record: Record) -> None:
    if record.state.removing or record.state.dead:
        raise Conflict("container is marked for removal and cannot be started")
    if record.state.paused:
        raise Conflict("cannot start a paused container, try unpause instead")


def _console_size(record: Record) -> tuple[int, int]:
    rows, columns = record.host_config["ConsoleSize"]
    return rows, columns


def _as_docker_says(error: StartError) -> EngineError:
    """A failed start in Docker's words, by which its command line tells 126, 127 and 125 apart."""
    if not error.from_runtime:
        return EngineError(error.reason)
    text = (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"runc create failed: unable to start container process: {error.reason}: unknown"
    )
    return InvalidParameter(text) if error.status in (126, 127) else EngineError(text)
