"""One daemon, spoken to through Docker's SDK: what compose needs of it, in compose's words.

Errors of the API become `EngineError`s of the same kind with the daemon's own text. The SDK is imported here, when the
first daemon is spoken to, since that takes a third of a second.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from real_engine.compose import labels
from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Json = dict[str, Any]

OWN_SOCKET = Path("/run/onggi/onggi.sock")
_SECONDS = 120.0
_PING_SECONDS = 3.0
_MOST_CONNECTIONS = 64
_OLDEST_API = "1.24"  # until the daemon has told its own
_KINDS: dict[int, type[EngineError]] = {400: InvalidParameter, 404: NotFound, 409: Conflict, 503: Unavailable}


class HostLost(Unavailable):
    """A daemon can't be reached, or has gone in the middle of a call."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a project, as a daemon lists it. `ports` are those of the API."""

    id: str
    name: str
    service: str
    number: int
    state: str
    status: str
    image: str
    image_id: str
    command: str
    created: int
    oneoff: bool
    host: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Json, ...] = ()

    @property
    def running(self) -> bool:
        """Whether it runs, paused or not."""
        return self.state in ("running", "paused", "restarting")

    @property
    def config_hash(self) -> str:
        """Of which configuration it was made."""
        return self.labels.get(labels.CONFIG_HASH, "")


def default_url() -> str:
    """Where `docker` would look (DOCKER_HOST), else our own daemon if there is one, else Docker's usual place."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    if os.environ.get("XDG_RUNTIME_DIR") and os.geteuid() != 0:
        own = Path(os.environ["XDG_RUNTIME_DIR"]) / "onggi.sock"
    else:
        own = OWN_SOCKET
    return f"unix://{own}" if own.exists() else "unix:///var/run/docker.sock"


class Host:
    """A daemon at `url`, called `name`. Thread-safe."""

    def __init__(self, url: str = "", name: str = "", address: str = "127.0.0.1") -> None:
        self.url = url or default_url()
        self.name = name
        self.address = address
        """Where its published ports are reached from here."""
        self.trouble = ""
        """Why it was not there when it was last asked whether it is."""
        self._client: Any = None

    def __str__(self) -> str:
        return self.name or self.url

    @property
    def client(self) -> Any:
        """The SDK's client.

        Raises:
            HostLost: the daemon can't be reached.
        """
        if self._client is None:
            try:
                import docker
                from docker.utils import kwargs_from_env
            except ModuleNotFoundError as error:
                raise EngineError("compose needs Docker's SDK: pip install 'onggi[engine]'") from error

            try:
                _ = urlsplit(self.url).port
            except ValueError as error:
                raise InvalidParameter(
                    f"`{self.url}` is no address of a daemon: write unix://PATH or tcp://HOST:PORT"
                ) from error
            options: Json = {"base_url": self.url}
            if self.url.startswith("tcp://") and os.environ.get("DOCKER_TLS_VERIFY"):
                # Every daemon of a fleet is spoken to with the same certificate, as `docker -H` does.
                directory = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
                for name in ("ca.pem", "cert.pem", "key.pem"):
                    if not os.access(directory / name, os.R_OK):
                        raise HostLost(
                            f"{self._named()}: cannot read {directory / name}: "
                            "DOCKER_CERT_PATH names the directory of ca.pem, cert.pem and key.pem"
                        )
                options = kwargs_from_env(environment={**os.environ, "DOCKER_HOST": self.url})
            with self.errors():
                client = docker.APIClient(
                    version=_OLDEST_API, timeout=_SECONDS, max_pool_size=_MOST_CONNECTIONS, **options
                )
                # REQUESTS_CA_BUNDLE would replace the authority of the daemons, and a proxy doesn't lead to them.
                client.trust_env = False
                client._version = client._retrieve_server_version()
            self._client = client
        return self._client

    @property
    def api_version(self) -> tuple[int, int]:
        """The version of the API that is spoken."""
        major, _, minor = str(self.client.api_version).partition(".")
        return int(major), int(minor or 0)

    def alive(self) -> bool:
        """Whether the daemon answers a ping."""
        try:
            with self.errors():
                response = self.client.get(self.client._url("/_ping", versioned_api=False), timeout=_PING_SECONDS)
            self.trouble = "" if response.status_code == 200 else f"it answers {response.status_code}"
        except EngineError as error:
            self.trouble = str(error)
        return not self.trouble

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the SDK's errors into ours."""
        import requests
        from docker.errors import APIError, DockerException

        try:
            yield
        except APIError as error:
            status = error.response.status_code if error.response is not None else 500
            raise _KINDS.get(status, EngineError)(str(error.explanation or error)) from error
        except requests.exceptions.SSLError as error:
            raise HostLost(f"{self._named()}: {_tls_trouble(error)}") from error
        except requests.exceptions.ReadTimeout as error:
            raise HostLost(f"the daemon {self} gave no answer within {_SECONDS:.0f} s") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise HostLost(self._unreachable()) from error
        except DockerException as error:
            if "SSL" in str(error) or "TLS" in str(error):
                raise HostLost(f"{self._named()}: {_tls_trouble(error)}") from error
            if "connection" in str(error).lower() or "FileNotFoundError" in str(error):
                raise HostLost(self._unreachable()) from error
            raise EngineError(str(error)) from error

    def _unreachable(self) -> str:
        hint = " (with TLS: set DOCKER_TLS_VERIFY=1)" if self._without_tls() else ""
        return f"cannot connect to {self._named()}: is it running?{hint}"

    def _without_tls(self) -> bool:
        return self.url.startswith("tcp://") and not os.environ.get("DOCKER_TLS_VERIFY")

    def _named(self) -> str:
        return f"the daemon {self.name + ' ' if self.name else ''}at {self.url}"

    # --- containers --------------------------------------------------------------------------------------------------

    def containers(self, project: str, services: Sequence[str] = (), *, oneoff: bool | None = False) -> list[Container]:
        """The containers of a project, in every state, by service and number. `oneoff` None is both kinds."""
        wanted = [f"{labels.PROJECT}={project}"]
        if oneoff is not None:
            wanted.append(f"{labels.ONEOFF}={oneoff}")
        with self.errors():
            found = [self._container(one) for one in self.client.containers(all=True, filters={"label": wanted})]
        chosen = [one for one in found if not services or one.service in services]
        return sorted(chosen, key=lambda one: (one.service, one.number, one.created))

    def _container(self, listed: Json) -> Container:
        tags = listed.get("Labels") or {}
        number = tags.get(labels.NUMBER, "0")
        return Container(
            id=listed["Id"],
            name=_own_name(listed.get("Names") or [""]),
            service=tags.get(labels.SERVICE, ""),
            number=int(number) if number.isdigit() else 0,
            state=listed.get("State") or "",
            status=listed.get("Status") or "",
            image=listed.get("Image") or "",
            image_id=listed.get("ImageID") or "",
            command=listed.get("Command") or "",
            created=int(listed.get("Created") or 0),
            oneoff=tags.get(labels.ONEOFF) == "True",
            host=self.name,
            labels=tags,
            ports=tuple(listed.get("Ports") or ()),
        )

    def inspect(self, container_id: str) -> Json:
        """All about a container.

        Raises:
            NotFound: it is gone.
        """
        with self.errors():
            found: Json = self.client.inspect_container(container_id)
        return found

    def create(self, request: Json, name: str, platform: str = "") -> str:
        """Make a container from the API's JSON; returns its id."""
        with self.errors():
            return str(self.client.create_container_from_config(request, name, platform or None)["Id"])

    def start(self, container_id: str) -> None:
        """Start it."""
        with self.errors():
            self.client.start(container_id)

    def stop(self, container_id: str, seconds: int | None = None) -> None:
        """Ask it to end, and end it after `seconds` (default: what the container says, else 10)."""
        with self.errors():
            url = self.client._url("/containers/{0}/stop", container_id)
            params = {} if seconds is None else {"t": seconds}
            longest = _SECONDS + (seconds or 0) + 600
            self.client._raise_for_status(self.client._post(url, params=params, timeout=longest))

    def restart(self, container_id: str, seconds: int | None = None) -> None:
        """Stop and start it."""
        with self.errors():
            self.client.restart(container_id, **({} if seconds is None else {"timeout": seconds}))

    def kill(self, container_id: str, signal: str = "SIGKILL") -> None:
        """Send it a signal."""
        with self.errors():
            self.client.kill(container_id, signal)

    def rename(self, container_id: str, name: str) -> None:
        """Give it another name."""
        with self.errors():
            self.client.rename(container_id, name)

    def remove(self, container_id: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it, and its anonymous volumes if asked. One that is gone already is no error."""
        with contextlib.suppress(NotFound), self.errors():
            self.client.remove_container(container_id, v=volumes, force=force)

    def top(self, container_id: str) -> Json:
        """Its processes."""
        with self.errors():
            found: Json = self.client.top(container_id)
        return found

    # --- images ------------------------------------------------------------------------------------------------------

    def image(self, name: str) -> Json | None:
        """The image of that name, if it is there."""
        try:
            with self.errors():
                found: Json = self.client.inspect_image(name)
        except NotFound:
            return None
        return found

    def pull(self, name: str, platform: str = "") -> Iterator[Json]:
        """Pull an image; gives the daemon's progress.

        Raises:
            EngineError: it can't be pulled.
        """
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(name)
        with self.errors():
            lines = self.client.pull(
                repository, tag=tag or "latest", stream=True, decode=True, platform=platform or None
            )
            yield from self._progress(lines)

    def build(self, **options: Any) -> Iterator[Json]:
        """Build an image; gives the daemon's progress.

        Raises:
            EngineError: a step failed, or the context can't be read.
        """
        with self.errors():
            try:
                lines = self.client.build(decode=True, rm=True, forcerm=True, **options)
            except TypeError as error:  # the SDK's word for a context that isn't there
                raise InvalidParameter(f"unable to prepare context: {error}") from error
            yield from self._progress(lines)

    def _progress(self, lines: Iterator[Json]) -> Iterator[Json]:
        for line in lines:
            if "error" in line:
                raise EngineError(str((line.get("errorDetail") or {}).get("message") or line["error"]))
            yield line

    def remove_image(self, name: str) -> bool:
        """Remove an image; False if there is none, or containers use it."""
        try:
            with self.errors():
                self.client.remove_image(name)
        except (NotFound, Conflict):
            return False
        return True

    # --- networks and volumes ----------------------------------------------------------------------------------------

    def network(self, name: str) -> Json | None:
        """The network of exactly that name."""
        with self.errors():
            found = [one for one in self.client.networks(names=[name]) if one["Name"] == name]
        return found[0] if found else None

    def create_network(self, request: Json) -> None:
        """Make a network from the API's JSON."""
        with self.errors():
            self.client._result(self.client._post_json(self.client._url("/networks/create"), data=request), json=True)

    def remove_network(self, name: str) -> bool:
        """Remove a network; False if there is none."""
        try:
            with self.errors():
                self.client.remove_network(name)
        except NotFound:
            return False
        return True

    def connect(self, network: str, container_id: str, endpoint: Json) -> None:
        """Put a container on a network."""
        with self.errors():
            url = self.client._url("/networks/{0}/connect", network)
            data = {"Container": container_id, "EndpointConfig": endpoint}
            self.client._raise_for_status(self.client._post_json(url, data=data))

    def networks(self, project: str) -> list[str]:
        """The names of a project's networks."""
        with self.errors():
            found = self.client.networks(filters={"label": [f"{labels.PROJECT}={project}"]})
        return sorted(one["Name"] for one in found)

    def volume(self, name: str) -> Json | None:
        """The volume of that name."""
        try:
            with self.errors():
                found: Json = self.client.inspect_volume(name)
        except NotFound:
            return None
        return found

    def create_volume(self, name: str, driver: str, options: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Make a volume."""
        with self.errors():
            self.client.create_volume(name, driver or None, dict(options) or None, dict(tags))

    def remove_volume(self, name: str) -> bool:
        """Remove a volume; False if there is none."""
        try:
            with self.errors():
                self.client.remove_volume(name)
        except NotFound:
            return False
        return True


def _tls_trouble(error: BaseException) -> str:
    """The reason in an error of TLS, out of the errors that are wrapped around it, with what to do."""
    text = str(error)
    for part in ("certificate verify failed: ", "alert "):
        if part in text:
            text = text.partition(part)[2].partition(" (_ssl")[0].rstrip(".")
            return f"TLS fails: {text}: see DOCKER_CERT_PATH"
    return "TLS fails: " + text.rpartition("Caused by ")[2].strip("()")


def shown_on(host: Host, name: str) -> str:
    """How a thing of a daemon is called in reports: with the daemon's name, where daemons have names."""
    return f"{name} on {host.name}" if host.name else name


def _own_name(names: Sequence[str]) -> str:
    """Of a container's names, the one that is no link's."""
    return min(names, key=lambda name: name.count("/")).removeprefix("/")
