"""From a request to a running program: every step, in order. Read it from top to bottom.

The engine makes the first three phases; at `Clone` the container's own process comes into being and does the rest by
itself, with no word from the engine, until it becomes the program. (A plan can be printed without being executed.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from real_engine.container.confinement import (
    ChangeUser,
    CheckInterpreter,
    Clone,
    DieWithEngine,
    DieWithEngineStill,
    DropBoundingSet,
    EnterDirectory,
    Execute,
    FilterDevices,
    HideMemory,
    InstallFilter,
    JoinCgroups,
    LimitResources,
    LookUpUser,
    LoopbackUp,
    MakeCgroup,
    MapUser,
    NewCgroupNamespace,
    NewSession,
    NoNewPrivileges,
    SetCapabilities,
    SetHostname,
    WriteSettings,
)
from real_engine.container.filesystem import (
    AttachRoot,
    AttachTree,
    BindDevice,
    CloneTree,
    EnterTrueRoot,
    HoldMountNamespace,
    MakeDevices,
    MakeLinks,
    MakePrivate,
    MakeReadOnly,
    MaskPath,
    MountFiles,
    MountFilesystem,
    MountRoot,
    PivotRoot,
    ProtectPath,
)
from real_engine.container.spec import ContainerSpec
from real_engine.container.state import StateDirectory
from real_engine.container.steps import Operation, Phase, Site
from real_engine.linux import capabilities, cgroups, device_filter
from real_engine.linux.cgroups import Hierarchy
from real_engine.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from real_engine.linux.processes import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

# Source: Documentation/admin-guide/devices.txt.
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
# What may be used beside them: console, ptmx, and the slaves of pseudo-terminals.
TERMINAL_DEVICES: list[tuple[int, int | None]] = [(5, 1), (5, 2), (136, None)]
_USABLE_DEVICES = (*DEVICES.values(), *TERMINAL_DEVICES)
_DEVICE_PROGRAM = device_filter.device_program(_USABLE_DEVICES)
_DEVICE_SETTINGS = tuple(cgroups.device_settings(_USABLE_DEVICES))
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
_PROTECTED = tuple(ProtectPath(path) for path in READ_ONLY_PATHS)
_MASKED = tuple(MaskPath(path) for path in MASKED_PATHS)

_NO_SETUID_NO_DEVICES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_ONLY_DATA = _NO_SETUID_NO_DEVICES | MOUNT_ATTR_NOEXEC


@dataclass(frozen=True, slots=True)
class Host:
    """What a plan has to know about the machine and the engine's rights on it.

    `uid` and `gid` are the engine's own; `held_capabilities` is the bounding set that the container's process begins
    with. `masked_paths` are those of this machine beside the ones that all machines have.
    """

    uid: int
    gid: int
    held_capabilities: int
    hierarchies: tuple[Hierarchy, ...]
    masked_paths: tuple[str, ...] = ()

    @property
    def rootless(self) -> bool:
        """Whether the engine runs as an ordinary user, so that the container needs a user namespace."""
        return self.uid != 0


@dataclass(slots=True)
class MakeState(Operation):
    """Make the container's directories."""

    why = "a place for what the container writes, locked so that it can be collected should the engine be killed"
    state: StateDirectory

    def execute(self, site: Site) -> None:
        """Make them."""
        self.state.make()

    def describe(self) -> str:
        """The calls, as for every operation."""
        return f'mkdir("{self.state.directory}", its upper and work directories), flock()'


def plan(
    spec: ContainerSpec,
    host: Host,
    state: StateDirectory,
    hostname: str,
    environment: Mapping[str, str],
    filter_bytes: bytes | None,
) -> tuple[Phase, ...]:
    """The phases from nothing to a program that runs as `spec` says. Nothing is done yet, and nothing looked at."""
    groups = [(hierarchy, hierarchy.parent / state.id) for hierarchy in host.hierarchies]
    rootless = host.rootless
    kept = spec.capability_mask & host.held_capabilities
    if not rootless and not any(
        hierarchy.version == 2 or "devices" in hierarchy.controllers for hierarchy, _ in groups
    ):
        kept &= ~capabilities.mask(["MKNOD"])  # no cgroup keeps a device made in the container from being opened
    namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    namespaces |= (CLONE_NEWNET if spec.network == "none" else 0) | (CLONE_NEWUSER if rootless else 0)

    prepare: list[Operation] = [MakeState(state)]

    cgroup: list[Operation] = []
    for hierarchy, group in groups:
        cgroup += [MakeCgroup(hierarchy, group), *_settings(spec, hierarchy, group, rootless)]

    clone: list[Operation] = [Clone(namespaces), DieWithEngine()]
    if rootless:
        clone += [MapUser(host.uid, host.gid)]
    if any(hierarchy.version == 1 for hierarchy, _ in groups):
        clone += [JoinCgroups()]
    if groups:
        clone += [NewCgroupNamespace()]

    mounts: list[Operation] = [
        HoldMountNamespace(),
        MountRoot(spec.layers, state.upper, state.work, state.mountpoint, rootless),
        *(CloneTree(str(group), str(group)) for _, group in groups),
        *(CloneTree(f"/dev/{name}", name, device) for name, device in DEVICES.items() if rootless),
        *_host_sysfs(spec, rootless),
        EnterTrueRoot(),
        MakePrivate(),
        AttachRoot(state.mountpoint),
        MountFilesystem("processes, as seen from the new PID namespace", "proc", "/proc", {}, _ONLY_DATA),
        MountFilesystem(
            "an empty /dev of its own", "tmpfs", "/dev", {"mode": "755", "size": "65536k"}, MOUNT_ATTR_NOSUID
        ),
        *([BindDevice(name) for name in DEVICES] if rootless else [MakeDevices(DEVICES)]),
        MakeLinks("/dev", DEVICE_LINKS),
        MountFilesystem(
            "pseudo-terminals of its own",
            "devpts",
            "/dev/pts",
            # 5 is the group tty, which a user namespace with one user doesn't have.
            {"ptmxmode": "0666", "mode": "0620", **({} if rootless else {"gid": "5"})},
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
        ),
        MountFilesystem("POSIX message queues of its own", "mqueue", "/dev/mqueue", {}, _ONLY_DATA),
        MountFilesystem("shared memory", "tmpfs", "/dev/shm", {"mode": "1777", "size": "65536k"}, _ONLY_DATA),  # noqa: S108
        *_sysfs(spec, groups, rootless),
        *_PROTECTED,
        *_MASKED,
        *(MaskPath(path) for path in host.masked_paths),
        *(
            MountFilesystem(
                "asked for: memory that is gone with the container",
                "tmpfs",
                path,
                {"mode": "1777"},
                _ONLY_DATA,
                follow_links=True,
            )
            for path in spec.tmpfs
        ),
        _names(spec, hostname),
    ]
    if spec.read_only:
        mounts += [MakeReadOnly("asked for: nothing in the root may be written", "/")]

    pivot: list[Operation] = [LookUpUser(spec.user), PivotRoot(), HideMemory()]

    confine: list[Operation] = [
        SetHostname(hostname),
        *([LoopbackUp()] if spec.network == "none" else []),
        NewSession(),
        LimitResources(),
        EnterDirectory(spec.workdir),
        CheckInterpreter(spec.argv[0], environment),
        DropBoundingSet(host.held_capabilities & ~kept),
        ChangeUser(rootless),
        SetCapabilities(kept),
        DieWithEngineStill(),
        NoNewPrivileges(),
        *([InstallFilter(filter_bytes)] if filter_bytes is not None else []),
    ]

    return (
        Phase("prepare", tuple(prepare)),
        Phase("cgroup", tuple(cgroup)),
        Phase("clone", tuple(clone)),
        Phase("mounts", tuple(mounts)),
        Phase("pivot", tuple(pivot)),
        Phase("confine", tuple(confine)),
        Phase("exec", (Execute(spec.argv, environment),)),
    )


def _settings(spec: ContainerSpec, hierarchy: Hierarchy, group: Path, rootless: bool) -> list[Operation]:
    """What the cgroup in this hierarchy limits, and which devices it lets through."""
    operations: list[Operation] = []
    limits = spec.limits
    settings = cgroups.limit_settings(hierarchy, limits.memory_bytes, limits.cpus, limits.pids)
    if settings:
        operations += [WriteSettings("the limits that were asked for", group, tuple(settings))]
    if rootless:
        return operations  # in a user namespace no device can be made, and none opened that the host's root didn't make
    if hierarchy.version == 2:
        operations += [FilterDevices(_DEVICE_PROGRAM)]
    elif "devices" in hierarchy.controllers:
        operations += [WriteSettings(FilterDevices.why, group, _DEVICE_SETTINGS)]
    return operations


def _host_sysfs(spec: ContainerSpec, rootless: bool) -> list[Operation]:
    """A user namespace may not mount sysfs for a network that isn't its own: take the host's with all beneath it."""
    return [CloneTree("/sys", "sys", recursive=True)] if rootless and spec.network == "host" else []


def _sysfs(spec: ContainerSpec, groups: list[tuple[Hierarchy, Path]], rootless: bool) -> list[Operation]:
    """/sys and the container's own cgroups in it, all read-only."""
    if _host_sysfs(spec, rootless):
        return [AttachTree("devices and the host's network, read-only", "sys", "/sys", recursive=True)]
    read_only = _ONLY_DATA | MOUNT_ATTR_RDONLY
    operations: list[Operation] = [
        MountFilesystem("devices and the network, read-only", "sysfs", "/sys", {}, read_only)
    ]
    why = "the container may read how it is limited and what it uses, and change nothing"
    top = "/sys/fs/cgroup"
    if any(hierarchy.version == 1 for hierarchy, _ in groups):
        why_top = "one directory for each cgroup hierarchy"
        operations += [MountFilesystem(why_top, "tmpfs", top, {"mode": "755", "size": "1m"}, _ONLY_DATA)]
        names = [(hierarchy.name or "unified", group) for hierarchy, group in groups]
        operations += [AttachTree(why, str(group), f"{top}/{name}") for name, group in names]
        operations += [MakeReadOnly("no more directories than these", top)]
    else:
        operations += [AttachTree(why, str(group), top) for _, group in groups]
    return operations


def _names(spec: ContainerSpec, hostname: str) -> MountFiles:
    """The files that say what this machine is called and, with the host's network, whom to ask for other names."""
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    files = {"/etc/hostname": f"{hostname}\n".encode(), "/etc/hosts": hosts.encode()}
    resolver = Path("/etc/resolv.conf")
    if spec.network == "host" and resolver.exists():
        files["/etc/resolv.conf"] = resolver.read_bytes()
    return MountFiles(files)
