"""Which containers a list shows: the filters of `docker ps`."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers import views
from real_engine.daemon.containers.record import Record
from real_engine.daemon.containers.requests import port_range
from real_engine.errors import EngineError, InvalidParameter, NotFound
from real_engine.filters import Filters
from real_engine.times import from_rfc3339, parse_moment

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers

Json = dict[str, Any]

_FILTERS = [
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
]
_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}
_HEALTHS = ("none", "starting", "healthy", "unhealthy")


def listed(containers: "Containers", filters: Filters, *, everything: bool, limit: int, size: bool) -> list[Json]:
    """The containers that pass, the newest first."""
    filters.check(_FILTERS)
    passes = _tests(containers, filters)
    if limit > 0 or filters.get("status") or filters.get("exited") or filters.get("before") or filters.get("since"):
        everything = True
    found = []
    for record in sorted(containers.table, key=lambda one: from_rfc3339(one.created), reverse=True):
        if not everything and not record.state.running:
            continue
        if not all(test(record) for test in passes):
            continue
        found.append(record)
        if 0 < limit <= len(found):
            break
    shown = []
    for record in found:
        with contextlib.suppress(NotFound):  # it is removed while we look
            sizes = containers.storage.sizes(record) if size else None
            shown.append(views.summary(record, image_name(containers, record), sizes))
    return shown


def image_name(containers: "Containers", record: Record) -> str:
    """What the container's image was called when it was made, if that name still means it; else the image's id."""
    name = str(record.config["Image"])
    try:
        if containers.images.resolve(name).id == record.image_id:
            return name
    except EngineError:
        return record.image_id  # the image, or its name, has gone
    return record.image_id


def prunable(record: Record, filters: Filters) -> bool:
    """Whether a container that does not run passes the filters of a prune."""
    if not filters.match_labels(record.labels):
        return False
    values = filters.get("until")
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    until = parse_moment(values[0]) if values else None
    return until is None or from_rfc3339(record.created) < until


def _tests(containers: "Containers", filters: Filters) -> list[Callable[[Record], bool]]:
    """One test a filter that was given; several values of one filter are alternatives, labels are not.

    Raises:
        InvalidParameter: a value that cannot be.
        NotFound: a container to compare with that doesn't exist.
    """
    tests: list[Callable[[Record], bool]] = []

    def any_of(key: str, matches: Callable[[Record, str], bool]) -> None:
        values = filters.get(key)
        if values:
            tests.append(lambda record: any(matches(record, value) for value in values))

    for value in filters.get("status"):
        if value not in _STATUSES:
            raise InvalidParameter(f"invalid filter 'status={value}'")
    for value in filters.get("health"):
        if value not in _HEALTHS:
            raise InvalidParameter(f"invalid filter 'health={value}'")
    codes = []
    for value in filters.get("exited"):
        try:
            codes.append(int(value))
        except ValueError as error:
            raise InvalidParameter(f"invalid filter 'exited={value}'") from error
    if codes:
        tests.append(
            lambda record: record.started_once and not record.state.running and record.state.exit_code in codes
        )
    # Tasks are a swarm's, and there is none.
    for value in filters.get("is-task"):
        if value.lower() not in _BOOLEANS:
            raise InvalidParameter(f"invalid filter 'is-task={value}'")
        wanted_task = _BOOLEANS[value.lower()]
        tests.append(lambda _, never=wanted_task: not never)  # type: ignore[misc]
    any_of("id", lambda record, value: record.id.startswith(value))
    if filters.get("name"):
        # With or without the slash that Docker puts before a name, for an expression may begin with ^/.
        tests.append(lambda record: filters.search("name", record.name) or filters.search("name", f"/{record.name}"))
    any_of("status", lambda record, value: record.state.status == value)
    any_of("health", lambda record, value: (record.health.status if record.health else "none") == value)
    any_of("volume", lambda record, value: any(value in (one.get("Name"), one["Destination"]) for one in record.mounts))
    any_of(
        "network",
        lambda record, value: any(
            value == name or (one.get("NetworkID") or "").startswith(value) for name, one in record.networks.items()
        ),
    )
    any_of("expose", lambda record, value: _has_port(record.config["ExposedPorts"] or {}, value))
    any_of("publish", lambda record, value: _has_port(record.host_config["PortBindings"] or {}, value))
    if filters.get("label"):
        tests.append(lambda record: filters.match_labels(record.labels))
    ancestors = filters.get("ancestor")
    if ancestors:
        wanted = set()
        for name in ancestors:
            try:
                wanted.add(containers.images.resolve(name).id)
            except NotFound:
                continue
        tests.append(lambda record: bool(wanted & _lineage(containers, record.image_id)))
    for key in ("before", "since"):
        for value in filters.get(key):
            moment = from_rfc3339(containers.get(value).created)
            if key == "before":
                tests.append(lambda record, moment=moment: from_rfc3339(record.created) < moment)  # type: ignore[misc]
            else:
                tests.append(lambda record, moment=moment: from_rfc3339(record.created) > moment)  # type: ignore[misc]
    return tests


def _has_port(ports: Json, wanted: str) -> bool:
    numbers, protocol = port_range(wanted)
    for port in ports:
        have, have_protocol = port_range(port)
        if protocol == have_protocol and set(numbers) & set(have):
            return True
    return False


def _lineage(containers: "Containers", image_id: str) -> set[str]:
    """An image and all that it was built from."""
    found: set[str] = set()
    current = image_id
    while current and current not in found:
        found.add(current)
        try:
            current = containers.images.resolve(current).parent or ""
        except NotFound:
            break
    return found
