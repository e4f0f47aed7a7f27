"""A project: compose files found, filled in, merged and checked, and the services that are wanted of it."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_engine.compose.canonical import canonical_document
from real_engine.compose.documents import map_texts, read_document
from real_engine.compose.environment import read_env_file
from real_engine.compose.interpolation import interpolate
from real_engine.compose.merging import merge, without_marks
from real_engine.compose.model import Document, Network, Service, check
from real_engine.errors import InvalidParameter, NotFound

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_DEEPEST_EXTENDS = 16


@dataclass(frozen=True, slots=True)
class Project:
    """A project. `services` are the ones that its profiles enable; `warnings` are for the person who asked."""

    name: str
    directory: Path
    files: tuple[Path, ...]
    document: Document
    services: Mapping[str, Service]
    environment: Mapping[str, str]
    warnings: tuple[str, ...] = field(default=())

    def service(self, name: str) -> Service:
        """The service of that name, enabled or not.

        Raises:
            NotFound: there is none.
        """
        found = self.document.services.get(name)
        if found is None:
            raise NotFound(f"no such service: {name}")
        return found

    def select(self, names: Sequence[str], *, with_dependencies: bool = True) -> dict[str, Service]:
        """The services of these names (all that are enabled, without names), with those that they depend on.

        One that is named is enabled by that, whatever its profiles (compose-spec, 15-profiles.md).

        Raises:
            NotFound: a name that there isn't.
            InvalidParameter: a dependency that no profile enables.
        """
        chosen: dict[str, Service] = {name: self.service(name) for name in names} or dict(self.services)
        if with_dependencies:
            waiting = list(chosen)
            while waiting:
                name = waiting.pop()
                for other, required in dependencies(self.document.services[name]).items():
                    if other in chosen:
                        continue
                    if other not in self.services and not (other in self.document.services and names):
                        if not required:
                            continue
                        raise InvalidParameter(f"service {name} depends on {other}, which no active profile enables")
                    chosen[other] = self.document.services[other]
                    waiting.append(other)
        return {name: service for name, service in self.document.services.items() if name in chosen}

    def resource_name(self, kind: str, key: str) -> str:
        """What the engine calls the network or volume that the file calls `key`."""
        entry: Any = getattr(self.document, kind)[key]
        return str(entry.name or (key if entry.external else f"{self.name}_{key}"))


def dependencies(service: Service) -> dict[str, bool]:
    """The services that must be there before this one, each with whether it is required."""
    found = {name: dependency.required for name, dependency in service.depends_on.items()}
    for link in service.links:
        found.setdefault(link.partition(":")[0], True)
    for mode in (service.network_mode, service.ipc, service.pid):
        if mode.startswith("service:"):
            found.setdefault(mode.removeprefix("service:"), True)
    for source in service.volumes_from:
        if not source.startswith("container:"):
            found.setdefault(source.partition(":")[0], True)
    return found


def load_project(
    files: Sequence[Path] = (),
    *,
    name: str = "",
    directory: Path | None = None,
    env_files: Sequence[Path] = (),
    profiles: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Project:
    """Find, read and check a project. `environment` is the caller's own (default: the process's).

    Raises:
        InvalidParameter: no file, or anything wrong in one; the message names the file or the way to the key.
    """
    outside = dict(os.environ if environment is None else environment)
    paths = _find_files(files, outside, directory)
    home = (directory or paths[0].parent).resolve()
    variables = _variables(outside, env_files, home)
    unset: dict[str, None] = {}
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, _read(path, variables, unset, home))
    merged = without_marks(merged)
    document = check(merged)
    if any(
        not service.network_mode and "default" in (service.networks or {"default"})
        for service in document.services.values()
    ):
        document.networks.setdefault("default", Network())
    chosen = _project_name(name or variables.get("COMPOSE_PROJECT_NAME", "") or document.name, home)
    wanted = {*profiles, *filter(None, re.split(r"[,\s]+", variables.get("COMPOSE_PROFILES", "")))}
    _check_references(document)
    services = {
        key: service
        for key, service in document.services.items()
        if not service.profiles or "*" in wanted or wanted & set(service.profiles)
    }
    _check_cycles(document.services)
    _fill_environments(document, variables, home)
    warnings = tuple(f'The "{one}" variable is not set. Defaulting to a blank string.' for one in unset)
    return Project(chosen, home, tuple(paths), document, services, variables, warnings)


def _find_files(files: Sequence[Path], outside: Mapping[str, str], directory: Path | None) -> list[Path]:
    if not files and outside.get("COMPOSE_FILE"):
        separator = outside.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = [Path(name) for name in outside["COMPOSE_FILE"].split(separator) if name]
    if files:
        return [path.resolve() for path in files]
    start = (directory or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        for name in FILE_NAMES:
            if (folder / name).is_file():
                overrides = [folder / other for other in _OVERRIDES if (folder / other).is_file()]
                return [folder / name, *overrides[:1]]
    raise InvalidParameter("no configuration file provided: not found: write a compose.yaml, or name one with -f")


def _variables(outside: Mapping[str, str], env_files: Sequence[Path], home: Path) -> dict[str, str]:
    """What `.env` or the named files set, and over that the environment."""
    found: dict[str, str] = {}
    chosen = list(env_files)
    if not chosen and (home / ".env").is_file():
        chosen = [home / ".env"]
    for path in chosen:
        read = read_env_file(path, outside)
        found |= {name: value for name, value in read.items() if value is not None}
    return found | dict(outside)


def _read(path: Path, variables: Mapping[str, str], unset: dict[str, None], home: Path) -> dict[str, Any]:
    """One file, filled in, in the canonical form, with `extends` followed and paths made absolute."""

    def fill(text: str, where: str) -> str:
        try:
            return interpolate(text, variables, lambda name: unset.setdefault(name))
        except InvalidParameter as error:
            raise InvalidParameter(f"{path}: {where}: {error}") from error

    def read(file: Path, base: Path) -> dict[str, Any]:
        return absolute_paths(canonical_document(map_texts(read_document(file), fill)), base)

    document = read(path, home)
    services = document.get("services")
    if isinstance(services, dict):
        for name in services:
            services[name] = _extended(services, name, path, read, ())
    return document


def _extended(services: dict[str, Any], name: str, file: Path, read: Any, seen: tuple[Any, ...]) -> Any:
    service = services.get(name)
    if not isinstance(service, dict) or not isinstance(service.get("extends"), dict):
        return service
    if (file, name) in seen or len(seen) > _DEEPEST_EXTENDS:
        raise InvalidParameter(f"services.{name}.extends: it comes back to itself")
    wanted = service["extends"]
    base_name = str(wanted.get("service", ""))
    other = Path(str(wanted["file"])) if wanted.get("file") else file
    base_services = services if other == file else (read(other, other.parent).get("services") or {})
    if base_name not in base_services:
        raise InvalidParameter(f"services.{name}.extends: no such service `{base_name}` in {other}")
    base = _extended(base_services, base_name, other, read, (*seen, (file, name)))
    own = {key: value for key, value in service.items() if key != "extends"}
    return merge({key: value for key, value in base.items() if key != "extends"}, own)


def absolute_paths(document: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths of this machine in a canonical document, made absolute from `base`."""

    def absolute(text: Any) -> Any:
        if not isinstance(text, str) or not text or "://" in text:
            return text
        return os.path.normpath(base / os.path.expanduser(text))

    services = document.get("services")
    for service in services.values() if isinstance(services, dict) else ():
        if not isinstance(service, dict):
            continue
        build = service.get("build")
        if isinstance(build, dict):
            build["context"] = absolute(build.get("context", "."))
        extends = service.get("extends")
        if isinstance(extends, dict) and extends.get("file"):
            extends["file"] = absolute(extends["file"])
        for file in service.get("env_file") or () if isinstance(service.get("env_file"), list) else ():
            if isinstance(file, dict):
                file["path"] = absolute(file.get("path"))
        for mount in service.get("volumes") or () if isinstance(service.get("volumes"), list) else ():
            if isinstance(mount, dict) and mount.get("type") == "bind" and "source" in mount:
                mount["source"] = absolute(mount.get("source"))
    for kind in ("secrets", "configs"):
        entries = document.get(kind)
        for entry in entries.values() if isinstance(entries, dict) else ():
            if isinstance(entry, dict) and entry.get("file"):
                entry["file"] = absolute(entry["file"])
    return document


def _project_name(name: str, home: Path) -> str:
    if name:
        if not _PROJECT_NAME.fullmatch(name):
            raise InvalidParameter(
                f'invalid project name "{name}": must consist only of lowercase alphanumeric characters, hyphens, '
                "and underscores as well as start with a letter or number"
            )
        return name
    plain = re.sub(r"[^a-z0-9_-]", "", home.name.lower()).lstrip("_-")
    if not plain:
        raise InvalidParameter(f"no project name can be made of the directory {home}: give one with -p")
    return plain


def _check_references(document: Document) -> None:
    """Every name that a service uses is there, or is made: the network `default`."""
    for name, service in document.services.items():
        where = f"service {name}"
        for other in dependencies(service):
            if other not in document.services and dependencies(service)[other]:
                raise InvalidParameter(f"{where} depends on undefined service {other}")
        for kind, used in (
            ("networks", [key for key in service.networks if key != "default"]),
            ("volumes", [mount.source for mount in service.volumes if mount.type == "volume" and mount.source]),
            ("secrets", [grant.source for grant in service.secrets]),
            ("configs", [grant.source for grant in service.configs]),
        ):
            defined = getattr(document, kind)
            for key in used:
                if key not in defined:
                    raise InvalidParameter(f"{where} refers to undefined {kind[:-1]} {key}: invalid compose project")


def _check_cycles(services: Mapping[str, Service]) -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise InvalidParameter(f"dependency cycle detected: {' -> '.join((*way[way.index(name) :], name))}")
        if name in done:
            return
        for other in dependencies(services[name]):
            if other in services:
                visit(other, (*way, name))
        done.add(name)

    for name in services:
        visit(name, ())


def _fill_environments(document: Document, variables: Mapping[str, str], home: Path) -> None:
    """Put the files of `env_file` beneath each service's `environment`, and the caller's values to names alone."""
    for name, service in document.services.items():
        found: dict[str, str | None] = {}
        for file in service.env_file:
            path = Path(file.path)
            if not path.exists() and not file.required:
                continue
            try:
                found |= read_env_file(path, variables)
            except InvalidParameter as error:
                raise InvalidParameter(f"services.{name}: {error}") from error
        found |= service.environment
        service.environment = {
            key: value if value is not None else variables[key]
            for key, value in found.items()
            if value is not None or key in variables
        }
        if service.build is not None:
            service.build.args = {
                key: value if value is not None else variables.get(key) for key, value in service.build.args.items()
            }
