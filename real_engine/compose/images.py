"""The images that a project's services need: built, pulled, or there already."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from real_engine.compose import labels
from real_engine.compose.host import Host
from real_engine.compose.model import Build
from real_engine.compose.ordering import at_once
from real_engine.compose.progress import Reporter
from real_engine.compose.project import Project
from real_engine.errors import InvalidParameter, NotFound

_POLICIES = ("", "missing", "if_not_present", "always", "never", "build")


def image_name(project: Project, service: str) -> str:
    """What the image of a service is called: as the file says, else by project and service."""
    return project.document.services[service].image or f"{project.name}-{service}"


def ensure_images(
    project: Project, wanted: Iterable[tuple[Host, str]], reporter: Reporter, *, build: bool = False, pull: str = ""
) -> None:
    """See to it that each host has the image of each service. `build` builds those again that can be built.

    Raises:
        NotFound: an image may not be pulled, and isn't there.
        EngineError: a build or pull has failed.
    """
    todo: dict[tuple[Host, str], str] = {}
    for host, service in wanted:
        todo.setdefault((host, image_name(project, service)), service)

    def ensure(item: tuple[tuple[Host, str], str]) -> None:
        (host, image), name = item
        service = project.document.services[name]
        policy = pull or service.pull_policy
        if policy not in _POLICIES:
            raise InvalidParameter(f"services.{name}.pull_policy: `{policy}` is none of {', '.join(_POLICIES[1:])}")
        there = host.image(image) is not None
        if service.build is not None and (build or policy == "build" or not there):
            if there or not service.image or policy in ("", "build", "never"):
                build_image(project, name, host, reporter)
                return
            with contextlib.suppress(NotFound):  # both are given: a registry may have it
                pull_image(image, host, reporter, service.platform)
                return
            build_image(project, name, host, reporter)
        elif service.build is None and (policy == "always" or not there):
            if policy == "never":
                raise NotFound(f"service {name}: the image {image} is not there, and its pull policy is never")
            pull_image(image, host, reporter, service.platform)

    at_once(todo.items(), ensure, most_at_once=4)


def pull_image(image: str, host: Host, reporter: Reporter, platform: str = "") -> None:
    """Pull an image.

    Raises:
        EngineError: it can't be pulled.
    """
    shown = f"{image} on {host}" if host.name else image
    reporter.report("Image", shown, "Pulling")
    for _ in host.pull(image, platform):
        pass
    reporter.report("Image", shown, "Pulled")


def build_image(
    project: Project,
    name: str,
    host: Host,
    reporter: Reporter,
    *,
    no_cache: bool = False,
    pull: bool = False,
    args: dict[str, str] | None = None,
) -> None:
    """Build the image of a service.

    Raises:
        InvalidParameter: it has no `build`, or the context isn't there.
        EngineError: a step has failed.
    """
    service = project.service(name)
    if service.build is None:
        raise InvalidParameter(f"service {name} has no build context")
    image = image_name(project, name)
    build = service.build
    reporter.report("Image", image, "Building")
    with _dockerfile(build) as dockerfile:
        options: dict[str, Any] = {
            "path": build.context,
            "dockerfile": dockerfile,
            "tag": image,
            "buildargs": {key: value for key, value in {**build.args, **(args or {})}.items() if value is not None},
            "target": build.target or None,
            "labels": {**build.labels, labels.PROJECT: project.name, labels.SERVICE: name},
            "cache_from": build.cache_from or None,
            "nocache": no_cache or build.no_cache,
            "pull": pull or build.pull,
            "network_mode": build.network or None,
            "shmsize": build.shm_size or None,
            "extra_hosts": {key: addresses[0] for key, addresses in build.extra_hosts.items()} or None,
            "platform": service.platform or None,
        }
        if build.context.startswith(("http://", "https://", "git://", "git@", "ssh://")):
            raise InvalidParameter(f"service {name}: a build context must be a directory of this machine")
        if not os.path.isdir(build.context):
            raise InvalidParameter(f'unable to prepare context: path "{build.context}" not found')
        for line in host.build(**options):
            if line.get("stream", "").strip():
                reporter.detail(name, line["stream"])
    for tag in build.tags:
        repository, _, version = tag.rpartition(":") if ":" in tag.rpartition("/")[2] else (tag, "", "latest")
        with host.errors():
            host.client.tag(image, repository, version)
    reporter.report("Image", image, "Built")


@contextlib.contextmanager
def _dockerfile(build: Build) -> Iterator[str]:
    """The Dockerfile's path: a text of the compose file is put into a file outside the context, which the SDK sends."""
    if not build.dockerfile_inline:
        yield build.dockerfile or "Dockerfile"
        return
    if build.dockerfile:
        raise InvalidParameter("build: `dockerfile` and `dockerfile_inline` exclude each other")
    with tempfile.TemporaryDirectory(prefix="onggi-compose-") as directory:
        path = Path(directory) / "Dockerfile"
        path.write_text(build.dockerfile_inline)
        yield str(path)


def pulled_services(project: Project, names: Sequence[str]) -> list[str]:
    """The services whose image is pulled, and not built."""
    chosen = project.select(names, with_dependencies=False)
    return [name for name, service in chosen.items() if service.image and service.build is None]
