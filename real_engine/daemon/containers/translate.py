"""What a container's configuration means to the kernel path: Docker's words turned into a `ContainerSpec`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.container.spec import (
    DEFAULT_PATH,
    ContainerSpec,
    Device,
    DeviceRate,
    Limits,
    Mount,
    Ulimit,
)
from real_engine.daemon.containers.merge import environment
from real_engine.daemon.containers.record import Record
from real_engine.daemon.containers.requests import seccomp_profile
from real_engine.errors import Conflict, EngineError, InvalidParameter
from real_engine.volumes.mounts import MountPoint

if TYPE_CHECKING:
    from real_engine.daemon.containers.networking import Attached
    from real_engine.daemon.containers.service import Containers

__all__ = ["DEFAULT_PATH", "NAME_FILES", "container_spec", "limits"]

Json = dict[str, Any]

NAME_FILES = {"hostname": "/etc/hostname", "hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf"}


def container_spec(
    containers: "Containers", record: Record, attached: "Attached | None", points: list[MountPoint]
) -> ContainerSpec:
    """What to run for a container that starts. `points` are its mount points, with their sources made available.

    Raises:
        InvalidParameter: something that the kernel path cannot do.
        Conflict: a container to share a namespace with does not run.
    """
    config, host = record.config, record.host_config
    directory = containers.path(record)
    privileged = host["Privileged"]
    hidden = _hidden_paths(host)
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": config["Hostname"]}
    if record.terminal:
        variables["TERM"] = "xterm"
    if attached is not None:
        variables |= attached.environment
    return ContainerSpec(
        layers=tuple(Path(layer) for layer in record.layers),
        upper=directory / "upper",
        work=directory / "work",
        volatile=host["AutoRemove"],  # gone at its end: nothing of it need ever reach the disk
        argv=(record.path, *record.args),
        environment=variables | environment(config),
        hostname=config["Hostname"],
        domainname=config["Domainname"],
        workdir=config["WorkingDir"] or "/",
        user=config["User"] or "0",
        group_add=tuple(host["GroupAdd"] or ()),
        limits=limits(host),
        network=_network(containers, record),
        pid=_shared(containers, host["PidMode"], "pid"),
        ipc=_shared(containers, host["IpcMode"], "ipc"),
        uts="host" if host["UTSMode"] == "host" else "private",
        cgroup="host" if host["CgroupnsMode"] == "host" else "private",
        read_only=host["ReadonlyRootfs"],
        mounts=_mounts(record, directory, points),
        shm_bytes=0 if host["IpcMode"] == "none" else host["ShmSize"],
        devices=tuple(_device(one) for one in host["Devices"]),
        device_cgroup_rules=tuple(host["DeviceCgroupRules"] or ()),
        privileged=privileged,
        add_capabilities=tuple(host["CapAdd"] or ()),
        drop_capabilities=tuple(host["CapDrop"] or ()),
        seccomp="unconfined" if privileged else seccomp_profile(host["SecurityOpt"]) or "default",
        no_new_privileges=_no_new_privileges(host["SecurityOpt"] or ()),
        masked_paths=hidden[0],
        readonly_paths=hidden[1],
        ulimits=tuple(Ulimit(one["Name"], one["Soft"], one["Hard"]) for one in host["Ulimits"]),
        sysctls=host.get("Sysctls") or {},
        oom_score_adj=host["OomScoreAdj"],
        tty=record.terminal,
        init=bool(host.get("Init")),
    )


def limits(host: Mapping[str, Any]) -> Limits:
    """The limits of a HostConfig."""
    swappiness = host["MemorySwappiness"]
    return Limits(
        memory_bytes=host["Memory"] or None,
        memory_swap_bytes=host["MemorySwap"] or None,
        memory_reservation_bytes=host["MemoryReservation"] or None,
        memory_swappiness=None if swappiness in (None, -1) else swappiness,
        oom_kill_disable=host["OomKillDisable"],
        cpus=host["NanoCpus"] / 1e9 if host["NanoCpus"] else None,
        cpu_shares=host["CpuShares"] or None,
        cpu_quota_microseconds=host["CpuQuota"] or None,
        cpu_period_microseconds=host["CpuPeriod"] or None,
        cpu_realtime_period_microseconds=host["CpuRealtimePeriod"] or None,
        cpu_realtime_runtime_microseconds=host["CpuRealtimeRuntime"] or None,
        cpuset_cpus=host["CpusetCpus"],
        cpuset_mems=host["CpusetMems"],
        pids=host["PidsLimit"] if host["PidsLimit"] and host["PidsLimit"] > 0 else None,
        blkio_weight=host["BlkioWeight"] or None,
        blkio_weight_devices=_rates(host["BlkioWeightDevice"], "Weight"),
        read_bytes_per_second=_rates(host["BlkioDeviceReadBps"], "Rate"),
        write_bytes_per_second=_rates(host["BlkioDeviceWriteBps"], "Rate"),
        read_operations_per_second=_rates(host["BlkioDeviceReadIOps"], "Rate"),
        write_operations_per_second=_rates(host["BlkioDeviceWriteIOps"], "Rate"),
    )


def _rates(given: list[Json] | None, field: str) -> tuple[DeviceRate, ...]:
    return tuple(DeviceRate(str(one.get("Path", "")), int(one.get(field, 0))) for one in given or ())


def _device(given: Json) -> Device:
    path = given.get("PathOnHost") or ""
    return Device(path, given.get("PathInContainer") or path, given.get("CgroupPermissions") or "rwm")


def _network(containers: "Containers", record: Record) -> str:
    """The network namespace: the host's, another container's, or the one that the supervisor is handed."""
    if record.network_mode == "host":
        return "host"
    if record.network_mode.startswith("container:"):
        return _namespace_of(containers, record.network_mode, "net")
    return "private"


def _shared(containers: "Containers", mode: str, kind: str) -> str:
    if mode == "host":
        return "host"
    return _namespace_of(containers, mode, kind) if mode.startswith("container:") else "private"


def _namespace_of(containers: "Containers", mode: str, kind: str) -> str:
    other = containers.table.get(mode.removeprefix("container:"))
    if not other.state.running or not other.state.pid:
        what = {"net": "network", "pid": "PID", "ipc": "IPC"}[kind]
        raise Conflict(f"cannot join {what} of a non running container: {other.id}")
    if kind == "ipc" and other.host_config["IpcMode"] in ("private", "none"):
        raise EngineError(
            f"can't join IPC of container {other.id}: non-shareable IPC"
            " (hint: use IpcMode:shareable for the donor container)"
        )
    return f"/proc/{other.state.pid}/ns/{kind}"


def _hidden_paths(host: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The masked and the read-only paths, where they are not the usual ones."""
    if "systempaths=unconfined" in (host["SecurityOpt"] or ()):
        return (), ()
    masked, read_only = host["MaskedPaths"], host["ReadonlyPaths"]
    return (None if masked is None else tuple(masked)), (None if read_only is None else tuple(read_only))


def _no_new_privileges(options: "list[str] | tuple[()]") -> bool:
    return any(
        option in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true") for option in options
    )


def _mounts(record: Record, directory: Path, points: list[MountPoint]) -> tuple[Mount, ...]:
    found = []
    taken = {point.destination for point in points}
    for name, target in NAME_FILES.items():
        if target not in taken and (directory / name).exists():
            found.append(Mount("bind", target, str(directory / name), read_only=record.host_config["ReadonlyRootfs"]))
    for point in points:
        if point.type == "tmpfs":
            found.append(_tmpfs(point))
        else:
            found.append(
                Mount(
                    "bind",
                    point.destination,
                    point.source,
                    read_only=not point.writable,
                    recursive=point.recursive,
                    propagation=point.propagation or "rprivate",
                )
            )
    return tuple(found)


def _tmpfs(point: MountPoint) -> Mount:
    options = {}
    if point.size_bytes:
        options["size"] = str(point.size_bytes)
    options["mode"] = f"{0o1777 if point.file_mode is None else point.file_mode:o}"
    kept = {"suid": False, "dev": False, "exec": False}
    for option in point.options:
        name, separator, value = option.partition("=")
        if name in ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks") and separator:
            options[name] = value
        elif name in kept:
            kept[name] = True
        elif name not in ("ro", "rw", "nosuid", "nodev", "noexec"):
            raise InvalidParameter(f'invalid tmpfs option ["{option}"]')
    return Mount(
        "tmpfs",
        point.destination,
        read_only=not point.writable,
        nosuid=not kept["suid"],
        nodev=not kept["dev"],
        noexec=not kept["exec"],
        options=options,
    )
