"""The containers of the daemon: found, made, named, limited, connected; and the parts that do the rest.

A container's process belongs to the supervisor and outlives the daemon. What Docker adds to it is in parts, one a
module: `lifecycle` starts and stops containers, `removal` takes them away, `restarting` holds to restart policies,
`reports` takes what the supervisor tells, `adoption` what an earlier daemon has left.
"""

import contextlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers import adoption, fields, listing, requests, views
from real_engine.daemon.containers.building import ContainerSteps
from real_engine.daemon.containers.create import create, prepare_init_layer
from real_engine.daemon.containers.discards import discard_limits, files_of
from real_engine.daemon.containers.execs import Execs
from real_engine.daemon.containers.lifecycle import Lifecycle, not_running
from real_engine.daemon.containers.networking import Networking
from real_engine.daemon.containers.record import Record
from real_engine.daemon.containers.removal import Removal
from real_engine.daemon.containers.reports import Reports
from real_engine.daemon.containers.restarting import Restarts
from real_engine.daemon.containers.storage import Storage
from real_engine.daemon.containers.table import ContainerTable, Waiter
from real_engine.daemon.containers.translate import limits
from real_engine.daemon.host import usable_controllers
from real_engine.errors import Conflict, InvalidParameter, NotFound
from real_engine.explain import recorder
from real_engine.filters import Filters
from real_engine.linux import cgroups
from real_engine.supervisor.client import Event, SupervisorClient
from real_engine.supervisor.runtime import group_name

if TYPE_CHECKING:
    import builtins

    from real_engine.daemon.app import Daemon
    from real_engine.images.store import ImageStore

Json = dict[str, Any]


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
        self.networking = Networking(self)
        self.lifecycle = Lifecycle(self)
        self.restarts = Restarts(self)
        self.removal = Removal(self)
        self._reports = Reports(self)

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

    def discard_limits(self, host_config: Json) -> "builtins.list[str]":
        """Take limits out of a HostConfig that can't be set here; returns warnings.

        Raises:
            InvalidParameter: one that isn't left out in silence: the kernel has no real-time scheduling of groups.
        """
        hierarchies = cgroups.hierarchies(parent=group_name(self.daemon.config.data_root))
        has = files_of(hierarchies)
        realtime = host_config["CpuRealtimePeriod"] or host_config["CpuRealtimeRuntime"]
        if realtime and not ("cpu" in self.controllers and has("cpu", ("cpu.rt_runtime_us",))):
            raise InvalidParameter("Your kernel does not support CPU real-time scheduler")
        return discard_limits(host_config, self.controllers, has)

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
                if record.state.dead or (condition == "not-running" and not record.state.running):
                    waiter.wake(record.state.exit_code, record.state.error)
            yield waiter

    def layers_below(self, record: Record) -> "builtins.list[Path]":
        """The directories beneath what it writes, the lowest first."""
        return [Path(layer) for layer in record.layers]

    # --- making and changing -----------------------------------------------------------------------------------------

    def create(self, body: Json, name: str = "", wanted_platform: str = "") -> tuple[Record, "builtins.list[str]"]:
        """Make a container; see `create.create`."""
        with recorder.span("container", "MakeContainer") as told:
            record, warnings = create(self, body, name, wanted_platform)
            if told.told:
                told.call = f"mkdir(containers/{record.id[:12]}/upper, work); write(container.json)"
        return record, warnings

    def rename(self, name: str, new_name: str) -> None:
        """Give it another name."""
        record = self.get(name)
        if not new_name:
            raise InvalidParameter("Neither old nor new names may be empty")
        wanted = requests.check_name(new_name)
        with record.lock:
            if record.state.dead:  # removed while we waited for its lock
                raise NotFound(f"No such container: {record.id}")
            old = record.name
            if wanted == old:
                raise InvalidParameter("Renaming a container with the same name as its current name")
            self.table.rename(record, wanted)
            try:
                record.save(self.path(record))
            except BaseException:
                self.table.rename(record, old)
                raise
            self.networking.renamed(record)
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
            unsaid = requests.host_config({})
            asked = {**unsaid, **changes}
            warnings = self.discard_limits(asked)  # of what is asked for now, and not again of what it has
            host |= {name: value for name, value in asked.items() if name in changes or value != unsaid.get(name)}
            host.pop("KernelMemory", None)
            if record.state.running and not record.state.restarting:
                with contextlib.suppress(NotFound):  # it has ended, and the report of it is on its way
                    self.supervisor.update(record.id, limits(host))
            record.host_config = host
            record.save(self.path(record))
        self.publish(record, "update")
        return warnings

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        record = self.get(name)
        if not record.state.running:
            raise not_running(record)
        try:
            self.supervisor.resize(record.id, rows, columns)
        except NotFound as error:  # it has ended, and the report of it is on its way
            raise not_running(record) from error
        self.publish(record, "resize", {"height": str(rows), "width": str(columns)})

    # --- networks ----------------------------------------------------------------------------------------------------

    def connect_network(self, name: str, network: str, settings: Json) -> None:
        """Connect it to one more network, now if it runs, and at its starts."""
        endpoint = fields.checked("EndpointConfig", fields.ENDPOINT, settings) or {}
        self.networking.connect(self.get(name), network, endpoint)

    def disconnect_network(self, name: str, network: str, *, force: bool = False) -> None:
        """Disconnect it from a network."""
        record = self.table.find(name)
        if record is None:
            if not force:
                raise NotFound(f"No such container: {name}")
            return
        self.networking.disconnect(record, network, force=force)

    # --- start and end of the daemon ---------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what an earlier daemon has left."""
        adoption.adopt(self)

    def on_event(self, event: Event) -> None:
        """Take a report of the supervisor."""
        self._reports.take(event)

    def close(self) -> None:
        """The daemon ends; the containers go on."""
        self._reports.close()
        self.restarts.close()
        self.lifecycle.close()
        self.removal.close()

    # --- for all parts -----------------------------------------------------------------------------------------------

    def publish(self, record: Record, action: str, attributes: Mapping[str, str] | None = None) -> None:
        """Tell of an event of this container."""
        told = {**record.labels, "image": record.config["Image"], "name": record.name, **(attributes or {})}
        self.daemon.events.publish("container", action, record.id, told)

    def keep(self, record: Record) -> None:
        """Write down what has become of a container; that it cannot be written (a full disk, say) undoes nothing."""
        try:
            record.save(self.path(record))
        except OSError as error:
            self.daemon.log_error(f"cannot write the state of {record.name}: {error}", error)
