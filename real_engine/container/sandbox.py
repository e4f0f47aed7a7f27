"""From a request to a running program: every step, in order. Read it from top to bottom.

The engine makes the first three phases; at `Clone` the container's own process comes into being and does the rest by
itself, with no word from the engine, until it becomes the program. (A plan can be printed without being executed.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from real_engine.container.attachments import AttachMount, BindDevice, BorrowSharedMemory, MakeDevices, MakeLinks
from real_engine.container.confinement import (
    ChangeUser,
    CheckInterpreter,
    DropBoundingSet,
    EnterDirectory,
    InstallFilter,
    LimitResources,
    LookUpUser,
    NoNewPrivileges,
    SetCapabilities,
)
from real_engine.container.filesystem import (
    AttachRoot,
    AttachTree,
    CloneTree,
    EnterTrueRoot,
    HoldMountNamespace,
    MakePrivate,
    MakeReadOnly,
    MaskPath,
    MountFiles,
    MountFilesystem,
    MountRoot,
    PivotRoot,
    ProtectPath,
)
from real_engine.container.grouping import (
    FilterDevices,
    JoinCgroups,
    MakeCgroup,
    NewCgroupNamespace,
    WriteSettings,
)
from real_engine.container.host import Host
from real_engine.container.namespaces import (
    Clone,
    DieWithEngine,
    DieWithEngineStill,
    HideMemory,
    JoinNamespaces,
    JoinNetwork,
    LoopbackUp,
    MapUser,
    SetHostname,
    SetOomScore,
    WriteSysctls,
)
from real_engine.container.program import ConnectStreams, Execute, NewSession, OpenTerminal
from real_engine.container.resources import Mount
from real_engine.container.spec import HOST, PRIVATE, ContainerSpec
from real_engine.container.state import KeptDirectories, StateDirectory
from real_engine.container.steps import Operation, Phase, Site
from real_engine.linux import capabilities, cgroup_limits, cgroups, device_filter
from real_engine.linux.cgroup_limits import Wanted
from real_engine.linux.cgroups import Hierarchy
from real_engine.linux.devices import DeviceNode, DeviceRule
from real_engine.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from real_engine.linux.processes import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

# Source: Documentation/admin-guide/devices.txt.
DEVICES = tuple(
    DeviceNode(f"/dev/{name}", "c", major, minor, 0o666, 0, 0)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
# Every device may be made, and only these be used: programs that unpack an archive, or fill a root file system, make
# nodes that they never open (moby, oci/defaults.go). Beside the devices above they are console, ptmx, and the slaves of
# pseudo-terminals.
DEVICE_RULES = (
    DeviceRule("c", None, None, "m"),
    DeviceRule("b", None, None, "m"),
    *(DeviceRule(device.kind, device.major, device.minor) for device in DEVICES),
    DeviceRule("c", 5, 1),
    DeviceRule("c", 5, 2),
    DeviceRule("c", 136, None),
)
_DEVICE_PROGRAM = device_filter.device_program(DEVICE_RULES)
_DEVICE_SETTINGS = tuple(cgroups.device_settings(DEVICE_RULES))
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# Docker's lists (moby, oci/defaults.go), of which what this kernel doesn't have is passed over.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

INIT = "/sbin/docker-init"  # where Docker puts it too
_SHM = "/dev/shm"  # noqa: S108 -- the container's own

_ONLY_DATA = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_SYS_ADMIN, _MKNOD = capabilities.mask(["SYS_ADMIN"]), capabilities.mask(["MKNOD"])


@dataclass(frozen=True, slots=True)
class Found:
    """What the engine has looked up on the host before it makes a plan.

    `filter_bytes` is the compiled system call filter; `devices` are those that were asked for, at their places in the
    container, with `device_rules` for their use, and `device_sources` where on the host they are; `init` is the path of
    the small init that is to be process 1, if one is. `missing_paths` are those usually masked or protected which this
    kernel doesn't have. `network_given` says that a network namespace was prepared.
    """

    hostname: str
    environment: Mapping[str, str]
    wanted: Wanted = field(default_factory=Wanted)
    filter_bytes: bytes | None = None
    devices: tuple[DeviceNode, ...] = ()
    device_sources: tuple[str, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    init: str = ""
    missing_paths: frozenset[str] = frozenset()
    network_given: bool = False
    die_with_engine: bool = True


@dataclass(slots=True)
class MakeState(Operation):
    """Make the container's directories."""

    why = "a place for what the container writes, locked so that it can be collected should the engine be killed"
    state: StateDirectory | KeptDirectories

    def execute(self, site: Site) -> None:
        """Make them."""
        self.state.make()

    def describe(self) -> str:
        """The calls, as for every operation."""
        if isinstance(self.state, KeptDirectories):
            return f'mkdir("{self.state.upper}", "{self.state.work}")'
        return f'mkdir("{self.state.directory}", its upper and work directories), flock()'


def plan(spec: ContainerSpec, host: Host, state: StateDirectory | KeptDirectories, found: Found) -> tuple[Phase, ...]:
    """The phases from nothing to a program that runs as `spec` says. Nothing is done yet, and nothing looked at."""
    rootless = host.rootless
    kept = kept_capabilities(spec, host)
    can_mount = not rootless and kept & _SYS_ADMIN
    needed, container_id = found.wanted.controllers, state.id
    groups = [
        (hierarchy, f"{hierarchy.parent}/{container_id}")
        for hierarchy in host.hierarchies
        if can_mount or not hierarchy.on_demand or hierarchy.controllers & needed
    ]
    own_network = spec.private_network and not found.network_given
    replaced = {mount.target for mount in spec.mounts}
    binds = {f"mount {number}": mount for number, mount in enumerate(spec.mounts) if mount.kind == "bind"}

    prepare: list[Operation] = [MakeState(state)]

    cgroup: list[Operation] = []
    for hierarchy, group in groups:
        cgroup += [MakeCgroup(hierarchy, group), *_settings(spec, host, hierarchy, group, found)]

    clone: list[Operation] = [
        Clone(_namespaces(spec, own_network, rootless), spec.pid if spec.pid.startswith("/") else ""),
        *([DieWithEngine()] if found.die_with_engine else []),
        *([SetOomScore(spec.oom_score_adj)] if spec.oom_score_adj != host.oom_score_adj else []),
        *([MapUser(host.uid, host.gid)] if rootless else []),
        *([JoinCgroups()] if any(hierarchy.version == 1 for hierarchy, _ in groups) else []),
        *([NewCgroupNamespace()] if groups and spec.cgroup == PRIVATE else []),
        *([JoinNetwork()] if found.network_given else []),
        *_joined(spec),
    ]

    mounts: list[Operation] = [
        HoldMountNamespace(),
        MountRoot(
            spec.layers,
            state.upper,
            state.work,
            state.mountpoint,
            host.lends_devices,
            volatile=spec.volatile or isinstance(state, StateDirectory),
        ),
        *(CloneTree(group, group) for _, group in groups),
        *_lent_devices(host, found),
        *_host_sysfs(spec, host),
        *([CloneTree("/proc", "proc", recursive=True)] if _lends_processes(spec, host) else []),
        *(CloneTree(mount.source, name, None, mount.recursive, follow_links=True) for name, mount in binds.items()),
        *([CloneTree(found.init, INIT, follow_links=True)] if found.init else []),
        *_shared_ipc(spec, host, replaced),
        EnterTrueRoot(),
        MakePrivate(),
        AttachRoot(state.mountpoint),
        *_processes(spec, host),
        *_devices(spec, host, found, binds),
        *(
            [MountFilesystem("POSIX message queues of its own", "mqueue", "/dev/mqueue", {}, _ONLY_DATA)]
            if "/dev/mqueue" not in replaced and not _lends_ipc(spec, host)
            else []
        ),
        *_shared_memory(spec, host, replaced),
        *(_sysfs(spec, groups, host) if "/sys" not in replaced else []),
        *_asked_for(spec, binds),
        *([AttachMount(INIT, Mount("bind", INIT, found.init, read_only=True))] if found.init else []),
        *([WriteSysctls(dict(spec.sysctls))] if spec.sysctls else []),
        *_protected(spec, host, found),
        *_names(spec, found.hostname, replaced),
        *([MakeReadOnly("asked for: nothing in the root may be written", "/")] if spec.read_only else []),
    ]

    pivot: list[Operation] = [
        LookUpUser(spec.user, spec.group_add),
        *([OpenTerminal(console=True)] if spec.tty else []),
        PivotRoot(),
        HideMemory(),
    ]

    argv = (INIT, "--", *spec.argv) if found.init else spec.argv
    # Without no_new_privs a filter takes CAP_SYS_ADMIN to install, which is kept for that one step.
    until_filter = 0 if spec.no_new_privileges or found.filter_bytes is None else _SYS_ADMIN
    confine: list[Operation] = [
        *([SetHostname(found.hostname, spec.domainname)] if spec.uts == PRIVATE else []),
        *([LoopbackUp()] if own_network else []),
        ConnectStreams(),
        NewSession(terminal=spec.tty),
        LimitResources(spec.ulimits),
        EnterDirectory(spec.workdir),
        CheckInterpreter(argv[0], found.environment),
        DropBoundingSet(host.held_capabilities & ~kept),
        ChangeUser(rootless, host.may_set_groups, keep_capabilities=until_filter != 0),
        SetCapabilities(kept, until_filter),
        *([DieWithEngineStill()] if found.die_with_engine else []),
        *([NoNewPrivileges()] if spec.no_new_privileges else []),
        *([InstallFilter(found.filter_bytes)] if found.filter_bytes is not None else []),
        *([SetCapabilities(kept)] if until_filter else []),
    ]

    return (
        Phase("prepare", tuple(prepare)),
        Phase("cgroup", tuple(cgroup)),
        Phase("clone", tuple(clone)),
        Phase("mounts", tuple(mounts)),
        Phase("pivot", tuple(pivot)),
        Phase("confine", tuple(confine)),
        Phase("exec", (Execute(argv, found.environment),)),
    )


def kept_capabilities(spec: ContainerSpec, host: Host) -> int:
    """What the container's root may do of what we may."""
    kept = spec.capability_mask & host.held_capabilities
    filtered = any(
        (hierarchy.version == 2 and not hierarchy.beside) or "devices" in hierarchy.controllers
        for hierarchy in host.hierarchies
    )
    if not spec.privileged and not host.lends_devices and not filtered:
        kept &= ~_MKNOD  # no cgroup keeps a device made in the container from being opened
    return kept


def _namespaces(spec: ContainerSpec, own_network: bool, rootless: bool) -> int:
    """The new namespaces, as bits of clone3. That of the cgroup is made later, in the container's group."""
    wanted = {
        CLONE_NEWNS: True,
        CLONE_NEWPID: spec.pid == PRIVATE,
        CLONE_NEWIPC: spec.ipc == PRIVATE,
        CLONE_NEWUTS: spec.uts == PRIVATE,
        CLONE_NEWNET: own_network,
        CLONE_NEWUSER: rootless,
    }
    return sum(bit for bit, is_wanted in wanted.items() if is_wanted)


def _joined(spec: ContainerSpec) -> list[Operation]:
    """Namespaces that exist. That of the processes is not among them: one has to be born in it."""
    kinds = (
        (spec.ipc, CLONE_NEWIPC),
        (spec.uts, CLONE_NEWUTS),
        (spec.network, CLONE_NEWNET),
        (spec.cgroup, CLONE_NEWCGROUP),
    )
    paths = {path: kind for path, kind in kinds if path.startswith("/")}
    return [JoinNamespaces(paths)] if paths else []


def _settings(spec: ContainerSpec, host: Host, hierarchy: Hierarchy, group: str, found: Found) -> list[Operation]:
    """What the cgroup in this hierarchy limits, and which devices it lets through."""
    operations: list[Operation] = []
    settings = cgroup_limits.limit_settings(hierarchy, found.wanted)
    if settings:
        operations += [WriteSettings("the limits that were asked for", group, tuple(settings))]
    if host.lends_devices or spec.privileged or hierarchy.beside:
        return operations  # in a user namespace no device can be made, and none opened that the host's root didn't make
    rules = (*DEVICE_RULES, *found.device_rules)
    if hierarchy.version == 2:
        program = device_filter.device_program(rules) if found.device_rules else _DEVICE_PROGRAM
        operations += [FilterDevices(program)]
    elif "devices" in hierarchy.controllers:
        written = tuple(cgroups.device_settings(rules)) if found.device_rules else _DEVICE_SETTINGS
        operations += [WriteSettings(FilterDevices.why, group, written)]
    return operations


def _lent_devices(host: Host, found: Found) -> list[Operation]:
    """Copies of the host's devices, where none can be made."""
    if not host.lends_devices:
        return []
    sources = [*(device.path for device in DEVICES), *found.device_sources]
    return [
        CloneTree(source, device.path, device, follow_links=True)
        for source, device in zip(sources, (*DEVICES, *found.devices), strict=True)
    ]


def _devices(spec: ContainerSpec, host: Host, found: Found, binds: dict[str, Mount]) -> list[Operation]:
    """The container's /dev, or that of the host if it was asked for, and its terminals."""
    tty_group = {} if host.tty_group is None else {"gid": str(host.tty_group)}
    terminals = MountFilesystem(
        "pseudo-terminals of its own",
        "devpts",
        "/dev/pts",
        {"ptmxmode": "0666", "mode": "0620", **tty_group},
        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
    )
    own_terminals = [] if any(mount.target == "/dev/pts" for mount in spec.mounts) else [terminals]
    for name, mount in binds.items():
        if mount.target == "/dev":
            return [AttachMount(name, mount, is_ours=True), *own_terminals]
    if host.lends_devices:
        made: list[Operation] = [BindDevice(device.path, device.path) for device in (*DEVICES, *found.devices)]
    else:
        made = [MakeDevices("the devices that every program may expect", DEVICES)]
        made += [MakeDevices("asked for", found.devices)] if found.devices else []
    own: dict[str, str | None] = {"mode": "755", "size": "65536k"}
    return [
        MountFilesystem("an empty /dev of its own", "tmpfs", "/dev", own, MOUNT_ATTR_NOSUID),
        *made,
        MakeLinks("/dev", DEVICE_LINKS),
        *own_terminals,
    ]


def _lends_ipc(spec: ContainerSpec, host: Host) -> bool:
    """Whether message queues are the host's, and can't be mounted again, for its namespace isn't ours."""
    return spec.ipc == HOST and host.lends_devices


def _shared_ipc(spec: ContainerSpec, host: Host, replaced: set[str]) -> list[Operation]:
    """Copies of what lives in mounts of whoever the IPC namespace is shared with."""
    if spec.ipc == HOST:
        paths = (_SHM, "/dev/mqueue") if _lends_ipc(spec, host) else (_SHM,)
        return [CloneTree(path, path) for path in paths if path not in replaced]
    if spec.ipc.startswith("/proc/") and _SHM not in replaced:
        return [BorrowSharedMemory(str(Path(spec.ipc).with_name("mnt")), _SHM)]
    return []


def _shared_memory(spec: ContainerSpec, host: Host, replaced: set[str]) -> list[Operation]:
    """The container's own shared memory, or that of whoever the IPC namespace is shared with."""
    shared = {
        step.name for step in _shared_ipc(spec, host, replaced) if isinstance(step, (CloneTree, BorrowSharedMemory))
    }
    if shared:
        binds = [Mount("bind", path, path, nosuid=True, nodev=True, noexec=True) for path in sorted(shared)]
        return [AttachMount(bind.target, bind) for bind in binds]
    if _SHM in replaced or not spec.shm_bytes:
        return []
    options: dict[str, str | None] = {"mode": "1777", "size": str(spec.shm_bytes)}
    return [MountFilesystem("shared memory", "tmpfs", _SHM, options, _ONLY_DATA)]


def _lends_processes(spec: ContainerSpec, host: Host) -> bool:
    """Whether /proc is the host's, for a user namespace may not mount it for processes that aren't its own."""
    return spec.pid == HOST and host.lends_devices


def _processes(spec: ContainerSpec, host: Host) -> list[Operation]:
    if _lends_processes(spec, host):
        return [AttachTree("all processes of the host", "proc", "/proc", recursive=True, read_only=False)]
    return [MountFilesystem("processes, as seen from the new PID namespace", "proc", "/proc", {}, _ONLY_DATA)]


def _host_sysfs(spec: ContainerSpec, host: Host) -> list[Operation]:
    """A user namespace may not mount sysfs for a network that isn't its own: take the host's with all beneath it."""
    return [CloneTree("/sys", "sys", recursive=True)] if host.lends_devices and spec.network == HOST else []


def _sysfs(spec: ContainerSpec, groups: list[tuple[Hierarchy, str]], host: Host) -> list[Operation]:
    """/sys and the container's own cgroups in it, all read-only unless it is privileged."""
    if _host_sysfs(spec, host):
        return [AttachTree("devices and the host's network, read-only", "sys", "/sys", recursive=True)]
    read_only = not spec.privileged
    flags = _ONLY_DATA | (MOUNT_ATTR_RDONLY if read_only else 0)
    operations: list[Operation] = [MountFilesystem("devices and the network, read-only", "sysfs", "/sys", {}, flags)]
    why = "the container may read how it is limited and what it uses, and change nothing"
    top = "/sys/fs/cgroup"
    if any(mount.target == top for mount in spec.mounts):
        return operations
    if any(hierarchy.version == 1 for hierarchy, _ in groups):
        why_top = "one directory for each cgroup hierarchy"
        operations += [MountFilesystem(why_top, "tmpfs", top, {"mode": "755", "size": "1m"}, _ONLY_DATA)]
        names = [(hierarchy.name or "unified", group) for hierarchy, group in groups]
        operations += [AttachTree(why, group, f"{top}/{name}", read_only=read_only) for name, group in names]
        operations += [MakeReadOnly("no more directories than these", top)] if read_only else []
    else:
        operations += [AttachTree(why, group, top, read_only=read_only) for _, group in groups]
    return operations


def _asked_for(spec: ContainerSpec, binds: dict[str, Mount]) -> list[Operation]:
    """Mounts that the owner wants, those nearer to the root first, so that none hides another."""
    wanted: list[tuple[str, Operation]] = [
        (mount.target, AttachMount(name, mount, is_ours=mount.target in ("/sys", "/dev/pts")))
        for name, mount in binds.items()
        if mount.target != "/dev"
    ]
    for mount in spec.mounts:
        if mount.kind != "bind":
            flags = AttachMount("", mount).attributes
            why = "asked for: memory that is gone with the container"
            wanted += [(mount.target, MountFilesystem(why, mount.kind, mount.target, dict(mount.options), flags, True))]
    for path in spec.tmpfs:
        why = "asked for: memory that is gone with the container"
        wanted += [(path, MountFilesystem(why, "tmpfs", path, {"mode": "1777"}, _ONLY_DATA, follow_links=True))]
    return [operation for _, operation in sorted(wanted, key=lambda pair: pair[0].rstrip("/").count("/"))]


def _protected(spec: ContainerSpec, host: Host, found: Found) -> list[Operation]:
    """What may only be read, and what may not even be seen."""
    if spec.privileged and spec.masked_paths is None and spec.readonly_paths is None:
        return []
    protected = READ_ONLY_PATHS if spec.readonly_paths is None else spec.readonly_paths
    masked = (*MASKED_PATHS, *host.masked_paths) if spec.masked_paths is None else spec.masked_paths
    return [
        *(ProtectPath(path) for path in protected if path not in found.missing_paths),
        *(MaskPath(path) for path in masked if path not in found.missing_paths),
    ]


def _names(spec: ContainerSpec, hostname: str, replaced: set[str]) -> list[Operation]:
    """The files that say what this machine is called and, with the host's network, whom to ask for other names."""
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    files = {"/etc/hostname": f"{hostname}\n".encode(), "/etc/hosts": hosts.encode()}
    resolver = Path("/etc/resolv.conf")
    if spec.network == HOST and resolver.exists():
        files["/etc/resolv.conf"] = resolver.read_bytes()
    left = {path: content for path, content in files.items() if path not in replaced}
    memory = _SHM if "/dev" in replaced else "/dev"
    return [MountFiles(left, memory)] if left else []
