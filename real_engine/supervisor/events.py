"""What the supervisor tells the daemon without being asked."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. On the wire it is an object whose `event` names its kind."""

    kind: ClassVar[str] = ""

    def to_json(self) -> dict[str, Any]:
        """The event as it is sent."""
        return {"event": self.kind} | {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Exited(Event):
    """A container's program, or one that was executed in it (then `target_id` is the exec's), has ended.

    `status` is its exit status, or 128 + `signal` where a signal ended it (0: none did). Times are nanoseconds since
    1970. All that it wrote is in the log by then. It stays known to the supervisor until it is acknowledged.
    """

    kind: ClassVar[str] = "exited"
    target_id: str
    container_id: str
    status: int
    signal: int
    oom_killed: bool
    started_at: int
    finished_at: int

    @property
    def is_exec(self) -> bool:
        """Whether it was executed in a container, and isn't the container's own program."""
        return self.target_id != self.container_id


@dataclass(frozen=True, slots=True)
class OutOfMemory(Event):
    """The container has reached its memory limit, and the kernel kills a process in it."""

    kind: ClassVar[str] = "oom"
    container_id: str


@dataclass(frozen=True, slots=True)
class Detached(Event):
    """A client has typed the detach keys: its connection ends, and the program goes on."""

    kind: ClassVar[str] = "detached"
    target_id: str
    container_id: str


@dataclass(frozen=True, slots=True)
class LogFailed(Event):
    """The log cannot be written (a full disk, say): what comes is dropped. Told once, until it works again."""

    kind: ClassVar[str] = "log-failed"
    container_id: str
    message: str


@dataclass(frozen=True, slots=True)
class LogRecovered(Event):
    """The log can be written again; `dropped` entries are missing from it."""

    kind: ClassVar[str] = "log-recovered"
    container_id: str
    dropped: int


@dataclass(frozen=True, slots=True)
class Replaced(Event):
    """Another daemon has connected, and the supervisor listens to that one from now on."""

    kind: ClassVar[str] = "replaced"


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """The supervisor has gone, and its containers with it: they were killed. (Said by the client, not sent.)"""

    kind: ClassVar[str] = "lost"


_KINDS: dict[str, type[Event]] = {
    each.kind: each for each in (Exited, OutOfMemory, Detached, LogFailed, LogRecovered, Replaced, Lost)
}


def event_from_json(message: dict[str, Any]) -> Event:
    """The event that `to_json` made.

    Raises:
        ValueError: of a kind, or with fields, that we don't know.
    """
    values = dict(message)
    try:
        return _KINDS[values.pop("event")](**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no event: {message}") from error
