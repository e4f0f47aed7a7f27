"""A container as the API shows it: whole, for `inspect`, and in a line, for `ps`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from real_engine.container.sandbox import MASKED_PATHS, READ_ONLY_PATHS
from real_engine.daemon.containers.record import Record
from real_engine.daemon.containers.requests import port_range
from real_engine.times import ago, from_rfc3339, now

Json = dict[str, Any]


def endpoint(settings: Mapping[str, Any]) -> Json:
    """A network's EndpointSettings, every field there."""
    empty: Json = {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
        "DriverOpts": None,
    }
    return {name: settings.get(name, default) for name, default in empty.items()}


def inspect(record: Record, directory: Path, execs: list[str], size: tuple[int, int] | None = None) -> Json:
    """Everything about a container. `size` is (bytes written, bytes in all) when it was asked for."""
    networks = {name: endpoint(settings) for name, settings in record.networks.items()}
    default = networks.get("bridge", {})
    state = record.state
    shown_state: Json = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.paused,
        "Restarting": state.restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if record.health is not None:
        shown_state["Health"] = {
            "Status": record.health.status,
            "FailingStreak": record.health.failing_streak,
            "Log": record.health.log,
        }
    host_config = dict(record.host_config)
    if not host_config["Privileged"]:
        host_config["MaskedPaths"] = host_config["MaskedPaths"] or list(MASKED_PATHS)
        host_config["ReadonlyPaths"] = host_config["ReadonlyPaths"] or list(READ_ONLY_PATHS)
    found: Json = {
        "Id": record.id,
        "Created": record.created,
        "Path": record.path,
        "Args": record.args,
        "State": shown_state,
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": "" if host_config["LogConfig"]["Type"] == "none" else str(log_path(record, directory)),
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "HostConfig": host_config,
        "GraphDriver": {
            "Data": {
                "LowerDir": ":".join(reversed(record.layers)),
                "MergedDir": str(directory / "merged"),
                "UpperDir": str(directory / "upper"),
                "WorkDir": str(directory / "work"),
            },
            "Name": "overlay2",
        },
        "Mounts": mounts(record),
        "Config": record.config,
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": record.sandbox_id,
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "Ports": _ports(record),
            "SandboxKey": f"/proc/{state.pid}/ns/net" if state.pid else "",
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": default.get("EndpointID", ""),
            "Gateway": default.get("Gateway", ""),
            "GlobalIPv6Address": default.get("GlobalIPv6Address", ""),
            "GlobalIPv6PrefixLen": default.get("GlobalIPv6PrefixLen", 0),
            "IPAddress": default.get("IPAddress", ""),
            "IPPrefixLen": default.get("IPPrefixLen", 0),
            "IPv6Gateway": default.get("IPv6Gateway", ""),
            "MacAddress": default.get("MacAddress", ""),
            "Networks": networks,
        },
    }
    if size is not None:
        found["SizeRw"], found["SizeRootFs"] = size
    return found


def summary(record: Record, image_name: str, size: tuple[int, int] | None = None) -> Json:
    """A container in the list. `image_name` is what its image is called now, or its id."""
    found: Json = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": image_name,
        "ImageID": record.image_id,
        "Command": " ".join([record.path, *map(_quoted, record.args)]),
        "Created": record.created_seconds,
        "Ports": _port_list(record),
        "Labels": record.labels,
        "State": record.state.status,
        "Status": status_text(record),
        "HostConfig": {"NetworkMode": record.network_mode},
        "NetworkSettings": {"Networks": {name: endpoint(one) for name, one in record.networks.items()}},
        "Mounts": mounts(record),
    }
    if size is not None:
        found["SizeRw"], found["SizeRootFs"] = size
    return found


def mounts(record: Record) -> list[Json]:
    """The mount points that Docker shows, as it shows them."""
    found = []
    for one in record.mounts:
        details = one.get("Details", {})
        if details.get("listed", True):
            found.append({name: value for name, value in one.items() if name != "Details"})
    return found


def status_text(record: Record) -> str:
    """The state in the words of `docker ps`: "Up 5 minutes (healthy)", "Exited (0) 2 hours ago"."""
    state = record.state
    if state.running:
        since = ago(now() - from_rfc3339(state.started_at))
        if state.paused:
            return f"Up {since} (Paused)"
        if state.restarting:
            return f"Restarting ({state.exit_code}) {ago(now() - from_rfc3339(state.finished_at))} ago"
        if record.health is not None:
            health = "health: starting" if record.health.status == "starting" else record.health.status
            return f"Up {since} ({health})"
        return f"Up {since}"
    if state.removing:
        return "Removal In Progress"
    if state.dead:
        return "Dead"
    if state.status == "created":
        return "Created"
    return f"Exited ({state.exit_code}) {ago(now() - from_rfc3339(state.finished_at))} ago"


def log_path(record: Record, directory: Path) -> Path:
    """Where its output is kept."""
    return directory / f"{record.id}-json.log"


def _ports(record: Record) -> Json:
    """Every exposed port, with where it is published (None: nowhere). Without a running network: nothing."""
    if not record.state.running or record.network_mode in ("host", "none") or ":" in record.network_mode:
        return {}
    exposed: Json = {}
    for port in record.config["ExposedPorts"] or {}:
        numbers, protocol = port_range(port)
        exposed |= {f"{number}/{protocol}": None for number in numbers}
    return exposed | record.ports


def _port_list(record: Record) -> list[Json]:
    found: list[Json] = []
    for port, bindings in _ports(record).items():
        number, _, protocol = port.partition("/")
        if not bindings:
            found.append({"PrivatePort": int(number), "Type": protocol})
        for binding in bindings or ():
            found.append(
                {
                    "IP": binding["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": int(binding["HostPort"]),
                    "Type": protocol,
                }
            )
    return sorted(found, key=lambda one: (one["PrivatePort"], one["Type"], one.get("IP", "")))


def _quoted(argument: str) -> str:
    """An argument as Docker shows it: in quotation marks where it has a blank."""
    return f"'{argument}'" if " " in argument else argument
