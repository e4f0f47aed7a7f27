"""The containers of the daemon: what moves them from state to state, and what is told about it.

A container's process belongs to the supervisor and outlives the daemon. Here is what Docker adds to it: names, states
that are kept on disk, restart policies, removal, and events. Every change of a container's state is made under its
lock; ends of processes are reported by the supervisor, and are dealt with by threads of their own.
"""

import builtins
import contextlib
import os
import select
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.container.container import StartError
from real_engine.daemon.containers import fields, listing, requests, views
from real_engine.daemon.containers.attaching import attach, attach_websocket
from real_engine.daemon.containers.building import ContainerSteps
from real_engine.daemon.containers.create import create, prepare_init_layer
from real_engine.daemon.containers.discards import discard_limits
from real_engine.daemon.containers.execs import Execs
from real_engine.daemon.containers.health import HealthMonitor, has_check
from real_engine.daemon.containers.merge import environment
from real_engine.daemon.containers.networking import Networking
from real_engine.daemon.containers.record import Health, Record, State
from real_engine.daemon.containers.restarting import Restarts
from real_engine.daemon.containers.storage import Storage
from real_engine.daemon.containers.table import ContainerTable, Waiter
from real_engine.daemon.containers.translate import container_spec, limits
from real_engine.daemon.host import usable_controllers
from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound, NotModified
from real_engine.explain import recorder
from real_engine.filters import Filters
from real_engine.http.messages import Request
from real_engine.images.trees import remove_tree
from real_engine.supervisor import log_options
from real_engine.supervisor.client import Entry, Exited, LogOptions, Lost, SupervisorClient
from real_engine.supervisor.exit_record import read_exit
from real_engine.times import from_rfc3339, now, rfc3339

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon
    from real_engine.images.store import ImageStore

Json = dict[str, Any]

_STOP_SECONDS = 10  # how long a container has to end by itself, as Docker's
_KILL_SECONDS = 10.0  # how long the kernel may take to end it then
_SIGKILL, _SIGTERM = 9, 15


class Containers:
    """All containers of a daemon. Thread-safe."""

    def __init__(self, daemon: "Daemon") -> None:
        self.daemon = daemon
        directory = daemon.config.data_root / "containers"
        directory.mkdir(exist_ok=True, mode=0o710)
        self.table = ContainerTable(directory)
        self.init_layer = prepare_init_layer(directory.parent / "layers")
        self.execs = Execs(self)
        self.step_runner = ContainerSteps(self)
        self.storage = Storage(self)
        self._networking = Networking(self)
        self._restarts = Restarts(self)
        self._monitors: dict[str, HealthMonitor] = {}
        self._ends = ThreadPoolExecutor(8, thread_name_prefix="ends")
        self._sweeps = ThreadPoolExecutor(1, thread_name_prefix="sweep")
        self._stopping = False

    @property
    def images(self) -> "ImageStore":
        """Where containers come from."""
        return self.daemon.images

    @property
    def supervisor(self) -> SupervisorClient:
        """Who holds the processes."""
        return self.daemon.supervisor

    @cached_property
    def controllers(self) -> set[str]:
        """The cgroup controllers by which containers can be limited here, by their names of v1."""
        return {"blkio" if name == "io" else name for name in usable_controllers()}

    # --- looking -----------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Record:
        """By name, id, or the beginning of an id.

        Raises:
            NotFound: there is none.
        """
        return self.table.get(name)

    def path(self, record: Record) -> Path:
        """Its directory."""
        return self.table.path(record)

    def list(self, filters: Filters, *, everything: bool, limit: int = 0, size: bool = False) -> list[Json]:
        """The containers that pass the filters, the newest first, as `docker ps` wants them."""
        return listing.listed(self, filters, everything=everything, limit=limit, size=size)

    def inspect(self, name: str, *, size: bool = False) -> Json:
        """All about one."""
        record = self.get(name)
        with record.lock:
            sizes = self.storage.sizes(record) if size else None
            return views.inspect(record, self.path(record), self.execs.of(record), sizes)

    @contextlib.contextmanager
    def waiting(self, name: str, condition: str) -> Iterator[Waiter]:
        """Wait for a change. The waiter is ready at once where there is nothing to wait for."""
        record = self.get(name)
        with self.table.waiting(record, condition) as waiter:
            with record.lock:
                if condition == "not-running" and not record.state.running:
                    waiter.wake(record.state.exit_code, record.state.error)
            yield waiter

    def layers_below(self, record: Record) -> "builtins.list[Path]":
        """The directories beneath what it writes, the lowest first."""
        return [Path(layer) for layer in record.layers]

    # --- the life of one ---------------------------------------------------------------------------------------------

    def create(self, body: Json, name: str = "", wanted_platform: str = "") -> tuple[Record, "builtins.list[str]"]:
        """Make a container; see `create.create`."""
        with recorder.span("container", "MakeContainer") as told:
            record, warnings = create(self, body, name, wanted_platform)
            if told.told:
                told.call = f"mkdir(containers/{record.id[:12]}/upper, work); write(container.json)"
        return record, warnings

    def start(self, name: str, _detach_keys: bytes = b"") -> None:
        """Start it.

        Raises:
            NotModified: it runs.
            Conflict: it is paused, or being removed.
            InvalidParameter: its program cannot be executed.
            EngineError: anything else that went wrong.
        """
        record = self.get(name)
        with record.lock:
            self._check_startable(record)
            if record.state.running and not record.state.restarting:
                raise NotModified(f"Container {record.id} is already running")
            self._restarts.cancel(record)
            record.stopped_by_hand = False
            record.restart_count = 0
            self.start_now(record)

    def start_now(self, record: Record, observe: bool = False) -> "builtins.list[Json]":
        """Start a container whose lock is held; returns the steps of the start when `observe` is set."""
        directory = self.path(record)
        state = record.state
        attached = None
        explained = recorder.current()
        begin = time.perf_counter()
        try:
            with recorder.span("start", "MountVolumes", "volumes of the container"):
                points = self.storage.acquire(record)
            with recorder.span("network", "AttachNetwork", "attach"):
                attached = self._networking.attach(record)
            spec = container_spec(self, record, attached, points)
            recorder.follow(record.id)  # before it starts: it may end at once
            started = self.supervisor.start(
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
            self._networking.release(record)
            self.storage.release(record)
            self._failed(record, error)
            if isinstance(error, StartError):
                raise _as_docker_says(error) from error
            raise
        finally:
            if attached is not None:
                attached.close()
        record.state = State(
            running=True, pid=started.pid, started_at=rfc3339(started.started_at), finished_at=state.finished_at
        )
        record.groups = started.group_paths
        record.started_once = True
        if has_check(record):
            record.health = Health()
            self._monitors[record.id] = HealthMonitor(self, record)
        record.save(directory)
        if explained is not None:
            call = f"container {record.id[:12]} runs as process {started.pid}"
            recorder.tell("start", "StartInSupervisor", call, begin, time.perf_counter())
        self.publish(record, "start")
        return started.steps

    def stop(self, name: str, seconds: int | None = None, signal: str = "") -> None:
        """Ask it to end, and end it after `seconds`.

        Raises:
            NotModified: it does not run.
        """
        record = self.get(name)
        if not record.state.running:
            raise NotModified(f"Container {record.id} is already stopped")
        self._stop(record, seconds, signal)
        self.publish(record, "stop")

    def restart(self, name: str, seconds: int | None = None, signal: str = "") -> None:
        """Stop it if it runs, and start it."""
        record = self.get(name)
        if record.state.running:
            self._stop(record, seconds, signal, restarting=True)
        with record.lock:
            self._check_startable(record)
            if not record.state.running or record.state.restarting:  # another client may have been faster
                self._restarts.cancel(record)
                record.stopped_by_hand = False
                self.start_now(record)
        self.publish(record, "restart")

    def kill(self, name: str, signal: str = "") -> None:
        """Send it a signal.

        Raises:
            Conflict: it does not run.
        """
        record = self.get(name)
        number = requests.signal_number(signal) if signal else _SIGKILL
        with record.lock:
            if not record.state.running or record.state.restarting:
                raise Conflict(f"Cannot kill container: {name}: Container {record.id} is not running")
            stop_signal = requests.signal_number(record.config.get("StopSignal") or "TERM")
            if number in (_SIGKILL, stop_signal):
                record.stopped_by_hand = True
        self._send(record, number)
        if number == _SIGKILL:
            self._await_end(record, _KILL_SECONDS)

    def pause(self, name: str) -> None:
        """Freeze it.

        Raises:
            Conflict: it does not run, or is paused.
        """
        record = self.get(name)
        with record.lock:
            self._check_running(record)
            if record.state.paused:
                raise Conflict(f"Container {record.id} is already paused")
            if record.state.restarting:
                raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
            self.supervisor.pause(record.id)
            record.state.paused = True
            record.save(self.path(record))
        self.publish(record, "pause")

    def unpause(self, name: str) -> None:
        """Thaw it.

        Raises:
            Conflict: it is not paused.
        """
        record = self.get(name)
        with record.lock:
            if not record.state.paused:
                raise Conflict(f"Container {record.id} is not paused")
            self.supervisor.unpause(record.id)
            record.state.paused = False
            record.save(self.path(record))
        self.publish(record, "unpause")

    def rename(self, name: str, new_name: str) -> None:
        """Give it another name."""
        record = self.get(name)
        if not new_name:
            raise InvalidParameter("Neither old nor new names may be empty")
        wanted = requests.check_name(new_name)
        with record.lock:
            self._check_exists(record)
            old = record.name
            if wanted == old:
                raise InvalidParameter("Renaming a container with the same name as its current name")
            self.table.rename(record, wanted)
            record.save(self.path(record))
        self._networking.renamed(record)
        self.publish(record, "rename", {"oldName": f"/{old}"})

    def update(self, name: str, body: Mapping[str, Any]) -> "builtins.list[str]":
        """Change its limits and restart policy; returns warnings."""
        record = self.get(name)
        changes = requests.resources(body)
        policy = fields.checked("RestartPolicy", fields.RESTART_POLICY, body.get("RestartPolicy"))
        with record.lock:
            if record.state.removing or record.state.dead:
                raise Conflict(
                    f'Cannot update container {record.id}: Container is marked for removal and cannot be "update".'
                )
            host = {**record.host_config, **changes}
            if changes.get("Memory") and "MemorySwap" not in changes and 0 < host["MemorySwap"] < host["Memory"]:
                reason = "Memory limit should be smaller than already set memoryswap limit"
                raise Conflict(f"Cannot update container {record.id}: {reason}, update the memoryswap at the same time")
            if policy and policy.get("Name"):
                host["RestartPolicy"] = {
                    "Name": policy["Name"],
                    "MaximumRetryCount": policy.get("MaximumRetryCount") or 0,
                }
                if host["AutoRemove"] and policy["Name"] != "no":
                    reason = "Restart policy cannot be updated because AutoRemove is enabled for the container"
                    raise Conflict(f"Cannot update container {record.id}: {reason}")
            requests.check_host_config(host, record.config)
            warnings = discard_limits(host, self.controllers)
            if record.state.running and not record.state.restarting:
                self.supervisor.update(record.id, limits(host))
            record.host_config = host
            record.save(self.path(record))
        self.publish(record, "update")
        return warnings

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        record = self.get(name)
        if not record.state.running:
            raise Conflict(f"Container {record.id} is not running")
        self.supervisor.resize(record.id, rows, columns)
        self.publish(record, "resize", {"height": str(rows), "width": str(columns)})

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it, and its anonymous volumes if asked to.

        Raises:
            Conflict: it runs, and is not to be forced.
        """
        record = self.get(name)
        with record.lock:
            state = record.state
            if state.running and not force:
                kind, what = ("paused", "Unpause and then stop") if state.paused else ("running", "Stop")
                raise Conflict(
                    f"You cannot remove a {kind} container {record.id}. "
                    f"{what} the container before attempting removal or force remove"
                )
            if state.removing:
                raise Conflict(f"removal of container {name} is already in progress")
            state.removing = True
        try:
            if record.state.running:
                record.stopped_by_hand = True
                self._restarts.cancel(record)
                if record.state.running and not record.state.restarting:
                    self._send(record, _SIGKILL)
                    self._await_end(record, _KILL_SECONDS)
        except BaseException:
            record.state.removing = False
            raise
        self._remove(record, volumes)

    def prune(self, filters: Filters) -> "tuple[builtins.list[str], int]":
        """Remove all that do not run; returns their ids and the bytes that are free now."""
        filters.check(("label", "label!", "until"))
        deleted, reclaimed = [], 0
        for record in self.table:
            if record.state.running or not listing.prunable(record, filters):
                continue
            with contextlib.suppress(NotFound, Conflict):  # someone was faster
                size = self.storage.sizes(record)[0]
                self.remove(record.id)
                deleted.append(record.id)
                reclaimed += size
        self.daemon.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return deleted, reclaimed

    # --- streams -----------------------------------------------------------------------------------------------------

    def check_attachable(self, record: Record) -> None:
        """Raise where attaching makes no sense.

        Raises:
            Conflict: it is paused or restarting.
        """
        if record.state.paused:
            raise Conflict(f"Container {record.id} is paused, unpause the container before attach")
        if record.state.restarting:
            raise Conflict(f"Container {record.id} is restarting, wait until the container is running")

    def attach(self, record: Record, request: Request, keys: bytes, *, multiplexed: bool) -> None:
        """Make the client's connection the container's standard streams."""
        attach(self, record, request, keys, multiplexed=multiplexed)

    def attach_websocket(self, record: Record, request: Request, keys: bytes) -> None:
        """The same, over a websocket."""
        attach_websocket(self, record, request, keys)

    # --- networks ----------------------------------------------------------------------------------------------------

    def connect_network(self, name: str, network: str, settings: Json) -> None:
        """Connect it to one more network, now if it runs, and at its starts."""
        endpoint = fields.checked("EndpointConfig", fields.ENDPOINT, settings) or {}
        self._networking.connect(self.get(name), network, endpoint)

    def disconnect_network(self, name: str, network: str, *, force: bool = False) -> None:
        """Disconnect it from a network."""
        record = self.table.find(name)
        if record is None:
            if not force:
                raise NotFound(f"No such container: {name}")
            return
        self._networking.disconnect(record, network, force=force)

    # --- what the supervisor tells -----------------------------------------------------------------------------------

    def on_event(self, event: object) -> None:
        """Take a report of the supervisor; called by its reader thread, so the work is done by another."""
        self._ends.submit(self._handle, event)

    def _handle(self, event: object) -> None:
        try:
            if isinstance(event, Exited):
                if event.target_id == event.container_id:
                    record = self.table.find(event.container_id)
                    if record is not None:
                        with recorder.following(record.id):
                            self._ended(record, event.status, event.oom_killed, event.finished_at)
                    self.supervisor.acknowledge(event.target_id)
                else:
                    self.execs.ended(event)
            elif isinstance(event, Lost) and not self._stopping:
                self._lost()
            else:
                self.execs.told(event)
        except Exception as error:  # a thread of a pool keeps its errors to itself
            self.daemon.log_error(f"while dealing with {event}: {error!r}", error)

    def _ended(self, record: Record, status: int, oom_killed: bool, finished_at: int) -> None:
        """The container's program has ended."""
        with record.lock:
            if not record.state.running or record.state.restarting:
                return
            monitor = self._monitors.pop(record.id, None)
            if monitor is not None:
                monitor.stop()
            ran = finished_at - from_rfc3339(record.state.started_at)
            record.state.pid = 0
            record.state.exit_code = status
            record.state.oom_killed = oom_killed
            record.state.finished_at = rfc3339(finished_at)
            record.state.paused = False
            with recorder.span("end", "ProgramEnded", f"waitid(pidfd): status {status}"):
                pass
            with recorder.span("end", "ReleaseNetwork", "release"):
                self._networking.release(record)
            with recorder.span("end", "ReleaseVolumes", "release"):
                self.storage.release(record)
            again = self._restarts.wanted(record, status) and not self._stopping
            if again:
                record.state.restarting = True
            else:
                record.state.running = False
            self.execs.container_ended(record)
            record.save(self.path(record))
            if oom_killed:
                self.publish(record, "oom")
            self.publish(record, "die", {"exitCode": str(status), "execDuration": str(max(0, ran) // 1_000_000_000)})
            self.table.wake(record, ("not-running", "next-exit"), status)
            if again:
                self._restarts.schedule(record, ran)
                return
        if record.host_config["AutoRemove"] and not record.state.removing:
            with contextlib.suppress(NotFound, Conflict):  # the user was faster
                with record.lock:
                    if record.state.removing:
                        return
                    record.state.removing = True
                self._remove(record, volumes=True)

    def _lost(self) -> None:
        """The supervisor has been killed, and all containers with it.

        Another one is started at once: a container that was paused ends only when that one thaws what it finds.
        """
        finished = now()
        self.daemon.restart_supervisor()
        try:
            _ = self.supervisor  # made when it is asked for
        except EngineError as error:
            self.daemon.log_error(f"cannot start another supervisor: {error}", error)
        for record in self.table:
            if record.state.running and not record.state.restarting:
                self._ended(record, 128 + _SIGKILL, False, finished)

    # --- start and end of the daemon ---------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what an earlier daemon has left: running containers, ends that it did not see, half-made ones."""
        entries = {entry.target_id: entry for entry in self.supervisor.list()}
        for directory in sorted(self.table.directory.iterdir()):
            try:
                record = Record.load(directory)
            except FileNotFoundError:
                self._discard_directory(directory)  # it was being made when the daemon was killed
                continue
            except (OSError, ValueError) as error:
                self.daemon.log_error(f"cannot read the container in {directory}: {error}", error)
                continue
            self.table.add(record)
            self.storage.known(record)
        for record in self.table:
            self._adopt(record, entries.get(record.id))
        for record in self.table:
            if record.state.restarting or self._restarts.wanted_at_start(record):
                self._ends.submit(self._start_again, record)

    def _adopt(self, record: Record, entry: Entry | None) -> None:
        state = record.state
        if state.removing or (record.host_config["AutoRemove"] and not state.running and record.started_once):
            self._remove(record, volumes=True)
            return
        if entry is not None and entry.running:
            # All of it: the daemon may have been killed between the start and the note of it.
            state.running, state.restarting, state.pid = True, False, entry.pid
            state.started_at, record.groups, record.started_once = rfc3339(entry.started_at), entry.group_paths, True
            self.storage.adopt(record)
            self._networking.adopt(record)
            if has_check(record):
                record.health = record.health or Health()
                self._monitors[record.id] = HealthMonitor(self, record)
            record.save(self.path(record))
        elif state.running and not state.restarting:
            # It ended while no daemon was there; the supervisor, or the file that it left, knows how.
            end = self._end_on_disk(record) if entry is None else (entry.status, entry.oom_killed, entry.finished_at)
            self._ended(record, *end)
            if entry is not None:
                self.supervisor.acknowledge(record.id)
        elif entry is not None:
            self.supervisor.acknowledge(record.id)

    def _end_on_disk(self, record: Record) -> tuple[int, bool, int]:
        """How it ended by the supervisor's file; by SIGKILL where there is none: supervisor and machine went down."""
        end = read_exit(self.path(record))
        if end is not None and end.finished_at >= from_rfc3339(record.state.started_at):
            return end.status, end.oom_killed, end.finished_at
        return 128 + _SIGKILL, False, now()

    def _start_again(self, record: Record) -> None:
        try:
            with record.lock:
                if record.state.running and not record.state.restarting:
                    return
                self.start_now(record)
        except EngineError as error:
            self.daemon.log_error(f"cannot start {record.name} again: {error}", error)

    def close(self) -> None:
        """The daemon ends; the containers go on."""
        self._stopping = True
        self._restarts.close()
        for monitor in list(self._monitors.values()):
            monitor.stop()
        self._ends.shutdown(wait=True, cancel_futures=True)
        self._sweeps.shutdown(wait=True)

    # --- parts -------------------------------------------------------------------------------------------------------

    def publish(self, record: Record, action: str, attributes: Mapping[str, str] | None = None) -> None:
        """Tell of an event of this container."""
        told = {**record.labels, "image": record.config["Image"], "name": record.name, **(attributes or {})}
        self.daemon.events.publish("container", action, record.id, told)

    def discard(self, record: Record) -> None:
        """Undo what was made of a container that could not be created."""
        self.storage.forget(record, anonymous=True)
        self._discard_directory(self.path(record))

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
        path = str(views.log_path(record, self.path(record)))
        return LogOptions(path=path, driver=logging["Type"], options=logging["Config"], attributes=carried)

    def _stop(self, record: Record, seconds: int | None, signal: str, restarting: bool = False) -> None:
        config = record.config
        name = signal or config.get("StopSignal") or "TERM"
        number = requests.signal_number(name)
        if seconds is None:
            asked = config.get("StopTimeout")
            seconds = _STOP_SECONDS if asked is None else int(asked)
        with record.lock:
            record.stopped_by_hand = not restarting
            if self._restarts.cancel(record):
                record.state.running = record.state.restarting = False
                record.save(self.path(record))
                self.table.wake(record, ("not-running",), record.state.exit_code)
                return
        self._send(record, number)
        if not self._await_end(record, None if seconds < 0 else float(seconds)):
            self._send(record, _SIGKILL)
            if not self._await_end(record, _KILL_SECONDS):
                raise EngineError(f"Cannot stop container: {record.id}: it does not end, even by SIGKILL")

    def _send(self, record: Record, number: int) -> None:
        if record.state.paused and number in (_SIGKILL, _SIGTERM):
            with contextlib.suppress(Conflict):
                self.unpause(record.id)
        with contextlib.suppress(NotFound):  # it has ended, and the report of it is on its way
            self.supervisor.signal(record.id, number)
        self.publish(record, "kill", {"signal": str(number)})

    def _await_end(self, record: Record, seconds: float | None) -> bool:
        """Wait until it runs no more; whether that came about in time."""
        with self.table.waiting(record, "next-exit") as waiter:
            with record.lock:
                if not record.state.running or record.state.restarting:
                    return True
            poll = select.poll()
            poll.register(waiter, select.POLLIN)
            return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _check_exists(self, record: Record) -> None:
        if record.state.dead:  # removed while we waited for its lock
            raise NotFound(f"No such container: {record.id}")

    def _check_startable(self, record: Record) -> None:
        if record.state.removing or record.state.dead:
            raise Conflict("container is marked for removal and cannot be started")
        if record.state.paused:
            raise Conflict("cannot start a paused container, try unpause instead")

    def _check_running(self, record: Record) -> None:
        if not record.state.running:
            raise Conflict(f"Container {record.id} is not running")

    def _failed(self, record: Record, error: BaseException) -> None:
        """A start has failed: note it, and remove the container where it was to be removed at its end."""
        status = error.status if isinstance(error, StartError) else 128
        record.state.running = record.state.restarting = False
        record.state.pid = 0
        record.state.exit_code = status
        record.state.error = str(_as_docker_says(error) if isinstance(error, StartError) else error)
        with contextlib.suppress(OSError):  # the disk may be what made it fail
            record.save(self.path(record))
        if record.host_config["AutoRemove"] and not record.state.removing:
            record.state.removing = True
            self._remove(record, volumes=True)

    def _remove(self, record: Record, volumes: bool) -> None:
        """Take it away. Its directory is moved out of the way at once, and deleted behind the client's back."""
        with recorder.span("end", "RemoveContainer", "rename(containers/ID, tmp/removed-…)"), record.lock:
            self.execs.forget(record)
            self.storage.forget(record, anonymous=volumes)
            self._networking.forget(record)
            self._discard_directory(self.path(record))
            record.state.dead = True
        self.publish(record, "destroy")
        self.table.remove(record)
        if record.image_id and self.images.search(record.image_id) is None:
            # The image was removed by force, and its layers were kept for this container.
            self._sweeps.submit(self.images.collect)

    def _discard_directory(self, directory: Path) -> None:
        away = self.daemon.config.data_root / "tmp" / f"removed-{directory.name[:12]}-{os.urandom(4).hex()}"
        try:
            directory.rename(away)
        except FileNotFoundError:
            return
        self._sweeps.submit(_delete, away)


def _delete(directory: Path) -> None:
    remove_tree(directory)


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
