"""What a request to create or update a container may say: read with its types, completed by defaults, and checked.

The fields and defaults are those of Docker's ContainerConfig and HostConfig (API 1.43); the messages are Docker's too,
for people search for them.
"""

import copy
import json
import os
import re
import signal
from collections.abc import Mapping
from typing import Any

from real_engine.daemon.containers import fields
from real_engine.errors import InvalidParameter
from real_engine.linux import capabilities
from real_engine.supervisor import log_options

Json = dict[str, Any]

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_GRAMMAR = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_LEAST_MEMORY = 6 * 1024 * 1024
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)

# Field: (its kind, default).
_CONFIG: dict[str, tuple[fields.Kind, Any]] = {
    "Hostname": ("string", ""),
    "Domainname": ("string", ""),
    "User": ("string", ""),
    "AttachStdin": ("bool", False),
    "AttachStdout": ("bool", False),
    "AttachStderr": ("bool", False),
    "ExposedPorts": (fields.Map("any"), None),
    "Tty": ("bool", False),
    "OpenStdin": ("bool", False),
    "StdinOnce": ("bool", False),
    "Env": (fields.STRINGS, None),
    "Cmd": ("command", None),
    "Healthcheck": (fields.HEALTH_CHECK, None),
    "ArgsEscaped": ("bool", False),
    "Image": ("string", ""),
    "Volumes": (fields.Map("any"), None),
    "WorkingDir": ("string", ""),
    "Entrypoint": ("command", None),
    "NetworkDisabled": ("bool", False),
    "MacAddress": ("string", ""),
    "OnBuild": (fields.STRINGS, None),
    "Labels": (fields.LABELS, None),
    "StopSignal": ("string", ""),
    "StopTimeout": ("int", None),
    "Shell": (fields.STRINGS, None),
}
_OPTIONAL_CONFIG = ("Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "StopTimeout", "Shell")
_RESOURCES: dict[str, tuple[fields.Kind, Any]] = {
    "CpuShares": ("int", 0),
    "Memory": ("int", 0),
    "NanoCpus": ("int", 0),
    "CgroupParent": ("string", ""),
    "BlkioWeight": ("int", 0),
    "BlkioWeightDevice": (fields.WEIGHTS, []),
    "BlkioDeviceReadBps": (fields.RATES, []),
    "BlkioDeviceWriteBps": (fields.RATES, []),
    "BlkioDeviceReadIOps": (fields.RATES, []),
    "BlkioDeviceWriteIOps": (fields.RATES, []),
    "CpuPeriod": ("int", 0),
    "CpuQuota": ("int", 0),
    "CpuRealtimePeriod": ("int", 0),
    "CpuRealtimeRuntime": ("int", 0),
    "CpusetCpus": ("string", ""),
    "CpusetMems": ("string", ""),
    "Devices": (fields.DEVICES, []),
    "DeviceCgroupRules": (fields.STRINGS, None),
    "DeviceRequests": (fields.DEVICE_REQUESTS, None),
    "MemoryReservation": ("int", 0),
    "MemorySwap": ("int", 0),
    "MemorySwappiness": ("int", None),
    "KernelMemory": ("int", None),
    "OomKillDisable": ("bool", False),
    "PidsLimit": ("int", None),
    "Ulimits": (fields.ULIMITS, []),
    "CpuCount": ("int", 0),
    "CpuPercent": ("int", 0),
    "IOMaximumIOps": ("int", 0),
    "IOMaximumBandwidth": ("int", 0),
}
_HOST_CONFIG: dict[str, tuple[fields.Kind, Any]] = {
    "Binds": (fields.STRINGS, None),
    "ContainerIDFile": ("string", ""),
    "LogConfig": (fields.LOG_CONFIG, None),
    "NetworkMode": ("string", ""),
    "PortBindings": (fields.PORT_MAP, {}),
    "RestartPolicy": (fields.RESTART_POLICY, None),
    "AutoRemove": ("bool", False),
    "VolumeDriver": ("string", ""),
    "VolumesFrom": (fields.STRINGS, None),
    "ConsoleSize": (fields.Array("int", 2), [0, 0]),
    "Annotations": (fields.LABELS, None),
    "CapAdd": (fields.STRINGS, None),
    "CapDrop": (fields.STRINGS, None),
    "CgroupnsMode": ("string", ""),
    "Dns": (fields.STRINGS, []),
    "DnsOptions": (fields.STRINGS, []),
    "DnsSearch": (fields.STRINGS, []),
    "ExtraHosts": (fields.STRINGS, None),
    "GroupAdd": (fields.STRINGS, None),
    "IpcMode": ("string", ""),
    "Cgroup": ("string", ""),
    "Links": (fields.STRINGS, None),
    "OomScoreAdj": ("int", 0),
    "PidMode": ("string", ""),
    "Privileged": ("bool", False),
    "PublishAllPorts": ("bool", False),
    "ReadonlyRootfs": ("bool", False),
    "SecurityOpt": (fields.STRINGS, None),
    "StorageOpt": (fields.LABELS, None),
    "Tmpfs": (fields.LABELS, None),
    "UTSMode": ("string", ""),
    "UsernsMode": ("string", ""),
    "ShmSize": ("int", 0),
    "Sysctls": (fields.LABELS, None),
    "Runtime": ("string", ""),
    "Isolation": ("string", ""),
    **_RESOURCES,
    "Mounts": (fields.MOUNTS, None),
    "Init": ("bool", None),
    "MaskedPaths": (fields.STRINGS, None),
    "ReadonlyPaths": (fields.STRINGS, None),
}
_OPTIONAL_HOST_CONFIG = ("KernelMemory", "Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Mounts", "Init")


def config(given: Mapping[str, Any]) -> Json:
    """A container's Config, every field there but the ones that Docker leaves out when they are empty.

    Raises:
        InvalidParameter: a field of another type.
    """
    return _read(given, _CONFIG, _OPTIONAL_CONFIG)


def host_config(given: Mapping[str, Any] | None) -> Json:
    """A container's HostConfig with Docker's defaults.

    Raises:
        InvalidParameter: a field of another type.
    """
    found = _read(given or {}, _HOST_CONFIG, _OPTIONAL_HOST_CONFIG)
    logging = found["LogConfig"] or {}
    found["LogConfig"] = {"Type": logging.get("Type") or "json-file", "Config": logging.get("Config") or {}}
    policy = found["RestartPolicy"] or {}
    found["RestartPolicy"] = {
        "Name": policy.get("Name") or "no",
        "MaximumRetryCount": policy.get("MaximumRetryCount") or 0,
    }
    if found["MemorySwappiness"] == -1:
        found["MemorySwappiness"] = None  # the command line's way to say nothing
    if found["PidsLimit"] is not None and found["PidsLimit"] <= 0:
        found["PidsLimit"] = None
    found["NetworkMode"] = found["NetworkMode"] or "default"
    found["IpcMode"] = found["IpcMode"] or "private"
    found["CgroupnsMode"] = found["CgroupnsMode"] or "private"
    found["ShmSize"] = found["ShmSize"] or 64 * 1024 * 1024
    found["Runtime"] = found["Runtime"] or "onggi"
    found["Ulimits"] = [{"Name": "", "Soft": 0, "Hard": 0, **_without_nulls(one)} for one in found["Ulimits"]]
    if found["Memory"] > 0 and found["MemorySwap"] == 0:
        found["MemorySwap"] = 2 * found["Memory"]
    return found


def resources(given: Mapping[str, Any]) -> Json:
    """Those of a HostConfig's resources that a request to update names, with their types checked.

    Raises:
        InvalidParameter: a field of another type.
    """
    known = {name: kind for name, kind in _RESOURCES.items() if given.get(name)}
    return {name: fields.checked(name, kind, given[name]) for name, (kind, _) in known.items()}


def check_name(name: str) -> str:
    """`name` without the slash that Docker puts before it.

    Raises:
        InvalidParameter: it has other characters than a name may have.
    """
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"Invalid container name ({name}), only {_NAME_GRAMMAR} are allowed")
    return name.removeprefix("/")


def check_config(config: Mapping[str, Any]) -> None:
    """Raise what Docker would about a Config that is complete.

    Raises:
        InvalidParameter: what is wrong with it.
    """
    check_no_nul(config)
    for pair in config["Env"] or ():
        if not pair or pair.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {pair}")
    workdir = config["WorkingDir"]
    if workdir and not workdir.startswith("/"):
        raise InvalidParameter(f"the working directory '{workdir}' is invalid, it needs to be an absolute path")
    for port in config["ExposedPorts"] or {}:
        port_range(port)
    health = config.get("Healthcheck") or {}
    for field, what in (("Interval", 1_000_000), ("Timeout", 1_000_000), ("StartPeriod", 1_000_000)):
        if health.get(field) and health[field] < what:
            raise InvalidParameter(f"{field} in Healthcheck cannot be less than 1ms")
    if (health.get("Retries") or 0) < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    if config.get("StopTimeout") is not None and config["StopTimeout"] < -1:
        raise InvalidParameter(f"Invalid stop timeout: {config['StopTimeout']}")


def check_no_nul(given: Mapping[str, Any]) -> None:
    """Raise about a NUL in what the kernel takes as a string, which ends there: it would mean something else.

    Raises:
        InvalidParameter: names the field.
    """
    for field in ("Cmd", "Entrypoint", "Env", "WorkingDir", "User", "Hostname", "Domainname"):
        value = given.get(field) or ()
        for text in (value,) if isinstance(value, str) else value:
            if "\0" in text:
                raise InvalidParameter(f"{field} can't contain a NUL byte: {json.dumps(text)}")


def check_host_config(host: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise what Docker would about a HostConfig that is complete.

    Raises:
        InvalidParameter: what is wrong with it.
    """
    _check_restart_policy(host)
    check_resources(host)
    _check_modes(host, config)
    if not -1000 <= host["OomScoreAdj"] <= 1000:
        raise InvalidParameter(f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]")
    if host["ShmSize"] < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    for field in ("CapAdd", "CapDrop"):
        for name in host[field] or ():
            if name.upper() != "ALL" and name.upper().removeprefix("CAP_") not in _KNOWN_CAPABILITIES:
                raise InvalidParameter(f'invalid {field}: unknown capability: "{name}"')
    log_options.validate(host["LogConfig"]["Type"], host["LogConfig"]["Config"])
    for port, bindings in (host["PortBindings"] or {}).items():
        port_range(port)
        for binding in bindings or ():
            wanted = (binding or {}).get("HostPort") or ""
            if wanted and not re.fullmatch(r"\d+(-\d+)?", wanted):
                raise InvalidParameter(f'invalid port specification: "{wanted}"')
    if host["Runtime"] not in ("onggi", "runc", "io.containerd.runc.v2"):
        raise InvalidParameter(f"unknown or invalid runtime name: {host['Runtime']}")
    if host["Isolation"] not in ("", "default"):
        raise InvalidParameter(f"invalid isolation '{host['Isolation']}' on linux")
    if host["DeviceRequests"]:
        raise InvalidParameter('could not select device driver "" with capabilities: [[gpu]]')
    if host.get("StorageOpt"):
        raise InvalidParameter("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    for option in host["SecurityOpt"] or ():
        _check_security_option(option)


def check_resources(host: Mapping[str, Any]) -> None:
    """Raise what Docker would about limits.

    Raises:
        InvalidParameter: what is wrong with them.
    """
    memory, swap = host["Memory"], host["MemorySwap"]
    if 0 < memory < _LEAST_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = host["MemorySwappiness"]
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    reservation = host["MemoryReservation"]
    if 0 < reservation < _LEAST_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if memory and reservation > memory:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")
    if 0 < host.get("KernelMemory", 0) < _LEAST_MEMORY:
        raise InvalidParameter("Minimum kernel memory limit allowed is 6MB")
    period, runtime = host["CpuRealtimePeriod"], host["CpuRealtimeRuntime"]
    if period and runtime > period:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")
    nano, processors = host["NanoCpus"], os.cpu_count() or 1
    if nano and (host["CpuPeriod"] or host["CpuQuota"]):
        other = "Period" if host["CpuPeriod"] else "Quota"
        raise InvalidParameter(f"Conflicting options: Nano CPUs and CPU {other} cannot both be set")
    if nano < 0 or nano > processors * 1_000_000_000:
        raise InvalidParameter(
            f"range of CPUs is from 0.01 to {processors}.00, as there are only {processors} CPUs available"
        )
    if host["CpuShares"] < 0:
        raise InvalidParameter(f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer")
    if host["CpuPeriod"] and not 1000 <= host["CpuPeriod"] <= 1_000_000:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host["CpuQuota"] < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host["BlkioWeight"] and not 10 <= host["BlkioWeight"] <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    for field, what, available in (
        ("CpusetCpus", "CPUs", range(processors)),
        ("CpusetMems", "memory nodes", range(_memory_nodes())),
    ):
        wanted = cpu_list(host[field], field)
        if not wanted <= set(available):
            raise InvalidParameter(
                f"Requested {what} are not available - requested {host[field]}, available: {_span(available)}"
            )


def port_range(port: str) -> tuple[range, str]:
    """The numbers and the protocol of `80`, `80/udp` or `8000-8010/tcp`.

    Raises:
        InvalidParameter: it is no port.
    """
    found = _PORT.fullmatch(port)
    if found is None:
        raise InvalidParameter(f'invalid port specification: "{port}"')
    first, last = int(found[1]), int(found[2] or found[1])
    if not 0 <= first <= last <= 65535:
        raise InvalidParameter(f'invalid port specification: "{port}"')
    return range(first, last + 1), (found[3] or "tcp").lower()


def cpu_list(text: str, field: str) -> set[int]:
    """The numbers of `0-2,4`.

    Raises:
        InvalidParameter: it is no such list.
    """
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if found is None or int(found[1]) > int(found[2] or found[1]):
            kind = "cpus" if field == "CpusetCpus" else "mems"
            raise InvalidParameter(f"Invalid value {text} for cpuset {kind}")
        numbers |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    return numbers


def _check_restart_policy(host: Mapping[str, Any]) -> None:
    name, retries = host["RestartPolicy"]["Name"], host["RestartPolicy"]["MaximumRetryCount"]
    if name not in _RESTART_POLICIES:
        raise InvalidParameter(f"invalid restart policy '{name}'")
    if retries and name != "on-failure":
        raise InvalidParameter(f"maximum retry count cannot be used with restart policy '{name}'")
    if retries < 0:
        raise InvalidParameter("maximum retry count cannot be negative")
    if host["AutoRemove"] and name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def _check_modes(host: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """The modes of namespaces, and what goes with which."""
    network = host["NetworkMode"]
    if network.startswith("container:"):
        if network == "container:":
            raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
        if config["Hostname"]:
            raise InvalidParameter("conflicting options: hostname and the network mode")
        if host["Dns"]:
            raise InvalidParameter("conflicting options: dns and the network mode")
        if host["ExtraHosts"]:
            raise InvalidParameter("conflicting options: custom host-to-IP mapping and the network mode")
        if host["PortBindings"] or host["PublishAllPorts"]:
            raise InvalidParameter("conflicting options: port publishing and the container type network mode")
        if config["ExposedPorts"]:
            raise InvalidParameter("conflicting options: port exposing and the container type network mode")
    no_links = {"host": "host type networking", "container": "container type network"}.get(network.partition(":")[0])
    if host["Links"] and no_links:
        raise InvalidParameter(
            f"conflicting options: {no_links} can't be used with links. This would result in undefined behavior"
        )
    pid, ipc = host["PidMode"], host["IpcMode"]
    if pid not in ("", "private", "host") and not re.fullmatch(r"container:.+", pid):
        raise InvalidParameter("invalid PID mode")
    if ipc not in ("", "none", "private", "shareable", "host") and not re.fullmatch(r"container:.+", ipc):
        raise InvalidParameter(f"invalid IPC mode: {ipc}")
    if host["UTSMode"] not in ("", "host"):
        raise InvalidParameter("invalid UTS mode")
    if host["UTSMode"] == "host" and config["Hostname"]:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if host["UsernsMode"] not in ("", "host"):
        raise InvalidParameter("invalid user namespace mode")
    if host["CgroupnsMode"] not in ("", "host", "private"):
        raise InvalidParameter(f"invalid cgroup namespace mode: {host['CgroupnsMode']}")


def _check_security_option(option: str) -> None:
    if option in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges:false"):
        return
    name, separator, _ = option.replace(":", "=", 1).partition("=")
    if not separator:
        raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
    if name not in ("seccomp", "label", "apparmor", "no-new-privileges", "systempaths"):
        raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _without_nulls(given: Mapping[str, Any]) -> Json:
    return {name: value for name, value in given.items() if value is not None}


def _read(given: Mapping[str, Any], kinds: Mapping[str, tuple[fields.Kind, Any]], optional: tuple[str, ...]) -> Json:
    # Go reads the names of fields without regard to case, and so do some clients write them.
    folded = {name.lower(): value for name, value in given.items()}
    found: Json = {}
    for name, (kind, default) in kinds.items():
        value = folded.get(name.lower())
        if value is not None:
            value = fields.checked(name, kind, value)
        if name in optional:
            if value or (value is not None and (kind == "int" or name == "Init")):
                found[name] = value
        else:
            found[name] = copy.copy(default) if value is None else value
    return found


_KNOWN_CAPABILITIES = frozenset(name.removeprefix("CAP_") for name in capabilities.NAMES)


def _memory_nodes() -> int:
    try:
        return len([name for name in os.listdir("/sys/devices/system/node") if re.fullmatch(r"node\d+", name)]) or 1
    except FileNotFoundError:  # a kernel without NUMA
        return 1


def _span(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def seccomp_profile(options: list[str] | None) -> str | None:
    """What a container's security options say about seccomp: None for the default, `unconfined`, or a profile's JSON.

    (The command line reads a profile's file and sends its contents.)

    Raises:
        InvalidParameter: a profile that is no JSON object.
    """
    for option in options or ():
        name, _, value = (
            option.replace(":", "=", 1).partition("=") if option.startswith("seccomp:") else option.partition("=")
        )
        if name == "seccomp":
            return _checked_profile(value)
    return None


def _checked_profile(value: str) -> str | None:
    """It as `seccomp_profile` returns it. What looks like a file's name is no file of the daemon's machine."""
    if value in ("", "builtin"):
        return None
    if value != "unconfined" and not value.lstrip().startswith("{"):
        wrong = value.lstrip()[:1]
        raise InvalidParameter(
            f"Decoding seccomp profile failed: invalid character {wrong!r} looking for beginning of value"
        )
    return value


def signal_number(text: str) -> int:
    """The number of a signal: `9`, `KILL`, `SIGKILL`, `RTMIN+3`.

    Raises:
        InvalidParameter: there is no such signal.
    """
    if text.isascii() and text.isdigit():
        number = int(text)
        if 0 < number <= 64:
            return number
        raise InvalidParameter(f"Invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    found = re.fullmatch(r"RTM(IN|AX)(?:([+-])(\d{1,2}))?", name)
    if found:
        base = int(signal.SIGRTMIN if found[1] == "IN" else signal.SIGRTMAX)
        number = base + int(found[3] or 0) * (-1 if found[2] == "-" else 1)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
        raise InvalidParameter(f"Invalid signal: {text}")
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError as error:
        raise InvalidParameter(f"Invalid signal: {text}") from error
