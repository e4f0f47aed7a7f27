"""A container from a request: everything is checked and laid out on the disk, and nothing runs yet."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers import fields, requests
from real_engine.daemon.containers.discards import useless_ports
from real_engine.daemon.containers.merge import command, merge
from real_engine.daemon.containers.record import Record, new_id, timestamp
from real_engine.errors import InvalidParameter, NotFound
from real_engine.explain.recorder import span

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers
    from real_engine.images.store import Image

Json = dict[str, Any]


def create(
    containers: "Containers",
    body: Json,
    name: str,
    wanted_platform: str = "",
    *,
    image: "Image | None" = None,
    from_nothing: bool = False,
) -> tuple[Record, list[str]]:
    """Make the container that `body` describes; returns it and warnings.

    The image is the one that `body` names, unless it is given, or the container is to have an empty root (a build
    `FROM scratch`).

    Raises:
        InvalidParameter: what is asked makes no sense.
        NotFound: no such image, network or container to share with.
        Conflict: the name is taken.
    """
    folded = {key.lower(): value for key, value in body.items()}
    if name:
        name = requests.check_name(name)
    if not any(key in folded for key in ("image", "cmd", "entrypoint")):
        raise InvalidParameter("config cannot be empty in order to create a container")
    config = requests.config(body)
    host = requests.host_config(fields.checked("HostConfig", "any", folded.get("hostconfig")))
    networking = fields.checked("NetworkingConfig", fields.NETWORKING, folded.get("networkingconfig"))
    endpoints = (networking or {}).get("EndpointsConfig") or {}
    if len(endpoints) > 1:
        named = ", ".join(sorted(endpoints))
        raise InvalidParameter(f"Container cannot be connected to network endpoints: {named}")

    if image is None and not from_nothing:
        with span("image", "ResolveImage", config["Image"]) as told:
            image = _image(containers, config["Image"], wanted_platform)
            if told.told:
                told.call = f"{config['Image']} is {image.id[:19]}…, {len(image.layers)} layers"
    requests.check_host_config(host, config)
    requests.check_no_nul(config)
    warnings = [*containers.discard_limits(host), *useless_ports(host)]
    merge(config, (image.config.get("config") or {}) if image else {})
    requests.check_config(config)
    if config.get("StopSignal"):
        requests.signal_number(config["StopSignal"])
    program, *arguments = command(config)

    identifier = new_id()
    _resolve_shared(containers, host)
    config["Hostname"] = config["Hostname"] or _hostname(identifier, host)
    networks = _networks(host, endpoints, config)
    layers = [*map(str, image.layers if image else ()), str(containers.init_layer)]

    with containers.table.naming(name, identifier) as name:
        directory = containers.table.directory / identifier
        record = Record(
            id=identifier,
            name=name,
            created=timestamp(),
            image_id=image.id if image else "",
            path=program,
            args=arguments,
            config=config,
            host_config=host,
            networks=networks,
            mounts=[],
            layers=layers,
        )
        directory.mkdir(mode=0o710)
        try:
            (directory / "upper").mkdir()
            os.chmod(directory / "upper", 0o755)  # noqa: S103 -- it becomes the root directory, whatever our umask
            (directory / "work").mkdir()
            record.mounts = containers.storage.make_mounts(record)
            record.save(directory)
        except BaseException:
            containers.removal.discard(record)
            raise
        containers.table.add(record)
    containers.publish(record, "create")
    return record, warnings


def _image(containers: "Containers", name: str, wanted_platform: str) -> "Image":
    if not name:
        raise InvalidParameter("no image was named to create the container from")
    image = containers.images.base(name)
    if wanted_platform:
        operating_system, _, rest = wanted_platform.partition("/")
        architecture = rest.partition("/")[0]
        if operating_system not in ("linux", "") or (architecture and architecture != image.architecture):
            raise NotFound(
                f"image with reference {name} was found but does not match the specified platform: "
                f"wanted {wanted_platform}, actual: linux/{image.architecture}"
            )
    return image


def _hostname(identifier: str, host: Mapping[str, Any]) -> str:
    if host["NetworkMode"] == "host" or host["UTSMode"] == "host":
        return platform.node()
    return "" if host["NetworkMode"].startswith("container:") else identifier[:12]


def _resolve_shared(containers: "Containers", host: Json) -> None:
    """The containers whose namespaces are to be shared, by id: a name could mean another one tomorrow."""
    for field in ("NetworkMode", "PidMode", "IpcMode"):
        kind, separator, name = host[field].partition(":")
        if kind == "container" and separator:
            try:
                host[field] = f"container:{containers.table.get(name).id}"
            except NotFound as error:
                # Not as it is: of a creation that finds something missing, clients think it is the image, and pull.
                raise InvalidParameter(str(error)) from error


def _networks(host: Mapping[str, Any], endpoints: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Json]:
    mode = host["NetworkMode"]
    if mode.startswith("container:") or config.get("NetworkDisabled"):
        return {}
    # Clients call the default network "default" here too, as the mode is.
    asked = {("bridge" if name == "default" else name): one for name, one in endpoints.items()}
    name = "bridge" if mode == "default" else mode
    if asked and name not in asked and name == "bridge":
        name = next(iter(asked))
    return {name: dict(asked.get(name) or {})}


def prepare_init_layer(root: Path) -> Path:
    """The layer between the image and what the container writes: places on which the engine mounts its own files.

    Without it, mounting on a file that the image lacks would make that file in the container's own layer, where
    `docker diff` and `docker commit` would find it.
    """
    layer = root / "init"
    for name in ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys"):
        path = layer / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
    layer.chmod(0o755)
    for name in (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"):
        path = layer / name
        if not path.exists():
            path.touch()
        path.chmod(0o755)
    mtab = layer / "etc/mtab"
    if not mtab.is_symlink():
        mtab.symlink_to("/proc/mounts")
    return layer
