"""What a service's container looks like to the Engine API: the body of `POST /containers/create`, and its hash.

Everything that changes a container is in the request; what only says how many there are, or in which order they start,
isn't. So the hash of the request tells whether a container is as the file wants it.
"""

import hashlib
import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from real_engine.compose import labels
from real_engine.compose.model import Mount, Port, Service
from real_engine.compose.project import Project
from real_engine.errors import InvalidParameter

Json = dict[str, Any]

_RESTART_CONDITIONS = {"none": "no", "on-failure": "on-failure", "any": "always"}
_DEFAULT_GRACE = 10_000_000_000
_START_INTERVAL_SINCE = (1, 44)  # the version of the API that knows a health check's StartInterval


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """The body of the request, without what differs from one replica to the next.

    `attachments` are the networks that the container is on, the first of them in the body already. The names in
    `body` of other services' containers (`network_mode: service:x`) are filled in by `with_containers`.
    """

    body: Json
    attachments: tuple[tuple[str, Json], ...]
    config_hash: str


def container_request(
    project: Project, name: str, image: str, api_version: tuple[int, int] = (1, 43)
) -> ContainerRequest:
    """The request for a container of the service `name`, from the image of that name or id.

    Raises:
        InvalidParameter: an option whose value can't be.
    """
    service = project.document.services[name]
    attachments = _attachments(project, name, service)
    body: Json = {
        "Image": image,
        "Env": [f"{key}={value}" for key, value in service.environment.items()],
        "Labels": dict(service.labels),
        "Tty": service.tty,
        "OpenStdin": service.stdin_open,
        "AttachStdout": True,
        "AttachStderr": True,
        "User": service.user,
        "WorkingDir": service.working_dir,
        "Hostname": service.hostname,
        "Domainname": service.domainname,
        "ExposedPorts": _exposed(service),
        "HostConfig": _host_config(project, service, attachments),
        "NetworkingConfig": {"EndpointsConfig": dict(attachments[:1])},
    }
    if service.mac_address:
        body["MacAddress"] = service.mac_address
    if service.command is not None:
        body["Cmd"] = service.command
    if service.entrypoint is not None:
        body["Entrypoint"] = service.entrypoint
    if service.stop_signal:
        body["StopSignal"] = service.stop_signal
    if service.stop_grace_period != _DEFAULT_GRACE:
        body["StopTimeout"] = -(-service.stop_grace_period // 1_000_000_000)
    health = _health_check(service, api_version)
    if health:
        body["Healthcheck"] = health
    anonymous = [mount.target for mount in service.volumes if mount.type == "volume" and not mount.source]
    if anonymous:
        body["Volumes"] = {target: {} for target in anonymous}
    described = json.dumps([body, attachments], sort_keys=True)
    return ContainerRequest(body, attachments, hashlib.sha256(described.encode()).hexdigest())


def with_labels(
    request: ContainerRequest, project: Project, name: str, number: int, image_id: str, *, oneoff: bool = False
) -> Json:
    """The body for one replica, with the labels by which it is found again."""
    dependencies = project.document.services[name].depends_on
    tags = {
        labels.PROJECT: project.name,
        labels.SERVICE: name,
        labels.NUMBER: str(number),
        labels.ONEOFF: str(oneoff),
        labels.CONFIG_HASH: request.config_hash,
        labels.IMAGE: image_id,
        labels.WORKING_DIRECTORY: str(project.directory),
        labels.CONFIG_FILES: ",".join(map(str, project.files)),
        labels.DEPENDS_ON: ",".join(
            f"{other}:{dependency.condition}:{str(dependency.restart).lower()}"
            for other, dependency in dependencies.items()
        ),
        labels.VERSION: labels.WRITTEN_VERSION,
    }
    return {**request.body, "Labels": {**request.body["Labels"], **tags}}


def with_containers(body: Json, containers: Mapping[str, str]) -> Json:
    """The body with services that it shares namespaces or volumes with, by the ids of their containers.

    Raises:
        InvalidParameter: one of them has no container.
    """
    host = dict(body["HostConfig"])

    def found(service: str) -> str:
        if service not in containers:
            raise InvalidParameter(f"service {service}, whose namespace or volumes are shared, has no container")
        return containers[service]

    for field in ("NetworkMode", "IpcMode", "PidMode"):
        kind, _, name = str(host.get(field) or "").partition(":")
        if kind == "service":
            host[field] = f"container:{found(name)}"
    sources = []
    for source in host.get("VolumesFrom") or ():
        name, _, mode = source.removeprefix("container:").partition(":")
        target = name if source.startswith("container:") else found(name)
        sources.append(f"{target}:{mode}" if mode else target)
    if sources:
        host["VolumesFrom"] = sources
    return {**body, "HostConfig": host}


def with_kept_volumes(body: Json, inspected: Json) -> Json:
    """The body with the anonymous volumes of the container that it replaces: their data stay with the service."""
    host = dict(body["HostConfig"])
    taken = {bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind}
    taken |= {mount["Target"] for mount in host.get("Mounts") or ()}
    taken |= set(host.get("Tmpfs") or ())
    named = {bind.split(":")[0] for bind in (inspected.get("HostConfig") or {}).get("Binds") or ()}
    named |= {mount.get("Source") for mount in (inspected.get("HostConfig") or {}).get("Mounts") or ()}
    kept = [
        f"{mount['Name']}:{mount['Destination']}"
        for mount in inspected.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount["Destination"] not in taken and mount.get("Name") not in named
    ]
    if not kept:
        return body
    host["Binds"] = [*(host.get("Binds") or ()), *kept]
    return {**body, "HostConfig": host}


def network_request(project: Project, key: str) -> Json:
    """The body of `POST /networks/create` for a network of the project."""
    network = project.document.networks[key]
    body: Json = {
        "Name": project.resource_name("networks", key),
        "Driver": network.driver or "bridge",
        "CheckDuplicate": True,
        "Internal": network.internal,
        "Attachable": network.attachable,
        "EnableIPv6": network.enable_ipv6,
        "Options": dict(network.driver_opts),
        "Labels": {
            **network.labels,
            labels.NETWORK: key,
            labels.PROJECT: project.name,
            labels.VERSION: labels.WRITTEN_VERSION,
        },
    }
    if network.ipam is not None:
        pools = []
        for pool in network.ipam.config:
            given = {
                "Subnet": pool.subnet,
                "IPRange": pool.ip_range,
                "Gateway": pool.gateway,
                "AuxiliaryAddresses": pool.aux_addresses,
            }
            pools.append({field: value for field, value in given.items() if value})
        body["IPAM"] = {
            "Driver": network.ipam.driver or "default",
            "Config": pools,
            "Options": network.ipam.options or None,
        }
    return body


def _exposed(service: Service) -> Json:
    found: Json = {}
    for port in service.expose:
        number, _, protocol = port.partition("/")
        first, _, last = number.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise InvalidParameter(f"expose: `{port}` is no port")
        for one in range(int(first), int(last or first) + 1):
            found[f"{one}/{protocol or 'tcp'}"] = {}
    return found | {f"{port.target}/{port.protocol}": {} for port in service.ports}


def _bindings(ports: Sequence[Port]) -> Json:
    found: Json = {}
    for port in ports:
        entry = {"HostIp": port.host_ip, "HostPort": port.published}
        found.setdefault(f"{port.target}/{port.protocol}", []).append(entry)
    return found


def _attachments(project: Project, name: str, service: Service) -> tuple[tuple[str, Json], ...]:
    """The networks of a service by the engine's names, the most important first."""
    if service.network_mode:
        return ()
    chosen = service.networks or {"default": None}
    ordered = sorted(chosen.items(), key=lambda item: -(item[1].priority if item[1] else 0))
    found = []
    for key, attachment in ordered:
        endpoint: Json = {"Aliases": list(dict.fromkeys([name, *(attachment.aliases if attachment else ())]))}
        links = [_link(project, link) for link in service.links]
        if links or service.external_links:
            endpoint["Links"] = [*links, *service.external_links]
        if attachment is not None:
            addresses = {
                "IPv4Address": attachment.ipv4_address,
                "IPv6Address": attachment.ipv6_address,
                "LinkLocalIPs": attachment.link_local_ips,
            }
            given = {field: value for field, value in addresses.items() if value}
            if given:
                endpoint["IPAMConfig"] = given
            if attachment.driver_opts:
                endpoint["DriverOpts"] = attachment.driver_opts
            if attachment.mac_address:
                endpoint["MacAddress"] = attachment.mac_address
        found.append((project.resource_name("networks", key), endpoint))
    return tuple(found)


def _link(project: Project, link: str) -> str:
    service, _, alias = link.partition(":")
    wanted = project.document.services[service]
    return f"{wanted.container_name or f'{project.name}-{service}-1'}:{alias or service}"


def _host_config(project: Project, service: Service, attachments: Sequence[tuple[str, Json]]) -> Json:
    limits, kept = service.deploy.resources.limits, service.deploy.resources.reservations
    mode = service.network_mode or (attachments[0][0] if attachments else "none")
    binds, mounts = _mounts(project, service)
    host: Json = {
        "NetworkMode": mode,
        "PortBindings": _bindings(service.ports),
        "RestartPolicy": _restart_policy(service),
        "Binds": binds or None,
        "Mounts": mounts or None,
        "Tmpfs": {place: options for place, _, options in (entry.partition(":") for entry in service.tmpfs)} or None,
        "VolumesFrom": list(service.volumes_from) or None,
        "CapAdd": service.cap_add or None,
        "CapDrop": service.cap_drop or None,
        "SecurityOpt": [_security_option(option) for option in service.security_opt] or None,
        "Privileged": service.privileged,
        "ReadonlyRootfs": service.read_only,
        "Init": service.init,
        "IpcMode": service.ipc,
        "PidMode": service.pid,
        "UTSMode": service.uts,
        "UsernsMode": service.userns_mode,
        "CgroupnsMode": service.cgroup,
        "CgroupParent": service.cgroup_parent,
        "GroupAdd": service.group_add or None,
        "ExtraHosts": [f"{name}:{one}" for name, addresses in service.extra_hosts.items() for one in addresses] or None,
        "Dns": service.dns,
        "DnsOptions": service.dns_opt,
        "DnsSearch": service.dns_search,
        "Sysctls": service.sysctls or None,
        "ShmSize": service.shm_size,
        "Runtime": service.runtime,
        "OomKillDisable": service.oom_kill_disable or None,
        "OomScoreAdj": service.oom_score_adj,
        "Ulimits": [{"Name": name, "Soft": limit.soft, "Hard": limit.hard} for name, limit in service.ulimits.items()],
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target or device.source,
                "CgroupPermissions": device.permissions,
            }
            for device in service.devices
        ],
        "DeviceCgroupRules": service.device_cgroup_rules or None,
        "NanoCpus": round((service.cpus or limits.cpus) * 1_000_000_000),
        "CpuShares": service.cpu_shares,
        "CpuPeriod": service.cpu_period,
        "CpuQuota": service.cpu_quota,
        "CpusetCpus": service.cpuset,
        "Memory": service.mem_limit or limits.memory,
        "MemoryReservation": service.mem_reservation or kept.memory,
        "MemorySwap": service.memswap_limit,
        "MemorySwappiness": service.mem_swappiness,
        "PidsLimit": service.pids_limit or limits.pids or None,
        "StorageOpt": service.storage_opt or None,
        "Annotations": service.annotations or None,
        "DeviceRequests": [
            {
                "Driver": device.driver,
                "Count": -1 if device.count == "all" else int(device.count),
                "DeviceIDs": device.device_ids or None,
                "Capabilities": [device.capabilities],
                "Options": device.options,
            }
            for device in (*limits.devices, *kept.devices)
        ]
        or None,
    }
    if service.logging is not None:
        host["LogConfig"] = {"Type": service.logging.driver, "Config": service.logging.options}
    # What nobody asked for is left to the daemon's own defaults.
    return {field: value for field, value in host.items() if value not in (None, "", 0, [], False)}


def _restart_policy(service: Service) -> Json:
    if service.restart:
        name, _, count = service.restart.partition(":")
        if name not in ("no", "always", "unless-stopped", "on-failure") or (count and not count.isdigit()):
            raise InvalidParameter(
                f"restart: `{service.restart}` is no policy: use no, always, unless-stopped, on-failure"
            )
        return {"Name": name, "MaximumRetryCount": int(count or 0)}
    policy = service.deploy.restart_policy
    if policy is not None:
        name = _RESTART_CONDITIONS[policy.condition]
        return {"Name": name, "MaximumRetryCount": policy.max_attempts if name == "on-failure" else 0}
    return {"Name": "no", "MaximumRetryCount": 0}


def _security_option(option: str) -> str:
    """A seccomp profile is named by its file, and sent as its content (docker/cli opts)."""
    name, separator, value = option.replace(":", "=", 1).partition("=")
    if name != "seccomp" or not separator or value in ("unconfined", "builtin"):
        return option
    try:
        with open(value, encoding="utf-8") as file:
            return f"seccomp={json.dumps(json.load(file))}"
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"security_opt: cannot read the seccomp profile {value}: {error}") from error


def _health_check(service: Service, api_version: tuple[int, int]) -> Json:
    check = service.healthcheck
    if check is None:
        return {}
    if check.disable:
        return {"Test": ["NONE"]}
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidParameter(
            f"healthcheck.test: it must begin with NONE, CMD or CMD-SHELL, and not {check.test[0]!r}"
        )
    found: Json = {
        "Test": check.test,
        "Interval": check.interval,
        "Timeout": check.timeout,
        "Retries": check.retries,
        "StartPeriod": check.start_period,
    }
    if check.start_interval and api_version >= _START_INTERVAL_SINCE:
        found["StartInterval"] = check.start_interval
    return {field: value for field, value in found.items() if value}


def _mounts(project: Project, service: Service) -> tuple[list[str], list[Json]]:
    """Binds, whose directories are made where they are missing, and Mounts, whose aren't."""
    binds: list[str] = []
    mounts: list[Json] = []
    for mount in service.volumes:
        if mount.type == "bind":
            options = mount.bind
            words = ["ro"] if mount.read_only else []
            if options is not None:
                words += [word for word in (options.selinux, options.propagation) if word]
            simple = options is None or (options.create_host_path and options.recursive == "enabled")
            if simple and ":" not in mount.source + mount.target:
                binds.append(":".join([mount.source, mount.target, *([",".join(words)] if words else [])]))
            else:
                mounts.append(_mount(mount, mount.source))
        elif mount.type == "tmpfs":
            mounts.append(_mount(mount, ""))
        elif mount.source:
            mounts.append(_mount(mount, project.resource_name("volumes", mount.source)))
    for place, path in _granted_files(project, service):
        mounts.append({"Type": "bind", "Source": str(path), "Target": place, "ReadOnly": True})
    return binds, mounts


def _mount(mount: Mount, source: str) -> Json:
    found: Json = {"Type": mount.type, "Target": mount.target}
    if source:
        found["Source"] = source
    if mount.read_only:
        found["ReadOnly"] = True
    if mount.bind is not None and mount.type == "bind":
        found["BindOptions"] = {
            "Propagation": mount.bind.propagation,
            "NonRecursive": mount.bind.recursive == "disabled",
            "CreateMountpoint": mount.bind.create_host_path,
        }
    if mount.volume is not None and mount.type == "volume":
        options: Json = {"NoCopy": mount.volume.nocopy, "Labels": mount.volume.labels}
        if mount.volume.subpath:
            options["Subpath"] = mount.volume.subpath
        found["VolumeOptions"] = options
    if mount.tmpfs is not None and mount.type == "tmpfs":
        found["TmpfsOptions"] = {"SizeBytes": mount.tmpfs.size, "Mode": mount.tmpfs.mode or 0}
    return found


def _granted_files(project: Project, service: Service) -> list[tuple[str, str]]:
    """Where secrets and configs are seen, and which file of this machine that is."""
    found = []
    for kind, grants, folder in (("secrets", service.secrets, "/run/secrets"), ("configs", service.configs, "/")):
        for grant in grants:
            entry = getattr(project.document, kind)[grant.source]
            place = posixpath.join(folder, grant.target or grant.source)
            found.append((place, entry.file or granted_path(project, kind, grant.source)))
    return found


def granted_path(project: Project, kind: str, key: str) -> str:
    """The file that holds a secret or config that is no file: in the user's own run-time directory, 0600.

    Its name holds the hash of its content, so that a changed value makes a changed container.
    """
    content = granted_content(project, kind, key)
    base = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if os.geteuid() == 0 else "/tmp")  # noqa: S108 -- 0700 inside
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return f"{base}/onggi-compose-{os.geteuid()}/{project.name}/{kind}-{key}-{digest}"


def granted_content(project: Project, kind: str, key: str) -> str:
    """What a secret or config by variable or text holds.

    Raises:
        InvalidParameter: the variable isn't set.
    """
    entry = getattr(project.document, kind)[key]
    if entry.content:
        return str(entry.content)
    value = project.environment.get(entry.environment)
    if value is None:
        raise InvalidParameter(f"{kind}.{key}: the environment variable {entry.environment} is not set")
    return value
