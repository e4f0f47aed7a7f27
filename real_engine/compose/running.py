"""`run`: one more container of a service, for one command, beside the service's own."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from real_engine.compose import labels, terminal
from real_engine.compose.container_request import container_request, with_containers, with_labels
from real_engine.compose.fleet import Fleet
from real_engine.compose.images import image_name
from real_engine.compose.project import Project
from real_engine.errors import NotFound


def run_once(
    project: Project,
    fleet: Fleet,
    service: str,
    command: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] | None = None,
    name: str = "",
    user: str = "",
    workdir: str = "",
    volumes: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    service_ports: bool = False,
    terminal_wanted: bool = False,
    interactive: bool = True,
    detach: bool = False,
    remove: bool = False,
) -> int:
    """Make and start the container; returns the command's exit status. Its image and networks have to be there.

    It publishes no ports, unless `service_ports`, and answers to none of the service's aliases.

    Raises:
        NotFound: no such service, or its image isn't there.
        EngineError: what the daemon says.
    """
    host = fleet.home
    wanted = project.service(service)
    image = image_name(project, service)
    found = host.image(image)
    if found is None:
        raise NotFound(f"service {service}: No such image: {image}")
    request = container_request(project, service, image, host.api_version)
    body = dict(request.body)
    settings = dict(body["HostConfig"])
    settings.pop("RestartPolicy", None)
    if not service_ports:
        settings.pop("PortBindings", None)
    if volumes:
        settings["Binds"] = [*(settings.get("Binds") or ()), *volumes]
    body |= {"HostConfig": settings, "Tty": terminal_wanted, "OpenStdin": interactive, "StdinOnce": interactive}
    body["AttachStdin"] = interactive
    body["NetworkingConfig"] = {"EndpointsConfig": {key: {} for key, _ in request.attachments[:1]}}
    if command:
        body["Cmd"] = list(command)
    if entrypoint is not None:
        body["Entrypoint"] = list(entrypoint)
    if user:
        body["User"] = user
    if workdir:
        body["WorkingDir"] = workdir
    if environment:
        variables = {**wanted.environment, **environment}
        body["Env"] = [f"{key}={value}" for key, value in variables.items()]
    body["Labels"] = {**body["Labels"], **(tags or {})}
    others = {container.service: container.id for container in reversed(host.containers(project.name))}
    body = with_containers(body, others)
    complete = with_labels(replace(request, body=body), project, service, 1, str(found["Id"]), oneoff=True)
    complete["Labels"].pop(labels.CONFIG_HASH)
    title = name or f"{project.name}-{service}-run-{os.urandom(6).hex()}"
    identifier = host.create(complete, title, wanted.platform)
    finished = False
    try:
        for network, endpoint in request.attachments[1:]:
            plain = {key: value for key, value in endpoint.items() if key != "Aliases"}
            host.connect(network, identifier, plain)
        if detach:
            host.start(identifier)
            finished = True
            print(identifier)
            return 0
        status = terminal.attach_and_start(host, identifier, terminal=terminal_wanted, interactive=interactive)
        finished = True
        return status
    finally:
        if not detach and (remove or not finished):
            host.remove(identifier, force=True, volumes=True)
