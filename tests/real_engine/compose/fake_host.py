"""A daemon in memory: what `compose.host.Host` does, without Docker. It can be lost, and refuse."""

import itertools
import threading
from typing import Any

from real_engine.compose import labels
from real_engine.compose.host import Container, Host, HostLost
from real_engine.errors import Conflict, EngineError, NotFound

Json = dict[str, Any]


class FakeHost(Host):
    """Containers run as soon as they are started, and end when they are stopped. `calls` are (what, name)."""

    _ids = itertools.count(1)

    def __init__(self, name: str = "", images: tuple[str, ...] = ("bb",)) -> None:
        super().__init__(f"fake://{name}", name, "127.0.0.1")
        self.images = {image: f"sha256:{image}" for image in images}
        self.made: dict[str, Json] = {}
        self.networks_made: dict[str, Json] = {}
        self.volumes_made: dict[str, Json] = {}
        self.calls: list[tuple[str, str]] = []
        self.lost = False
        self.refuse: dict[str, str] = {}
        self.health: dict[str, str] = {}
        self.exit_codes: dict[str, int] = {}
        self._guard = threading.RLock()

    @property
    def api_version(self) -> tuple[int, int]:
        return 1, 43

    def alive(self) -> bool:
        return not self.lost

    def close(self) -> None:
        return None

    def _call(self, what: str, name: str) -> None:
        if self.lost:
            raise HostLost(f"{self.name} is gone")
        if name in self.refuse and what == "create":
            raise EngineError(self.refuse[name])
        with self._guard:
            self.calls.append((what, name))

    def did(self, what: str) -> list[str]:
        return [name for action, name in self.calls if action == what]

    def containers(self, project, services=(), *, oneoff=False) -> list[Container]:
        if self.lost:
            raise HostLost(f"{self.name} is gone")
        found = []
        with self._guard:
            made = dict(self.made)
        for identifier, one in made.items():
            tags = one["Labels"]
            if tags[labels.PROJECT] != project or (services and tags[labels.SERVICE] not in services):
                continue
            if oneoff is not None and tags[labels.ONEOFF] != str(oneoff):
                continue
            ports = [
                {"PrivatePort": int(port.partition("/")[0]), "PublicPort": 40000 + int(identifier), "Type": "tcp"}
                for port in one["HostConfig"].get("PortBindings") or {}
            ]
            found.append(
                Container(
                    id=identifier,
                    name=one["Name"],
                    service=tags[labels.SERVICE],
                    number=int(tags[labels.NUMBER]),
                    state=one["State"],
                    status="Up" if one["State"] == "running" else "Exited (0)",
                    image=one["Image"],
                    image_id=tags[labels.IMAGE],
                    command="",
                    created=int(identifier),
                    oneoff=tags[labels.ONEOFF] == "True",
                    host=self.name,
                    labels=tags,
                    ports=tuple(ports),
                )
            )
        return sorted(found, key=lambda one: (one.service, one.number, one.created))

    def inspect(self, container_id: str) -> Json:
        self._call("inspect", container_id)
        one = self.made.get(container_id)
        if one is None:
            raise NotFound(f"No such container: {container_id}")
        service = one["Labels"][labels.SERVICE]
        state: Json = {
            "Running": one["State"] == "running" and service not in self.exit_codes,
            "Status": "exited" if service in self.exit_codes else one["State"],
            "ExitCode": self.exit_codes.get(service, 0),
        }
        if service in self.health:
            state["Health"] = {"Status": self.health[service]}
        return {"State": state, "HostConfig": one["HostConfig"], "Mounts": one.get("Mounts", [])}

    def create(self, request: Json, name: str, platform: str = "") -> str:
        self._call("create", name)
        with self._guard:
            if any(one["Name"] == name for one in self.made.values()):
                raise Conflict(f'The container name "/{name}" is already in use')
            identifier = str(next(self._ids))
            self.made[identifier] = {**request, "Name": name, "State": "created", "Networks": []}
        return identifier

    def start(self, container_id: str) -> None:
        self._call("start", self.made[container_id]["Name"])
        self.made[container_id]["State"] = "running"

    def stop(self, container_id: str, seconds: int | None = None) -> None:
        self._call("stop", self.made[container_id]["Name"])
        self.made[container_id]["State"] = "exited"

    def restart(self, container_id: str, seconds: int | None = None) -> None:
        self._call("restart", self.made[container_id]["Name"])

    def rename(self, container_id: str, name: str) -> None:
        self._call("rename", name)
        self.made[container_id]["Name"] = name

    def remove(self, container_id: str, *, force: bool = False, volumes: bool = False) -> None:
        with self._guard:
            one = self.made.pop(container_id, None)
        self._call("remove", one["Name"] if one else container_id)

    def image(self, name: str) -> Json | None:
        self._call("image", name)
        return {"Id": self.images[name]} if name in self.images else None

    def pull(self, name: str, platform: str = ""):
        self._call("pull", name)
        if name == "nosuch":
            raise NotFound("manifest unknown")
        self.images[name] = f"sha256:{name}"
        yield {}

    def network(self, name: str) -> Json | None:
        self._call("network", name)
        return self.networks_made.get(name)

    def create_network(self, request: Json) -> None:
        self._call("create network", request["Name"])
        self.networks_made[request["Name"]] = request

    def remove_network(self, name: str) -> bool:
        self._call("remove network", name)
        return self.networks_made.pop(name, None) is not None

    def networks(self, project: str) -> list[str]:
        return [name for name, one in self.networks_made.items() if one["Labels"][labels.PROJECT] == project]

    def connect(self, network: str, container_id: str, endpoint: Json) -> None:
        self._call("connect", network)
        self.made[container_id]["Networks"].append((network, endpoint))

    def volume(self, name: str) -> Json | None:
        return self.volumes_made.get(name)

    def create_volume(self, name, driver, options, tags) -> None:
        self._call("create volume", name)
        self.volumes_made[name] = {"Driver": driver or "local", "Options": options, "Labels": tags}

    def remove_volume(self, name: str) -> bool:
        self._call("remove volume", name)
        return self.volumes_made.pop(name, None) is not None
