"""What is known of a container, and kept in `containers/ID/container.json` so that a new daemon knows it too."""

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_engine.files import write_durably
from real_engine.times import NEVER, from_rfc3339, now, rfc3339

Json = dict[str, Any]


@dataclass(slots=True)
class State:
    """Where a container is in its life. A paused or restarting container counts as running, as Docker has it."""

    running: bool = False
    paused: bool = False
    restarting: bool = False
    removing: bool = False
    dead: bool = False
    oom_killed: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = NEVER
    finished_at: str = NEVER

    @property
    def status(self) -> str:
        """The state in one word: created, running, paused, restarting, removing, exited or dead."""
        if self.running:
            return "paused" if self.paused else "restarting" if self.restarting else "running"
        if self.removing:
            return "removing"
        if self.dead:
            return "dead"
        return "created" if self.started_at == NEVER else "exited"


@dataclass(slots=True)
class Health:
    """What the health checks found. `log` holds the last five."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[Json] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """One container. `config` and `host_config` are as in Docker's API, completed by the image and by defaults.

    `networks` holds for each network, by its name, what was asked for and, while it runs, what it got (EndpointSettings
    of the API). `mounts` are the mount points of the API's form. `lock` guards changes of state; it is re-entrant.
    `volumes_go` says of one that is being removed whether its anonymous volumes are removed too.
    `uploading` is held by who writes an archive into it: of two, one comes after the other.
    """

    id: str
    name: str
    created: str
    image_id: str
    path: str
    args: list[str]
    config: Json
    host_config: Json
    networks: dict[str, Json]
    mounts: list[Json]
    layers: list[str]
    state: State = field(default_factory=State)
    health: Health | None = None
    restart_count: int = 0
    stopped_by_hand: bool = False
    started_once: bool = False
    ports: Json = field(default_factory=dict)
    sandbox_id: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    exec_ids: list[str] = field(default_factory=list)
    volumes_go: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)
    uploading: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def short_id(self) -> str:
        """The first twelve digits, as the command line shows them."""
        return self.id[:12]

    @property
    def labels(self) -> dict[str, str]:
        """The container's labels, the image's among them."""
        return self.config.get("Labels") or {}

    @property
    def created_seconds(self) -> int:
        """When it was made, in seconds since 1970."""
        return from_rfc3339(self.created) // 1_000_000_000

    @property
    def network_mode(self) -> str:
        """`default`, `bridge`, `none`, `host`, `container:ID` or a network's name."""
        return str(self.host_config["NetworkMode"])

    @property
    def terminal(self) -> bool:
        """Whether its standard streams are a terminal."""
        return bool(self.config["Tty"])

    def save(self, directory: Path) -> None:
        """Write it to `directory`, durably.

        Raises:
            OSError: no room, say; the earlier record stays.
        """
        write_durably(directory / "container.json", json.dumps(self.to_json(), indent=1).encode(), mode=0o600)

    def to_json(self) -> Json:
        """All of it but the locks."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {
            "state": _fields(self.state),
            "health": None if self.health is None else _fields(self.health),
        }

    @classmethod
    def load(cls, directory: Path) -> "Record":
        """The record in `directory`.

        Raises:
            OSError: it cannot be read.
            ValueError: it is none, or of another version.
        """
        try:
            data = json.loads((directory / "container.json").read_bytes())
            health = data.pop("health")
            state = State(**data.pop("state"))
            return cls(**data, state=state, health=None if health is None else Health(**health))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{directory}/container.json is no record of a container: {error}") from error


_PLAIN = tuple(name for name in Record.__dataclass_fields__ if name not in ("state", "health", "lock", "uploading"))


def _fields(value: State | Health) -> Json:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def new_id() -> str:
    """An identifier of 64 hexadecimal digits, the first twelve of which are not all decimal, as Docker's.

    (A number as host name would be taken for an address.)
    """
    while True:
        identifier = os.urandom(32).hex()
        if not identifier[:12].isdecimal():
            return identifier


def timestamp() -> str:
    """This moment, as records keep it."""
    return rfc3339(now())
