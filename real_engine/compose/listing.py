"""What is there of a project, and what its file says, as tables, JSON and YAML."""

import json
import time
from collections.abc import Sequence
from typing import Any

from real_engine.compose.fleet import Fleet
from real_engine.compose.host import Container, Host
from real_engine.compose.project import Project

Json = dict[str, Any]


def describe(host: Host, container: Container) -> Json:
    """A container as `ps --format json` has it (the fields of docker compose 2)."""
    publishers = [
        {
            "URL": port.get("IP", ""),
            "TargetPort": port["PrivatePort"],
            "PublishedPort": port.get("PublicPort", 0),
            "Protocol": port.get("Type", "tcp"),
        }
        for port in container.ports
    ]
    found: Json = {
        "ID": container.id[:12],
        "Name": container.name,
        "Command": f'"{container.command}"',
        "Project": container.labels.get("com.docker.compose.project", ""),
        "Service": container.service,
        "State": container.state,
        "Status": container.status,
        "Health": health(container),
        "ExitCode": exit_code(container),
        "Image": container.image,
        "Created": container.created,
        "Publishers": publishers,
        "Ports": ports_text(container.ports),
    }
    return found | ({"Host": host.name} if host.name else {})


def health(container: Container) -> str:
    """What the status says about health checks: starting, healthy, unhealthy or nothing."""
    for word in ("unhealthy", "healthy"):
        if f"({word})" in container.status:
            return word
    return "starting" if "(health: starting)" in container.status else ""


def exit_code(container: Container) -> int:
    """Of `Exited (3) 5 minutes ago`: 3."""
    before, _, rest = container.status.partition("(")
    number = rest.partition(")")[0]
    return int(number) if before.strip() == "Exited" and number.lstrip("-").isdigit() else 0


def ports_text(ports: Sequence[Json]) -> str:
    """`0.0.0.0:8080->80/tcp, 90/tcp`."""
    shown = []
    for port in sorted(ports, key=lambda one: (one["PrivatePort"], one.get("IP", ""), one.get("PublicPort", 0))):
        inner = f"{port['PrivatePort']}/{port.get('Type', 'tcp')}"
        address = port.get("IP", "")
        address = f"[{address}]" if ":" in address else address
        shown.append(f"{address}:{port['PublicPort']}->{inner}" if port.get("PublicPort") else inner)
    return ", ".join(shown)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns with three blanks between them, as docker's own tables."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def container_table(pairs: Sequence[tuple[Host, Container]]) -> str:
    """What `ps` shows."""
    several = any(host.name for host, _ in pairs)
    rows = [["NAME", "IMAGE", "COMMAND", "SERVICE", *(["HOST"] if several else []), "CREATED", "STATUS", "PORTS"]]
    for host, container in pairs:
        command = container.command if len(container.command) <= 20 else container.command[:19] + "…"
        rows.append(
            [
                container.name,
                container.image,
                f'"{command}"',
                container.service,
                *([host.name] if several else []),
                _ago(container.created),
                container.status,
                ports_text(container.ports),
            ]
        )
    return table(rows)


def _ago(created: int) -> str:
    from real_engine.times import ago

    return f"{ago(int((time.time() - created) * 1_000_000_000))} ago"


def process_table(fleet: Fleet, project: str, services: Sequence[str]) -> str:
    """What `top` shows: the processes of each container."""
    parts = []
    for host, container in fleet.containers(project, services):
        if container.running:
            found = host.top(container.id)
            parts.append(f"{container.name}\n{table([found['Titles'], *(found['Processes'] or [])])}\n")
    return "\n".join(parts)


def resolved(project: Project) -> Json:
    """The project as its files, variables and defaults make it, without what says nothing."""
    services = {
        name: service.model_dump(exclude_defaults=True, exclude={"extends", "profiles"})
        | ({"profiles": service.profiles} if service.profiles else {})
        for name, service in project.services.items()
    }
    found: Json = {"name": project.name, "services": {name: _readable(one) for name, one in services.items()}}
    for service in found["services"].values():
        service.pop("env_file", None)  # it is in `environment`
        if not service.get("network_mode"):
            service.setdefault("networks", {"default": None})
    for kind in ("networks", "volumes", "secrets", "configs"):
        entries = getattr(project.document, kind)
        if entries:
            found[kind] = {
                key: {"name": project.resource_name(kind, key), **entry.model_dump(exclude_defaults=True)}
                for key, entry in entries.items()
            }
    if project.document.spreading.hosts:
        found["x-onggi"] = project.document.spreading.model_dump(exclude_defaults=True)
    return found


_DURATIONS = frozenset(
    ("interval", "timeout", "start_period", "start_interval", "stop_grace_period", "delay", "window")
)


def _readable(value: Any, key: str = "") -> Any:
    """Durations as text again, and a `$` doubled, so that the output is a compose file of the same meaning."""
    if isinstance(value, dict):
        return {name: _readable(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_readable(inner) for inner in value]
    if isinstance(value, str):
        return value.replace("$", "$$")
    if key in _DURATIONS and isinstance(value, int):
        return f"{value // 1_000_000}ms" if value % 1_000_000_000 else f"{value // 1_000_000_000}s"
    return value


def render(project: Project, form: str = "yaml") -> str:
    """The resolved project as YAML, or JSON."""
    if form == "json":
        return json.dumps(resolved(project), indent=2)
    import yaml

    return str(yaml.safe_dump(resolved(project), sort_keys=False, allow_unicode=True)).rstrip("\n")
