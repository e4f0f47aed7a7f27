"""The engine: starts containers from a data root, watches over them, and leaves nothing behind.

`Engine.start` must be called by a thread that lives as long as the container: the kernel kills the container when that
thread ends. `real_engine.linux.processes` tells why that had better be the only one.
"""

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from real_engine.container import sandbox
from real_engine.container.container import Container, Observer, remove_cgroups
from real_engine.container.entry import Entry, plan_entry
from real_engine.container.host import this_host
from real_engine.container.resources import UNLIMITED, DeviceRate, Limits, Mount
from real_engine.container.sandbox import Found, kept_capabilities
from real_engine.container.spec import DEFAULT_PATH, HOST, PRIVATE, ContainerSpec, ExecSpec
from real_engine.container.state import KeptDirectories, StateDirectory, prepare_root, stale
from real_engine.container.steps import Phase
from real_engine.errors import EngineError, InvalidParameter, NotImplementedHere
from real_engine.linux import capabilities, cgroup_limits, cgroups, seccomp
from real_engine.linux.cgroup_limits import CPU_PERIOD_MICROSECONDS, Wanted
from real_engine.linux.cgroups import Hierarchy
from real_engine.linux.devices import DeviceNode, DeviceRule, device_node, device_nodes

_DEFAULT_PROFILE = Path(__file__).with_name("seccomp_default.json")
_INITS = ("docker-init", "tini-static", "tini")


def default_root() -> Path:
    """Where images and containers are kept: /var/lib/onggi for root, else in the user's own data directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/onggi")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "onggi"


class Engine:
    """Starts containers, and keeps what they need under `root` (mode 0700). Many engines can share one root.

    `hierarchies` are the cgroup hierarchies to use; without them, those of this machine. `group` is the name of the
    cgroup that holds those of the containers. What a killed engine has left under `root` is collected first.

    Raises:
        EngineError: not Linux, or no right to use `root`.
    """

    def __init__(
        self,
        root: Path | None = None,
        hierarchies: tuple[Hierarchy, ...] | None = None,
        *,
        group: str = cgroups.PARENT,
    ) -> None:
        if sys.platform != "linux":
            raise EngineError("containers need a Linux kernel; simulations and reports work here")
        self.root = default_root() if root is None else root.absolute()
        try:
            self.runs = prepare_root(self.root)
        except OSError as error:
            raise EngineError(
                f"cannot keep containers in {error.filename}: {error.strerror}; name another --root"
            ) from error
        self._unusable: dict[str, str] = {}
        self.host = this_host(self._usable(cgroups.hierarchies(parent=group) if hierarchies is None else hierarchies))
        self.sweep()

    def plan(self, spec: ContainerSpec, container_id: str = "ID") -> tuple[Phase, ...]:
        """What `start` would do, step by step.

        Raises:
            EngineError: a limit that can't be set here, a profile that can't be read, a layer that doesn't exist.
        """
        return self._plan(spec, self._state(spec, container_id), network_given=False, die_with_engine=True)

    def create(
        self, spec: ContainerSpec, container_id: str | None = None, *, die_with_engine: bool = True
    ) -> Container:
        """A container that can be started, by its `begin` and `complete`. Nothing of it exists before.

        With `die_with_engine` the kernel kills it when the thread that has begun it ends.
        """
        state = self._state(spec, container_id or os.urandom(6).hex())
        return Container(
            state,
            lambda network_given: self._plan(spec, state, network_given, die_with_engine),
            spec.tty,
            self.host.hierarchies,
        )

    def start(
        self, spec: ContainerSpec, stdin: int = 0, stdout: int = 1, stderr: int = 2, observer: Observer | None = None
    ) -> Container:
        """Start a container whose standard input and outputs are these descriptors; it runs when this returns.

        `observer` is called before each step, in the process that is about to do it; what it raises fails the step.

        Raises:
            StartError: a step failed. Nothing of the container is left.
            EngineError: see `plan`.
        """
        container = self.create(spec)
        try:
            container.begin(None if spec.tty else (stdin, stdout, stderr), observer=observer)
            container.complete()
        except BaseException:
            container.remove()
            raise
        return container

    def enter(
        self,
        pidfd: int,
        container_id: str,
        spec: ContainerSpec,
        program: ExecSpec,
        *,
        die_with_engine: bool = True,
    ) -> Entry:
        """One more program for the container that runs as `spec` says, and whose first process `pidfd` stands for.

        It can be started by its `begin` and `complete`.

        Raises:
            EngineError: see `plan`; or the container has ended.
        """
        found = Found(
            hostname="",
            environment=_environment(spec.hostname or container_id, program.environment),
            filter_bytes=self._filter(spec),
            die_with_engine=die_with_engine,
        )
        pid = _pid_of(pidfd)
        phases = plan_entry(spec, program, self.host, container_id, pid, found)
        return Entry(container_id, pidfd, _pid_namespace(pid), phases, program.tty)

    def group_paths(self, container_id: str) -> dict[str, str]:
        """The container's cgroups that exist, by controller; that of a v2 hierarchy has the name `` too."""
        found: dict[str, str] = {}
        for hierarchy in self.host.hierarchies:
            group = hierarchy.parent / container_id
            if not hierarchy.on_demand or group.exists():
                names = set(hierarchy.controllers) | ({""} if hierarchy.version == 2 else set())
                found |= dict.fromkeys(names, str(group))
        return found

    def update_limits(self, container_id: str, limits: Limits) -> None:
        """Change what a running container may use; what `limits` doesn't name stays.

        Raises:
            EngineError: a limit that can't be set here, or that the kernel refuses.
        """
        wanted = self._wanted(limits, double_swap=False)
        self._check_controllers(wanted)
        for hierarchy in self.host.hierarchies:
            group = hierarchy.parent / container_id
            if not _needed(hierarchy, wanted):
                continue
            try:
                if hierarchy.on_demand and not group.exists():
                    cgroups.join(group, self._members(container_id))
                cgroup_limits.apply(hierarchy, group, wanted)
            except OSError as error:
                raise EngineError(f"failed to write to {error.filename}: {(error.strerror or '').lower()}") from error

    def freeze(self, container_id: str) -> None:
        """Stop everything in the container from running.

        Raises:
            NotImplementedHere: there is no cgroup to do it by.
            EngineError: the kernel could not do it.
        """
        group, on_demand = self._freezer(container_id)
        try:
            if on_demand:
                cgroups.join(group, self._members(container_id))
            cgroups.set_frozen(group, True)
        except OSError as error:
            raise EngineError(f"unable to freeze: {error.filename}: {error.strerror}") from error

    def thaw(self, container_id: str) -> None:
        """Let everything in the container go on.

        Raises:
            NotImplementedHere: there is no cgroup to do it by.
            EngineError: the kernel could not do it.
        """
        group, _ = self._freezer(container_id)
        if not group.exists():
            return  # it has never been frozen
        try:
            cgroups.set_frozen(group, False)
        except OSError as error:
            raise EngineError(f"unable to thaw: {error.filename}: {error.strerror}") from error

    def remove_cgroups(self, container_id: str) -> None:
        """Kill whatever is left of a container, and remove its cgroups."""
        remove_cgroups(self.host.hierarchies, container_id)

    def sweep(self) -> list[str]:
        """Kill and remove what engines that were killed have left under the root; returns the ids."""
        swept = []
        for state in stale(self.runs):
            remove_cgroups(self.host.hierarchies, state.id)
            state.remove()
            swept.append(state.id)
        return swept

    def sweep_groups(self) -> list[str]:
        """Kill and remove all in our parent cgroup; returns the ids. For an engine that shares it with no other."""
        parents = [hierarchy.parent for hierarchy in self.host.hierarchies]
        found = sorted({path.name for parent in parents for path in parent.iterdir() if path.is_dir()})
        for container_id in found:
            self.remove_cgroups(container_id)
        return found

    def remove_group(self) -> None:
        """Remove our parent cgroup, if no container is in it: the last act of an engine that shares it with none."""
        for hierarchy in self.host.hierarchies:
            with contextlib.suppress(OSError):  # a container is in it, or it is gone already
                hierarchy.parent.rmdir()

    def _state(self, spec: ContainerSpec, container_id: str) -> StateDirectory | KeptDirectories:
        if spec.upper is not None and spec.work is not None:
            return KeptDirectories(self.root, container_id, spec.upper, spec.work)
        return StateDirectory(self.runs / container_id)

    def _plan(
        self,
        spec: ContainerSpec,
        state: StateDirectory | KeptDirectories,
        network_given: bool,
        die_with_engine: bool,
    ) -> tuple[Phase, ...]:
        wanted = self._wanted(spec.limits)
        self._check(spec, wanted)
        hostname = spec.hostname or (platform.node() if spec.network == HOST or spec.uts == HOST else state.id[:12])
        devices, sources, rules = self._devices(spec)
        found = Found(
            hostname=hostname,
            environment=_environment(hostname, spec.environment),
            wanted=wanted,
            filter_bytes=self._filter(spec),
            devices=devices,
            device_sources=sources,
            device_rules=rules,
            init=_init_program() if spec.init else "",
            missing_paths=_missing_paths(self.host.masked_paths),
            network_given=network_given,
            die_with_engine=die_with_engine,
        )
        return sandbox.plan(spec, self.host, state, found)

    def _filter(self, spec: ContainerSpec) -> bytes | None:
        """The system call filter that the container gets.

        Raises:
            EngineError: a profile that can't be read, or an architecture whose system calls are not known.
        """
        if spec.seccomp == "unconfined" or spec.privileged:
            return None
        kept = frozenset(capabilities.names(kept_capabilities(spec, self.host)))
        return _compile(spec.seccomp, kept)

    def _usable(self, hierarchies: tuple[Hierarchy, ...]) -> tuple[Hierarchy, ...]:
        """The hierarchies in which we can make groups. Why not in the others is kept, for when a limit is asked for."""
        usable = []
        for hierarchy in hierarchies:
            if hierarchy.unavailable:
                self._unusable |= dict.fromkeys(hierarchy.controllers, hierarchy.unavailable)
                continue
            try:
                prepared = cgroups.prepare_parent(hierarchy)
            except OSError as error:
                self._unusable |= dict.fromkeys(hierarchy.controllers, f"{hierarchy.parent}: {error.strerror}")
                continue
            self._unusable |= dict.fromkeys(hierarchy.controllers - prepared.controllers, prepared.unavailable)
            usable.append(prepared)
        return tuple(usable)

    def _check(self, spec: ContainerSpec, wanted: Wanted) -> None:
        self._check_controllers(wanted)
        for layer in spec.layers:
            if not layer.is_dir():
                raise EngineError(f"the layer {layer} is no directory")
        for mount in spec.mounts:
            _check_mount(mount)

    def _check_controllers(self, wanted: Wanted) -> None:
        for controller in sorted(wanted.controllers):
            if not any(_controls(hierarchy, controller) for hierarchy in self.host.hierarchies):
                why = self._unusable.get(controller, "its cgroup controller isn't on, or not handed down to us")
                raise EngineError(f"cannot limit {controller} here: {why}; run without that limit, or as root")

    def _wanted(self, limits: Limits, double_swap: bool = True) -> Wanted:
        quota, period = limits.cpu_quota_microseconds, limits.cpu_period_microseconds
        if limits.cpus is not None:
            quota, period = round(limits.cpus * CPU_PERIOD_MICROSECONDS + 0.499), CPU_PERIOD_MICROSECONDS
        swap = limits.memory_swap_bytes
        if swap is None and limits.memory_bytes is not None and double_swap:
            swap = 2 * limits.memory_bytes
        return Wanted(
            memory_bytes=limits.memory_bytes,
            memory_swap_bytes=swap,
            memory_reservation_bytes=limits.memory_reservation_bytes,
            memory_swappiness=limits.memory_swappiness,
            oom_kill_disable=limits.oom_kill_disable,
            cpu_shares=limits.cpu_shares,
            cpu_quota_microseconds=quota,
            cpu_period_microseconds=period,
            cpu_realtime_period_microseconds=limits.cpu_realtime_period_microseconds,
            cpu_realtime_runtime_microseconds=limits.cpu_realtime_runtime_microseconds,
            cpuset_cpus=limits.cpuset_cpus,
            cpuset_mems=limits.cpuset_mems,
            pids=limits.pids,
            blkio_weight=limits.blkio_weight,
            blkio_weight_devices=_rates(limits.blkio_weight_devices),
            read_bytes=_rates(limits.read_bytes_per_second),
            write_bytes=_rates(limits.write_bytes_per_second),
            read_operations=_rates(limits.read_operations_per_second),
            write_operations=_rates(limits.write_operations_per_second),
        )

    def _devices(self, spec: ContainerSpec) -> tuple[tuple[DeviceNode, ...], tuple[str, ...], tuple[DeviceRule, ...]]:
        """The devices asked for, at their places in the container; where on the host they are; and rules for them."""
        if not (spec.devices or spec.privileged or spec.device_cgroup_rules):
            return (), (), ()
        found: dict[str, tuple[str, DeviceNode]] = {}
        rules = [DeviceRule.parse(rule) for rule in spec.device_cgroup_rules]
        if spec.privileged:
            usual = {device.path for device in sandbox.DEVICES}
            for node in device_nodes("/dev"):
                if node.path not in usual:
                    found[node.path] = (node.path, node)
        for device in spec.devices:
            for source, node in _nodes(device.host_path, device.target):
                found[node.path] = (source, node)
                rules.append(DeviceRule(node.kind, node.major, node.minor, device.permissions))
        sources = tuple(source for source, _ in found.values())
        return tuple(node for _, node in found.values()), sources, tuple(rules)

    def _members(self, container_id: str) -> Path:
        """A cgroup that holds all processes of the container."""
        for hierarchy in self.host.hierarchies:
            if not hierarchy.on_demand:
                return hierarchy.parent / container_id
        raise NotImplementedHere("this machine has no cgroup that holds the container's processes")

    def _freezer(self, container_id: str) -> tuple[Path, bool]:
        """The group by which a container is frozen, and whether it is joined only now."""
        # Every group of v2 can be frozen, without a controller; v1's freezer comes first where both are mounted.
        for hierarchy in sorted(self.host.hierarchies, key=lambda hierarchy: hierarchy.version):
            if hierarchy.version == 2 or "freezer" in hierarchy.controllers:
                return hierarchy.parent / container_id, hierarchy.on_demand
        reason = self._unusable.get("freezer", "this machine mounts no freezer cgroup, and no cgroup v2 for containers")
        raise NotImplementedHere(f"cannot pause a container here: {reason}")


def _environment(hostname: str, given: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, **given}


def _compile(profile: str, kept: frozenset[str]) -> bytes:
    if profile.lstrip().startswith("{"):
        try:
            return seccomp.compile_profile_text(profile, kept)
        except ValueError as error:
            raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from error
    path = _DEFAULT_PROFILE if profile == "default" else Path(profile)
    try:
        return seccomp.compile_profile_file(path, kept)
    except OSError as error:
        raise EngineError(f"cannot read the seccomp profile {path}: {error.strerror}") from error
    except ValueError as error:
        raise EngineError(f"the seccomp profile {path} can't be used: {error}") from error


def _controls(hierarchy: Hierarchy, controller: str) -> bool:
    """Whether limits of `controller`, by its name on v1, can be set in this hierarchy."""
    return ("io" if controller == "blkio" and hierarchy.version == 2 else controller) in hierarchy.controllers


def _needed(hierarchy: Hierarchy, wanted: Wanted) -> bool:
    return any(_controls(hierarchy, controller) for controller in wanted.controllers)


def _rates(rates: tuple[DeviceRate, ...]) -> tuple[tuple[str, int], ...]:
    """Rates by the numbers of their devices.

    Raises:
        InvalidParameter: no such device.
    """
    found = []
    for rate in rates:
        try:
            node = device_node(rate.path)
        except OSError as error:
            raise InvalidParameter(f"{rate.path}: {(error.strerror or '').lower()}") from error
        found.append((f"{node.major}:{node.minor}", rate.value))
    return tuple(found)


def _nodes(host_path: str, target: str) -> list[tuple[str, DeviceNode]]:
    """The device at `host_path`, or all in that directory, with the places that they get in the container.

    Raises:
        InvalidParameter: there is none.
    """
    trouble = f'error gathering device information while adding custom device "{host_path}"'
    try:
        is_directory = os.path.isdir(host_path)
        nodes = list(device_nodes(os.path.realpath(host_path))) if is_directory else [device_node(host_path)]
    except OSError as error:
        raise InvalidParameter(f"{trouble}: {(error.strerror or '').lower()}") from error
    if not nodes:
        raise InvalidParameter(f"{trouble}: not a device node")
    root = os.path.realpath(host_path) if is_directory else host_path
    return [
        (
            node.path,
            DeviceNode(
                target + node.path[len(root) :], node.kind, node.major, node.minor, node.mode, node.uid, node.gid
            ),
        )
        for node in nodes
    ]


def _check_mount(mount: Mount) -> None:
    """Raise InvalidParameter about what can't be mounted, in Docker's words."""
    if mount.kind == "bind" and not os.path.exists(mount.source):
        raise InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')


def _missing_paths(more: tuple[str, ...]) -> frozenset[str]:
    """Those of the kernel's file systems that are masked or protected usually, and that this kernel doesn't have now.

    Looked up here, where it costs less than in the container's process; a module that is loaded later can add some.
    """
    usual = (*sandbox.MASKED_PATHS, *sandbox.READ_ONLY_PATHS, *more)
    return frozenset(path for path in usual if not os.path.lexists(path))


def _init_program() -> str:
    """The small init of this machine.

    Raises:
        EngineError: none is installed.
    """
    for name in _INITS:
        found = shutil.which(name)
        if found:
            return os.path.realpath(found)
    raise EngineError("a container with an init needs docker-init or tini: apt-get install tini")


def _pid_of(pidfd: int) -> int:
    """The number of the process that `pidfd` stands for.

    Raises:
        EngineError: it has ended.
    """
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:") and int(line[4:]) > 0:
            return int(line[4:])
    raise EngineError("the container is not running")


def _pid_namespace(pid: int) -> os.stat_result:
    """What the PID namespace of a process is known by.

    Raises:
        EngineError: it has ended.
    """
    try:
        return os.stat(f"/proc/{pid}/ns/pid")
    except FileNotFoundError as error:
        raise EngineError("the container is not running") from error


__all__ = ["PRIVATE", "UNLIMITED", "Engine", "default_root"]
