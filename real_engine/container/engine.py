"""The engine: starts containers from a data root, watches over them, and leaves nothing behind.

`Engine.start` must be called by a thread that lives as long as the container: the kernel kills the container when that
thread ends. `real_engine.linux.processes` tells why that had better be the only one.
"""

import os
import platform
import sys
from pathlib import Path

from real_engine.container.container import Container, Observer, remove_cgroups
from real_engine.container.sandbox import Host, plan
from real_engine.container.spec import DEFAULT_PATH, ContainerSpec
from real_engine.container.state import StateDirectory, prepare_root, stale
from real_engine.container.steps import Instant, Phase
from real_engine.errors import EngineError
from real_engine.linux import capabilities, cgroups, seccomp
from real_engine.linux.cgroups import Hierarchy

_DEFAULT_PROFILE = Path(__file__).with_name("seccomp_default.json")


def default_root() -> Path:
    """Where images and containers are kept: /var/lib/onggi for root, else in the user's own data directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/onggi")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "onggi"


class Engine:
    """Starts containers, and keeps what they need under `root` (mode 0700). Many engines can share one root.

    `hierarchies` are the cgroup hierarchies to use; without them, those of this machine. What a killed engine has left
    under `root` is collected first.

    Raises:
        EngineError: not Linux, or no right to use `root`.
    """

    def __init__(self, root: Path | None = None, hierarchies: tuple[Hierarchy, ...] | None = None) -> None:
        if sys.platform != "linux":
            raise EngineError("containers need a Linux kernel; simulations and reports work here")
        self.root = default_root() if root is None else root.absolute()
        try:
            self.containers = prepare_root(self.root)
        except OSError as error:
            raise EngineError(
                f"cannot keep containers in {error.filename}: {error.strerror}; name another --root"
            ) from error
        self._unusable: dict[str, str] = {}
        self.host = Host(
            uid=os.geteuid(),
            gid=os.getegid(),
            # A container of an ordinary user has a user namespace, which begins with all capabilities in itself.
            held_capabilities=capabilities.status_mask("CapBnd") if os.geteuid() == 0 else capabilities.all_known(),
            hierarchies=self._usable(cgroups.hierarchies() if hierarchies is None else hierarchies),
            masked_paths=tuple(
                str(path) for path in sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle"))
            ),
        )
        self.sweep()

    def plan(self, spec: ContainerSpec, container_id: str = "ID") -> tuple[Phase, ...]:
        """What `start` would do, step by step.

        Raises:
            EngineError: a limit that can't be set here, a profile that can't be read, a layer that doesn't exist.
        """
        return self._plan(spec, StateDirectory(self.containers / container_id))

    def start(
        self, spec: ContainerSpec, stdin: int = 0, stdout: int = 1, stderr: int = 2, observer: Observer | None = None
    ) -> Container:
        """Start a container whose standard input and outputs are these descriptors; it runs when this returns.

        `observer` is called before each step, in the process that is about to do it; what it raises fails the step.

        Raises:
            StartError: a step failed. Nothing of the container is left.
            EngineError: see `plan`.
        """
        requested = Instant.now()
        state = StateDirectory(self.containers / os.urandom(6).hex())
        container = Container(state, self._plan(spec, state), self.host.hierarchies, requested)
        try:
            container.start((stdin, stdout, stderr), observer)
        except BaseException:
            container.remove()
            raise
        return container

    def sweep(self) -> list[str]:
        """Kill and remove what engines that were killed have left under the root; returns the ids."""
        swept = []
        for state in stale(self.containers):
            remove_cgroups(self.host.hierarchies, state.id)
            state.remove()
            swept.append(state.id)
        return swept

    def _plan(self, spec: ContainerSpec, state: StateDirectory) -> tuple[Phase, ...]:
        self._check(spec)
        hostname = spec.hostname or (state.id if spec.network == "none" else platform.node())
        environment = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, **spec.environment}
        return plan(spec, self.host, state, hostname, environment, _filter(spec))

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

    def _check(self, spec: ContainerSpec) -> None:
        limits = spec.limits
        have: set[str] = set().union(*(hierarchy.controllers for hierarchy in self.host.hierarchies))
        for controller, value in (("memory", limits.memory_bytes), ("cpu", limits.cpus), ("pids", limits.pids)):
            if value is not None and controller not in have:
                why = self._unusable.get(controller, "its cgroup controller isn't on, or not handed down to us")
                raise EngineError(f"cannot limit {controller} here: {why}; run without that limit, or as root")
        for layer in spec.layers:
            if not layer.is_dir():
                raise EngineError(f"the layer {layer} is no directory")


def _filter(spec: ContainerSpec) -> bytes | None:
    """The system call filter that the container gets.

    Raises:
        EngineError: a profile that can't be read, or an architecture whose system calls are not known.
    """
    if spec.seccomp == "unconfined":
        return None
    path = _DEFAULT_PROFILE if spec.seccomp == "default" else Path(spec.seccomp)
    try:
        return seccomp.compile_profile_file(path, frozenset(capabilities.names(spec.capability_mask)))
    except OSError as error:
        raise EngineError(f"cannot read the seccomp profile {path}: {error.strerror}") from error
    except ValueError as error:
        raise EngineError(f"the seccomp profile {path} can't be used: {error}") from error
