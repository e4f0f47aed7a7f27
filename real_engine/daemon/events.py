"""What happened: published by whoever did it, kept for a while, and told to those who listen."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from real_engine.times import now

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from real_engine.filters import Filters

_KEPT = 256  # moby daemon/events eventsLimit
_MOST_QUEUED = 4096  # what a listener may be behind before it is cut off

# Actions that carry a command or a result after a colon: a filter names the part before it.
_WITH_DETAIL = frozenset(("health_status", "exec_create", "exec_start"))
_NAMED = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config")
FILTERS = frozenset((*_NAMED, "event", "image", "label", "scope", "type"))
"""The keys that `GET /events` knows."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the object `actor_id` of a type: container, image, network, volume, daemon, …

    `nanoseconds` is since 1970.
    """

    type: str
    action: str
    actor_id: str
    attributes: dict[str, str]
    nanoseconds: int
    scope: str = "local"

    def to_json(self) -> dict[str, Any]:
        """As the API has it, with the old fields for containers and images (moby daemon/events PublishMessage)."""
        old: dict[str, Any] = {}
        if self.type in ("container", "image"):
            old = {"status": self.action, "id": self.actor_id}
        if self.type == "container" and self.attributes.get("image"):
            old["from"] = self.attributes["image"]
        return old | {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.actor_id, "Attributes": self.attributes},
            "scope": self.scope,
            "time": self.nanoseconds // 1_000_000_000,
            "timeNano": self.nanoseconds,
        }


class EventBus:
    """Takes events from any thread, keeps the last 256, and gives each to the subscriptions that want it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Event] = deque(maxlen=_KEPT)
        self._subscriptions: set[Subscription] = set()

    def publish(
        self,
        type: str,  # noqa: A002 -- the API's word
        action: str,
        actor_id: str,
        attributes: Mapping[str, str] | None = None,
        scope: str = "local",
    ) -> None:
        """Tell that something happened, now."""
        with self._lock:  # the moment is taken inside, so that events are kept in the order of their times
            event = Event(type, action, actor_id, dict(attributes or {}), now(), scope)
            self._kept.append(event)
            for subscription in self._subscriptions:
                subscription._offer(event)

    def subscribe(
        self, since: int | None = None, until: int | None = None, filters: Filters | None = None
    ) -> Subscription:
        """Listen. With `since` or `until` (nanoseconds since 1970), what is kept of that time comes first."""
        with self._lock:
            subscription = Subscription(self, filters)
            if since is not None or until is not None:
                for event in self._kept:
                    if event.nanoseconds >= (since or 0) and (until is None or event.nanoseconds <= until):
                        subscription._offer(event)
            self._subscriptions.add(subscription)
        return subscription

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._subscriptions)

    def _leave(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)


class Subscription:
    """The events that one listener wants, waiting to be taken.

    Its descriptor can be read when there are some, or when it was cut off, being further behind than 4096 events.
    """

    def __init__(self, bus: EventBus, filters: Filters | None) -> None:
        self._bus = bus
        self._filters = filters
        self._waiting: deque[Event] = deque()
        self._lock = threading.Lock()
        self._signal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.lost = False
        """Whether it was cut off: what was waiting can be taken, and nothing more comes."""

    def fileno(self) -> int:
        """The descriptor that can be read when events wait."""
        return self._signal

    def take(self) -> list[Event]:
        """All that wait; doesn't wait itself."""
        with self._lock:
            if self._signal >= 0 and (self._waiting or self.lost):
                with contextlib.suppress(BlockingIOError):  # it was taken already
                    os.eventfd_read(self._signal)
            events = list(self._waiting)
            self._waiting.clear()
        return events

    def close(self) -> None:
        """Listen no more."""
        self._bus._leave(self)
        with self._lock:
            if self._signal >= 0:
                os.close(self._signal)
                self._signal = -1

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return iter(self.take())

    def _offer(self, event: Event) -> None:
        """Queue the event if it is wanted; called by the bus."""
        if self.lost or not (self._filters is None or matches(event, self._filters)):
            return
        with self._lock:
            if len(self._waiting) >= _MOST_QUEUED:
                self.lost = True
            else:
                self._waiting.append(event)
            if self._signal >= 0 and (self.lost or len(self._waiting) == 1):
                os.eventfd_write(self._signal, 1)


def matches(event: Event, filters: Filters) -> bool:
    """Whether the filters let an event through (moby daemon/events/filter.go)."""
    if not filters:
        return True
    action_matches = filters.prefix if _WITH_DETAIL.intersection(filters.get("event")) else filters.exact
    return (
        action_matches("event", event.action)
        and filters.exact("type", event.type)
        and filters.exact("scope", event.scope)
        and all(_is_named(event, filters, kind) for kind in _NAMED)
        and _image_matches(event, filters)
        and filters.labels("label", event.attributes)
    )


def _is_named(event: Event, filters: Filters, kind: str) -> bool:
    return filters.prefix(kind, event.actor_id) or filters.prefix(kind, event.attributes.get("name", ""))


def _image_matches(event: Event, filters: Filters) -> bool:
    if "image" not in filters:
        return True
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    return any(filters.exact("image", value) for one in (event.actor_id, name) for value in (one, _without_tag(one)))


def _without_tag(name: str) -> str:
    """A reference without its tag: `host:5000/a:1` is `host:5000/a`."""
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]
